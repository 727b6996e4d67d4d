/* SPDX-License-Identifier: MIT
 * The memory that front and renderer share: what outlives a renderer, and what it shows.
 *
 * The front makes it, zeroed and sealed, before the first renderer, and hands the same one to each
 * later renderer. Whoever reads distrusts who wrote: a renderer may have been taken over by its
 * guest, and both its front and the next renderer read what it left. So every number is read once
 * and checked, and no pointer is in it. What the front itself knows best (features, memory table,
 * rings, modes) is not here: it sends that to each renderer over the link (gpu/link.h).
 *
 * How a command becomes undone or done, and never half: each request that is taken from a ring has
 * an order, from 1 upwards over both queues, and the renderer executes one at a time. All that a
 * command changes here carries its order, and holds only once `done` is that order. So the one
 * store to `done` decides whether the next renderer executes the command again or not, whenever
 * the last one was killed:
 *
 *   take       heads[h] = {order, TAKEN}          before the ring's next request is looked at
 *   execute    records that carry the order; the answer into the guest's memory
 *   decide     heads[h].written, then done = order
 *   wait       or: state = WAITING, and nothing was done; TAKEN again when it is answered
 *   pause      or: state = PAUSED, while younger ones are done; what it changed so far is not here
 *   fence      or, when it is done: state = FENCED; its answer is with the guest, and it is given
 *              back when what it left in the renderer is done, or when that renderer is gone
 *   give back  used ring entry; heads[h].used_at, then state = ADDED
 *   publish    publishing = index; the guest's index; heads[…].order = 0; published = index
 *
 * The guest's used index then equals published or publishing, or the guest broke its own ring.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

#define JOURNAL_VERSION      3
#define JOURNAL_QUEUES       2 /* control, cursor */
#define JOURNAL_HEADS        1024
#define JOURNAL_RESOURCES    1024
#define JOURNAL_CONTEXTS     256
#define JOURNAL_RESOURCES_3D 32768
#define JOURNAL_NAME_SIZE    64
#define JOURNAL_ENTRIES      (1U << 18) /* 1 GiB of backing in pages of 4 KiB */
#define JOURNAL_SCANOUTS     16
#define JOURNAL_DAMAGES      256 /* a power of 2 */
#define JOURNAL_CURSOR_SIDE  64
#define JOURNAL_CURSOR_BYTES (JOURNAL_CURSOR_SIDE * JOURNAL_CURSOR_SIDE * 4)

enum journal_head_state {
	JOURNAL_TAKEN = 0,   /* being executed, or executed if its order is done */
	JOURNAL_WAITING = 1, /* not executed, while later ones may be */
	JOURNAL_ADDED = 2,   /* in the used ring at used_at; the guest may see it or not yet */
	JOURNAL_PAUSED = 3,  /* half executed, while one of the cursor queue is */
	JOURNAL_FENCED = 4,  /* executed, and waits for a fence */
};

struct journal_head {
	uint64_t order;   /* 0: not in flight */
	uint32_t written; /* bytes of its answer, once it is executed */
	uint16_t used_at;
	uint16_t state; /* enum journal_head_state */
};
static_assert(sizeof(struct journal_head) == 16, "shared layout");

struct journal_queue {
	uint64_t run; /* of the START that this is about (gpu/link.h); written last of all */
	uint16_t published;
	uint16_t publishing;
	uint16_t next_avail; /* where it was stopped */
	uint16_t stopped;    /* 1: nothing is in flight, and next_avail holds */
	struct journal_head heads[JOURNAL_HEADS];
};
static_assert(sizeof(struct journal_queue) == 16 + 16 * JOURNAL_HEADS, "shared layout");

/* There if created is done and removed is not; backed if attached is done and detached is not. An
 * order of 0 is none, and never done. */
struct journal_resource {
	uint64_t created;
	uint64_t removed;
	uint64_t attached;
	uint64_t detached;
	uint32_t id;
	uint32_t format;
	uint32_t width;
	uint32_t height;
	uint32_t first_entry; /* in journal::entries */
	uint32_t n_entries;
	uint64_t blob_size; /* bytes; 0: it is no blob */
};
static_assert(sizeof(struct journal_resource) == 64, "shared layout");

/* A context or a 3D resource: there if created is done and removed is not. What it was is lost with
 * its renderer; that it was is not, so that a guest gets honest errors. */
struct journal_thing {
	uint64_t created;
	uint64_t removed;
	uint32_t id;
	uint32_t pad;
};
static_assert(sizeof(struct journal_thing) == 24, "shared layout");

struct journal_entry {
	uint64_t guest;
	uint64_t length;
};
static_assert(sizeof(struct journal_entry) == 16, "shared layout");

/* Of the two versions the one with the higher order that is done holds. */
struct journal_scanout {
	struct {
		uint64_t order;
		uint32_t resource_id; /* 0: it is off */
		uint32_t x, y, width, height;
		/* How a blob is shown; of others, zero. */
		uint32_t format;
		uint32_t stride, offset; /* bytes */
	} versions[2];
};
static_assert(sizeof(struct journal_scanout) == 80, "shared layout");

struct journal_damage {
	uint32_t scanout;
	uint32_t x, y, width, height; /* in the scanout's own coordinates */
	uint32_t pad[3];
};
static_assert(sizeof(struct journal_damage) == 32, "shared layout");

/* A cursor as the guest wants it now. changes is odd while it is being written. */
struct journal_cursor {
	uint32_t changes;
	uint32_t images;      /* counts the images; 0: there was none yet */
	uint32_t resource_id; /* 0: hidden */
	uint32_t x, y;
	uint32_t hot_x, hot_y;
	uint32_t pad;
	uint8_t pixels[JOURNAL_CURSOR_BYTES]; /* B8G8R8A8 */
};
static_assert(sizeof(struct journal_cursor) == 32 + JOURNAL_CURSOR_BYTES, "shared layout");

struct journal {
	uint32_t version; /* written by the front, as JOURNAL_VERSION */

	/* What is shown. The front writes these two, ... */
	uint32_t front_sleeps; /* set before it waits for the doorbell; cleared by who rings it */
	uint32_t damage_taken; /* counts */
	/* ... the renderer the rest of the whole journal. */
	uint32_t damage_put;  /* counts; damage n is in damages[n % JOURNAL_DAMAGES] */
	uint32_t damage_lost; /* counts: there was no room, everything on all scanouts is damaged */
	uint32_t beats;       /* counts: turns, and steps of what takes long */
	/* While what draws in 3D is at work: 1 and the slot of the context that it works for (0:
	 * none). A renderer that ends meanwhile leaves it there. */
	uint32_t drawing;
	uint32_t pad;
	struct journal_damage damages[JOURNAL_DAMAGES];
	struct journal_cursor cursors[JOURNAL_SCANOUTS];

	/* What outlives a renderer. */
	uint64_t done; /* the order of the last command that was executed */
	struct journal_queue queues[JOURNAL_QUEUES];
	struct journal_scanout scanouts[JOURNAL_SCANOUTS];
	struct journal_resource resources[JOURNAL_RESOURCES];
	struct journal_thing contexts[JOURNAL_CONTEXTS]; /* by slot, less 1 */
	char context_names[JOURNAL_CONTEXTS][JOURNAL_NAME_SIZE];
	struct journal_thing resources_3d[JOURNAL_RESOURCES_3D];
	uint32_t opened_3d; /* how many of these were ever used */
	uint32_t pad_3d;
	struct journal_entry entries[JOURNAL_ENTRIES];
};

/* A new journal in a sealed memfd, and its mapping; both are the caller's. 0 or -errno. */
int journal_create(int *fd_out, struct journal **out) _must_check_;
/* Maps the journal in fd (borrowed). -EINVAL if its size, its seals or its version are not those of
 * one; -errno. */
int journal_map(int fd, struct journal **out) _must_check_;
void journal_unmap(struct journal *j);
DEFINE_CLEANUP(struct journal *, journal_unmap)

/* The renderer says that it works; the front asks. */
void journal_beat(struct journal *j);
uint32_t journal_beats(const struct journal *j);

/* The renderer's side of what is shown. Each returns whether the doorbell has to be rung. */
bool journal_put_damage(struct journal *j, const struct journal_damage *d) _must_check_;
/* pixels: JOURNAL_CURSOR_BYTES of a new image, or NULL. cursor's changes, images and pixels are
 * not looked at. */
bool journal_put_cursor(struct journal *j, uint32_t scanout, const struct journal_cursor *cursor,
	const uint8_t *pixels) _must_check_;

/* The front's side: where it is, privately, because the other side may write anywhere. All zero at
 * the start. */
struct journal_reader {
	uint32_t taken;
	uint32_t lost;
	uint32_t cursor_changes[JOURNAL_SCANOUTS];
	uint32_t cursor_images[JOURNAL_SCANOUTS];
};

/* The next damage: 1 with *out as it was written (unchecked but for its scanout, which is less than
 * JOURNAL_SCANOUTS), 2 if everything is damaged, 0 if nothing more is. A renderer can put new ones
 * as fast as they are taken: the caller bounds how often it asks. */
int journal_take_damage(
	struct journal *j, struct journal_reader *r, struct journal_damage *out) _must_check_;
/* Whether the cursor of scanout changed since the last time: then *out is it, and *new_image_out
 * says whether its pixels are others. A change that is just being written is found the next time.
 */
bool journal_take_cursor(struct journal *j, struct journal_reader *r, uint32_t scanout,
	struct journal_cursor *out, bool *new_image_out) _must_check_;
/* To be called before waiting: true if there is something to take after all. */
bool journal_sleep(struct journal *j, const struct journal_reader *r) _must_check_;
