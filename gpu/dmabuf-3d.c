/* SPDX-License-Identifier: MIT
 *
 * 3D resources that are shown without being read back: the renderer exports the texture, once, and
 * the fd goes by way of the front to the VMM's display. An image is made of each all the same, and
 * charged: what can't be exported, or not be shown by this display, is read back into it, and so is
 * what somebody wants a picture of.
 *
 * The VMM may hold a texture that its guest has given up: of each scanout the one that it shows,
 * one that it is told and one that the front would tell next, which no budget knows any more.
 */
#include <stdlib.h>

#include "base/fd.h"
#include "base/log.h"
#include "gpu/virtio-gpu-3d.h"

#define TARGET_2D 2

/* A plain texture, all of which is one picture. */
static bool could_be(const struct virgl_resource *v)
{
	return v->target == TARGET_2D && v->depth == 1 && v->array_size <= 1 &&
	       v->nr_samples <= 1 && v->last_level == 0;
}

/* NULL: it can't be. offset: the display's protocol has none. */
static struct dmabuf *export(struct gpu_3d *t, const struct virgl_resource *v)
{
	_cleanup_close_ int fd = -1;
	struct dmabuf got = {.flags = v->flags & VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP}, *d;
	uint32_t offset = 0;

	if (!could_be(v) || t->ops->resource_export(v->id, &fd, &got.fourcc, &got.stride, &offset,
				    &got.modifier) < 0) {
		return NULL;
	}
	got.fd = fd;
	if (offset != 0 || !dmabuf_fits(&got, v->width, v->height)) {
		return NULL;
	}
	d = malloc(sizeof(*d));
	if (d) {
		*d = got;
		d->fd = steal_fd(&fd);
	}
	return d;
}

void gpu_choose_dmabuf(struct gpu *g, uint32_t slot)
{
	struct gpu_3d *t = g->three;
	struct gpu_resource_3d *r = &t->resources[slot];

	if (t->dmabufs != GPU_DMABUFS_NONE && !r->dmabuf && !r->no_dmabuf) {
		/* For good: other scanouts may show it meanwhile. */
		r->dmabuf = t->n_dmabufs < GPU_DMABUFS_MAX ? export(t, &r->virgl) : NULL;
		r->no_dmabuf = !r->dmabuf;
		t->n_dmabufs += r->dmabuf != NULL;
		if (r->no_dmabuf && !t->said_no_dmabuf) {
			t->said_no_dmabuf = true;
			log_info("vm %s: a scanout can't be a DMABUF and is copied instead",
				t->name);
		}
	}
	r->from_dmabuf = r->dmabuf &&
			 (t->dmabufs == GPU_DMABUFS_ALL ||
				 (t->dmabufs == GPU_DMABUFS_PLAIN && dmabuf_is_plain(r->dmabuf)));
}

void gpu_end_dmabuf(struct gpu *g, uint32_t slot)
{
	struct gpu_resource_3d *r = &g->three->resources[slot];

	if (r->dmabuf) {
		safe_close(r->dmabuf->fd);
		free(r->dmabuf);
		r->dmabuf = NULL;
		g->three->n_dmabufs--;
	}
	r->from_dmabuf = false;
}

/* The slot of the 3D resource that an image is of, or GPU_NO_3D. */
static uint32_t shown_from(const struct gpu *g, uint32_t image)
{
	return g->three && image != GPU_NO_SLOT
		       ? gpu_resource_find(g->three, g->resources[image].id)
		       : GPU_NO_3D;
}

const struct dmabuf *gpu_dmabuf_of(const struct gpu *g, uint32_t image)
{
	uint32_t slot = shown_from(g, image);
	const struct gpu_resource_3d *r = slot == GPU_NO_3D ? NULL : &g->three->resources[slot];

	return r && r->from_dmabuf ? r->dmabuf : NULL;
}

void gpu_set_dmabufs(struct gpu *g, enum gpu_dmabufs which)
{
	bool before[GPU_SCANOUTS_MAX] = {false};

	if (!g->three || g->three->dmabufs == which) {
		return;
	}
	gpu_settle(g);
	g->three->dmabufs = which;
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		before[i] = gpu_dmabuf_of(g, g->scanouts[i].slot) != NULL;
	}
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		uint32_t slot = shown_from(g, g->scanouts[i].slot);

		if (slot == GPU_NO_3D) {
			continue;
		}
		gpu_choose_dmabuf(g, slot);
		if (before[i] != g->three->resources[slot].from_dmabuf) {
			g->three->stale[i] = true;
			g->listener->scanout(g->userdata, i);
			gpu_flush_3d(g, slot, &g->scanouts[i].rect);
		}
	}
	gpu_settle(g);
}
