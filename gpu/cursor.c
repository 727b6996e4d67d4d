/* SPDX-License-Identifier: MIT
 *
 * The two commands of the cursor queue. Each scanout has a cursor of its own. An image is copied
 * when it is shown: what the guest does with the resource later changes nothing.
 */
#include "base/checked.h"
#include "gpu/virtio-gpu-3d.h"
#include "gpu/virtio-gpu-internal.h"

/* The image of a resource of any kind. */
static uint32_t pixels_of(struct gpu *g, uint32_t id, const uint8_t **pixels_out)
{
	uint32_t slot = g->three ? gpu_resource_find(g->three, id) : GPU_NO_3D, width, height,
		 answer;

	if (slot != GPU_NO_3D) {
		answer = gpu_resource_usable(g->three, id, &slot);
		if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
			return answer;
		}
		width = g->three->resources[slot].virgl.width;
		height = g->three->resources[slot].virgl.height;
	} else {
		uint32_t image = gpu_find(g, id);

		if (image == GPU_NO_SLOT) {
			return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
		}
		if (g->resources[image].blob_size) {
			*pixels_out = gpu_cursor_blob(g, image);
			return *pixels_out ? VIRTIO_GPU_RESP_OK_NODATA
					   : VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
		}
		width = g->resources[image].width;
		height = g->resources[image].height;
		*pixels_out = g->resources[image].pixels;
	}
	if (width != GPU_CURSOR_SIDE || height != GPU_CURSOR_SIDE) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (slot != GPU_NO_3D) {
		*pixels_out = gpu_cursor_3d(g, slot);
	}
	return *pixels_out ? VIRTIO_GPU_RESP_OK_NODATA : VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
}

uint32_t handle_update_cursor(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_update_cursor *c = &q->command.cursor;
	const uint8_t *pixels = NULL;
	struct gpu_cursor *cursor;

	if (c->pos.scanout_id >= g->n_scanouts) {
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	}
	if (c->resource_id) {
		uint32_t answer = pixels_of(g, c->resource_id, &pixels);

		if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
			return answer;
		}
	}
	cursor = &g->cursors[c->pos.scanout_id];
	*cursor = (struct gpu_cursor){
		.resource_id = c->resource_id,
		.scanout = c->pos.scanout_id,
		.x = c->pos.x,
		.y = c->pos.y,
		.hot_x = MIN(c->hot_x, GPU_CURSOR_SIDE - 1U),
		.hot_y = MIN(c->hot_y, GPU_CURSOR_SIDE - 1U),
	};
	g->listener->cursor(g->userdata, cursor, pixels);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t handle_move_cursor(struct gpu *g, const struct gpu_request *q)
{
	const struct virtio_gpu_update_cursor *c = &q->command.cursor;
	struct gpu_cursor *cursor;

	if (c->pos.scanout_id >= g->n_scanouts) {
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	}
	cursor = &g->cursors[c->pos.scanout_id];
	cursor->scanout = c->pos.scanout_id;
	cursor->x = c->pos.x;
	cursor->y = c->pos.y;
	g->listener->cursor(g->userdata, cursor, NULL);
	return VIRTIO_GPU_RESP_OK_NODATA;
}
