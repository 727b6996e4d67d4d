/* SPDX-License-Identifier: MIT
 *
 * The 3D commands of the control queue, but for those of contexts. Everything is checked and
 * charged here, before the renderer hears of it (gpu/virgl.h): a 0 from it is no proof of anything.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gpu/capset.h"
#include "gpu/submit-run.h"
#include "gpu/virtio-gpu-3d.h"
#include "gpu/vring.h"

#define CAPSET_2 2

bool gpu_id_used(const struct gpu *g, uint32_t id)
{
	return gpu_find(g, id) != GPU_NO_SLOT ||
	       (g->three && gpu_resource_find(g->three, id) != GPU_NO_3D);
}

uint32_t handle_capset_info(struct gpu *g, const struct gpu_request *q)
{
	struct virtio_gpu_resp_capset_info *info = &q->answer->capset_info;
	uint32_t index = q->command.get_capset_info.capset_index, version, size;

	if (index >= GPU_CAPSETS) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	g->three->ops->capset_info(index + 1, &version, &size);
	*info = (struct virtio_gpu_resp_capset_info){0};
	if (size > 0 && size <= GPU_CAPSET_SIZE) {
		info->capset_id = index + 1;
		info->capset_max_version = version;
		info->capset_max_size = size;
	}
	return VIRTIO_GPU_RESP_OK_CAPSET_INFO;
}

uint32_t handle_capset(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_get_capset *c = &q->command.get_capset;
	uint32_t version = 0, size = 0;

	if (c->capset_id == 0 || c->capset_id > GPU_CAPSETS) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	g->three->ops->capset_info(c->capset_id, &version, &size);
	if (size == 0 || size > GPU_CAPSET_SIZE || c->capset_version > version) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	memset(q->answer->capset.data, 0, size);
	g->three->ops->capset_fill(c->capset_id, c->capset_version, q->answer->capset.data, size);
	if (c->capset_id == CAPSET_2) {
		capset_tell_budget(q->answer->capset.data, size, g->budget.limit);
	}
	q->answer->capset.size = size;
	return VIRTIO_GPU_RESP_OK_CAPSET;
}

static struct virgl_resource resource_of(const struct virtio_gpu_resource_create_3d *c)
{
	return (struct virgl_resource){.id = c->resource_id,
		.target = c->target,
		.format = c->format,
		.bind = c->bind,
		.width = c->width,
		.height = c->height,
		.depth = c->depth,
		.array_size = c->array_size,
		.last_level = c->last_level,
		.nr_samples = c->nr_samples,
		.flags = c->flags};
}

/* One that was refused may be tried again. */
static void forget_ghost(struct gpu *g, uint32_t id)
{
	uint32_t slot = gpu_resource_find(g->three, id);

	if (slot != GPU_NO_3D && g->three->resources[slot].state == GPU_RESOURCE_GHOST) {
		gpu_resource_end(g, slot);
	}
}

uint32_t handle_create_3d(struct gpu *g, const struct gpu_request *q)
{
	const struct virgl_resource v = resource_of(&q->command.create_3d);
	uint64_t bytes = virgl_resource_bytes(&v);
	struct gpu_3d *t = g->three;
	uint32_t slot;
	int err;

	forget_ghost(g, v.id);
	if (v.id == 0 || gpu_id_used(g, v.id)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (bytes == 0 || !virgl_resource_fits(&v, &t->limits)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (gpu_count_resources(g) >= g->resources_max || !budget_charge(&g->budget, bytes)) {
		gpu_resource_refuse(g, &v, bytes);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	slot = gpu_resource_add(t, v.id, GPU_RESOURCE_LIVE);
	if (slot == GPU_NO_3D) {
		budget_give_back(&g->budget, bytes);
		gpu_refuse(g, "a resource more than there may be", bytes);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	t->resources[slot].virgl = v;
	t->resources[slot].bytes = bytes;
	err = t->ops->resource_create(&v);
	if (err < 0) {
		t->resources[slot].state = GPU_RESOURCE_LOST; /* the renderer has none */
		gpu_resource_end(g, slot);
		budget_give_back(&g->budget, bytes);
		return gpu_answer_of(err);
	}
	_unused_ bool more = drift_made(&g->drift);
	g->listener->resource_3d(g->userdata, slot, v.id);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_unref_3d(struct gpu *g, uint32_t slot)
{
	gpu_resource_end(g, slot);
	_unused_ bool more = drift_made(&g->drift);
	g->listener->resource_3d(g->userdata, slot, 0);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_attach_3d(struct gpu *g, uint32_t slot, const struct gpu_request *q)
{
	const struct virtio_gpu_resource_attach_backing *c = &q->command.attach;
	uint32_t answer = gpu_resource_usable(g->three, c->resource_id, &slot);
	int err;

	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	if (g->three->resources[slot].backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	if (!gpu_read_entries(g, q, sizeof(*c), c->nr_entries)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	err = gpu_resource_back(g, slot, g->entries, c->nr_entries);
	if (err == -ENOMEM) {
		gpu_refuse_backing(g, c, sizeof(struct iovec));
	}
	return gpu_answer_of(err);
}

uint32_t gpu_detach_3d(struct gpu *g, uint32_t slot)
{
	const struct gpu_resource_3d *r = &g->three->resources[slot];

	if (r->state == GPU_RESOURCE_GHOST) {
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	if (r->state == GPU_RESOURCE_LOST) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (!r->backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	gpu_resource_unback(g, slot);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* Context 0 is none: the guest's kernel itself. */
static uint32_t check_transfer(const struct gpu *g, const struct virtio_gpu_transfer_host_3d *c,
	struct virgl_transfer *out)
{
	const struct gpu_3d *t = g->three;
	const struct gpu_resource_3d *r;
	uint32_t context = GPU_NO_3D, slot, answer = VIRTIO_GPU_RESP_OK_NODATA;
	uint64_t bytes, end;

	if (c->hdr.ctx_id) {
		answer = gpu_context_usable(t, c->hdr.ctx_id, &context);
	}
	if (answer == VIRTIO_GPU_RESP_OK_NODATA) {
		answer = gpu_resource_usable(t, c->resource_id, &slot);
	}
	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	r = &t->resources[slot];
	if (context != GPU_NO_3D && !gpu_resource_attached(r, context)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (!r->backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	*out = (struct virgl_transfer){.id = c->resource_id,
		.context = c->hdr.ctx_id,
		.level = c->level,
		.stride = c->stride,
		.layer_stride = c->layer_stride,
		.area = {c->box.x, c->box.y, c->box.z, c->box.w, c->box.h, c->box.d},
		.offset = c->offset};
	bytes = virgl_transfer_bytes(&r->virgl, out);
	if (bytes == 0 || !u64_add(c->offset, bytes, &end) || end > r->backing_bytes) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t handle_transfer_to_3d(struct gpu *g, const struct gpu_request *q)
{
	struct virgl_transfer transfer;
	uint32_t answer = check_transfer(g, &q->command.transfer_3d, &transfer);

	return answer == VIRTIO_GPU_RESP_OK_NODATA
		       ? gpu_answer_of(g->three->ops->transfer_write(&transfer, NULL, 0))
		       : answer;
}

uint32_t handle_transfer_from_3d(struct gpu *g, const struct gpu_request *q)
{
	struct virgl_transfer transfer;
	uint32_t answer = check_transfer(g, &q->command.transfer_3d, &transfer);

	return answer == VIRTIO_GPU_RESP_OK_NODATA
		       ? gpu_answer_of(g->three->ops->transfer_read(&transfer, NULL, 0))
		       : answer;
}

/* Room for a buffer; it only grows. */
static bool reserve_arena(struct gpu *g, uint32_t bytes)
{
	struct gpu_3d *t = g->three;
	uint32_t size = MAX(t->arena_bytes, 64U << 10);
	uint32_t *arena;

	if (bytes <= t->arena_bytes) {
		return true;
	}
	while (size < bytes) {
		size *= 2;
	}
	if (!budget_charge(&g->budget, size - t->arena_bytes)) {
		return false;
	}
	arena = malloc(size);
	if (!arena) {
		budget_give_back(&g->budget, size - t->arena_bytes);
		return false;
	}
	free(t->arena);
	t->arena = arena;
	t->arena_bytes = size;
	return true;
}

/* Charges what the buffer in the arena would make at most. */
static bool charge_demand(struct gpu *g, const struct submit_demand *demand)
{
	struct gpu_3d *t = g->three;

	return demand->objects <= OBJECTS_MAX - t->objects.n &&
	       demand->subs <= SUB_CONTEXTS_MAX - t->n_subs &&
	       budget_charge(&g->budget, demand->bytes);
}

static uint32_t refuse_submit(struct gpu *g, uint32_t slot, uint32_t answer, const char *what)
{
	g->refused += answer == VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	gpu_context_poison(g, slot, answer, what);
	return answer;
}

/* Size bytes of commands are in the arena. */
static uint32_t run_stream(struct gpu *g, uint32_t slot, uint32_t bytes)
{
	struct gpu_3d *t = g->three;
	struct gpu_context *c = &t->contexts[slot];
	struct submit_demand demand;
	const char *why;
	char text[96];
	uint32_t subs;
	int err;

	if (submit_check(t->arena, bytes / 4, &demand, &why) < 0) {
		return refuse_submit(g, slot, VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER, why);
	}
	if (!charge_demand(g, &demand)) {
		snprintf(text, sizeof(text),
			"what it makes takes up to %llu KiB, %u objects and %u sub-contexts",
			(unsigned long long)demand.bytes >> 10, demand.objects, demand.subs);
		return refuse_submit(g, slot, VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY, text);
	}
	subs = c->streams.n_subs;
	submit_apply(&c->streams, &t->objects, t->arena, bytes / 4, &demand, &g->budget);
	t->n_subs += c->streams.n_subs - subs;
	t->drew = t->undone = true;
	err = submit_run(t->ops, c->id, t->arena, bytes / 4, &demand, &g->drift, &c->over);
	if (err == -ENOMEM) {
		snprintf(text, sizeof(text), "with it %llu KiB are taken beyond what is charged",
			(unsigned long long)g->budget.uncharged >> 10);
		return refuse_submit(g, slot, VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY, text);
	}
	return gpu_answer_of(err);
}

/* Of all that were refused to a context and are attached to it. */
static uint64_t ghost_bytes(const struct gpu_3d *t, uint32_t context)
{
	uint64_t sum = 0;

	for (uint32_t slot = 1; slot <= t->opened; slot++) {
		const struct gpu_resource_3d *r = &t->resources[slot];

		if (r->state == GPU_RESOURCE_GHOST && gpu_resource_attached(r, context) &&
			!u64_add(sum, r->bytes, &sum)) {
			return UINT64_MAX;
		}
	}
	return sum;
}

static uint32_t check_ghosts(struct gpu *g, uint32_t slot)
{
	char text[112];

	if (g->three->contexts[slot].n_ghosts == 0) {
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	/* It comes to this once in a context's life. */
	snprintf(text, sizeof(text),
		"it goes on without %u resources of %" PRIu64 " KiB that were refused",
		g->three->contexts[slot].n_ghosts, ghost_bytes(g->three, slot) >> 10);
	return refuse_submit(g, slot, VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY, text);
}

uint32_t handle_submit(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_cmd_submit *c = &q->command.submit;
	uint32_t slot, answer = gpu_context_usable(g->three, c->hdr.ctx_id, &slot);

	if (answer == VIRTIO_GPU_RESP_OK_NODATA) {
		answer = check_ghosts(g, slot);
	}
	if (answer != VIRTIO_GPU_RESP_OK_NODATA || c->size == 0) {
		/* An empty one is for its fence. */
		g->three->drew = answer == VIRTIO_GPU_RESP_OK_NODATA;
		return answer;
	}
	if (c->size % 4 != 0 || q->chain->out_bytes - sizeof(*c) < c->size) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (c->size > SUBMIT_BYTES_MAX || !reserve_arena(g, c->size)) {
		return refuse_submit(g, slot, VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY,
			"a command buffer that is too large");
	}
	/* The guest may change its own meanwhile. */
	if (vring_copy_out(q->chain, sizeof(*c), g->three->arena, c->size) < c->size) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	return run_stream(g, slot, c->size);
}
