/* SPDX-License-Identifier: MIT
 *
 * The beginning and the end of the 3D half, and its fences. A fenced command is answered when the
 * renderer is done with it, and not before an earlier one of its timeline: a guest takes the answer
 * to a fence as one to all before it. Only SUBMIT_3D leaves work behind when it returns (transfers
 * and read-backs are complete then), so only that makes a fence in the renderer; all others wait
 * for the last one that was made, if it isn't reached yet, and take nobody's time.
 */
#include "gpu/device-3d.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "gpu/spend.h"
#include "gpu/virtio-gpu-3d.h"

static void free_contexts(struct gpu_3d *t)
{
	t->free_context = GPU_NO_3D;
	for (uint32_t slot = GPU_CONTEXTS_MAX; slot > 0; slot--) {
		t->contexts[slot] = (struct gpu_context){.next = t->free_context};
		t->free_context = slot;
	}
}

int gpu_3d_create(struct gpu *g, const struct virgl_ops *ops, const char *name)
{
	struct gpu_3d *t = calloc(1, sizeof(*t));

	if (!t) {
		return -ENOMEM;
	}
	g->three = t;
	t->ops = ops;
	virgl_limits_of(ops, &t->limits);
	t->name = name;
	t->resources = calloc(GPU_RESOURCES_3D_MAX + 1, sizeof(*t->resources));
	t->first_resource = calloc(GPU_RESOURCES_3D_MAX, sizeof(*t->first_resource));
	free_contexts(t);
	/* Pages that nobody writes to are not there. */
	if (!t->resources || !t->first_resource || objects_init(&t->objects) < 0) {
		gpu_3d_destroy(g);
		return -ENOMEM;
	}
	return 0;
}

void gpu_3d_reset(struct gpu *g)
{
	struct gpu_3d *t = g->three;

	if (!t) {
		return;
	}
	t->flush.slot = GPU_NO_3D;
	for (uint32_t slot = 1; slot <= GPU_CONTEXTS_MAX; slot++) {
		if (t->contexts[slot].id) {
			gpu_context_end(g, slot);
		}
	}
	for (uint32_t slot = 1; slot <= t->opened; slot++) {
		if (t->resources[slot].virgl.id) {
			gpu_resource_end(g, slot);
		}
	}
	assert(t->n_contexts == 0 && t->n_resources == 0 && t->n_ghosts == 0 && t->n_subs == 0 &&
		t->n_dmabufs == 0);
	t->free_resource = GPU_NO_3D;
	t->opened = 0;
	budget_give_back(&g->budget, t->arena_bytes);
	free(t->arena);
	t->arena = NULL;
	t->arena_bytes = 0;
	fences_clear(&t->fences);
	t->line.reached = t->line.made;
	t->unfenced = false;
}

void gpu_3d_destroy(struct gpu *g)
{
	struct gpu_3d *t = g->three;

	if (t) {
		objects_finish(&t->objects);
		free(t->resources);
		free(t->first_resource);
		free(t);
		g->three = NULL;
	}
}

void gpu_negotiated(struct gpu *g, uint64_t features)
{
	g->blobs = features & 1ULL << VIRTIO_GPU_F_RESOURCE_BLOB;
	if (g->three) {
		g->three->context_init = features & 1ULL << VIRTIO_GPU_F_CONTEXT_INIT;
	}
}

/* The timeline that a command is on: a ring of its context if it says so, else everybody's. */
static struct gpu_timeline *line_of(
	struct gpu_3d *t, const struct virtio_gpu_ctrl_hdr *hdr, struct fence_point *point)
{
	uint32_t slot;

	*point = (struct fence_point){0};
	if (!t->context_init || !(hdr->flags & VIRTIO_GPU_FLAG_INFO_RING_IDX) ||
		hdr->ring_idx >= GPU_RINGS_MAX) {
		return &t->line;
	}
	slot = gpu_context_find(t, hdr->ctx_id);
	if (slot == GPU_NO_3D || t->contexts[slot].lost) {
		return &t->line;
	}
	point->context = hdr->ctx_id;
	point->ring = hdr->ring_idx;
	return &t->contexts[slot].rings[hdr->ring_idx];
}

bool gpu_3d_fence(struct gpu *g, const struct virtio_gpu_ctrl_hdr *hdr, bool drew, uint16_t head,
	uint32_t written)
{
	struct gpu_3d *t = g->three;
	struct fence_point point;
	struct gpu_timeline *line = line_of(t, hdr, &point);
	int err = 0;

	if (drew) {
		line->made++;
		err = point.context ? t->ops->context_fence(point.context, point.ring, line->made)
				    : t->ops->fence((uint32_t)line->made, hdr->ctx_id);
		if (err < 0) {
			/* As if it were reached with what came before. */
			line->made--;
			log_debug("vm %s: context %u: no fence: error %d", t->name, hdr->ctx_id,
				-err);
		}
	}
	t->undone = t->undone && (!drew || err < 0);
	if (line->made == line->reached) {
		return false;
	}
	point.number = line->made;
	fences_add(&t->fences, head, written, &point, hdr->ctx_id, now_ns());
	return true;
}

/* The renderer counts in 32 bits: it is the last one that was made and has these. */
void gpu_fence_reached(struct gpu *g, uint32_t fence)
{
	struct gpu_timeline *line = &g->three->line;
	uint64_t number = line->made - (uint32_t)((uint32_t)line->made - fence);

	if (number > line->made || number <= line->reached) {
		return;
	}
	line->reached = number;
	fences_reach(&g->three->fences, &(struct fence_point){0, 0, number});
}

void gpu_context_fence_reached(struct gpu *g, uint32_t context, uint32_t ring, uint64_t fence)
{
	struct gpu_3d *t = g->three;
	uint32_t slot = gpu_context_find(t, context);
	struct gpu_timeline *line;

	if (slot == GPU_NO_3D || ring >= GPU_RINGS_MAX) {
		return;
	}
	line = &t->contexts[slot].rings[ring];
	if (fence > line->made || fence <= line->reached) {
		return;
	}
	line->reached = fence;
	fences_reach(&t->fences, &(struct fence_point){context, ring, fence});
}

uint32_t gpu_fences_out(const struct gpu *g)
{
	return g->three ? g->three->fences.n : 0;
}

uint64_t gpu_oldest_fence(const struct gpu *g, uint32_t *slot_out)
{
	const struct fence_wait *oldest = &g->three->fences.waits[0];

	*slot_out = gpu_context_find(g->three, oldest->context);
	return oldest->since;
}

bool gpu_take_fenced(struct gpu *g, uint16_t *head_out, uint32_t *written_out)
{
	return g->three && fences_take(&g->three->fences, head_out, written_out);
}

void gpu_fence_tail(struct gpu *g)
{
	struct gpu_3d *t = g->three;

	if (!t || !t->unfenced) {
		return;
	}
	t->unfenced = false;
	t->line.made++;
	if (t->ops->fence((uint32_t)t->line.made, 0) < 0) {
		t->line.made--;
	}
	gpu_account_fences(g);
}

uint32_t gpu_waited_for(const struct gpu *g)
{
	const struct fence_wait *oldest = g->three ? fences_oldest(&g->three->fences) : NULL;

	return oldest ? gpu_context_find(g->three, oldest->context) : GPU_NO_3D;
}

/* In software: its own work, beside what the driver's threads still draw for others. What they draw
 * while nothing else is to be done is that of whose fence is waited for (spend_rest), and that is
 * most of it. Taking all for the oldest fence's while it is out would charge a context for the
 * commands of others: its end is heard of between turns only. */
void gpu_account_command(struct gpu *g, uint32_t slot)
{
	if (g->spend && !g->spend->by_work) {
		spend_on(g->spend, slot == GPU_NO_3D ? gpu_waited_for(g) : slot);
	}
}

void gpu_account_fences(struct gpu *g)
{
	struct gpu_3d *t = g->three;

	if (g->spend && g->spend->by_work && t) {
		spend_work(g->spend, t->unfenced || t->fences.n > t->fences.n_reached ||
					     t->line.made != t->line.reached);
		spend_on(g->spend, gpu_waited_for(g));
	}
}

void gpu_fences_end(struct gpu *g)
{
	if (g->three) {
		fences_reach_all(&g->three->fences);
	}
}

void gpu_fences_forget(struct gpu *g)
{
	if (g->three) {
		fences_clear(&g->three->fences);
	}
}
