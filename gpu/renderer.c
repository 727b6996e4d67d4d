/* SPDX-License-Identifier: MIT
 *
 * The renderer's start and its loop. A bare epoll set of three instead of sd-event: a command that
 * comes alone costs 6.5 microseconds of CPU so, two system calls with it, and 8.0 with the same
 * three in sd-event (medians of five runs of each in turn). Kicks are edge-triggered, so that they
 * needn't be read; the link is not.
 */
#include "gpu/renderer.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "gpu/renderer-internal.h"

/* How often fences are looked at where nothing tells of them. */
#define FENCE_CLOCK_MS 1
#define NS_PER_MS      UINT64_C(1000000)

static enum sandbox_kind kind_of(const struct renderer_options *o)
{
	return o->virgl ? SANDBOX_GPU_VIRGL : SANDBOX_GPU_RENDERER;
}

/* While there is a /proc. */
static int open_meter(struct renderer *r)
{
	r->statm = r->options->virgl ? drift_open() : -1;
	if (r->options->virgl && r->statm < 0) {
		log_error("vm %s: renderer: can't measure its memory: %s", r->options->name,
			strerror(-r->statm));
		return r->statm;
	}
	drift_meter_init(&r->meter, r->statm);
	return 0;
}

static int enter_sandbox(const struct renderer *r)
{
	const struct renderer_options *o = r->options;
	const int fds[] = {
		o->link_fd, o->drm_fd, o->allowance_fd, o->grant_fd, o->want_fd, r->statm};
	int keep[ARRAY_SIZE(fds)];
	size_t n = 0;
	char name[96];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (fds[i] >= 0) {
			keep[n++] = fds[i];
		}
	}

	if (o->virgl && o->stages & SANDBOX_FDS && virgl_bound_memory(o->bytes_max) < 0) {
		log_error("vm %s: can't bound the memory of its renderer", o->name);
		return -EPERM;
	}
	snprintf(name, sizeof(name), "vm %s", o->name);
	return sandbox_enter(name, kind_of(o), o->stages, keep, n);
}

static int watch_link(struct renderer *r, int operation)
{
	struct epoll_event e = {
		.events = EPOLLIN | (r->link_blocked ? EPOLLOUT : 0), .data.u32 = EVENT_LINK};

	return epoll_ctl(r->epoll, operation, r->link, &e) < 0 ? -errno : 0;
}

/* Level-triggered: poll() takes what it tells of. */
static int watch_fences(struct renderer *r)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = EVENT_FENCES};
	int fd = r->virgl->poll_fd();

	r->fences_by_clock = fd < 0;
	return fd >= 0 && epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static int start_virgl(struct renderer *r)
{
	const struct virgl_options options = {.drm_fd = r->options->drm_fd,
		.fence = renderer_fence,
		.context_fence = renderer_context_fence,
		.userdata = r};
	char name[VIRGL_RENDERER_NAME_SIZE];
	int err = virgl_renderer.init(&options, name);

	if (err < 0) {
		log_error(
			"vm %s: renderer: can't draw in 3D: %s", r->options->name, strerror(-err));
		return err;
	}
	log_info("vm %s: drawn in 3D by %s", r->options->name, name);
	log_escape(name, strnlen(name, sizeof(name)), r->drawn_by, sizeof(r->drawn_by));
	r->virgl = &virgl_renderer;
	return watch_fences(r);
}

/* All that needs a call that the lock forbids. */
static int set_up(struct renderer *r)
{
	int err;

	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll < 0) {
		return -errno;
	}
	err = fd_set_nonblock(r->link, true);
	if (err < 0) {
		return err;
	}
	err = watch_link(r, EPOLL_CTL_ADD);
	if (err == 0) {
		err = renderer_open_allowance(r);
	}
	if (err == 0 && r->options->virgl) {
		err = start_virgl(r);
	}
	if (err < 0) {
		return err;
	}
	signal(SIGPIPE, SIG_IGN);
	/* Who started us may have stopped us when it ends: nobody else would let us go on. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) {
		return -errno;
	}
	return sandbox_lock(kind_of(r->options), r->options->stages);
}

static int say_ready(struct renderer *r)
{
	union link_msg m;

	link_init(&m, LINK_READY);
	m.ready.version = LINK_VERSION;
	m.ready.sandbox_stages = r->options->stages;
	memcpy(m.ready.renderer, r->drawn_by, sizeof(m.ready.renderer));
	return link_send(r->link, &m, NULL, 0);
}

static void handle_link(struct renderer *r, uint32_t events)
{
	if (events & EPOLLOUT) {
		r->link_blocked = false;
		_unused_ int err = watch_link(r, EPOLL_CTL_MOD);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		renderer_receive(r);
	}
}

/* Fences are out, and nothing will tell of them. */
static bool fences_by_clock(const struct renderer *r)
{
	return r->fences_by_clock && r->gpu && gpu_fences_out(r->gpu) > 0;
}

/* How long there is nothing to do unless something happens: ms, -1 for good. */
static int patience(const struct renderer *r)
{
	uint64_t end = UINT64_MAX, now;
	uint32_t slot;

	if (r->busy || !r->gpu) {
		return r->busy ? 0 : -1;
	}
	if (fences_by_clock(r)) {
		return FENCE_CLOCK_MS;
	}
	if (gpu_fences_out(r->gpu) > 0) {
		end = gpu_oldest_fence(r->gpu, &slot) + r->options->hang_ms * NS_PER_MS;
	}
	if (r->frame_due) {
		end = MIN(end, r->frame_due);
	}
	if (end == UINT64_MAX) {
		return -1;
	}
	now = now_ns();
	return end <= now ? 0 : (int)MIN((end - now) / NS_PER_MS + 1, (uint64_t)INT_MAX);
}

/* The oldest fence is too old. What it is of stays in the journal, where the front finds it. */
static bool hangs(struct renderer *r)
{
	uint32_t slot;

	if (!r->gpu || gpu_fences_out(r->gpu) == 0 ||
		now_ns() - gpu_oldest_fence(r->gpu, &slot) < r->options->hang_ms * NS_PER_MS) {
		return false;
	}
	__atomic_store_n(&r->journal->drawing, 1 + slot, __ATOMIC_RELEASE);
	return true;
}

static int loop(struct renderer *r)
{
	while (!r->link_lost) {
		struct epoll_event events[LINK_QUEUES + 3];
		bool fences = false;
		int n = epoll_wait(r->epoll, events, ARRAY_SIZE(events), patience(r));

		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		/* A kick says nothing but that the rings are to be looked at. */
		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == EVENT_LINK) {
				handle_link(r, events[i].events);
			} else if (events[i].data.u32 == EVENT_GRANT) {
				renderer_hear_grant(r);
			}
			fences = fences || events[i].data.u32 == EVENT_FENCES;
		}
		if (r->journal) {
			journal_beat(r->journal);
		}
		if (r->virgl && (fences || fences_by_clock(r))) {
			renderer_take_fences(r);
		}
		/* Whatever else happened: a guest that kicks without end must not keep it alive. */
		if (hangs(r)) {
			_exit(RENDERER_EXIT_HUNG);
		}
		r->busy = renderer_run_rings(r);
		renderer_send(r);
		renderer_ring_bell(r);
	}
	return 0;
}

/* A renderer ends with its process; this is for the leak checkers, and for the assertions in what
 * is destroyed. */
static void tear_down(struct renderer *r)
{
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		queue_finish(&r->queues[i]);
	}
	gpu_destroy(r->gpu);
	if (r->virgl) {
		r->virgl->finish();
	}
	_unused_ int err = memory_guard(NULL);
	memory_finish(&r->memories[0]);
	memory_finish(&r->memories[1]);
	journal_unmap(r->journal);
	renderer_close_allowance(r);
	safe_close(r->statm);
	safe_close(r->bell);
	safe_close(r->epoll);
	safe_close(r->link);
	free(r);
}

int renderer_run(const struct renderer_options *o)
{
	struct renderer *r = calloc(1, sizeof(*r));
	bool failed;
	int err;

	if (!r) {
		return RENDERER_EXIT_FAILED;
	}
	r->options = o;
	if (open_meter(r) < 0 || enter_sandbox(r) < 0) {
		free(r);
		return RENDERER_EXIT_FAILED;
	}
	r->link = o->link_fd;
	r->bell = r->epoll = -1;
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		queue_init(&r->queues[i], i, &r->record);
	}
	err = set_up(r);
	if (err == 0) {
		err = say_ready(r);
	}
	if (err == 0) {
		err = loop(r);
	}
	failed = r->failed;
	tear_down(r);
	if (err < 0) {
		log_error("vm %s: renderer: %s", o->name, strerror(-err));
		return RENDERER_EXIT_FAILED;
	}
	return failed ? RENDERER_EXIT_LINK_BAD : 0;
}
