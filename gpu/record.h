/* SPDX-License-Identifier: MIT
 * The renderer's hand in the journal: what it writes while it works, and what it finds of another.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/journal.h"

struct backing_entry;
struct gpu;
struct gpu_scanout;
struct resource;

/* Which part of journal::entries a resource has. */
struct record_extent {
	uint32_t first;
	uint32_t n;
	uint32_t slot;
};

struct record {
	struct journal *journal; /* borrowed */
	uint64_t order;          /* of the request that is being executed */
	uint64_t last_order;     /* given to any */
	/* Sorted by first; those of no entries are not in it. */
	struct record_extent extents[JOURNAL_RESOURCES];
	uint32_t n_extents;
};

/* Empties the renderer's part of the journal, but for what is shown. */
void record_init(struct record *r, struct journal *journal);

/* The device is reset: no resource and no scanout is left. */
void record_reset(struct record *r);

/* A request was taken from a ring: it is executed next. */
void record_take(struct record *r, uint32_t queue, uint16_t head);
/* An earlier one, of this order, is executed next. */
void record_resume(struct record *r, uint64_t order);
/* It is executed, all that it changed holds, and its answer of written bytes is with the guest. */
void record_done(struct record *r, uint32_t queue, uint16_t head, uint32_t written);
/* It is not executed yet, and changed nothing. */
void record_wait(struct record *r, uint32_t queue, uint16_t head);
/* It goes on later, with record_resume; until then others are executed. */
void record_pause(struct record *r, uint32_t queue, uint16_t head);
/* It is executed and done, and waits for a fence; what was executed before it is done too. */
void record_fenced(struct record *r, uint32_t queue, uint16_t head, uint32_t written);
void record_added(struct record *r, uint32_t queue, uint16_t head, uint16_t used_at);
/* Around showing the guest the used index; heads are those that it shows. */
void record_publishing(struct record *r, uint32_t queue, uint16_t index);
void record_published(
	struct record *r, uint32_t queue, uint16_t index, const uint16_t *heads, size_t n);
bool record_in_flight(const struct record *r, uint32_t queue, uint16_t head);

/* A ring starts with nothing in flight, or is stopped with nothing in flight. */
void record_queue_start(struct record *r, uint32_t queue, uint64_t run, uint16_t used_index);
void record_queue_stop(struct record *r, uint32_t queue, uint16_t next_avail);

void record_resource(struct record *r, uint32_t slot, const struct resource *res);
void record_removed(struct record *r, uint32_t slot);
/* 0, or -ENOMEM: the journal has no room for so many entries together. */
int record_backed(struct record *r, uint32_t slot, const struct backing_entry *entries,
	uint32_t n) _must_check_;
void record_unbacked(struct record *r, uint32_t slot);
/* It is not backed any more, at once: whatever command is being executed. */
void record_drop_backing(struct record *r, uint32_t slot);
/* A context or 3D resource was made, or (id 0) is gone. Slots begin at 1. */
void record_context(struct record *r, uint32_t slot, uint32_t id, const char *name);
void record_resource_3d(struct record *r, uint32_t slot, uint32_t id);
/* resource_id 0: the scanout is off. */
void record_scanout(
	struct record *r, uint32_t scanout, uint32_t resource_id, const struct gpu_scanout *shown);

/* The entries of a resource that is backed. */
const struct backing_entry *record_entries(const struct record *r, uint32_t slot, uint32_t *n_out);

/* Reads what another renderer left: whatever was not done is taken back, and g (empty) gets its
 * resources with their pixels, its scanouts and its cursors; its contexts and 3D resources are
 * lost, and g remembers their ids. What can't be is dropped, with one
 * line. Returns false if the journal is nonsense altogether; it is emptied then, and that is the
 * caller's to say. */
bool record_recover(struct record *r, struct journal *journal, struct gpu *g);
