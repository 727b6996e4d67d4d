/* SPDX-License-Identifier: MIT
 *
 * gpu/journal.h says when each store has to happen. A renderer can be killed between any two of
 * them, so the order in the program is all that counts: every store here that decides something is
 * a release.
 */
#include "gpu/record.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "gpu/virtio-gpu.h"

static_assert(sizeof(struct backing_entry) == sizeof(struct journal_entry), "copied as they are");

static void put64(uint64_t *p, uint64_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static void put16(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

void record_init(struct record *r, struct journal *journal)
{
	r->journal = journal;
	r->order = r->last_order = 0;
	for (uint32_t i = 0; i < JOURNAL_QUEUES; i++) {
		put64(&journal->queues[i].run, 0);
		memset(&journal->queues[i], 0, sizeof(journal->queues[i]));
	}
	record_reset(r);
	put64(&journal->done, 0);
}

void record_reset(struct record *r)
{
	r->n_extents = 0;
	memset(r->journal->scanouts, 0, sizeof(r->journal->scanouts));
	memset(r->journal->resources, 0, sizeof(r->journal->resources));
	memset(r->journal->contexts, 0, sizeof(r->journal->contexts));
	/* Pages that were never written to stay so. */
	memset(r->journal->resources_3d, 0,
		MIN(r->journal->opened_3d, (uint32_t)JOURNAL_RESOURCES_3D) *
			sizeof(r->journal->resources_3d[0]));
	r->journal->opened_3d = 0;
}

static struct journal_head *head_of(struct record *r, uint32_t queue, uint16_t head)
{
	assert(queue < JOURNAL_QUEUES && head < JOURNAL_HEADS);
	return &r->journal->queues[queue].heads[head];
}

void record_take(struct record *r, uint32_t queue, uint16_t head)
{
	struct journal_head *h = head_of(r, queue, head);

	r->order = ++r->last_order;
	put16(&h->state, JOURNAL_TAKEN);
	put64(&h->order, r->order);
}

void record_resume(struct record *r, uint64_t order)
{
	r->order = order;
}

void record_done(struct record *r, uint32_t queue, uint16_t head, uint32_t written)
{
	struct journal_head *h = head_of(r, queue, head);

	__atomic_store_n(&h->written, written, __ATOMIC_RELEASE);
	/* One that waited or paused is older than what was done since. */
	put16(&h->state, JOURNAL_TAKEN);
	if (r->journal->done < r->order) {
		put64(&r->journal->done, r->order);
	}
}

void record_wait(struct record *r, uint32_t queue, uint16_t head)
{
	put16(&head_of(r, queue, head)->state, JOURNAL_WAITING);
}

void record_pause(struct record *r, uint32_t queue, uint16_t head)
{
	put16(&head_of(r, queue, head)->state, JOURNAL_PAUSED);
}

void record_fenced(struct record *r, uint32_t queue, uint16_t head, uint32_t written)
{
	record_done(r, queue, head, written);
	put16(&head_of(r, queue, head)->state, JOURNAL_FENCED);
}

void record_added(struct record *r, uint32_t queue, uint16_t head, uint16_t used_at)
{
	struct journal_head *h = head_of(r, queue, head);

	put16(&h->used_at, used_at);
	put16(&h->state, JOURNAL_ADDED);
}

void record_publishing(struct record *r, uint32_t queue, uint16_t index)
{
	put16(&r->journal->queues[queue].publishing, index);
}

void record_published(
	struct record *r, uint32_t queue, uint16_t index, const uint16_t *heads, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put64(&head_of(r, queue, heads[i])->order, 0);
	}
	put16(&r->journal->queues[queue].published, index);
}

bool record_in_flight(const struct record *r, uint32_t queue, uint16_t head)
{
	return r->journal->queues[queue].heads[head].order != 0;
}

void record_queue_start(struct record *r, uint32_t queue, uint64_t run, uint16_t used_index)
{
	struct journal_queue *q = &r->journal->queues[queue];

	put64(&q->run, 0);
	memset(q->heads, 0, sizeof(q->heads));
	q->published = q->publishing = used_index;
	q->next_avail = 0;
	q->stopped = 0;
	put64(&q->run, run);
}

void record_queue_stop(struct record *r, uint32_t queue, uint16_t next_avail)
{
	put16(&r->journal->queues[queue].next_avail, next_avail);
	put16(&r->journal->queues[queue].stopped, 1);
}

/* Returns where an extent of n entries has room, or JOURNAL_ENTRIES; *at_out is its place in the
 * sorted array. */
static uint32_t find_room(const struct record *r, uint32_t n, uint32_t *at_out)
{
	uint32_t end = 0;

	for (uint32_t i = 0; i < r->n_extents; i++) {
		if (r->extents[i].first - end >= n) {
			*at_out = i;
			return end;
		}
		end = r->extents[i].first + r->extents[i].n;
	}
	*at_out = r->n_extents;
	return JOURNAL_ENTRIES - end >= n ? end : JOURNAL_ENTRIES;
}

static void insert_extent(struct record *r, uint32_t at, struct record_extent extent)
{
	assert(r->n_extents < JOURNAL_RESOURCES);
	memmove(&r->extents[at + 1], &r->extents[at], (r->n_extents - at) * sizeof(r->extents[0]));
	r->extents[at] = extent;
	r->n_extents++;
}

/* Also for a slot that has none. */
static void remove_extent(struct record *r, uint32_t slot)
{
	for (uint32_t i = 0; i < r->n_extents; i++) {
		if (r->extents[i].slot == slot) {
			r->n_extents--;
			memmove(&r->extents[i], &r->extents[i + 1],
				(r->n_extents - i) * sizeof(r->extents[0]));
			return;
		}
	}
}

void record_resource(struct record *r, uint32_t slot, const struct resource *res)
{
	struct journal_resource *j = &r->journal->resources[slot];

	put64(&j->created, 0);
	j->removed = j->attached = j->detached = 0;
	j->id = res->id;
	j->format = res->format;
	j->width = res->width;
	j->height = res->height;
	j->blob_size = res->blob_size;
	j->first_entry = j->n_entries = 0;
	put64(&j->created, r->order);
}

void record_removed(struct record *r, uint32_t slot)
{
	remove_extent(r, slot);
	put64(&r->journal->resources[slot].removed, r->order);
}

int record_backed(struct record *r, uint32_t slot, const struct backing_entry *entries, uint32_t n)
{
	struct journal_resource *j = &r->journal->resources[slot];
	uint32_t at, first = 0;

	if (n > 0) {
		first = find_room(r, n, &at);
		if (first == JOURNAL_ENTRIES) {
			return -ENOMEM;
		}
		insert_extent(r, at, (struct record_extent){first, n, slot});
	}
	put64(&j->attached, 0);
	put64(&j->detached, 0);
	memcpy(&r->journal->entries[first], entries, n * sizeof(*entries));
	j->first_entry = first;
	j->n_entries = n;
	put64(&j->attached, r->order);
	return 0;
}

void record_unbacked(struct record *r, uint32_t slot)
{
	remove_extent(r, slot);
	put64(&r->journal->resources[slot].detached, r->order);
}

void record_drop_backing(struct record *r, uint32_t slot)
{
	remove_extent(r, slot);
	put64(&r->journal->resources[slot].attached, 0);
}

const struct backing_entry *record_entries(const struct record *r, uint32_t slot, uint32_t *n_out)
{
	const struct journal_resource *j = &r->journal->resources[slot];

	*n_out = j->n_entries;
	return (const struct backing_entry *)(const void *)&r->journal->entries[j->first_entry];
}

static void record_thing(struct record *r, struct journal_thing *t, uint32_t id)
{
	if (id == 0) {
		put64(&t->removed, r->order);
		return;
	}
	put64(&t->created, 0);
	t->removed = 0;
	t->id = id;
	put64(&t->created, r->order);
}

void record_context(struct record *r, uint32_t slot, uint32_t id, const char *name)
{
	assert(slot > 0 && slot <= JOURNAL_CONTEXTS);
	strncpy(r->journal->context_names[slot - 1], name, JOURNAL_NAME_SIZE - 1);
	record_thing(r, &r->journal->contexts[slot - 1], id);
}

void record_resource_3d(struct record *r, uint32_t slot, uint32_t id)
{
	assert(slot > 0 && slot <= JOURNAL_RESOURCES_3D);
	if (r->journal->opened_3d < slot) {
		__atomic_store_n(&r->journal->opened_3d, slot, __ATOMIC_RELEASE);
	}
	record_thing(r, &r->journal->resources_3d[slot - 1], id);
}

void record_scanout(
	struct record *r, uint32_t scanout, uint32_t resource_id, const struct gpu_scanout *shown)
{
	const struct rect rect = gpu_shown(shown);
	struct journal_scanout *s = &r->journal->scanouts[scanout];
	/* Over the older one, but within one command over what that command wrote before. */
	int i = s->versions[0].order == r->order   ? 0
		: s->versions[1].order == r->order ? 1
						   : s->versions[0].order > s->versions[1].order;

	put64(&s->versions[i].order, 0);
	s->versions[i].resource_id = resource_id;
	s->versions[i].x = rect.x;
	s->versions[i].y = rect.y;
	s->versions[i].width = rect.width;
	s->versions[i].height = rect.height;
	s->versions[i].format = shown->view.format;
	s->versions[i].stride = shown->view.stride;
	s->versions[i].offset = shown->view.offset;
	put64(&s->versions[i].order, r->order);
}
