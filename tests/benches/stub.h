/* SPDX-License-Identifier: MIT
 * The parts of the stub libusb: the device that it pretends to have (stub-descriptors.c: what it
 * says it is; stub-device.c: what it does), and libusb's API over it (stub-libusb.c, stub-api.c).
 */
#pragma once

#include <libusb-1.0/libusb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

#define STUB_VENDOR  0x1209
#define STUB_PRODUCT 0x0001

enum {
	STUB_BULK_IN = 0x81,
	STUB_BULK_OUT = 0x01,
	STUB_INTERRUPT_IN = 0x82,
	STUB_INTERRUPT_OUT = 0x02,
	STUB_ISO_IN = 0x83, /* interface 1, altsettings 1 and 5 */
	STUB_ISO_OUT = 0x03,
	STUB_STREAM_IN = 0x84, /* interface 2, altsetting 1; SuperSpeed: with streams */
	STUB_STREAM_OUT = 0x04,
};
#define STUB_INTERFACES  3
#define STUB_STREAMS_MAX 16

/* Vendor requests to the device. */
enum {
	STUB_REQUEST_COUNTERS = 1, /* IN: struct stub_counters, little-endian */
	STUB_REQUEST_SCRATCH = 2,  /* OUT: up to 4 KiB are kept; IN: and given back */
	STUB_REQUEST_STALL = 3,
};

struct stub_counters {
	uint32_t transfers; /* completed by the device, whatever the status */
	uint32_t cancelled;
	uint32_t resets;
	uint32_t clear_halts;
	uint32_t forbidden;   /* raw SET_ADDRESS, SET_CONFIGURATION and SET_INTERFACE */
	uint32_t iso_packets; /* isochronous OUT: packets that weren't empty */
	uint32_t iso_gaps;    /* of those: their number isn't the one before plus one */
	uint32_t iso_spoilt;  /* of those: not the pattern of their number */
	uint32_t bulk_out;    /* bytes, both OUT endpoints */
	uint32_t bulk_hash;   /* FNV-1a of those; only with the option fill */
};

/* Words separated by spaces or commas, from STUB_LIBUSB in the environment or from the wrapped
 * file, behind the descriptors (see stub_image). N is decimal, EP an endpoint's address in hex. */
struct stub_options {
	uint32_t latency_us;   /* latency=N: of bulk and control transfers */
	uint32_t iso_us;       /* iso=N: of one isochronous packet, default 1000 */
	uint32_t interrupt_us; /* interrupt=N: between two reports, default 10000 */
	uint32_t short_every;  /* short=N: every Nth bulk IN is half as long */
	uint32_t stall_every;  /* stall=N: every Nth bulk transfer halts its endpoint */
	uint32_t iso_bad;      /* isobad=N: every Nth isochronous IN packet is an error */
	uint32_t gone_after;   /* gone=N: unplugged after N transfers */
	uint32_t memory;       /* memory=N: bytes that may be submitted (usbfs's limit) */
	uint32_t hang;         /* hang=EP: its transfers never complete */
	uint32_t stuck;        /* stuck=EP: not even when they are cancelled */
	uint32_t speed;        /* speed=1 to 4: low to super (default), as enum libusb_speed */
	uint32_t fill;         /* fill: whole buffers of bulk IN, and a hash of bulk OUT; else 8
				  bytes, as a device's DMA costs no CPU */
	uint32_t identity;     /* identity: another product after a reset */
	uint32_t slow;         /* slow=N: ms that a reset, a claim, a halt, an altsetting takes */
	uint32_t busy;         /* busy: a host driver holds the interfaces */
	uint32_t busy_after;   /* busy_after=N: it does after N claims */
	uint32_t storage;      /* storage: interface 0 says that it is bulk-only mass storage */
};

struct stub_endpoint {
	bool halted;
	uint64_t next_due; /* ns: when the endpoint is free, for those with a pace */
	uint32_t sequence; /* of the next packet, report or transfer */
	uint32_t streams;
};

struct stub_device {
	struct stub_options options;
	struct stub_counters counters;
	uint8_t configuration;
	uint8_t alt[STUB_INTERFACES];
	struct stub_endpoint endpoints[32];
	uint8_t descriptor[18];
	uint8_t config[512];
	size_t config_size;
	uint8_t scratch[4096];
	uint32_t bulk_transfers;
	uint32_t claims;
	bool gone;
};

/* stub-descriptors.c */
void stub_descriptors(struct stub_device *d);
/* What a usbfs node gives to read, and behind it the options: the file to be wrapped. Returns the
 * size, at most size bytes are written. */
size_t stub_image(const char *options, uint8_t *out, size_t size);
struct libusb_config_descriptor *stub_parse_config(const uint8_t *raw, size_t size);
/* The interface that has the endpoint in its present altsetting, or -1. */
int stub_interface_of(const struct stub_device *d, uint8_t endpoint);
bool stub_has_alt(const struct stub_device *d, int interface, int alt);

/* stub-device.c */
int stub_parse_options(const char *text, struct stub_options *out);
void stub_device_init(struct stub_device *d, const char *options);
struct stub_endpoint *stub_endpoint(struct stub_device *d, uint8_t address);
/* When a transfer that is submitted at now completes: 0: at once; UINT64_MAX: never. */
uint64_t stub_due(struct stub_device *d, const struct libusb_transfer *t, uint64_t now);
/* Does it: data, lengths and status. */
void stub_complete(struct stub_device *d, struct libusb_transfer *t, uint32_t stream);
/* The pattern of the isochronous packet (or report) with that number. Returns its length. */
uint32_t stub_pattern(uint32_t sequence, uint8_t *out, uint32_t room);

/* stub-libusb.c */
struct libusb_device {
	int refs;
	struct libusb_context *ctx;
	struct stub_device device;
};

struct libusb_device_handle {
	struct libusb_device *dev;
	uint32_t claimed;
};

struct libusb_context {
	pthread_mutex_t lock;   /* all of the state */
	pthread_mutex_t events; /* held by who calls callbacks */
	int event_fd;
	int timer_fd;
	bool kicked; /* event_fd is readable */
	bool interrupted;
	struct list done;    // stub_transfer::link
	struct list waiting; // stub_transfer::link, by due
	uint64_t bytes;      /* submitted */
	struct libusb_device *device;
	libusb_pollfd_added_cb added;
	libusb_pollfd_removed_cb removed;
	void *notify_data;
	int refs; /* of the default context */
};

struct stub_transfer {
	struct list link; // libusb_context::done or ::waiting
	uint64_t due;
	uint32_t stream;
	bool submitted;
	bool cancelled;
	bool timed_out;
	struct libusb_transfer t; /* ends in a flexible array */
};

struct libusb_context *stub_context(struct libusb_context *ctx);
uint64_t stub_now(void);
