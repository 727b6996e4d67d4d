/* SPDX-License-Identifier: MIT
 * What command streams have made inside the renderer: objects, sub-contexts, storage of blobs. None
 * of it is seen at the level of virtio, so that it is counted and charged here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/budget.h"

/* In all contexts of one renderer together. */
#define OBJECTS_MAX 131072

enum object_kind { OBJECT_PLAIN, OBJECT_SUB_CONTEXT, OBJECT_BLOB };

struct object_key {
	uint32_t owner; /* the slot of its context */
	uint32_t sub;   /* its sub-context; 0 for what belongs to the whole context */
	uint32_t kind;
	uint32_t handle;
};

struct object {
	struct object_key key;
	uint64_t cost;          /* bytes that are charged */
	uint32_t next;          /* of its bucket, or of the free ones; 0: none */
	uint32_t before, after; /* of its context's; 0: none */
};

/* Index 0 is no object. */
struct objects {
	struct object *all;
	uint32_t *buckets;
	uint32_t n;      /* that there are */
	uint32_t opened; /* that there ever were: behind these all are free */
	uint32_t first_free;
};

/* 0 or -ENOMEM. What is not used takes no memory. */
int objects_init(struct objects *o) _must_check_;
/* None may be left. */
void objects_finish(struct objects *o);

/* Adds what has been charged to the list that begins at *first; one that is there already is
 * replaced or (more) grows, and what that one had is given back. There must be room. */
void objects_put(struct objects *o, uint32_t *first, const struct object_key *key, uint64_t cost,
	bool more, struct budget *budget);
/* Whether there is one. */
bool objects_have(const struct objects *o, const struct object_key *key);
/* Removes it and gives its charge back; how many there were, 0 or 1. */
uint32_t objects_drop(
	struct objects *o, uint32_t *first, const struct object_key *key, struct budget *budget);
/* Removes all of a list, or all plain ones of one sub-context. */
void objects_drop_all(struct objects *o, uint32_t *first, struct budget *budget);
void objects_drop_sub(struct objects *o, uint32_t *first, uint32_t sub, struct budget *budget);
