/* SPDX-License-Identifier: MIT
 *
 * Messages to the front: what the outbox has, as far as the link takes it.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/checked.h"
#include "base/clock.h"
#include "gpu/renderer-internal.h"

static const uint32_t done_types[] = {
	[DONE_SETUP] = LINK_SETUP,
	[DONE_MEMORY] = LINK_MEMORY,
	[DONE_RESET] = LINK_RESET,
};

/* Whether the link took it. */
static bool post(struct renderer *r, const union link_msg *m, const int *fds, size_t n_fds)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.u32 = EVENT_LINK};
	int err = link_send(r->link, m, fds, n_fds);

	if (err == 0) {
		return true;
	}
	if (err == -EAGAIN) {
		r->link_blocked = true;
		epoll_ctl(r->epoll, EPOLL_CTL_MOD, r->link, &e);
	} else {
		/* The front is gone: reading finds that too. */
		r->link_lost = true;
	}
	return false;
}

static bool post_done(struct renderer *r, size_t what)
{
	union link_msg m;

	link_init(&m, LINK_DONE);
	m.done.type = done_types[what];
	m.done.error = r->out.done_error[what];
	m.done.generation = what == DONE_MEMORY ? r->out.done_generation : 0;
	return post(r, &m, NULL, 0);
}

static bool post_broken(struct renderer *r, uint32_t queue)
{
	union link_msg m;

	link_init(&m, LINK_BROKEN);
	m.broken.queue = queue;
	strncpy(m.broken.reason, r->out.broken[queue], sizeof(m.broken.reason) - 1);
	return post(r, &m, NULL, 0);
}

static bool post_stopped(struct renderer *r, uint32_t queue)
{
	union link_msg m;

	link_init(&m, LINK_STOPPED);
	m.stopped.queue = queue;
	m.stopped.next_avail = r->out.stopped_at[queue];
	return post(r, &m, NULL, 0);
}

static bool post_scanout(struct renderer *r, uint32_t scanout)
{
	const struct gpu_scanout *s = &r->gpu->scanouts[scanout];
	const struct resource *res;
	const struct dmabuf *dmabuf;
	int fds[2];
	size_t n = 0;
	uint32_t image;
	union link_msg m;

	link_init(&m, LINK_SCANOUT);
	m.scanout.scanout = scanout;
	if (s->slot == GPU_NO_SLOT) {
		return post(r, &m, NULL, 0);
	}
	res = &r->gpu->resources[s->slot];
	dmabuf = gpu_dmabuf_of(r->gpu, s->slot);
	image = r->images[s->slot] ? r->images[s->slot] : r->last_image + 1;
	m.scanout.image = image;
	m.scanout.width = res->width;
	m.scanout.height = res->height;
	m.scanout.x = s->rect.x;
	m.scanout.y = s->rect.y;
	m.scanout.scanout_width = s->rect.width;
	m.scanout.scanout_height = s->rect.height;
	m.scanout.damaged = (r->out.damaged & 1U << scanout) != 0;
	if (!r->images[s->slot]) {
		m.scanout.fds |= LINK_HAS_IMAGE;
		fds[n++] = res->image_fd;
	}
	m.scanout.from_dmabuf = dmabuf != NULL;
	if (dmabuf && r->dmabufs[s->slot] != image) {
		m.scanout.fds |= LINK_HAS_DMABUF;
		m.scanout.fourcc = dmabuf->fourcc;
		m.scanout.stride = dmabuf->stride;
		m.scanout.flags = dmabuf->flags;
		m.scanout.modifier = dmabuf->modifier;
		fds[n++] = dmabuf->fd;
	}
	if (!post(r, &m, fds, n)) {
		return false;
	}
	r->images[s->slot] = image;
	r->last_image = MAX(r->last_image, image);
	r->dmabufs[s->slot] = dmabuf ? image : r->dmabufs[s->slot];
	return true;
}

static bool post_read(struct renderer *r, uint32_t scanout)
{
	uint32_t slot = scanout < r->gpu->n_scanouts ? r->gpu->scanouts[scanout].slot : GPU_NO_SLOT;
	union link_msg m;

	link_init(&m, LINK_READ_DONE);
	m.read_back.scanout = scanout;
	m.read_back.image = slot == GPU_NO_SLOT ? 0 : r->images[slot];
	m.read_back.seq = r->out.read_seq[scanout];
	return post(r, &m, NULL, 0);
}

static bool post_gone(struct renderer *r, uint32_t image)
{
	union link_msg m;

	link_init(&m, LINK_IMAGE_GONE);
	m.image_gone.image = image;
	return post(r, &m, NULL, 0);
}

/* All images but those that are shown: the front has none of the others any more. */
static bool post_gone_all(struct renderer *r)
{
	uint32_t shown[GPU_SCANOUTS_MAX] = {0};

	if (!post_gone(r, 0)) {
		return false;
	}
	for (uint32_t i = 0; i < r->gpu->n_scanouts; i++) {
		uint32_t slot = r->gpu->scanouts[i].slot;

		shown[i] = slot == GPU_NO_SLOT ? 0 : r->images[slot];
	}
	memset(r->images, 0, sizeof(r->images));
	for (uint32_t i = 0; i < r->gpu->n_scanouts; i++) {
		if (shown[i]) {
			r->images[r->gpu->scanouts[i].slot] = shown[i];
		}
	}
	r->out.n_gone = 0;
	r->out.gone_all = false;
	return true;
}

static bool post_pong(struct renderer *r)
{
	union link_msg m;

	link_init(&m, LINK_PONG);
	m.pong.seq = r->out.pong_seq;
	m.pong.bytes_max = r->gpu ? r->gpu->budget.limit : r->options->bytes_max;
	m.pong.commands = r->counters.commands;
	m.pong.cursor_commands = r->counters.cursor_commands;
	/* One that waits has something to do, and is to be looked after. */
	m.pong.busy = r->busy || renderer_is_held(r);
	m.pong.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	if (r->gpu && r->gpu->three) {
		m.pong.contexts = r->gpu->three->n_contexts;
		m.pong.fences = gpu_fences_out(r->gpu);
		m.pong.poisoned = r->gpu->three->poisoned;
	}
	if (r->gpu) {
		m.pong.errors = r->gpu->errors;
		m.pong.refused = r->gpu->refused;
		drift_look(&r->gpu->drift);
		m.pong.bytes = r->gpu->budget.used;
		m.pong.uncharged = r->gpu->budget.uncharged;
		m.pong.resources = gpu_count_resources(r->gpu);
	}
	return post(r, &m, NULL, 0);
}

static bool post_modes_wanted(struct renderer *r)
{
	union link_msg m;

	link_init(&m, LINK_MODES_WANTED);
	return post(r, &m, NULL, 0);
}

static void send_answers(struct renderer *r)
{
	struct outbox *o = &r->out;

	for (size_t i = 0; i < ARRAY_SIZE(o->done); i++) {
		o->done[i] = o->done[i] && !post_done(r, i);
	}
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		if (o->broken[i] && post_broken(r, i)) {
			o->broken[i] = NULL;
		}
		o->stopped[i] = o->stopped[i] && !post_stopped(r, i);
	}
	o->modes_wanted = o->modes_wanted && !post_modes_wanted(r);
}

static void send_images(struct renderer *r)
{
	struct outbox *o = &r->out;

	/* First those that are gone: the front has no room for many DMABUFs. */
	while (o->n_gone > 0 && !o->gone_all && !r->link_blocked && !r->link_lost) {
		if (post_gone(r, o->gone[o->n_gone - 1])) {
			o->n_gone--;
		}
	}
	while (o->scanouts && !r->link_blocked && !r->link_lost) {
		uint32_t i = (uint32_t)__builtin_ctz(o->scanouts);

		if (post_scanout(r, i)) {
			o->scanouts &= ~(1U << i);
			o->damaged &= ~(1U << i);
		}
	}
	if (o->gone_all && !o->scanouts) {
		_unused_ bool sent = post_gone_all(r);
	}
	while (o->read && !o->scanouts && !r->link_blocked && !r->link_lost) {
		uint32_t i = (uint32_t)__builtin_ctz(o->read);

		if (post_read(r, i)) {
			o->read &= ~(1U << i);
		}
	}
}

void renderer_send(struct renderer *r)
{
	if (!r->link_blocked && !r->link_lost) {
		send_answers(r);
	}
	if (!r->link_blocked && !r->link_lost) {
		send_images(r);
	}
	/* Last: what it counts has been told. */
	if (!r->link_blocked && !r->link_lost) {
		r->out.pong = r->out.pong && !post_pong(r);
	}
}
