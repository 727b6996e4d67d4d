/* SPDX-License-Identifier: MIT
 *
 * A command is copied out of the guest's memory once and checked in the copy. Each has a line in
 * one table with its size and its handler; the handler returns the type of the answer, and the
 * answer's size follows from that. Which error is meant for what (virtio 1.2, 5.7.6.7): an id of 0,
 * one that is not there and one that is there already are invalid ids; numbers that can't be are
 * invalid parameters; what would be possible but is too much is out of memory; and what can't be
 * understood at all, a command that is too short, unknown, or of 3D where there is none, is
 * unspecified.
 */
#include "gpu/virtio-gpu.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "gpu/virtio-gpu-3d.h"
#include "gpu/virtio-gpu-internal.h"
#include "gpu/vring.h"

#define NO_INDEX UINT16_MAX
/* Of the log, that a guest can cause. */
#define LINES_MAX  RESTARTS_MAX
#define LINES_USEC UINT64_C(60000000)

uint32_t gpu_find(const struct gpu *g, uint32_t id)
{
	uint16_t slot = id ? g->first[id % GPU_RESOURCES_MAX] : NO_INDEX;

	while (slot != NO_INDEX && g->resources[slot].id != id) {
		slot = g->next[slot];
	}
	return slot == NO_INDEX ? GPU_NO_SLOT : slot;
}

uint32_t gpu_free_slot(const struct gpu *g)
{
	return g->first_free == NO_INDEX ? GPU_NO_SLOT : g->first_free;
}

static void unlink_slot(struct gpu *g, uint16_t *from, uint32_t slot)
{
	while (*from != slot) {
		assert(*from != NO_INDEX);
		from = &g->next[*from];
	}
	*from = g->next[slot];
}

static void link_slot(struct gpu *g, uint16_t *to, uint32_t slot)
{
	g->next[slot] = *to;
	*to = (uint16_t)slot;
}

static void occupy(struct gpu *g, uint32_t slot)
{
	unlink_slot(g, &g->first_free, slot);
	link_slot(g, &g->first[g->resources[slot].id % GPU_RESOURCES_MAX], slot);
	g->n_placed++;
}

int gpu_place(
	struct gpu *g, uint32_t slot, uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
	int err;

	assert(slot < GPU_RESOURCES_MAX && g->resources[slot].id == 0);
	err = resource_init(&g->resources[slot], &g->budget, id, format, width, height);
	if (err < 0) {
		return err;
	}
	occupy(g, slot);
	return 0;
}

bool gpu_place_blob(struct gpu *g, uint32_t slot, uint32_t id, uint64_t size)
{
	assert(slot < GPU_RESOURCES_MAX && g->resources[slot].id == 0);
	if (size == 0) {
		return false;
	}
	resource_init_blob(&g->resources[slot], id, size);
	occupy(g, slot);
	return true;
}

void gpu_take_away(struct gpu *g, uint32_t slot)
{
	struct resource *r = &g->resources[slot];

	unlink_slot(g, &g->first[r->id % GPU_RESOURCES_MAX], slot);
	link_slot(g, &g->first_free, slot);
	resource_finish(r, &g->budget);
	g->n_placed--;
}

struct command_type {
	uint32_t type;
	uint32_t size; /* the least a command of this type has */
	uint32_t (*handle)(struct gpu *g, const struct gpu_request *q);
	const char *name;
};

static const struct command_type control_commands[] = {
	{VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, sizeof(struct virtio_gpu_transfer_to_host_2d),
		handle_transfer, "TRANSFER_TO_HOST_2D"},
	{VIRTIO_GPU_CMD_RESOURCE_FLUSH, sizeof(struct virtio_gpu_resource_flush), handle_flush,
		"RESOURCE_FLUSH"},
	{VIRTIO_GPU_CMD_SET_SCANOUT, sizeof(struct virtio_gpu_set_scanout), handle_set_scanout,
		"SET_SCANOUT"},
	{VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, sizeof(struct virtio_gpu_resource_create_2d),
		handle_create, "RESOURCE_CREATE_2D"},
	{VIRTIO_GPU_CMD_RESOURCE_UNREF, sizeof(struct virtio_gpu_resource_unref), handle_unref,
		"RESOURCE_UNREF"},
	{VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, sizeof(struct virtio_gpu_resource_attach_backing),
		handle_attach, "RESOURCE_ATTACH_BACKING"},
	{VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, sizeof(struct virtio_gpu_resource_detach_backing),
		handle_detach, "RESOURCE_DETACH_BACKING"},
	{VIRTIO_GPU_CMD_GET_DISPLAY_INFO, sizeof(struct virtio_gpu_ctrl_hdr), handle_display_info,
		"GET_DISPLAY_INFO"},
	{VIRTIO_GPU_CMD_GET_EDID, sizeof(struct virtio_gpu_cmd_get_edid), handle_edid, "GET_EDID"},
	{VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, sizeof(struct virtio_gpu_resource_assign_uuid),
		handle_uuid, "RESOURCE_ASSIGN_UUID"},
};

/* Where they were negotiated. */
static const struct command_type commands_blob[] = {
	{VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB, sizeof(struct virtio_gpu_resource_create_blob),
		handle_create_blob, "RESOURCE_CREATE_BLOB"},
	{VIRTIO_GPU_CMD_SET_SCANOUT_BLOB, sizeof(struct virtio_gpu_set_scanout_blob),
		handle_set_scanout_blob, "SET_SCANOUT_BLOB"},
};

/* Where there is a renderer for them; what comes most often comes first. */
static const struct command_type commands_3d[] = {
	{VIRTIO_GPU_CMD_SUBMIT_3D, sizeof(struct virtio_gpu_cmd_submit), handle_submit,
		"SUBMIT_3D"},
	{VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D, sizeof(struct virtio_gpu_transfer_host_3d),
		handle_transfer_to_3d, "TRANSFER_TO_HOST_3D"},
	{VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D, sizeof(struct virtio_gpu_transfer_host_3d),
		handle_transfer_from_3d, "TRANSFER_FROM_HOST_3D"},
	{VIRTIO_GPU_CMD_RESOURCE_CREATE_3D, sizeof(struct virtio_gpu_resource_create_3d),
		handle_create_3d, "RESOURCE_CREATE_3D"},
	{VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, sizeof(struct virtio_gpu_ctx_resource),
		handle_context_attach, "CTX_ATTACH_RESOURCE"},
	{VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE, sizeof(struct virtio_gpu_ctx_resource),
		handle_context_detach, "CTX_DETACH_RESOURCE"},
	{VIRTIO_GPU_CMD_CTX_CREATE, sizeof(struct virtio_gpu_ctx_create), handle_context_create,
		"CTX_CREATE"},
	{VIRTIO_GPU_CMD_CTX_DESTROY, sizeof(struct virtio_gpu_ctx_destroy), handle_context_destroy,
		"CTX_DESTROY"},
	{VIRTIO_GPU_CMD_GET_CAPSET_INFO, sizeof(struct virtio_gpu_get_capset_info),
		handle_capset_info, "GET_CAPSET_INFO"},
	{VIRTIO_GPU_CMD_GET_CAPSET, sizeof(struct virtio_gpu_get_capset), handle_capset,
		"GET_CAPSET"},
};

static const struct command_type cursor_commands[] = {
	{VIRTIO_GPU_CMD_MOVE_CURSOR, sizeof(struct virtio_gpu_update_cursor), handle_move_cursor,
		"MOVE_CURSOR"},
	{VIRTIO_GPU_CMD_UPDATE_CURSOR, sizeof(struct virtio_gpu_update_cursor),
		handle_update_cursor, "UPDATE_CURSOR"},
};

static const struct command_type *type_in(const struct command_type *types, size_t n, uint32_t type)
{
	for (size_t i = 0; i < n; i++) {
		if (types[i].type == type) {
			return &types[i];
		}
	}
	return NULL;
}

const char *gpu_command_name(uint32_t type)
{
	const struct command_type *t =
		type_in(control_commands, ARRAY_SIZE(control_commands), type);

	if (!t) {
		t = type_in(commands_blob, ARRAY_SIZE(commands_blob), type);
	}
	if (!t) {
		t = type_in(commands_3d, ARRAY_SIZE(commands_3d), type);
	}
	if (!t) {
		t = type_in(cursor_commands, ARRAY_SIZE(cursor_commands), type);
	}
	return t ? t->name : "unknown";
}

static size_t answer_size(uint32_t type, const union gpu_answer *answer)
{
	switch (type) {
	case VIRTIO_GPU_RESP_OK_CAPSET_INFO:
		return sizeof(struct virtio_gpu_resp_capset_info);
	case VIRTIO_GPU_RESP_OK_CAPSET:
		return offsetof(struct gpu_capset, data) + answer->capset.size;
	case VIRTIO_GPU_RESP_OK_DISPLAY_INFO:
		return sizeof(struct virtio_gpu_resp_display_info);
	case VIRTIO_GPU_RESP_OK_EDID:
		return sizeof(struct virtio_gpu_resp_edid);
	case VIRTIO_GPU_RESP_OK_RESOURCE_UUID:
		return sizeof(struct virtio_gpu_resp_resource_uuid);
	default:
		return sizeof(struct virtio_gpu_ctrl_hdr);
	}
}

bool gpu_may_say(struct gpu *g)
{
	return !restarts_too_often(&g->said, LINES_MAX, LINES_USEC, now_usec());
}

void gpu_refuse(struct gpu *g, const char *what, uint64_t bytes)
{
	g->refused++;
	if (gpu_may_say(g)) {
		log_warn("vm %s: refused %s: %" PRIu64 " KiB, with %" PRIu64 " of %" PRIu64
			 " KiB of GPU memory and %u of %u resources in use",
			g->name, what, (bytes + 1023) >> 10, budget_taken(&g->budget) >> 10,
			g->budget.limit >> 10, gpu_count_resources(g),
			MIN(g->resources_max, GPU_RESOURCES_MAX + GPU_RESOURCES_3D_MAX));
	}
}

void gpu_refuse_backing(
	struct gpu *g, const struct virtio_gpu_resource_attach_backing *c, size_t bytes)
{
	char text[80];

	snprintf(text, sizeof(text), "backing of %u entries for resource %u", c->nr_entries,
		c->resource_id);
	gpu_refuse(g, text, (uint64_t)c->nr_entries * bytes);
}

/* Once, until much of it has been given back. */
static void watch_budget(struct gpu *g)
{
	uint64_t taken = budget_taken(&g->budget);

	if (!g->warned && taken > g->budget.limit / 5 * 4) {
		g->warned = true;
		if (!gpu_may_say(g)) {
			return;
		}
		log_warn("vm %s: %" PRIu64 " of %" PRIu64
			 " KiB of GPU memory are in use (over 80 %%)",
			g->name, taken >> 10, g->budget.limit >> 10);
	} else if (g->warned && taken < g->budget.limit / 10 * 7) {
		g->warned = false;
	}
}

static const struct command_type *control_type(const struct gpu *g, uint32_t type)
{
	const struct command_type *t = NULL;

	if (g->three) {
		t = type_in(commands_3d, ARRAY_SIZE(commands_3d), type);
	}
	if (!t) {
		t = type_in(control_commands, ARRAY_SIZE(control_commands), type);
	}
	if (!t && g->blobs) {
		t = type_in(commands_blob, ARRAY_SIZE(commands_blob), type);
	}
	return t;
}

/* What is the same for both queues: the type of the answer, which is told and copied back. t may be
 * NULL: there is no such command. */
static uint32_t execute(struct gpu *g, struct gpu_request *q, size_t size,
	const struct command_type *t, uint32_t *written_out)
{
	const struct virtio_gpu_ctrl_hdr *asked = &q->command.hdr;
	union gpu_answer *answer = q->answer;
	uint32_t type = VIRTIO_GPU_RESP_ERR_UNSPEC;

	if (t && size >= t->size) {
		type = t->handle(g, q);
	}
	if (type == GPU_ANSWER_LATER) {
		return type;
	}
	if (type >= VIRTIO_GPU_RESP_ERR_UNSPEC) {
		g->errors++;
		log_debug("guest's command %s (0x%x, %zu bytes): error 0x%x",
			t ? t->name : "unknown", size >= sizeof(*asked) ? asked->type : 0, size,
			type);
	}
	answer->hdr = (struct virtio_gpu_ctrl_hdr){.type = type};
	if (size >= sizeof(*asked) && asked->flags & VIRTIO_GPU_FLAG_FENCE) {
		answer->hdr.flags =
			asked->flags & (VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX);
		answer->hdr.fence_id = asked->fence_id;
		answer->hdr.ctx_id = asked->ctx_id;
		answer->hdr.ring_idx =
			asked->flags & VIRTIO_GPU_FLAG_INFO_RING_IDX ? asked->ring_idx : 0;
	}
	*written_out = (uint32_t)vring_copy_in(q->chain, answer, answer_size(type, answer));
	return type;
}

void gpu_set_drawing(struct gpu *g, uint32_t drawing)
{
	if (g->drawing) {
		__atomic_store_n(g->drawing, drawing, __ATOMIC_RELEASE);
	}
}

/* Whoever looks from outside sees for whom it works if it does not come back. */
static void begin_drawing(struct gpu *g, const struct command_type *t, uint32_t context)
{
	uint32_t slot = gpu_context_find(g->three, context);

	gpu_set_drawing(g, 1 + slot);
	gpu_account_command(g, slot);
	g->three->drew = false;
	if (!t || t->handle != handle_flush) {
		gpu_settle(g);
	}
}

/* What makes something in 3D or draws; ends stay possible. */
static bool is_barred(const struct gpu *g, const struct command_type *t)
{
	return g->three && g->three->barred && t &&
	       (t->handle == handle_submit || t->handle == handle_context_create ||
		       t->handle == handle_create_3d || t->handle == handle_context_attach ||
		       t->handle == handle_transfer_to_3d || t->handle == handle_transfer_from_3d);
}

enum gpu_outcome gpu_control(struct gpu *g, const struct vring_chain *chain, uint32_t *written_out)
{
	union gpu_answer answer;
	struct gpu_request q = {.chain = chain, .answer = &answer};
	size_t size = vring_copy_out(chain, 0, &q.command, sizeof(q.command));
	const struct command_type *t = NULL;
	bool fenced = false, waits, late;

	if (size >= sizeof(q.command.hdr)) {
		t = control_type(g, q.command.hdr.type);
		fenced = q.command.hdr.flags & VIRTIO_GPU_FLAG_FENCE;
	}
	if (g->three) {
		begin_drawing(g, t, size >= sizeof(q.command.hdr) ? q.command.hdr.ctx_id : 0);
	}
	late = execute(g, &q, size, is_barred(g, t) ? NULL : t, written_out) == GPU_ANSWER_LATER;
	waits = !late && fenced && g->three &&
		gpu_3d_fence(g, &q.command.hdr, g->three->drew, chain->head, *written_out);
	if (g->three && g->three->drew) {
		g->three->unfenced = !waits;
		gpu_account_fences(g);
	}
	gpu_set_drawing(g, 0);
	watch_budget(g);
	return late ? GPU_WAITS : waits ? GPU_FENCED : GPU_ANSWERED;
}

uint32_t gpu_peek_frame(const struct gpu *g, const struct vring_chain *chain)
{
	struct virtio_gpu_resource_flush c;

	return vring_copy_out(chain, 0, &c, sizeof(c)) == sizeof(c) &&
			       c.hdr.type == VIRTIO_GPU_CMD_RESOURCE_FLUSH
		       ? gpu_scanouts_of(g, gpu_find(g, c.resource_id))
		       : 0;
}

void gpu_set_limits(struct gpu *g, uint64_t bytes, uint32_t contexts, uint32_t resources)
{
	g->budget.limit = bytes;
	g->contexts_max = contexts;
	g->resources_max = resources;
}

uint32_t gpu_count_resources(const struct gpu *g)
{
	/* A 3D resource that is shown has an image, which is none of the guest's. */
	return g->n_placed +
	       (g->three ? g->three->n_resources - g->three->n_ghosts - g->three->n_images : 0);
}

void gpu_cursor(struct gpu *g, const struct vring_chain *chain, uint32_t *written_out)
{
	union gpu_answer answer;
	struct gpu_request q = {.chain = chain, .answer = &answer};
	size_t size = vring_copy_out(chain, 0, &q.command, sizeof(q.command));
	const struct command_type *t = NULL;

	if (size >= sizeof(q.command.hdr)) {
		t = type_in(cursor_commands, ARRAY_SIZE(cursor_commands), q.command.hdr.type);
	}
	_unused_ uint32_t type = execute(g, &q, size, t, written_out);
	assert(type != GPU_ANSWER_LATER);
}

static void clear(struct gpu *g)
{
	for (uint32_t i = 0; i < GPU_RESOURCES_MAX; i++) {
		g->first[i] = NO_INDEX;
		g->next[i] = i + 1 < GPU_RESOURCES_MAX ? (uint16_t)(i + 1) : NO_INDEX;
	}
	g->first_free = 0;
	g->n_placed = 0;
	for (uint32_t i = 0; i < GPU_SCANOUTS_MAX; i++) {
		g->scanouts[i] = (struct gpu_scanout){.slot = GPU_NO_SLOT};
		g->cursors[i] = (struct gpu_cursor){.scanout = i};
	}
}

int gpu_create(const struct gpu_options *options, struct gpu **out)
{
	struct gpu *g = calloc(1, sizeof(*g));

	if (!g) {
		return -ENOMEM;
	}
	assert(options->n_scanouts > 0 && options->n_scanouts <= GPU_SCANOUTS_MAX);
	g->memory = options->memory;
	g->listener = options->listener;
	g->userdata = options->userdata;
	g->spend = options->spend;
	gpu_set_limits(g, options->bytes_max, UINT32_MAX, UINT32_MAX);
	g->n_scanouts = options->n_scanouts;
	g->name = options->name;
	clear(g);
	if (options->virgl && gpu_3d_create(g, options->virgl, options->name) < 0) {
		free(g);
		return -ENOMEM;
	}
	if (options->meter) {
		drift_init(&g->drift, &g->budget, options->meter);
	}
	*out = g;
	return 0;
}

void gpu_reset(struct gpu *g)
{
	gpu_3d_reset(g);
	for (uint32_t i = 0; i < GPU_SLOTS_MAX; i++) {
		resource_finish(&g->resources[i], &g->budget);
	}
	assert(g->budget.used == 0);
	drift_ended(&g->drift);
	clear(g);
}

void gpu_destroy(struct gpu *g)
{
	if (g) {
		gpu_reset(g);
		gpu_3d_destroy(g);
		free(g);
	}
}
