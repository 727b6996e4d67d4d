/* SPDX-License-Identifier: MIT
 * The guest's memory as the VMM lent it, and the one translation from a guest's address to bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define MEMORY_REGIONS_MAX 32

struct memory_region {
	uint64_t guest;  /* guest physical address */
	uint64_t user;   /* where the VMM has it: rings' addresses are told in these */
	uint64_t size;   /* bytes, > 0; guest + size and user + size don't wrap */
	uint64_t offset; /* into the file */
};

struct memory_mapping {
	struct memory_region region;
	uint8_t *base; /* of region.size bytes */
	void *map;     /* what was mapped, for the end */
	size_t map_size;
	/* Set when the file turned out to be shorter than it was said to be: nothing is found here
	 * any more. Written by the fault handler. */
	volatile bool lost;
};

struct memory {
	struct memory_mapping mappings[MEMORY_REGIONS_MAX];
	size_t n;
	size_t last; /* where the last address was found */
};

void memory_init(struct memory *m);
void memory_finish(struct memory *m);

/* Maps a region of fd (borrowed). -EINVAL if it wraps, is empty or overlaps another in the guest's
 * addresses, -E2BIG if there are MEMORY_REGIONS_MAX already, -errno of mmap. */
int memory_add(struct memory *m, const struct memory_region *region, int fd) _must_check_;

/* The bytes at guest: NULL if it is in no region, else *len_out of them (1 to len) lie together
 * there, and the rest of len elsewhere if anywhere. len > 0. What is there can change at any
 * time: read once what is checked. */
uint8_t *memory_piece(struct memory *m, uint64_t guest, uint64_t len, uint64_t *len_out);

/* All len bytes (> 0) in one piece, or NULL. */
uint8_t *memory_whole(struct memory *m, uint64_t guest, uint64_t len);

/* The guest's address of one of the VMM's. false if it is in no region. */
bool memory_from_user(const struct memory *m, uint64_t user, uint64_t *guest_out) _must_check_;

/* The guest's address of a byte that memory_piece found. false: it is in no region. */
bool memory_to_guest(const struct memory *m, const void *at, uint64_t *guest_out) _must_check_;

/* From now on a fault inside m because its file was truncated doesn't end the process: the whole
 * region then reads as zeroes and is never found again. One memory per process; NULL takes the
 * handler back. 0 or -errno. */
int memory_guard(struct memory *m) _must_check_;
/* Whether a region was lost since the last call; *guest_out is its address then. */
bool memory_take_loss(struct memory *m, uint64_t *guest_out);
