/* SPDX-License-Identifier: MIT
 *
 * The table of 3D resources: those that are in the renderer, those that were refused ("ghosts": the
 * guest's driver makes resources without waiting for the answer, and goes on to use them), and
 * those that an earlier renderer had.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gpu/memory.h"
#include "gpu/virtio-gpu-3d.h"

uint32_t gpu_resource_find(const struct gpu_3d *t, uint32_t id)
{
	uint32_t slot = id ? t->first_resource[id % GPU_RESOURCES_3D_MAX] : GPU_NO_3D;

	while (slot != GPU_NO_3D && t->resources[slot].virgl.id != id) {
		slot = t->resources[slot].next;
	}
	return slot;
}

bool gpu_resource_attached(const struct gpu_resource_3d *r, uint32_t context)
{
	return r->attached[(context - 1) / 64] & 1ULL << (context - 1) % 64;
}

uint32_t gpu_resource_usable(const struct gpu_3d *t, uint32_t id, uint32_t *slot_out)
{
	uint32_t slot = gpu_resource_find(t, id);

	if (slot == GPU_NO_3D || t->resources[slot].state == GPU_RESOURCE_LOST) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (t->resources[slot].state == GPU_RESOURCE_GHOST) {
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	*slot_out = slot;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void place(struct gpu_3d *t, uint32_t slot, uint32_t id, enum gpu_resource_state state)
{
	uint32_t *first = &t->first_resource[id % GPU_RESOURCES_3D_MAX];

	t->resources[slot] = (struct gpu_resource_3d){
		.virgl.id = id, .next = *first, .state = state, .image = GPU_NO_SLOT};
	*first = slot;
	t->n_resources++;
	t->n_ghosts += state == GPU_RESOURCE_GHOST;
}

uint32_t gpu_resource_add(struct gpu_3d *t, uint32_t id, enum gpu_resource_state state)
{
	uint32_t slot = t->free_resource;

	if (slot != GPU_NO_3D) {
		t->free_resource = t->resources[slot].next;
	} else if (t->opened < GPU_RESOURCES_3D_MAX) {
		slot = ++t->opened;
	} else {
		return GPU_NO_3D;
	}
	place(t, slot, id, state);
	return slot;
}

/* Only before anything else is in the table, so that what lies between is free. */
bool gpu_lose_resource(struct gpu *g, uint32_t slot, uint32_t id)
{
	struct gpu_3d *t = g->three;

	if (!t || slot <= t->opened || slot > GPU_RESOURCES_3D_MAX || id == 0 ||
		gpu_id_used(g, id)) {
		return false;
	}
	while (t->opened + 1 < slot) {
		t->opened++;
		t->resources[t->opened].next = t->free_resource;
		t->free_resource = t->opened;
	}
	t->opened = slot;
	place(t, slot, id, GPU_RESOURCE_LOST);
	return true;
}

bool gpu_is_lost(const struct gpu *g, uint32_t id)
{
	uint32_t slot = g->three ? gpu_resource_find(g->three, id) : GPU_NO_3D;

	return slot != GPU_NO_3D && g->three->resources[slot].state == GPU_RESOURCE_LOST;
}

/* Contexts that have it attached have it no longer. */
static void detach_everywhere(struct gpu_3d *t, struct gpu_resource_3d *r)
{
	for (uint32_t i = 0; i < GPU_CONTEXTS_MAX / 64; i++) {
		for (uint64_t bits = r->attached[i]; bits; bits &= bits - 1) {
			struct gpu_context *c =
				&t->contexts[i * 64 + (uint32_t)__builtin_ctzll(bits) + 1];

			c->n_attached--;
			c->n_ghosts -= r->state == GPU_RESOURCE_GHOST;
		}
	}
}

void gpu_resource_end(struct gpu *g, uint32_t slot)
{
	struct gpu_3d *t = g->three;
	struct gpu_resource_3d *r = &t->resources[slot];
	uint32_t *from = &t->first_resource[r->virgl.id % GPU_RESOURCES_3D_MAX];

	if (r->state == GPU_RESOURCE_LIVE) {
		gpu_hide_3d(g, slot);
		gpu_resource_unback(g, slot);
		t->ops->resource_unref(r->virgl.id);
		budget_give_back(&g->budget, r->bytes);
	}
	detach_everywhere(t, r);
	t->n_ghosts -= r->state == GPU_RESOURCE_GHOST;
	while (*from != slot) {
		from = &t->resources[*from].next;
	}
	*from = r->next;
	*r = (struct gpu_resource_3d){.next = t->free_resource};
	t->free_resource = slot;
	t->n_resources--;
}

void gpu_resource_refuse(struct gpu *g, const struct virgl_resource *v, uint64_t bytes)
{
	struct gpu_3d *t = g->three;
	uint32_t slot;
	char text[96];

	if (t->n_ghosts < GPU_GHOSTS_MAX) {
		slot = gpu_resource_add(t, v->id, GPU_RESOURCE_GHOST);
		if (slot != GPU_NO_3D) {
			t->resources[slot].bytes = bytes;
		}
	}
	snprintf(text, sizeof(text), "resource %u (%ux%ux%u, format %u)", v->id, v->width,
		v->height, v->depth, v->format);
	gpu_refuse(g, text, bytes);
}

/* Where the pieces of a backing go; iov NULL: they are only counted. */
struct pieces {
	struct iovec *iov;
	uint32_t n;
	uint64_t bytes;
	uint64_t end; /* the guest's address behind the last one */
};

/* Neighbours in the guest and here become one. */
static bool add_piece(struct pieces *p, struct memory *m, uint64_t at, uint64_t left)
{
	uint64_t end;

	if (left == 0 || !u64_add(at, left, &end) || !u64_add(p->bytes, left, &end)) {
		return false;
	}
	while (left > 0) {
		uint64_t together;
		uint8_t *base = memory_piece(m, at, left, &together);
		struct iovec *last = p->iov && p->n > 0 ? &p->iov[p->n - 1] : NULL;

		if (!base) {
			return false;
		}
		if (last && p->end == at && (uint8_t *)last->iov_base + last->iov_len == base) {
			last->iov_len += together;
		} else {
			if (p->iov) {
				p->iov[p->n] = (struct iovec){base, together};
			}
			p->n++;
		}
		p->bytes += together;
		at += together;
		left -= together;
		p->end = at;
	}
	return true;
}

static bool add_entries(
	struct pieces *p, struct memory *m, const struct backing_entry *entries, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (!add_piece(p, m, entries[i].guest, entries[i].length)) {
			return false;
		}
	}
	return true;
}

/* Makes and charges the iovec of r. */
static int find_pieces(struct gpu *g, struct gpu_resource_3d *r, struct memory *m,
	const struct backing_entry *entries, uint32_t n)
{
	struct pieces p = {0};
	uint64_t cost;
	int err = 0;

	if (!add_entries(&p, m, entries, n)) {
		return -EINVAL;
	}
	cost = (uint64_t)p.n * sizeof(*p.iov);
	if (!budget_charge(&g->budget, cost)) {
		return -ENOMEM;
	}
	p = (struct pieces){.iov = calloc(MAX(p.n, 1U), sizeof(*p.iov))};
	/* The same again: the table is ours, and does not change meanwhile. */
	if (!p.iov) {
		err = -ENOMEM;
	} else if (!add_entries(&p, m, entries, n)) {
		err = -EINVAL;
	}
	if (err < 0) {
		free(p.iov);
		budget_give_back(&g->budget, cost);
		return err;
	}
	/* Neighbours were counted one by one. */
	budget_give_back(&g->budget, cost - (uint64_t)p.n * sizeof(*p.iov));
	r->iov = p.iov;
	r->n_iov = p.n;
	r->backing_bytes = p.bytes;
	return 0;
}

static void drop_pieces(struct gpu *g, struct gpu_resource_3d *r)
{
	budget_give_back(&g->budget, (uint64_t)r->n_iov * sizeof(*r->iov));
	free(r->iov);
	r->iov = NULL;
	r->n_iov = 0;
	r->backing_bytes = 0;
}

int gpu_resource_back(struct gpu *g, uint32_t slot, const struct backing_entry *entries, uint32_t n)
{
	struct gpu_resource_3d *r = &g->three->resources[slot];
	int err;

	assert(!r->backed);
	err = find_pieces(g, r, g->memory, entries, n);
	if (err < 0) {
		return err;
	}
	err = g->three->ops->resource_attach(r->virgl.id, r->iov, r->n_iov);
	if (err < 0) {
		drop_pieces(g, r);
		return -ENOMEM;
	}
	r->backed = true;
	return 0;
}

void gpu_resource_unback(struct gpu *g, uint32_t slot)
{
	struct gpu_resource_3d *r = &g->three->resources[slot];

	if (r->backed) {
		g->three->ops->resource_detach(r->virgl.id);
		drop_pieces(g, r);
		r->backed = false;
	}
}

/* Its pieces as the guest's addresses; they lie in the old table. */
static bool entries_of(struct gpu *g, const struct gpu_resource_3d *r, const struct memory *old)
{
	for (uint32_t i = 0; i < r->n_iov; i++) {
		g->entries[i].length = r->iov[i].iov_len;
		if (!memory_to_guest(old, r->iov[i].iov_base, &g->entries[i].guest)) {
			return false;
		}
	}
	return true;
}

uint32_t gpu_rebase_3d(struct gpu *g, const struct memory *old, struct memory *now)
{
	struct gpu_3d *t = g->three;
	uint32_t lost = 0;

	for (uint32_t slot = 1; t && slot <= t->opened; slot++) {
		struct gpu_resource_3d *r = &t->resources[slot];
		uint32_t n = r->n_iov;
		bool found;

		if (!r->virgl.id || !r->backed) {
			continue;
		}
		found = n <= GPU_ENTRIES_MAX && entries_of(g, r, old);
		gpu_resource_unback(g, slot);
		g->memory = now;
		lost += !found || gpu_resource_back(g, slot, g->entries, n) < 0;
	}
	return lost;
}
