/* SPDX-License-Identifier: MIT
 * What a worker writes into the pipe of a capture: records, each with one packet as Linux's usbmon
 * shows it (LINKTYPE_USB_LINUX_MMAPPED; Documentation/usb/usbmon.rst), or with none: then it tells
 * what was lost. Host byte order: both ends are on one machine. The reader trusts no worker.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define CAPTURE_LINKTYPE 220
/* As much as Wireshark takes. What is longer is cut. */
#define CAPTURE_PACKET_MAX 262144

struct capture_record {
	uint32_t size;     /* of it and its packet */
	uint32_t original; /* bytes of the packet before it was cut; 0: there is none */
	uint64_t time_ns;  /* CLOCK_REALTIME */
	uint64_t dropped;  /* packets lost so far, in all */
};
static_assert(sizeof(struct capture_record) == 24, "wire size");

/* The head of a packet. */
struct capture_usb {
	uint64_t id;        /* the same at submission and completion */
	uint8_t type;       /* 'S' or 'C' */
	uint8_t transfer;   /* enum capture_transfer */
	uint8_t endpoint;   /* bit 7: IN */
	uint8_t device;     /* number on its bus */
	uint16_t bus;       /* 0: it has none */
	uint8_t flag_setup; /* 0: setup is there; '-' */
	uint8_t flag_data;  /* 0: data follows; '<' or '>': none, in this direction */
	int64_t seconds;    /* of the time, again */
	int32_t microseconds;
	int32_t status;    /* 0 or -errno, -EINPROGRESS at submission */
	uint32_t length;   /* bytes wanted or supplied; of a completion, done */
	uint32_t captured; /* bytes that follow, with the descriptors of isochronous packets */
	union {
		uint8_t setup[8];
		struct {
			int32_t errors, n;
		} iso;
	} u;
	int32_t interval;
	int32_t start_frame;
	uint32_t flags;
	uint32_t n_iso; /* struct capture_iso that follow */
};
static_assert(sizeof(struct capture_usb) == 64, "wire size");

enum capture_transfer {
	CAPTURE_ISO = 0,
	CAPTURE_INTERRUPT = 1,
	CAPTURE_CONTROL = 2,
	CAPTURE_BULK = 3,
};

struct capture_iso {
	int32_t status;
	uint32_t offset; /* in the data */
	uint32_t length;
	uint32_t pad;
};
static_assert(sizeof(struct capture_iso) == 16, "wire size");

/* The record that data (n bytes) begins with. 0; -EAGAIN: it is not whole yet; -EBADMSG: it is
 * none.
 */
int capture_record_decode(const void *data, size_t n, struct capture_record *out) _must_check_;
