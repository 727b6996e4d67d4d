/* SPDX-License-Identifier: MIT
 * The ledger of one renderer's memory: bytes are charged before they are there, and given back when
 * they are gone.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/checked.h"
#include "base/cleanup.h"

struct drift;

/* Bytes of images and textures, and of what describes them and their backing. */
struct budget {
	uint64_t limit;
	uint64_t used;
	uint64_t shared;     /* of used: in files, so that they are not the process's own memory */
	uint64_t uncharged;  /* taken beyond that (gpu/drift.h), and no less there */
	struct drift *drift; // may be NULL: nobody measures
	/* Gives back what is free and measures again; set with drift. */
	void (*recount)(struct drift *d);
};

static inline uint64_t budget_taken(const struct budget *b)
{
	return b->used + b->uncharged;
}

/* Whether so many more would be within the limit. What is in the way without being charged is
 * looked at again before the answer is no. */
static inline _must_check_ bool budget_has(struct budget *b, uint64_t bytes)
{
	if (bytes > b->limit - MIN(b->used, b->limit)) {
		return false;
	}
	if (b->uncharged > 0 && bytes > b->limit - MIN(budget_taken(b), b->limit)) {
		b->recount(b->drift);
	}
	return bytes <= b->limit - MIN(budget_taken(b), b->limit);
}

/* false: they would be over the limit, and nothing is charged. */
static inline _must_check_ bool budget_charge(struct budget *b, uint64_t bytes)
{
	if (!budget_has(b, bytes)) {
		return false;
	}
	b->used += bytes;
	return true;
}

static inline void budget_give_back(struct budget *b, uint64_t bytes)
{
	assert(bytes <= b->used);
	b->used -= bytes;
}
