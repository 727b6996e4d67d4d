/* SPDX-License-Identifier: MIT
 * Requests that are executed and whose fence is not reached yet, in the order of the ring.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/vring.h"

/* A point on a timeline: that of everything (context and ring 0), or of one ring of a context. */
struct fence_point {
	uint32_t context;
	uint32_t ring;
	uint64_t number; /* later ones are greater */
};

struct fence_wait {
	struct fence_point point;
	uint64_t since;   /* ns */
	uint32_t context; /* of its command: whom to blame if it is never reached */
	uint32_t written; /* of its answer */
	uint16_t head;
	bool reached;
};

struct fences {
	struct fence_wait waits[VRING_SIZE_MAX];
	uint32_t n;
	uint32_t n_reached;
};

void fences_clear(struct fences *f);
/* There is room: each head of a ring waits once at most. */
void fences_add(struct fences *f, uint16_t head, uint32_t written, const struct fence_point *point,
	uint32_t context, uint64_t since);
/* This point of its timeline, and all before it, are reached. */
void fences_reach(struct fences *f, const struct fence_point *point);
/* All of a context, or of everything. */
void fences_reach_context(struct fences *f, uint32_t context);
void fences_reach_all(struct fences *f);
/* The oldest that is not reached; NULL: there is none. */
const struct fence_wait *fences_oldest(const struct fences *f);
/* The oldest that is reached: it waits no longer. false: none is. */
bool fences_take(struct fences *f, uint16_t *head_out, uint32_t *written_out) _must_check_;
