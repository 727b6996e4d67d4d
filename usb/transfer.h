/* SPDX-License-Identifier: MIT
 * One USB transfer on its way between the guest (usbredir) and a backend, and the pool it comes
 * from.
 *
 * A transfer belongs to the engine. Between backend_ops::submit and its completion the backend may
 * use it; its data buffer is where the payload was read from the guest's socket, or where it will
 * be written from: it is never copied.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"

enum transfer_type { TRANSFER_CONTROL, TRANSFER_BULK, TRANSFER_INTERRUPT, TRANSFER_ISO };

/* Values are usbredir's (usbredirproto.h, enum usb_redir_*): success, cancelled, inval, ioerror,
 * stall, timeout, babble. */
enum transfer_status {
	TRANSFER_OK = 0,
	TRANSFER_CANCELLED = 1,
	TRANSFER_INVALID = 2,
	TRANSFER_IO_ERROR = 3,
	TRANSFER_STALL = 4,
	TRANSFER_TIMEOUT = 5,
	TRANSFER_BABBLE = 6,
};

struct usb_setup {
	uint8_t request_type;
	uint8_t request;
	uint16_t value;
	uint16_t index;
	uint16_t length;
};

/* What the completion of a transfer means to the engine. */
enum transfer_owner {
	TRANSFER_OF_GUEST,     /* a packet of the guest, answered under its id */
	TRANSFER_OF_RECEIVING, /* usb/receiving.c's: its data goes to the guest unasked */
	TRANSFER_OF_CLEARING,  /* likewise: clears a halt; id is the endpoint's slot */
	TRANSFER_OF_STREAM,    /* usb/iso.c's, for as long as the stream lives */
};

/* One packet of an isochronous transfer. */
struct iso_packet {
	uint32_t length; /* bytes wanted (IN) or supplied (OUT) */
	uint32_t actual; /* set by the backend, <= length */
	uint8_t status;  /* enum transfer_status; set by the backend */
};

/* As many in one transfer at most. */
#define ISO_PACKETS_MAX 32

struct transfer {
	struct list link;    // engine::in_flight, or its outgoing queue, or the pool
	struct list backend; // for the backend's own queues while submitted
	struct list line;    // engine::lines, if its reply has a place in one
	uint64_t id;         /* the guest's packet id */
	uint32_t stream_id;
	uint8_t type;           /* enum transfer_type */
	uint8_t endpoint;       /* bit 7: IN */
	uint8_t status;         /* enum transfer_status; set by the backend on completion */
	bool cancelled;         /* the guest cancelled it */
	bool submitted;         /* the backend has it */
	bool paced;             /* usb/engine-pace has it: in a list by backend */
	bool held;              /* usb/guard has it: in a list by backend */
	uint8_t guard_unit;     /* usb/guard's: it wants to see it completed; 0: it doesn't */
	bool listed;            /* its id is in use by it */
	bool answered;          /* the guest has had its reply: it cancelled it */
	bool done;              /* its reply waits for its turn */
	bool refused;           /* was never more than a reply */
	uint8_t owner;          /* enum transfer_owner */
	bool released;          /* its isochronous stream is gone */
	uint16_t pieces;        /* of it that the connection to the guest uses; isochronous */
	uint32_t charge;        /* bytes in engine::count.in_flight_bytes */
	uint32_t paid;          /* bytes of the VM's rate that were spent for it */
	uint64_t given_ns;      /* CLOCK_MONOTONIC; to the backend, where its latency counts */
	uint64_t cancelled_us;  /* CLOCK_MONOTONIC */
	struct usb_setup setup; /* control only */
	uint32_t length;        /* bytes wanted (IN) or supplied (OUT), <= capacity */
	uint32_t actual;        /* bytes done; set by the backend on completion, <= length */
	uint32_t capacity;      /* of data; 0: data is NULL */
	uint8_t *data;          /* the pool's; may be NULL when length is 0 */
	/* TRANSFER_ISO: the packets, each at its offset: the sum of the lengths before it. length
	 * is the sum of all, actual is not used, status tells of the transfer as a whole. */
	struct iso_packet *packets; /* the engine's; NULL otherwise */
	uint32_t n_packets;         /* 1 to ISO_PACKETS_MAX */
	uint64_t urb;               /* usb/capture's: what it is captured as */
	uint64_t backend_value;     /* the backend's, for what it likes */
};

static inline bool transfer_is_in(const struct transfer *t)
{
	return t->endpoint & 0x80;
}

/* One packet's payload at most; Linux's usb-storage sends that much at SuperSpeed. */
#define TRANSFER_BYTES_MAX (1024 * 1024)

struct transfer_pool;

/* limit bounds the bytes of all buffers that exist, in use or kept for the next transfer.
 * 0 or -ENOMEM. */
int transfer_pool_create(size_t limit, struct transfer_pool **out) _must_check_;
/* Every transfer must be back. */
void transfer_pool_destroy(struct transfer_pool *pool);

/* A zeroed transfer with a buffer for length bytes (not zeroed; <= TRANSFER_BYTES_MAX), or NULL
 * when the limit or the machine's memory doesn't allow it. */
struct transfer *transfer_get(struct transfer_pool *pool, size_t length);
/* Takes t back, in no list. */
void transfer_put(struct transfer_pool *pool, struct transfer *t);

/* Bytes of buffers that exist, and how many transfers are out. */
size_t transfer_pool_bytes(const struct transfer_pool *pool);
size_t transfer_pool_used(const struct transfer_pool *pool);
