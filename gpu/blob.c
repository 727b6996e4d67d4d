/* SPDX-License-Identifier: MIT
 *
 * Blobs in guest memory: resources that are the guest's pages and nothing else. There is no copy of
 * ours to transfer into. What a scanout shows of one is fetched from the pages when it is flushed,
 * into an image that belongs to the scanout and is as large as what is shown, so that a flush is
 * answered only when its pixels are safe and the guest may paint over them; a page flip between
 * blobs is one copy, and no news for the front. How pixels lie in a blob is said by
 * SET_SCANOUT_BLOB alone, so two scanouts may see one blob in different ways.
 */
#include <assert.h>
#include <errno.h>

#include "base/checked.h"
#include "gpu/virtio-gpu-3d.h"
#include "gpu/virtio-gpu-internal.h"

#define FLAGS_KNOWN                                                               \
	(VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE | VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE | \
		VIRTIO_GPU_BLOB_FLAG_USE_CROSS_DEVICE)

uint32_t handle_create_blob(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_resource_create_blob *c = &q->command.create_blob;
	uint32_t slot = gpu_free_slot(g);
	int err;

	if (c->resource_id == 0 || gpu_id_used(g, c->resource_id)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	/* Memory of the host is nothing that a guest of ours could map. */
	if (c->blob_mem != VIRTIO_GPU_BLOB_MEM_GUEST || c->blob_flags & ~(uint32_t)FLAGS_KNOWN ||
		!gpu_read_entries(g, q, sizeof(*c), c->nr_entries)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (slot == GPU_NO_SLOT || gpu_count_resources(g) >= g->resources_max) {
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	if (!gpu_place_blob(g, slot, c->resource_id, c->size)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	err = resource_attach(
		&g->resources[slot], &g->budget, g->memory, g->entries, c->nr_entries);
	if (err < 0) {
		gpu_take_away(g, slot);
		return gpu_answer_of(err);
	}
	g->listener->resource(g->userdata, slot, &g->resources[slot]);
	err = g->listener->backed(g->userdata, slot, g->entries, c->nr_entries);
	if (err < 0) {
		gpu_take_away(g, slot);
		g->listener->resource(g->userdata, slot, &g->resources[slot]);
	}
	return gpu_answer_of(err);
}

struct rect gpu_shown(const struct gpu_scanout *s)
{
	/* Of a blob's image everything is shown; of others nothing is added. */
	return (struct rect){
		s->rect.x + s->view.x, s->rect.y + s->view.y, s->rect.width, s->rect.height};
}

void gpu_hide_blob(struct gpu *g, uint32_t scanout)
{
	struct gpu_scanout *s = &g->scanouts[scanout];

	if (s->view.format) {
		resource_finish(&g->resources[s->slot], &g->budget);
		g->listener->image_gone(g->userdata, s->slot);
		*s = (struct gpu_scanout){.slot = GPU_NO_SLOT};
	}
}

void gpu_hide_blob_everywhere(struct gpu *g, uint32_t slot)
{
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		if (g->scanouts[i].view.format && g->scanouts[i].view.blob == slot) {
			gpu_show(g, i, GPU_NO_SLOT, &(struct rect){0});
		}
	}
}

/* Where a pixel lies in the blob; what is shown lies in it. */
static uint64_t place_of(const struct gpu_view *v, uint32_t x, uint32_t y)
{
	return v->offset + (uint64_t)y * v->stride + (uint64_t)x * RESOURCE_PIXEL_BYTES;
}

static bool lies_in(const struct resource *blob, const struct gpu_view *v, const struct rect *rect)
{
	uint64_t row = ((uint64_t)rect->x + rect->width) * RESOURCE_PIXEL_BYTES;

	return resource_format_known(v->format) && rect->width > 0 && rect->height > 0 &&
	       rect_within(rect, RESOURCE_SIDE_MAX, RESOURCE_SIDE_MAX) && v->stride >= row &&
	       v->offset + (rect->y + rect->height - UINT64_C(1)) * v->stride + row <=
		       blob->blob_size;
}

int gpu_view_blob(
	struct gpu *g, uint32_t scanout, const struct gpu_view *view, const struct rect *rect)
{
	struct gpu_scanout *s = &g->scanouts[scanout];
	const struct resource *blob = &g->resources[view->blob];
	struct resource *image = &g->resources[GPU_RESOURCES_MAX + scanout], fresh;
	int is_new = 0;

	assert(view->blob < GPU_RESOURCES_MAX && blob->blob_size);
	if (!lies_in(blob, view, rect)) {
		return -EINVAL;
	}
	if (!s->view.format || image->width != rect->width || image->height != rect->height) {
		int err = resource_init(
			&fresh, &g->budget, blob->id, view->format, rect->width, rect->height);

		if (err < 0) {
			return err;
		}
		gpu_hide_blob(g, scanout);
		*image = fresh;
		is_new = 1;
	}
	image->id = blob->id;
	image->format = view->format;
	s->slot = GPU_RESOURCES_MAX + scanout;
	s->rect = (struct rect){0, 0, rect->width, rect->height};
	s->view = *view;
	s->view.x = rect->x;
	s->view.y = rect->y;
	s->view.stale = true;
	return is_new;
}

/* damage: a part of the scanout, not empty. */
static void fetch(struct gpu *g, const struct gpu_scanout *s, const struct rect *damage)
{
	const struct gpu_view *v = &s->view;

	gpu_copy(g, &g->resources[s->slot], &g->resources[v->blob], damage,
		place_of(v, v->x + damage->x, v->y + damage->y), v->stride);
}

void gpu_refresh_blob(struct gpu *g, uint32_t scanout)
{
	struct gpu_scanout *s = &g->scanouts[scanout];

	if (g->resources[s->view.blob].backed) {
		fetch(g, s, &s->rect);
		s->view.stale = false;
	}
}

uint32_t handle_set_scanout_blob(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_set_scanout_blob *c = &q->command.set_scanout_blob;
	const struct rect rect = gpu_rect_of(&c->r);
	const struct gpu_view view = {.blob = gpu_find(g, c->resource_id),
		.format = c->format,
		.stride = c->strides[0],
		.offset = c->offsets[0]};
	int err;

	if (c->scanout_id >= g->n_scanouts) {
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	}
	if (c->resource_id == 0) {
		gpu_show(g, c->scanout_id, GPU_NO_SLOT, &(struct rect){0});
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (view.blob == GPU_NO_SLOT || !g->resources[view.blob].blob_size) {
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	}
	if (!g->resources[view.blob].backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	/* All of the frame buffer lies in the blob, not only what is shown of it. */
	if (!lies_in(&g->resources[view.blob], &view, &(struct rect){0, 0, c->width, c->height}) ||
		!rect_within(&rect, c->width, c->height)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	err = gpu_view_blob(g, c->scanout_id, &view, &rect);
	if (err < 0) {
		return gpu_answer_of(err);
	}
	if (err == 0) {
		g->listener->view(g->userdata, c->scanout_id);
	} else {
		/* The display is told of it now, and shall not see it empty. */
		gpu_refresh_blob(g, c->scanout_id);
		g->listener->scanout(g->userdata, c->scanout_id);
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_flush_blob(struct gpu *g, uint32_t slot, const struct rect *rect)
{
	if (!rect_within(rect, RESOURCE_SIDE_MAX, RESOURCE_SIDE_MAX)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (!g->resources[slot].backed) {
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	g->flushed |= gpu_scanouts_of(g, slot);
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		struct gpu_scanout *s = &g->scanouts[i];
		const struct rect shown = gpu_shown(s);
		struct rect seen;

		if (!s->view.format || s->view.blob != slot) {
			continue;
		}
		seen = s->view.stale ? shown : rect_intersect(rect, &shown);
		if (seen.width > 0) {
			seen.x -= shown.x;
			seen.y -= shown.y;
			s->view.stale = false;
			fetch(g, s, &seen);
			g->listener->damage(g->userdata, i, &seen);
		}
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

const uint8_t *gpu_cursor_blob(struct gpu *g, uint32_t slot)
{
	static const struct rect all = {0, 0, GPU_CURSOR_SIDE, GPU_CURSOR_SIDE};
	const uint64_t row = GPU_CURSOR_SIDE * RESOURCE_PIXEL_BYTES;
	const struct resource *blob = &g->resources[slot];
	struct resource image = {.format = VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM,
		.width = GPU_CURSOR_SIDE,
		.height = GPU_CURSOR_SIDE,
		.pixels = g->cursor_pixels,
		.size = sizeof(g->cursor_pixels)};

	if (!blob->backed || blob->blob_size < sizeof(g->cursor_pixels)) {
		return NULL;
	}
	resource_copy(&image, blob, &all, 0, row);
	return image.pixels;
}
