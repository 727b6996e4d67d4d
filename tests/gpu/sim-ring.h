/* SPDX-License-Identifier: MIT
 * The driver's half of one virtqueue in the simulated guest's memory. What it writes can be broken
 * afterwards: everything is reachable.
 */
#pragma once

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tests/gpu/sim-vmm.h"

#define SIM_RING_MAX  256
#define SIM_RING_AREA 0x10000 /* bytes of guest memory that a ring lies in */

struct sim_segment {
	uint64_t addr; /* guest */
	uint32_t size;
	bool in; /* the device writes it */
};

struct sim_ring {
	struct sim_vmm_ring vmm; /* size, guest addresses, fds; the fds are owned here */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	bool event_idx;
	uint16_t free_head, n_free;
	uint16_t last_used;
	uint16_t last_kicked;
	uint16_t next[SIM_RING_MAX];  /* of each free descriptor; of a chain as it was given */
	uint16_t count[SIM_RING_MAX]; /* descriptors of the chain that begins here; 0: none does */
	uint64_t n_kicks, n_calls;
};

/* A ring of size (a power of two) descriptors at a guest address, not yet told to anybody. 0 or
 * -errno. */
int sim_ring_init(
	struct sim_ring *r, const struct sim_memory *m, uint64_t at, uint32_t size) _must_check_;
void sim_ring_finish(struct sim_ring *r);
/* As after the driver's reset: empty, indices at zero. */
void sim_ring_reset(struct sim_ring *r);

/* Puts a chain into the ring and makes it available; its head, or -1 if there is no room. */
int sim_ring_offer(struct sim_ring *r, const struct sim_segment *segments, size_t n);
/* The same with one descriptor that points to a table at a guest address, which is filled. */
int sim_ring_offer_indirect(struct sim_ring *r, const struct sim_memory *m, uint64_t table,
	const struct sim_segment *segments, size_t n);
/* Makes a head available, whatever it is. */
void sim_ring_publish(struct sim_ring *r, uint16_t head);
/* Tells the device, if it wants to be told. */
void sim_ring_kick(struct sim_ring *r);
void sim_ring_kick_always(struct sim_ring *r);
/* The next head that came back, -1: none. Its descriptors are free then. -2: one that was not in
 * flight, or is none. */
int sim_ring_take(struct sim_ring *r, uint32_t *written_out);
/* Asks for an interrupt at the next one that comes back. */
void sim_ring_arm(struct sim_ring *r);
