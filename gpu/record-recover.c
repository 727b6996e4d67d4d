/* SPDX-License-Identifier: MIT
 *
 * What a renderer finds that begins where another was killed. The other may have been killed
 * because its guest had taken it over, so this reads like a guest's bytes: each record is copied
 * once, checked, and dropped if it can't be. What was not done is taken out first: a command that
 * is executed again gets the same order, and must not make half of its first attempt valid.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "gpu/memory.h"
#include "gpu/record.h"
#include "gpu/virtio-gpu.h"

static_assert(JOURNAL_RESOURCES == GPU_RESOURCES_MAX, "slots are the same here and there");
static_assert(JOURNAL_CONTEXTS == GPU_CONTEXTS_MAX, "and contexts");
static_assert(JOURNAL_RESOURCES_3D == GPU_RESOURCES_3D_MAX, "and 3D resources");
static_assert(JOURNAL_SCANOUTS == GPU_SCANOUTS_MAX, "and scanouts");

/* More than can be counted up to: nobody got there by counting. */
#define ORDER_MAX (UINT64_MAX / 2)

static uint64_t read64(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void undo(uint64_t *order, uint64_t done)
{
	if (read64(order) > done) {
		__atomic_store_n(order, 0, __ATOMIC_RELEASE);
	}
}

static void undo_thing(struct journal_thing *t, uint64_t done)
{
	undo(&t->created, done);
	undo(&t->removed, done);
}

/* How many 3D resources there can be. */
static uint32_t opened_3d(const struct journal *j)
{
	uint32_t n = __atomic_load_n(&j->opened_3d, __ATOMIC_ACQUIRE);

	return MIN(n, (uint32_t)JOURNAL_RESOURCES_3D);
}

/* Takes out all that carries an order which is not done. */
static void scrub(struct journal *j, uint64_t done)
{
	for (uint32_t i = 0; i < JOURNAL_RESOURCES; i++) {
		struct journal_resource *res = &j->resources[i];

		undo(&res->created, done);
		undo(&res->removed, done);
		undo(&res->attached, done);
		undo(&res->detached, done);
	}
	for (uint32_t i = 0; i < JOURNAL_CONTEXTS; i++) {
		undo_thing(&j->contexts[i], done);
	}
	for (uint32_t i = 0, n = opened_3d(j); i < n; i++) {
		undo_thing(&j->resources_3d[i], done);
	}
	for (uint32_t i = 0; i < JOURNAL_SCANOUTS; i++) {
		undo(&j->scanouts[i].versions[0].order, done);
		undo(&j->scanouts[i].versions[1].order, done);
	}
}

/* Places the extent among the others, unless it overlaps one. */
static bool claim_extent(struct record *r, const struct journal_resource *res, uint32_t slot)
{
	struct record_extent e = {res->first_entry, res->n_entries, slot};
	uint32_t at = 0;

	if (e.n == 0) {
		return e.first == 0;
	}
	if (e.n > GPU_ENTRIES_MAX || e.first >= JOURNAL_ENTRIES ||
		e.n > JOURNAL_ENTRIES - e.first) {
		return false;
	}
	while (at < r->n_extents && r->extents[at].first < e.first) {
		at++;
	}
	if ((at > 0 && r->extents[at - 1].first + r->extents[at - 1].n > e.first) ||
		(at < r->n_extents && e.first + e.n > r->extents[at].first)) {
		return false;
	}
	memmove(&r->extents[at + 1], &r->extents[at], (r->n_extents - at) * sizeof(e));
	r->extents[at] = e;
	r->n_extents++;
	return true;
}

static bool back(struct record *r, struct gpu *g, uint32_t slot, const struct journal_resource *j)
{
	struct resource *res = &g->resources[slot];
	const struct rect all = {0, 0, res->width, res->height};
	const uint64_t row = (uint64_t)res->width * RESOURCE_PIXEL_BYTES;

	if (!claim_extent(r, j, slot)) {
		return false;
	}
	/* Copied before it is checked: what is checked is what is used. */
	memcpy(g->entries, &r->journal->entries[j->first_entry],
		j->n_entries * sizeof(g->entries[0]));
	if (resource_attach(res, &g->budget, g->memory, g->entries, j->n_entries) < 0) {
		return false;
	}
	/* As it was, if the guest's memory is as it was. A backing that is too small for all of the
	 * image never filled it at once. A blob has no image, but where it is shown. */
	if (!res->blob_size && resource_has(res, &all, 0)) {
		gpu_copy(g, res, res, &all, 0, row);
	}
	return true;
}

static bool is_there(const struct journal_resource *j)
{
	return j->created != 0 && j->removed == 0;
}

static bool is_backed(const struct journal_resource *j)
{
	return j->attached != 0 && j->detached == 0;
}

static bool place(struct gpu *g, uint32_t slot, const struct journal_resource *j)
{
	return j->blob_size ? gpu_place_blob(g, slot, j->id, j->blob_size)
			    : gpu_place(g, slot, j->id, j->format, j->width, j->height) == 0;
}

/* Whether all of it could be had again. */
static bool recover_resource(struct record *r, struct gpu *g, uint32_t slot)
{
	struct journal_resource j;

	journal_beat(r->journal);
	memcpy(&j, &r->journal->resources[slot], sizeof(j));
	__asm__ volatile("" ::"r"(&j) : "memory");
	if (!is_there(&j)) {
		__atomic_store_n(&r->journal->resources[slot].created, 0, __ATOMIC_RELEASE);
		return true;
	}
	if (j.id == 0 || gpu_find(g, j.id) != GPU_NO_SLOT || !place(g, slot, &j)) {
		__atomic_store_n(&r->journal->resources[slot].created, 0, __ATOMIC_RELEASE);
		return false;
	}
	if (!is_backed(&j) || back(r, g, slot, &j)) {
		return true;
	}
	record_drop_backing(r, slot);
	return false;
}

/* lose is told its slot and id, if it was there. Whether that could be. */
static bool recover_thing(struct gpu *g, struct journal_thing *from, uint32_t slot,
	bool (*lose)(struct gpu *g, uint32_t slot, uint32_t id))
{
	struct journal_thing t;

	memcpy(&t, from, sizeof(t));
	__asm__ volatile("" ::"r"(&t) : "memory");
	if (t.created != 0 && t.removed == 0 && lose(g, slot, t.id)) {
		return true;
	}
	__atomic_store_n(&from->created, 0, __ATOMIC_RELEASE);
	return t.created == 0 || t.removed != 0;
}

/* How many can't be. */
static uint32_t recover_3d(struct record *r, struct gpu *g)
{
	struct journal *j = r->journal;
	uint32_t dropped = 0;

	for (uint32_t i = 0; i < JOURNAL_CONTEXTS; i++) {
		dropped += !recover_thing(g, &j->contexts[i], i + 1, gpu_lose_context);
	}
	for (uint32_t i = 0, n = opened_3d(j); i < n; i++) {
		dropped += !recover_thing(g, &j->resources_3d[i], i + 1, gpu_lose_resource);
	}
	return dropped;
}

static bool recover_view(
	struct gpu *g, uint32_t scanout, const struct gpu_view *view, const struct rect *rect)
{
	if (gpu_view_blob(g, scanout, view, rect) < 0) {
		return false;
	}
	gpu_refresh_blob(g, scanout);
	return true;
}

static bool recover_scanout(struct record *r, struct gpu *g, uint32_t scanout)
{
	struct journal_scanout s;
	uint32_t slot;
	struct rect rect;
	int i;

	memcpy(&s, &r->journal->scanouts[scanout], sizeof(s));
	__asm__ volatile("" ::"r"(&s) : "memory");
	i = s.versions[1].order > s.versions[0].order;
	if (s.versions[i].order == 0 || s.versions[i].resource_id == 0) {
		return true;
	}
	if (gpu_is_lost(g, s.versions[i].resource_id)) {
		/* The front goes on with the last picture that it had. */
		return true;
	}
	slot = gpu_find(g, s.versions[i].resource_id);
	rect = (struct rect){
		s.versions[i].x, s.versions[i].y, s.versions[i].width, s.versions[i].height};
	if (slot != GPU_NO_SLOT && g->resources[slot].blob_size) {
		return recover_view(g, scanout,
			&(struct gpu_view){.blob = slot,
				.format = s.versions[i].format,
				.stride = s.versions[i].stride,
				.offset = s.versions[i].offset},
			&rect);
	}
	if (slot == GPU_NO_SLOT || rect.width == 0 || rect.height == 0 ||
		!rect_within(&rect, g->resources[slot].width, g->resources[slot].height)) {
		return false;
	}
	g->scanouts[scanout] = (struct gpu_scanout){.slot = slot, .rect = rect};
	return true;
}

/* Only what a later move needs; the image is with the front. */
static void recover_cursor(struct record *r, struct gpu *g, uint32_t scanout)
{
	const struct journal_cursor *c = &r->journal->cursors[scanout];

	g->cursors[scanout] = (struct gpu_cursor){
		.resource_id = c->resource_id,
		.scanout = scanout,
		.x = c->x,
		.y = c->y,
		.hot_x = MIN(c->hot_x, GPU_CURSOR_SIDE - 1U),
		.hot_y = MIN(c->hot_y, GPU_CURSOR_SIDE - 1U),
	};
}

/* The highest order in flight, or ORDER_MAX if one is nonsense. */
static uint64_t highest_order(const struct journal *j)
{
	uint64_t highest = 0;

	for (uint32_t q = 0; q < JOURNAL_QUEUES; q++) {
		for (uint32_t h = 0; h < JOURNAL_HEADS; h++) {
			highest = MAX(highest, read64(&j->queues[q].heads[h].order));
		}
	}
	return MIN(highest, ORDER_MAX);
}

bool record_recover(struct record *r, struct journal *journal, struct gpu *g)
{
	uint64_t done = read64(&journal->done), highest = highest_order(journal);
	uint32_t dropped = 0;

	if (done >= ORDER_MAX || highest >= ORDER_MAX) {
		record_init(r, journal);
		return false;
	}
	r->journal = journal;
	r->order = 0;
	r->last_order = MAX(done, highest);
	r->n_extents = 0;
	scrub(journal, done);
	for (uint32_t i = 0; i < JOURNAL_RESOURCES; i++) {
		dropped += !recover_resource(r, g, i);
	}
	dropped += recover_3d(r, g);
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		dropped += !recover_scanout(r, g, i);
		recover_cursor(r, g, i);
	}
	if (dropped > 0) {
		log_warn(
			"dropped %u records of the last renderer's journal that can't be", dropped);
	}
	return true;
}
