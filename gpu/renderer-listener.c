/* SPDX-License-Identifier: MIT
 *
 * What comes of commands: into the journal first, then to the front.
 */
#include <string.h>
#include <unistd.h>

#include "gpu/renderer-internal.h"

void renderer_ring_bell(struct renderer *r)
{
	const uint64_t one = 1;

	if (r->bell_due) {
		r->bell_due = false;
		_unused_ ssize_t n = write(r->bell, &one, sizeof(one));
	}
}

static void forget_image(struct renderer *r, uint32_t slot)
{
	if (r->images[slot] == 0) {
		return;
	}
	if (r->out.n_gone < ARRAY_SIZE(r->out.gone)) {
		r->out.gone[r->out.n_gone++] = r->images[slot];
	} else {
		r->out.gone_all = true;
	}
	r->images[slot] = 0;
}

static void on_resource(void *userdata, uint32_t slot, const struct resource *res)
{
	struct renderer *r = userdata;

	if (res->id) {
		record_resource(&r->record, slot, res);
	} else {
		record_removed(&r->record, slot);
		forget_image(r, slot);
	}
}

static int on_backed(void *userdata, uint32_t slot, const struct backing_entry *entries, uint32_t n)
{
	struct renderer *r = userdata;

	return record_backed(&r->record, slot, entries, n);
}

static void on_unbacked(void *userdata, uint32_t slot)
{
	struct renderer *r = userdata;

	record_unbacked(&r->record, slot);
}

static void on_context(void *userdata, uint32_t slot, uint32_t id, const char *name)
{
	struct renderer *r = userdata;

	record_context(&r->record, slot, id, name);
	spend_context(&r->spend, slot, id, name);
}

static void on_resource_3d(void *userdata, uint32_t slot, uint32_t id)
{
	record_resource_3d(&((struct renderer *)userdata)->record, slot, id);
}

static void on_image_gone(void *userdata, uint32_t slot)
{
	forget_image(userdata, slot);
}

static void on_view(void *userdata, uint32_t scanout)
{
	struct renderer *r = userdata;
	const struct gpu_scanout *s = &r->gpu->scanouts[scanout];
	uint32_t id = s->slot == GPU_NO_SLOT ? 0 : r->gpu->resources[s->slot].id;

	record_scanout(&r->record, scanout, id, s);
}

static void on_scanout(void *userdata, uint32_t scanout)
{
	struct renderer *r = userdata;

	on_view(r, scanout);
	r->out.scanouts |= 1U << scanout;
}

static void on_damage(void *userdata, uint32_t scanout, const struct rect *rect)
{
	struct renderer *r = userdata;
	const struct journal_damage d = {.scanout = scanout,
		.x = rect->x,
		.y = rect->y,
		.width = rect->width,
		.height = rect->height};

	if (r->out.scanouts & 1U << scanout) {
		/* The front would take it for damage of what it shows now. */
		renderer_send(r);
		r->out.damaged |= r->out.scanouts & 1U << scanout;
	}
	if (journal_put_damage(r->journal, &d)) {
		r->bell_due = true;
	}
}

static void on_cursor(void *userdata, const struct gpu_cursor *cursor, const uint8_t *pixels)
{
	struct renderer *r = userdata;
	const struct journal_cursor c = {.resource_id = cursor->resource_id,
		.x = cursor->x,
		.y = cursor->y,
		.hot_x = cursor->hot_x,
		.hot_y = cursor->hot_y};

	if (journal_put_cursor(r->journal, cursor->scanout, &c, pixels)) {
		r->bell_due = true;
	}
}

static void on_pause(void *userdata)
{
	renderer_pause(userdata);
}

const struct gpu_listener renderer_listener = {
	.resource = on_resource,
	.backed = on_backed,
	.unbacked = on_unbacked,
	.context = on_context,
	.resource_3d = on_resource_3d,
	.image_gone = on_image_gone,
	.scanout = on_scanout,
	.view = on_view,
	.damage = on_damage,
	.cursor = on_cursor,
	.pause = on_pause,
};
