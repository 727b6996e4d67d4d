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

/* Bytes of images and textures, and of what describes them and their backing. */
struct budget {
	uint64_t limit;
	uint64_t used;
};

/* Whether so many more would be within the limit. */
static inline _must_check_ bool budget_has(const struct budget *b, uint64_t bytes)
{
	return bytes <= b->limit - MIN(b->used, b->limit);
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
