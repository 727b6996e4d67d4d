/* SPDX-License-Identifier: MIT
 *
 * The 2D commands of the control queue.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "gpu/edid.h"
#include "gpu/virtio-gpu-3d.h"
#include "gpu/virtio-gpu-internal.h"
#include "gpu/vring.h"

struct rect gpu_rect_of(const struct virtio_gpu_rect *r)
{
	return (struct rect){r->x, r->y, r->width, r->height};
}

uint32_t gpu_answer_of(int err)
{
	return err == 0         ? VIRTIO_GPU_RESP_OK_NODATA
	       : err == -EINVAL ? VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER
				: VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
}

uint32_t handle_display_info(struct gpu *g, const struct gpu_request *q)
{
	struct virtio_gpu_resp_display_info *info = &q->answer->display_info;

	if (!g->modes_known) {
		return GPU_ANSWER_LATER;
	}
	*info = (struct virtio_gpu_resp_display_info){0};
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		const struct gpu_mode *mode = &g->modes[i];

		info->pmodes[i].r =
			(struct virtio_gpu_rect){mode->x, mode->y, mode->width, mode->height};
		info->pmodes[i].enabled = mode->width > 0 && mode->height > 0;
	}
	return VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
}

uint32_t handle_edid(struct gpu *g, const struct gpu_request *q)
{
	uint32_t scanout = q->command.get_edid.scanout;
	const struct gpu_mode *mode;

	if (scanout >= g->n_scanouts) {
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	}
	if (!g->modes_known) {
		return GPU_ANSWER_LATER;
	}
	mode = &g->modes[scanout];
	q->answer->edid = (struct virtio_gpu_resp_edid){0};
	q->answer->edid.size = (uint32_t)edid_build(scanout,
		mode->width ? MIN(mode->width, EDID_SIDE_MAX) : GPU_DEFAULT_WIDTH,
		mode->height ? MIN(mode->height, EDID_SIDE_MAX) : GPU_DEFAULT_HEIGHT,
		q->answer->edid.edid);
	return VIRTIO_GPU_RESP_OK_EDID;
}

static uint32_t refuse_image(struct gpu *g, const struct virtio_gpu_resource_create_2d *c)
{
	char text[64];

	snprintf(text, sizeof(text), "image %u (%ux%u)", c->resource_id, c->width, c->height);
	gpu_refuse(g, text, (uint64_t)c->width * c->height * RESOURCE_PIXEL_BYTES);
	return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
}

uint32_t handle_create(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_resource_create_2d *c = &q->command.create;
	uint32_t slot = gpu_free_slot(g);
	int err;

	if (c->resource_id == 0 || gpu_id_used(g, c->resource_id)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	err = slot == GPU_NO_SLOT || gpu_count_resources(g) >= g->resources_max
		      ? -ENOMEM
		      : gpu_place(g, slot, c->resource_id, c->format, c->width, c->height);
	if (err < 0) {
		return err == -EINVAL ? gpu_answer_of(err) : refuse_image(g, c);
	}
	g->listener->resource(g->userdata, slot, &g->resources[slot]);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_show(struct gpu *g, uint32_t scanout, uint32_t slot, const struct rect *rect)
{
	gpu_hide_blob(g, scanout);
	g->scanouts[scanout] = (struct gpu_scanout){.slot = slot, .rect = *rect};
	g->listener->scanout(g->userdata, scanout);
}

/* GPU_NO_3D also where there is no 3D. */
static uint32_t find_3d(const struct gpu *g, uint32_t id)
{
	return g->three ? gpu_resource_find(g->three, id) : GPU_NO_3D;
}

uint32_t handle_unref(struct gpu *g, const struct gpu_request *q)
{
	uint32_t slot = gpu_find(g, q->command.unref.resource_id);
	uint32_t slot_3d = find_3d(g, q->command.unref.resource_id);

	if (slot == GPU_NO_SLOT && slot_3d == GPU_NO_3D) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	for (uint32_t i = 0; slot != GPU_NO_SLOT && i < g->n_scanouts; i++) {
		if (g->scanouts[i].slot == slot) {
			gpu_show(g, i, GPU_NO_SLOT, &(struct rect){0});
		}
	}
	if (slot_3d != GPU_NO_3D) {
		return gpu_unref_3d(g, slot_3d);
	}
	gpu_hide_blob_everywhere(g, slot);
	gpu_take_away(g, slot);
	g->listener->resource(g->userdata, slot, &g->resources[slot]);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* The image of a resource of any kind. */
static uint32_t slot_to_show(
	struct gpu *g, uint32_t id, const struct rect *rect, uint32_t *slot_out)
{
	uint32_t slot_3d = find_3d(g, id), answer;
	const struct virgl_resource *v;

	if (slot_3d == GPU_NO_3D) {
		*slot_out = gpu_find(g, id);
		return *slot_out == GPU_NO_SLOT ? VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID
						: VIRTIO_GPU_RESP_OK_NODATA;
	}
	answer = gpu_resource_usable(g->three, id, &slot_3d);
	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	v = &g->three->resources[slot_3d].virgl;
	/* Before an image is made of it. */
	if (!rect_within(rect, v->width, v->height)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	return gpu_show_3d(g, slot_3d, slot_out);
}

uint32_t handle_set_scanout(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_set_scanout *c = &q->command.set_scanout;
	const struct rect rect = gpu_rect_of(&c->r);
	uint32_t slot, answer;

	if (c->scanout_id >= g->n_scanouts) {
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	}
	if (c->resource_id == 0) {
		gpu_show(g, c->scanout_id, GPU_NO_SLOT, &(struct rect){0});
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	answer = slot_to_show(g, c->resource_id, &rect, &slot);
	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	if (rect.width == 0 || rect.height == 0 ||
		!rect_within(&rect, g->resources[slot].width, g->resources[slot].height)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	gpu_show(g, c->scanout_id, slot, &rect);
	if (g->three) {
		g->three->stale[c->scanout_id] = true;
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static uint32_t flush_3d(struct gpu *g, uint32_t id, const struct rect *rect)
{
	uint32_t slot, answer = gpu_resource_usable(g->three, id, &slot);
	const struct virgl_resource *v;

	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		return answer;
	}
	v = &g->three->resources[slot].virgl;
	if (!rect_within(rect, v->width, v->height)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	gpu_flush_3d(g, slot, rect);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_scanouts_of(const struct gpu *g, uint32_t slot)
{
	uint32_t scanouts = 0;

	for (uint32_t i = 0; slot != GPU_NO_SLOT && i < g->n_scanouts; i++) {
		const struct gpu_scanout *s = &g->scanouts[i];

		scanouts |= (uint32_t)(s->view.format ? s->view.blob == slot : s->slot == slot)
			    << i;
	}
	return scanouts;
}

uint32_t handle_flush(struct gpu *g, const struct gpu_request *q)
{
	const struct rect rect = gpu_rect_of(&q->command.flush.r);
	uint32_t slot = gpu_find(g, q->command.flush.resource_id);

	if (find_3d(g, q->command.flush.resource_id) != GPU_NO_3D) {
		return flush_3d(g, q->command.flush.resource_id, &rect);
	}
	if (slot == GPU_NO_SLOT) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (g->resources[slot].blob_size) {
		return gpu_flush_blob(g, slot, &rect);
	}
	if (!rect_within(&rect, g->resources[slot].width, g->resources[slot].height)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	g->flushed |= gpu_scanouts_of(g, slot);
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		const struct gpu_scanout *s = &g->scanouts[i];
		struct rect seen;

		if (s->slot != slot) {
			continue;
		}
		seen = rect_intersect(&rect, &s->rect);
		if (seen.width > 0) {
			seen.x -= s->rect.x;
			seen.y -= s->rect.y;
			g->listener->damage(g->userdata, i, &seen);
		}
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* In slices, and between them others have their turn. */
void gpu_copy(struct gpu *g, struct resource *to, const struct resource *from,
	const struct rect *all, uint64_t offset, uint64_t stride)
{
	const uint64_t row = (uint64_t)to->width * RESOURCE_PIXEL_BYTES;
	const uint32_t rows = (uint32_t)(GPU_SLICE_BYTES / row + 1);
	struct rect slice = *all;

	for (uint32_t done = 0; done < all->height; done += slice.height) {
		if (done > 0) {
			g->listener->pause(g->userdata);
		}
		slice.y = all->y + done;
		slice.height = MIN(rows, all->height - done);
		resource_copy(to, from, &slice, offset + done * stride, stride);
	}
	g->copied += (uint64_t)all->width * all->height * RESOURCE_PIXEL_BYTES;
}

uint32_t handle_transfer(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_transfer_to_host_2d *c = &q->command.transfer;
	const struct rect rect = gpu_rect_of(&c->r);
	uint32_t slot = gpu_find(g, c->resource_id);
	struct resource *r;

	if (slot == GPU_NO_SLOT) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	r = &g->resources[slot];
	if (r->blob_size) {
		/* Linux sends these for its dumb buffers whatever they are: all is where it should
		 * be. */
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (!r->backed) {
		/* Nor has the image of a 3D one any. */
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	if (!rect_within(&rect, r->width, r->height) || !resource_has(r, &rect, c->offset)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	gpu_copy(g, r, r, &rect, c->offset, (uint64_t)r->width * RESOURCE_PIXEL_BYTES);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

bool gpu_read_entries(struct gpu *g, const struct gpu_request *q, size_t size, uint32_t n)
{
	static_assert(sizeof(struct virtio_gpu_mem_entry) == sizeof(struct backing_entry),
		"one is read in the place of the other");
	size_t bytes = n * sizeof(struct backing_entry);

	if (n > GPU_ENTRIES_MAX || vring_copy_out(q->chain, size, g->entries, bytes) < bytes) {
		return false;
	}
	for (uint32_t i = 0; i < n; i++) {
		/* A length of 32 bits and padding, which may be anything. */
		g->entries[i].length = (uint32_t)g->entries[i].length;
	}
	return true;
}

uint32_t handle_attach(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_resource_attach_backing *c = &q->command.attach;
	uint32_t slot = gpu_find(g, c->resource_id), slot_3d = find_3d(g, c->resource_id);
	struct resource *r;
	int err;

	if (slot_3d != GPU_NO_3D) {
		return gpu_attach_3d(g, slot_3d, q);
	}
	if (slot == GPU_NO_SLOT) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	r = &g->resources[slot];
	if (r->backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	if (!gpu_read_entries(g, q, sizeof(*c), c->nr_entries)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	err = resource_attach(r, &g->budget, g->memory, g->entries, c->nr_entries);
	if (err == 0) {
		err = g->listener->backed(g->userdata, slot, g->entries, c->nr_entries);
		if (err < 0) {
			resource_detach(r, &g->budget);
		}
	}
	if (err == -ENOMEM) {
		gpu_refuse_backing(g, c, sizeof(*r->spans));
	}
	return gpu_answer_of(err);
}

uint32_t handle_detach(struct gpu *g, const struct gpu_request *q)
{
	uint32_t slot = gpu_find(g, q->command.detach.resource_id);
	uint32_t slot_3d = find_3d(g, q->command.detach.resource_id);

	if (slot_3d != GPU_NO_3D) {
		return gpu_detach_3d(g, slot_3d);
	}
	if (slot == GPU_NO_SLOT) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (!g->resources[slot].backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	resource_detach(&g->resources[slot], &g->budget);
	g->listener->unbacked(g->userdata, slot);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* RFC 9562, version 8: the seed makes it this VM's, the id this resource's; the same whenever the
 * guest asks, and after a rebuild too. */
uint32_t handle_uuid(struct gpu *g, const struct gpu_request *q)
{
	uint32_t id = q->command.assign_uuid.resource_id;
	uint8_t *uuid = q->answer->uuid.uuid;

	if (!gpu_id_used(g, id)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	q->answer->uuid = (struct virtio_gpu_resp_resource_uuid){0};
	memcpy(uuid, g->uuid_seed, sizeof(g->uuid_seed));
	uuid[6] = (uint8_t)(0x80 | (uuid[6] & 0x0f));
	uuid[8] = 0x80;
	memcpy(uuid + 12, &id, sizeof(id));
	return VIRTIO_GPU_RESP_OK_RESOURCE_UUID;
}
