/* SPDX-License-Identifier: MIT
 * A split virtqueue, device side: chains out of the available ring, batches into the used ring.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/cleanup.h"

struct memory;

/* Bits of virtio's features (1.2, 6); linux/virtio_ring.h has a struct vring of its own. */
#define VRING_FEATURE_INDIRECT  28
#define VRING_FEATURE_EVENT_IDX 29

/* Most descriptors of one ring. */
#define VRING_SIZE_MAX 1024
/* Most descriptors of one chain, and most pieces that they may fall into. An honest guest's chain
 * crosses a border between regions now and then; each crossing takes one more. */
#define VRING_CHAIN_MAX  1024
#define VRING_PIECES_MAX (VRING_CHAIN_MAX + 32)

struct vring_setup {
	uint32_t size; /* descriptors: a power of 2 up to VRING_SIZE_MAX */
	uint64_t desc; /* the three in the VMM's addresses */
	uint64_t avail;
	uint64_t used;
	uint16_t next_avail; /* the first entry that was not taken yet */
	uint16_t next_used;  /* the first entry that was not given back yet */
	bool event_idx;      /* as negotiated */
	bool indirect;
};

struct vring {
	struct vring_setup setup;
	/* In the guest's memory: found anew by vring_attach when the memory table changes. NULL
	 * when the ring is not attached. */
	const void *desc;
	const void *avail;
	void *used;
	uint16_t next_avail;
	uint16_t next_used; /* behind what was added and not published yet, too */
	uint16_t published; /* what the guest was shown */
	uint16_t signalled; /* what it was last notified of */
	bool signalled_any;
	const char
		*broken; /* why nothing is taken any more, until the next start; NULL: it works */
};

/* One request: the bytes that the guest wrote, then the room for the answer. */
struct vring_chain {
	uint16_t head;
	uint16_t n_out;
	uint16_t n_in;
	uint64_t out_bytes;
	uint64_t in_bytes;
	/* out first, in behind it. */
	struct iovec pieces[VRING_PIECES_MAX];
};

/* Starts the ring with nothing in flight. -EPROTO, with broken set, if sizes or addresses can't be:
 * all parts must be aligned as the specification wants and lie in one piece of m each. */
int vring_start(struct vring *q, struct memory *m, const struct vring_setup *setup) _must_check_;
/* Finds a started ring again after the memory table changed. Errors as vring_start. */
int vring_attach(struct vring *q, struct memory *m) _must_check_;
void vring_stop(struct vring *q);
/* Nothing is taken from now on. why is static text. Returns -EPROTO. */
int vring_break(struct vring *q, const char *why);

/* The head that comes next, without taking it: 1, 0 if there is none, or -EPROTO (broken). */
int vring_peek(struct vring *q, uint16_t *head_out) _must_check_;
/* Takes what vring_peek gave. */
void vring_take(struct vring *q);
/* Reads the chain of a head into *out; each descriptor is read once. 0 or -EPROTO (broken). */
int vring_read(
	struct vring *q, struct memory *m, uint16_t head, struct vring_chain *out) _must_check_;

/* Asks the guest for a notification of what it adds from now on. true if something was added
 * meanwhile: then vring_peek finds it, and no notification may come for it. */
bool vring_listen(struct vring *q) _must_check_;
/* Says that no notification is wanted until the next vring_listen. */
void vring_ignore(struct vring *q);

/* Gives a head back with written bytes of answer. The guest sees it after vring_publish. Both do
 * nothing on a ring that is no longer found in memory. */
void vring_add(struct vring *q, uint16_t head, uint32_t written);
/* Shows the guest all that was added. */
void vring_publish(struct vring *q);
/* Whether the guest wants to be notified of what was published since this last was true. */
bool vring_wants_call(struct vring *q) _must_check_;

/* The used ring's index as it stands in the guest's memory. */
uint16_t vring_used_index(const struct vring *q);

/* Copies up to size bytes, beginning skip bytes into the request, out of it. Returns how many. */
size_t vring_copy_out(const struct vring_chain *c, uint64_t skip, void *to, size_t size);
/* Copies up to size bytes into the room for the answer. Returns how many. */
size_t vring_copy_in(const struct vring_chain *c, const void *from, size_t size);
