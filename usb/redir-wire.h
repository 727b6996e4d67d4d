/* SPDX-License-Identifier: MIT
 * usbredir's framing and its data packets as pure decoders and encoders (usbredirproto.h of
 * usbredir 0.13, protocol 0.7), as a host reads and writes them.
 *
 * Everything is little-endian. Control packets' contents are libusbredirparser's business; this
 * file only knows how large each may be.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "usb/transfer.h"

enum redir_type {
	REDIR_HELLO = 0,
	REDIR_RESET = 3,
	REDIR_SET_CONFIGURATION = 6,
	REDIR_GET_CONFIGURATION = 7,
	REDIR_SET_ALT_SETTING = 9,
	REDIR_GET_ALT_SETTING = 10,
	REDIR_START_ISO_STREAM = 12,
	REDIR_STOP_ISO_STREAM = 13,
	REDIR_ISO_STREAM_STATUS = 14,
	REDIR_START_INTERRUPT_RECEIVING = 15,
	REDIR_STOP_INTERRUPT_RECEIVING = 16,
	REDIR_ALLOC_BULK_STREAMS = 18,
	REDIR_FREE_BULK_STREAMS = 19,
	REDIR_BULK_STREAMS_STATUS = 20,
	REDIR_CANCEL_DATA_PACKET = 21,
	REDIR_FILTER_REJECT = 22,
	REDIR_FILTER_FILTER = 23,
	REDIR_DEVICE_DISCONNECT_ACK = 24,
	REDIR_START_BULK_RECEIVING = 25,
	REDIR_STOP_BULK_RECEIVING = 26,
	REDIR_BULK_RECEIVING_STATUS = 27,
	REDIR_CONTROL_PACKET = 100,
	REDIR_BULK_PACKET = 101,
	REDIR_ISO_PACKET = 102,
	REDIR_INTERRUPT_PACKET = 103,
	REDIR_BUFFERED_BULK_PACKET = 104, /* only from a host */
};

/* What both hellos announced and the packets depend on. All false before the guest's hello. */
struct redir_caps {
	bool ids64;     /* packet ids have 64 bits */
	bool bulk32;    /* bulk packets' lengths have 32 bits */
	bool streams;   /* bulk streams */
	bool receiving; /* buffered bulk receiving */
};

#define REDIR_FRAME_MAX 16 /* type, length, id */
#define REDIR_DATA_MAX  10 /* the longest header of a data packet */
/* A whole control packet fits in this. */
#define REDIR_CONTROL_MAX 4096

struct redir_frame {
	uint32_t type;   /* enum redir_type, or anything else */
	uint32_t length; /* bytes that follow: the type's header and its payload */
	uint64_t id;
};

/* One data packet from the guest. */
struct redir_request {
	uint8_t type; /* enum transfer_type */
	uint8_t endpoint;
	uint64_t id;
	uint32_t stream_id;
	uint32_t length;  /* bytes wanted (IN) or supplied (OUT); may be more than we allow (IN) */
	uint32_t payload; /* bytes that follow the header: length (OUT) or 0 (IN) */
	bool buffered;    /* a bulk packet that nobody asked for; never from a guest */
	struct usb_setup setup; /* control only */
};

static inline size_t redir_wire_frame_size(const struct redir_caps *caps)
{
	return caps->ids64 ? 16 : 12;
}

static inline bool redir_wire_is_data(uint32_t type)
{
	return type >= REDIR_CONTROL_PACKET && type <= REDIR_INTERRUPT_PACKET;
}

/* p has redir_wire_frame_size bytes. */
void redir_wire_decode_frame(
	const uint8_t *p, const struct redir_caps *caps, struct redir_frame *out);

/* Whether a guest may send a packet of that type and length at all. NULL if so, else what is
 * wrong with it, in a few words. */
const char *redir_wire_check(const struct redir_frame *f, const struct redir_caps *caps);

/* Size of the header of a data packet. */
size_t redir_wire_data_size(uint32_t type, const struct redir_caps *caps);

/* Decodes a data packet that redir_wire_check let pass; p has redir_wire_data_size bytes. NULL if
 * it is well formed, else what is wrong with it: *out is untouched then. */
const char *redir_wire_decode_data(const struct redir_frame *f, const struct redir_caps *caps,
	const uint8_t *p, struct redir_request *out);

/* Writes frame and header of the reply to r into out: status, and length = bytes done, of which the
 * last payload bytes follow. Returns the size. */
size_t redir_wire_encode_data(const struct redir_request *r, const struct redir_caps *caps,
	uint8_t status, uint32_t length, uint32_t payload,
	uint8_t out[REDIR_FRAME_MAX + REDIR_DATA_MAX]);

/* The status packets that answer bulk streams and bulk receiving where they were not negotiated: f
 * with its size bytes of content at p was one of those. Returns the size written, 0 if f is none of
 * them. */
size_t redir_wire_encode_unsupported(const struct redir_frame *f, const struct redir_caps *caps,
	const uint8_t *p, uint8_t out[REDIR_FRAME_MAX + REDIR_DATA_MAX]);
