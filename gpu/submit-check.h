/* SPDX-License-Identifier: MIT
 * What a command stream (SUBMIT_3D, vtest's SUBMIT_CMD) would make, before the renderer sees it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/object.h"

/* Bytes of one buffer; Mesa's have 264 KiB at most. */
#define SUBMIT_BYTES_MAX (4U << 20)
/* Sub-contexts, in all contexts of one renderer together: each is a context of GL. */
#define SUB_CONTEXTS_MAX 256
/* What is charged for one: measured with llvmpipe, rounded up. */
#define SUBMIT_CONTEXT_BYTES (3U << 20)
#define SUBMIT_OBJECT_BYTES  512U
#define SUBMIT_SHADER_BYTES  16384U

/* The part of a context that its streams change. */
struct submit_state {
	uint32_t owner;        /* its slot */
	uint32_t current_sub;  /* which sub-context commands are for */
	uint32_t n_subs;       /* without the first */
	uint32_t first_object; /* of its list; 0: none */
};

struct submit_demand {
	uint64_t bytes;   /* to be charged, at most */
	uint32_t objects; /* of all kinds, at most */
	uint32_t subs;
	uint32_t heavy; /* commands for which something may be compiled */
	bool changes;   /* what there is: submit_apply walks over it again */
	bool chooses;   /* else: it is for this sub-context, if there is one */
	uint32_t sub;
};

/* Walks over the headers of n dwords. 0 with *out; -EINVAL with *why_out (static text) if a command
 * ends behind the buffer, is none that this renderer takes, is too short for its kind, or makes
 * storage that there can't be. */
int submit_check(const uint32_t *dwords, uint32_t n, struct submit_demand *out,
	const char **why_out) _must_check_;
/* The dwords up to the end of the n-th command (> 0) for which something may be compiled; all of a
 * checked buffer if it has no more. */
uint32_t submit_part(const uint32_t *dwords, uint32_t n_dwords, uint32_t n);
/* Takes note of what the same buffer makes and ends. Its demand is charged: what was not needed of
 * it is given back. */
void submit_apply(struct submit_state *s, struct objects *objects, const uint32_t *dwords,
	uint32_t n, const struct submit_demand *demand, struct budget *budget);
/* The context is gone. */
void submit_forget(struct submit_state *s, struct objects *objects, struct budget *budget);
