/* SPDX-License-Identifier: MIT
 *
 * Contexts, and which resources are attached to them. The refusal ladder (docs/quotas.md) ends
 * here: a context whose resource was refused and that draws nevertheless would go on with half of
 * its state in the renderer, so that it is poisoned instead: it gets the same error for everything
 * that draws until it is destroyed, and no other context notices.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "gpu/virtio-gpu-3d.h"

uint32_t gpu_context_find(const struct gpu_3d *t, uint32_t id)
{
	uint32_t slot = id ? t->first_context[id % GPU_CONTEXTS_MAX] : GPU_NO_3D;

	while (slot != GPU_NO_3D && t->contexts[slot].id != id) {
		slot = t->contexts[slot].next;
	}
	return slot;
}

uint32_t gpu_context_usable(const struct gpu_3d *t, uint32_t id, uint32_t *slot_out)
{
	uint32_t slot = gpu_context_find(t, id);

	if (slot == GPU_NO_3D || t->contexts[slot].lost) {
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	}
	if (t->contexts[slot].poison) {
		return t->contexts[slot].poison;
	}
	*slot_out = slot;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void add(struct gpu_3d *t, uint32_t slot, uint32_t id, bool lost)
{
	uint32_t *first = &t->first_context[id % GPU_CONTEXTS_MAX];
	struct gpu_context *c = &t->contexts[slot];

	memset(c, 0, sizeof(*c));
	c->id = id;
	c->next = *first;
	c->lost = lost;
	c->streams.owner = slot;
	*first = slot;
	t->n_contexts++;
}

static void take_out(uint32_t *from, struct gpu_3d *t, uint32_t slot)
{
	while (*from != slot) {
		from = &t->contexts[*from].next;
	}
	*from = t->contexts[slot].next;
}

bool gpu_lose_context(struct gpu *g, uint32_t slot, uint32_t id)
{
	struct gpu_3d *t = g->three;

	if (!t || slot == 0 || slot > GPU_CONTEXTS_MAX || t->contexts[slot].id || id == 0 ||
		gpu_context_find(t, id) != GPU_NO_3D) {
		return false;
	}
	take_out(&t->free_context, t, slot);
	add(t, slot, id, true);
	return true;
}

/* A debug name is the guest's text. */
static void copy_name(char to[GPU_CONTEXT_NAME_SIZE], const struct virtio_gpu_ctx_create *c)
{
	uint32_t n = 0;

	while (n < c->nlen && c->debug_name[n]) {
		to[n] = c->debug_name[n] >= 0x20 && c->debug_name[n] < 0x7f ? c->debug_name[n]
									    : '?';
		n++;
	}
	to[n] = '\0';
}

static uint32_t refuse_context(struct gpu *g, const struct virtio_gpu_ctx_create *c)
{
	char name[GPU_CONTEXT_NAME_SIZE], text[GPU_CONTEXT_NAME_SIZE + 80];

	copy_name(name, c);
	snprintf(text, sizeof(text), "context %u (%s), with %u of up to %u", c->hdr.ctx_id, name,
		g->three->n_contexts, MIN(g->contexts_max, GPU_CONTEXTS_MAX));
	gpu_refuse(g, text, SUBMIT_CONTEXT_BYTES);
	return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
}

static bool known_flags(const struct gpu_3d *t, uint32_t flags)
{
	uint32_t capset = flags & VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK;

	return !t->context_init || (flags == capset && capset <= VIRTIO_GPU_CAPSET_VIRGL2);
}

uint32_t handle_context_create(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_ctx_create *c = &q->command.context_create;
	uint32_t id = c->hdr.ctx_id, slot = g->three->free_context;
	uint32_t flags = g->three->context_init ? c->context_init : 0;
	struct gpu_3d *t = g->three;
	int err;

	if (id == 0 || gpu_context_find(t, id) != GPU_NO_3D) {
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	}
	if (c->nlen > sizeof(c->debug_name) || !known_flags(t, c->context_init)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (slot == GPU_NO_3D || t->n_contexts >= g->contexts_max ||
		!budget_charge(&g->budget, SUBMIT_CONTEXT_BYTES)) {
		return refuse_context(g, c);
	}
	t->free_context = t->contexts[slot].next;
	add(t, slot, id, false);
	copy_name(t->contexts[slot].name, c);
	err = t->ops->context_create(id, flags, c->debug_name, c->nlen);
	if (err < 0) {
		take_out(&t->first_context[id % GPU_CONTEXTS_MAX], t, slot);
		t->contexts[slot] = (struct gpu_context){.next = t->free_context};
		t->free_context = slot;
		t->n_contexts--;
		budget_give_back(&g->budget, SUBMIT_CONTEXT_BYTES);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	_unused_ bool more = drift_made(&g->drift);
	g->listener->context(g->userdata, slot, id, t->contexts[slot].name);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* No resource is attached to it any more. */
static void detach_all(struct gpu_3d *t, uint32_t slot)
{
	for (uint32_t i = 1; i <= t->opened && t->contexts[slot].n_attached > 0; i++) {
		struct gpu_resource_3d *r = &t->resources[i];

		if (r->virgl.id && gpu_resource_attached(r, slot)) {
			r->attached[(slot - 1) / 64] &= ~(1ULL << (slot - 1) % 64);
			t->contexts[slot].n_attached--;
		}
	}
}

void gpu_context_end(struct gpu *g, uint32_t slot)
{
	struct gpu_3d *t = g->three;
	struct gpu_context *c = &t->contexts[slot];

	if (!c->lost) {
		t->ops->context_destroy(c->id);
		t->n_subs -= c->streams.n_subs;
		submit_forget(&c->streams, &t->objects, &g->budget);
		budget_give_back(&g->budget, SUBMIT_CONTEXT_BYTES);
		detach_all(t, slot);
		drift_ended(&g->drift);
		/* Nothing is heard of its timelines any more. */
		fences_reach_context(&t->fences, c->id);
	}
	take_out(&t->first_context[c->id % GPU_CONTEXTS_MAX], t, slot);
	*c = (struct gpu_context){.next = t->free_context};
	t->free_context = slot;
	t->n_contexts--;
}

uint32_t handle_context_destroy(struct gpu *g, const struct gpu_request *q)
{
	uint32_t slot = gpu_context_find(g->three, q->command.hdr.ctx_id);

	if (slot == GPU_NO_3D) {
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	}
	gpu_context_end(g, slot);
	g->listener->context(g->userdata, slot, 0, "");
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_context_poison(struct gpu *g, uint32_t slot, uint32_t answer, const char *what)
{
	struct gpu_3d *t = g->three;
	struct gpu_context *c = &t->contexts[slot];

	if (c->poison) {
		return;
	}
	c->poison = answer;
	t->poisoned++;
	if (gpu_may_say(g)) {
		log_warn("vm %s: context %u (%s) draws nothing more: %s; its GPU memory: %" PRIu64
			 " of %" PRIu64 " KiB",
			t->name, c->id, c->name, what, budget_taken(&g->budget) >> 10,
			g->budget.limit >> 10);
	}
}

/* The context, which may be poisoned, and a resource of any kind. *resource_out is GPU_NO_3D for
 * one of 2D. */
static uint32_t find_both(const struct gpu *g, const struct gpu_request *q, uint32_t *context_out,
	uint32_t *resource_out)
{
	uint32_t id = q->command.context_resource.resource_id;

	*context_out = gpu_context_find(g->three, q->command.hdr.ctx_id);
	if (*context_out == GPU_NO_3D) {
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	}
	*resource_out = gpu_resource_find(g->three, id);
	return *resource_out == GPU_NO_3D && gpu_find(g, id) == GPU_NO_SLOT
		       ? VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID
		       : VIRTIO_GPU_RESP_OK_NODATA;
}

/* A resource of 2D is ours, and the renderer does not know it. Linux attaches each that a program
 * has a handle of: dumb buffers are made as 2D also where there is 3D (virtgpu_gem.c). They are
 * there to be painted by a CPU and to be shown; docs/protocol.md says what becomes of one that is
 * drawn from. */
uint32_t handle_context_attach(struct gpu *g, const struct gpu_request *q)
{
	struct gpu_3d *t = g->three;
	uint32_t context, slot, answer = find_both(g, q, &context, &slot);
	struct gpu_resource_3d *r;

	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	if (t->contexts[context].lost) {
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	}
	if (slot == GPU_NO_3D) {
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	r = &t->resources[slot];
	if (r->state == GPU_RESOURCE_LOST) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (!gpu_resource_attached(r, context)) {
		r->attached[(context - 1) / 64] |= 1ULL << (context - 1) % 64;
		t->contexts[context].n_attached++;
		if (r->state == GPU_RESOURCE_GHOST) {
			t->contexts[context].n_ghosts++;
		} else {
			t->ops->context_attach(q->command.hdr.ctx_id, r->virgl.id);
		}
	}
	return r->state == GPU_RESOURCE_GHOST ? VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY
					      : VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t handle_context_detach(struct gpu *g, const struct gpu_request *q)
{
	struct gpu_3d *t = g->three;
	uint32_t context, slot, answer = find_both(g, q, &context, &slot);
	struct gpu_resource_3d *r;

	if (answer != VIRTIO_GPU_RESP_OK_NODATA || slot == GPU_NO_3D) {
		return answer;
	}
	r = &t->resources[slot];
	if (t->contexts[context].lost || r->state == GPU_RESOURCE_LOST) {
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (!gpu_resource_attached(r, context)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	r->attached[(context - 1) / 64] &= ~(1ULL << (context - 1) % 64);
	t->contexts[context].n_attached--;
	if (r->state == GPU_RESOURCE_GHOST) {
		t->contexts[context].n_ghosts--;
	} else {
		t->ops->context_detach(q->command.hdr.ctx_id, r->virgl.id);
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}
