/* SPDX-License-Identifier: MIT
 *
 * When the control queue has to wait: for time on the GPU, and for the next frame. Nothing is taken
 * from its ring then, so that it can be stopped or reset at any time, and nothing of it is in the
 * journal. All else goes on: the cursor's queue, fences, the front's messages, the read-back of
 * what was flushed.
 *
 * A frame is a RESOURCE_FLUSH of what a scanout shows. It is found before it is taken, by a look at
 * the request; a guest that changes it in between gets its frame, and nothing at all until it has
 * made up for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "gpu/renderer-internal.h"

#define RINGS_PER_TURN 1024 /* more than a socket holds */

static int private_page(struct renderer *r)
{
	r->allowance = calloc(1, sizeof(*r->allowance));
	if (!r->allowance) {
		return -ENOMEM;
	}
	r->allowance->version = ALLOWANCE_VERSION;
	atomic_store(&r->allowance->granted_ns, ALLOWANCE_UNBOUNDED);
	return 0;
}

/* What it says stands on the page. The socket of a broker that rings often must not fill up. */
void renderer_hear_grant(struct renderer *r)
{
	uint64_t any;

	for (int i = 0; i < RINGS_PER_TURN; i++) {
		if (read(r->options->grant_fd, &any, sizeof(any)) <= 0) {
			break;
		}
	}
}

/* Edge-triggered: one whose broker is gone, or that is read in part, wakes nobody again and again.
 */
static int watch_grants(struct renderer *r)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_GRANT};
	int fd = r->options->grant_fd;
	int err = fd_set_nonblock(fd, true);

	if (err < 0) {
		return err;
	}
	return epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int renderer_open_allowance(struct renderer *r)
{
	const struct renderer_options *o = r->options;
	struct spend_clocks clocks;
	int err;

	if (o->allowance_fd < 0) {
		err = private_page(r);
	} else {
		err = allowance_map(o->allowance_fd, &r->allowance);
		if (err == 0) {
			err = watch_grants(r);
		}
		if (err == 0) {
			err = fd_set_nonblock(o->want_fd, true);
		}
	}
	if (err < 0) {
		log_error("vm %s: renderer: can't use the page of its allowance: %s", o->name,
			strerror(-err));
		return err;
	}
	spend_clocks_init(&clocks);
	spend_init(&r->spend, r->allowance, &clocks, o->drm_fd >= 0, virgl_cpus() + 1);
	return 0;
}

void renderer_close_allowance(struct renderer *r)
{
	if (r->options->allowance_fd < 0) {
		free(r->allowance);
	} else {
		allowance_unmap(r->allowance);
	}
}

/* limit: what it is without one (0) on the page, and what is never exceeded. */
static uint32_t limit32(const _Atomic uint32_t *on_page, uint32_t limit)
{
	uint32_t n = atomic_load_explicit(on_page, memory_order_relaxed);

	return n ? MIN(n, limit) : limit;
}

void renderer_heed_limits(struct renderer *r)
{
	const struct allowance_page *p = r->allowance;
	uint64_t bytes = atomic_load_explicit(&p->memory_max, memory_order_relaxed);

	gpu_set_limits(r->gpu, bytes ? MIN(bytes, r->options->bytes_max) : r->options->bytes_max,
		limit32(&p->contexts_max, GPU_CONTEXTS_MAX),
		limit32(&p->resources_max, UINT32_MAX));
	cadence_set(&r->cadence, atomic_load_explicit(&p->frames_per_sec, memory_order_relaxed));
	r->starved = r->crowded = false;
	r->frame_due = 0;
}

static bool has_time(struct renderer *r)
{
	const uint64_t one = 1;
	bool ring;

	if (spend_may(&r->spend) || !spend_wait(&r->spend, &ring)) {
		return true;
	}
	if (ring) {
		_unused_ ssize_t n = write(r->options->want_fd, &one, sizeof(one));
	}
	r->starved = true;
	return false;
}

/* Whether this head, which comes next, is no frame that comes too early. */
static bool in_time(struct renderer *r, uint16_t head)
{
	struct vring *ring = &r->queues[QUEUE_CONTROL].ring;
	uint64_t now = now_ns(), ns = cadence_debt(&r->cadence, now);

	if (ns == 0 && vring_read(ring, renderer_memory(r), head, &r->peeked) == 0) {
		ns = cadence_wait(&r->cadence, gpu_peek_frame(r->gpu, &r->peeked), now);
	}
	if (ns == 0) {
		return true;
	}
	if (!r->delayed || r->delayed_head != head) {
		r->delayed = true;
		r->delayed_head = head;
		atomic_fetch_add_explicit(&r->allowance->frames_delayed, 1, memory_order_relaxed);
	}
	r->frame_due = now + ns;
	return false;
}

static bool is_crowded(const struct renderer *r)
{
	return spend_crowded(&r->spend, gpu_fences_out(r->gpu));
}

bool renderer_may_take(struct renderer *r)
{
	struct queue *q = &r->queues[QUEUE_CONTROL];
	uint16_t head;

	if (r->cadence.period == 0 && spend_may(&r->spend) && !is_crowded(r)) {
		return true;
	}
	/* Who has no commands waits for nothing. */
	if (!q->enabled || vring_peek(&q->ring, &head) <= 0) {
		return true;
	}
	r->crowded = is_crowded(r);
	return has_time(r) && !r->crowded && (r->cadence.period == 0 || in_time(r, head));
}

void renderer_count_frame(struct renderer *r)
{
	if (r->gpu->flushed && r->cadence.period) {
		cadence_spend(&r->cadence, r->gpu->flushed, now_ns());
		r->delayed = false;
	}
	r->gpu->flushed = 0;
}

void renderer_settle_allowance(struct renderer *r)
{
	uint32_t waited_for;

	if (r->spend.by_work) {
		gpu_fence_tail(r->gpu);
	}
	waited_for = gpu_waited_for(r->gpu);
	spend_rest(&r->spend, waited_for == GPU_NO_3D ? SPEND_NOBODY : waited_for);
	if (!r->starved) {
		spend_go_on(&r->spend);
	}
}
