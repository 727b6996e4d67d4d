/* SPDX-License-Identifier: MIT
 *
 * How a 3D resource gets onto a screen: it has an image in the table of 2D resources, with the same
 * id, from which the front sends; a flush reads the damage back into it. The first row that is read
 * is the upper one whatever VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP says, because transfers see a resource
 * as its guest does. Flushes that follow each other are read back together, at the latest before
 * the guest sees their answers. What is shown from a DMABUF is read back only on demand.
 */
#include <string.h>

#include "gpu/virtio-gpu-3d.h"

enum { TARGET_2D = 2, TARGET_RECT = 5 };

static bool can_be_shown(const struct virgl_resource *v)
{
	return (v->target == TARGET_2D || v->target == TARGET_RECT) && v->nr_samples <= 1 &&
	       resource_format_known(v->format);
}

uint32_t gpu_show_3d(struct gpu *g, uint32_t slot, uint32_t *image_out)
{
	struct gpu_resource_3d *r = &g->three->resources[slot];
	uint32_t image = gpu_free_slot(g);

	if (r->image != GPU_NO_SLOT) {
		gpu_choose_dmabuf(g, slot);
		*image_out = r->image;
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (!can_be_shown(&r->virgl)) {
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	if (image == GPU_NO_SLOT || gpu_place(g, image, r->virgl.id, r->virgl.format,
					    r->virgl.width, r->virgl.height) < 0) {
		gpu_refuse(g, "the image of what is to be shown",
			(uint64_t)r->virgl.width * r->virgl.height * RESOURCE_PIXEL_BYTES);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	r->image = image;
	g->three->n_images++;
	gpu_choose_dmabuf(g, slot);
	*image_out = image;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_hide_3d(struct gpu *g, uint32_t slot)
{
	struct gpu_resource_3d *r = &g->three->resources[slot];

	if (g->three->flush.slot == slot) {
		g->three->flush.slot = GPU_NO_3D;
	}
	if (r->image != GPU_NO_SLOT) {
		gpu_take_away(g, r->image);
		g->listener->image_gone(g->userdata, r->image);
		r->image = GPU_NO_SLOT;
		g->three->n_images--;
	}
	gpu_end_dmabuf(g, slot);
}

/* Into an image of rows of width pixels. */
static int read_back(struct gpu *g, const struct virgl_resource *v, uint8_t *pixels, uint64_t size,
	const struct rect *rect)
{
	const struct iovec iov = {pixels, size};
	const struct virgl_transfer transfer = {.id = v->id,
		.stride = v->width * RESOURCE_PIXEL_BYTES,
		.area = {rect->x, rect->y, 0, rect->width, rect->height, 1},
		.offset = ((uint64_t)rect->y * v->width + rect->x) * RESOURCE_PIXEL_BYTES};

	uint32_t before = g->drawing ? *g->drawing : 0;
	int err;

	gpu_set_drawing(g, MAX(before, 1U));
	err = g->three->ops->transfer_read(&transfer, &iov, 1);
	gpu_set_drawing(g, before);
	return err;
}

static struct rect rect_union(const struct rect *a, const struct rect *b)
{
	uint32_t x = MIN(a->x, b->x), y = MIN(a->y, b->y);

	return (struct rect){x, y, MAX(a->x + a->width, b->x + b->width) - x,
		MAX(a->y + a->height, b->y + b->height) - y};
}

/* What is to be read of a flush: what a scanout shows for the first time is all of it. */
static struct rect shown_part(
	struct gpu *g, uint32_t image, const struct rect *flushed, struct rect *damages)
{
	struct rect all = {0};

	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		const struct gpu_scanout *s = &g->scanouts[i];

		damages[i] = (struct rect){0};
		if (s->slot != image) {
			continue;
		}
		damages[i] = g->three->stale[i] ? s->rect : rect_intersect(flushed, &s->rect);
		g->three->stale[i] = false;
		if (damages[i].width > 0) {
			all = all.width > 0 ? rect_union(&all, &damages[i]) : damages[i];
		}
	}
	return all;
}

/* Whoever shows a DMABUF waits for what was given to the GPU before, and not for what lies in the
 * driver's queue: a fence takes it out of there. Guests mostly have made one. */
static void push_out(struct gpu *g)
{
	struct gpu_3d *t = g->three;

	if (t->undone) {
		t->undone = false;
		t->line.made++;
		if (t->ops->fence((uint32_t)t->line.made, 0) < 0) {
			t->line.made--;
		}
	}
}

static int bring_up_to_date(struct gpu *g, const struct gpu_resource_3d *r, const struct rect *rect)
{
	struct resource *image = &g->resources[r->image];
	int err;

	if (r->from_dmabuf) {
		push_out(g);
		return 0;
	}
	err = read_back(g, &r->virgl, image->pixels, image->size, rect);
	if (err == 0) {
		resource_turn(image, rect);
		g->copied += (uint64_t)rect->width * rect->height * RESOURCE_PIXEL_BYTES;
	}
	return err;
}

void gpu_settle(struct gpu *g)
{
	struct gpu_3d *t = g->three;
	struct rect damages[VIRTIO_GPU_MAX_SCANOUTS], all;
	const struct gpu_resource_3d *r;

	if (!t || t->flush.slot == GPU_NO_3D) {
		return;
	}
	r = &t->resources[t->flush.slot];
	t->flush.slot = GPU_NO_3D;
	all = shown_part(g, r->image, &t->flush.rect, damages);
	if (all.width == 0) {
		return;
	}
	if (bring_up_to_date(g, r, &all) < 0) {
		return;
	}
	for (uint32_t i = 0; i < g->n_scanouts; i++) {
		if (damages[i].width > 0) {
			damages[i].x -= g->scanouts[i].rect.x;
			damages[i].y -= g->scanouts[i].rect.y;
			g->listener->damage(g->userdata, i, &damages[i]);
		}
	}
}

void gpu_flush_3d(struct gpu *g, uint32_t slot, const struct rect *rect)
{
	struct gpu_pending_flush *f = &g->three->flush;

	if (g->three->resources[slot].image == GPU_NO_SLOT) {
		return;
	}
	g->flushed |= gpu_scanouts_of(g, g->three->resources[slot].image);
	if (f->slot != GPU_NO_3D && f->slot != slot) {
		gpu_settle(g);
	}
	if (rect->width > 0 && rect->height > 0) {
		f->rect = f->slot == slot ? rect_union(&f->rect, rect) : *rect;
		f->slot = slot;
	}
}

void gpu_read_scanout(struct gpu *g, uint32_t scanout)
{
	const struct gpu_scanout *s = &g->scanouts[scanout];
	const struct virgl_resource *v;
	struct resource *image;

	if (s->slot == GPU_NO_SLOT || !gpu_dmabuf_of(g, s->slot)) {
		return;
	}
	image = &g->resources[s->slot];
	v = &g->three->resources[gpu_resource_find(g->three, image->id)].virgl;
	if (read_back(g, v, image->pixels, image->size, &s->rect) == 0) {
		resource_turn(image, &s->rect);
	}
}

const uint8_t *gpu_cursor_3d(struct gpu *g, uint32_t slot)
{
	static const struct rect all = {0, 0, GPU_CURSOR_SIDE, GPU_CURSOR_SIDE};
	const struct virgl_resource *v = &g->three->resources[slot].virgl;
	struct resource image = {.format = v->format,
		.width = GPU_CURSOR_SIDE,
		.height = GPU_CURSOR_SIDE,
		.pixels = g->cursor_pixels,
		.size = sizeof(g->cursor_pixels)};

	if (!can_be_shown(v) || read_back(g, v, image.pixels, image.size, &all) < 0) {
		return NULL;
	}
	resource_turn(&image, &all);
	return image.pixels;
}
