/* SPDX-License-Identifier: MIT
 *
 * Messages of the front. It is trusted to mean well, so a message that can't be ends the renderer,
 * and another takes its place; but what it passes on from the VMM, memory, addresses and fds, is
 * not trusted at all.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "gpu/renderer-internal.h"

#define MESSAGES_A_TURN 64

struct memory *renderer_memory(struct renderer *r)
{
	return &r->memories[r->memory];
}

static void fail(struct renderer *r, const char *what)
{
	log_error("vm %s: renderer ends: %s", r->options->name, what);
	r->link_lost = true;
	r->failed = true;
}

static void say_done(struct renderer *r, int what, int error)
{
	r->out.done[what] = true;
	r->out.done_error[what] = error;
}

static int setup(struct renderer *r, const struct link_setup *m, int fds[])
{
	const struct gpu_options options = {
		.meter = r->virgl ? &r->meter : NULL,
		.memory = renderer_memory(r),
		.listener = &renderer_listener,
		.userdata = r,
		.spend = &r->spend,
		.bytes_max = r->options->bytes_max,
		.n_scanouts = m->n_scanouts,
		.virgl = r->virgl,
		.name = r->options->name,
	};
	int err = journal_map(fds[0], &r->journal);

	if (err < 0) {
		return err;
	}
	err = gpu_create(&options, &r->gpu);
	if (err < 0) {
		return err;
	}
	memcpy(r->gpu->uuid_seed, m->uuid_seed, sizeof(m->uuid_seed));
	r->bell = steal_fd(&fds[1]);
	r->gpu->drawing = &r->journal->drawing;
	if (r->gpu->three) {
		r->gpu->three->barred = m->flags & LINK_SETUP_NO_3D;
		r->gpu->three->dmabufs = (enum gpu_dmabufs)m->dmabufs;
	}
	r->recover = m->flags & LINK_SETUP_RECOVER;
	if (!r->recover) {
		record_init(&r->record, r->journal);
	}
	return fd_set_nonblock(r->bell, true);
}

static void handle_setup(struct renderer *r, const union link_msg *m, int fds[])
{
	int err;

	if (r->gpu) {
		fail(r, "a second SETUP");
		return;
	}
	err = setup(r, &m->setup, fds);
	if (err < 0) {
		fail(r, strerror(-err));
		return;
	}
	say_done(r, DONE_SETUP, 0);
}

static bool attach_again(struct renderer *r, uint32_t slot)
{
	struct resource *res = &r->gpu->resources[slot];
	uint32_t n;
	const struct backing_entry *entries = record_entries(&r->record, slot, &n);

	resource_detach(res, &r->gpu->budget);
	if (resource_attach(res, &r->gpu->budget, r->gpu->memory, entries, n) < 0) {
		record_drop_backing(&r->record, slot);
		return false;
	}
	return true;
}

/* Backings are kept as the guest's addresses in the journal, and found again in the new table. */
static void find_backings(struct renderer *r, const struct memory *old)
{
	uint32_t lost = gpu_rebase_3d(r->gpu, old, r->gpu->memory);

	for (uint32_t slot = 0; slot < GPU_RESOURCES_MAX; slot++) {
		if (r->gpu->resources[slot].backed) {
			lost += !attach_again(r, slot);
		}
	}
	if (lost > 0) {
		log_warn("vm %s: the backing of %u resources is no longer in memory",
			r->options->name, lost);
	}
}

static void show_everything(struct renderer *r)
{
	for (uint32_t i = 0; i < r->gpu->n_scanouts; i++) {
		if (r->gpu->scanouts[i].slot != GPU_NO_SLOT) {
			r->out.scanouts |= 1U << i;
		}
	}
}

/* The new table takes the place of the old one. */
static void commit_memory(struct renderer *r)
{
	struct memory *old = renderer_memory(r), *now;
	int err = r->regions_error;

	say_done(r, DONE_MEMORY, err);
	r->out.done_generation = r->generation;
	if (err < 0) {
		memory_finish(&r->memories[!r->memory]);
		return;
	}
	r->memory = !r->memory;
	now = renderer_memory(r);
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		if (r->queues[i].started) {
			_unused_ int broken = vring_attach(&r->queues[i].ring, now);
		}
	}
	r->gpu->memory = now;
	find_backings(r, old);
	err = memory_guard(now);
	memory_finish(old);
	if (err < 0) {
		fail(r, strerror(-err));
	} else if (r->recover) {
		r->recover = false;
		if (record_recover(&r->record, r->journal, r->gpu)) {
			show_everything(r);
		} else {
			log_error("vm %s: the journal of its last renderer is nonsense; starting "
				  "with nothing",
				r->options->name);
		}
	}
}

static void handle_memory(struct renderer *r, const union link_msg *m, int fds[])
{
	if (r->regions_left > 0) {
		fail(r, "a memory table within another");
		return;
	}
	memory_init(&r->memories[!r->memory]);
	r->regions_left = m->memory.n_regions;
	r->regions_error = 0;
	r->generation = m->memory.generation;
	if (r->regions_left == 0) {
		commit_memory(r);
	}
}

static void handle_region(struct renderer *r, const union link_msg *m, int fds[])
{
	const struct memory_region region = {.guest = m->region.guest,
		.user = m->region.user,
		.size = m->region.size,
		.offset = m->region.offset};

	if (r->regions_left == 0) {
		fail(r, "a region of no memory table");
		return;
	}
	if (r->regions_error == 0) {
		r->regions_error = memory_add(&r->memories[!r->memory], &region, fds[0]);
	}
	if (--r->regions_left == 0) {
		commit_memory(r);
	}
}

/* The eventfds are the VMM's: one that is full must not block. */
static int take_fd(int *fd)
{
	if (*fd >= 0 && fd_set_nonblock(*fd, true) < 0) {
		*fd = safe_close(*fd);
	}
	return steal_fd(fd);
}

int renderer_watch_kick(struct renderer *r, uint32_t queue)
{
	/* Edge-triggered, so that it needn't be read: each kick is an edge. */
	struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = queue};
	int kick = r->queues[queue].kick;

	if (kick < 0) {
		return 0;
	}
	return epoll_ctl(r->epoll, EPOLL_CTL_ADD, kick, &e) < 0 ? -errno : 0;
}

/* Others have the same file open, so closing it would leave it in the set. */
static void unwatch_kick(struct renderer *r, uint32_t queue)
{
	if (r->queues[queue].kick >= 0) {
		epoll_ctl(r->epoll, EPOLL_CTL_DEL, r->queues[queue].kick, NULL);
	}
}

static void handle_start(struct renderer *r, const union link_msg *m, int fds[])
{
	const struct link_start *s = &m->start;
	struct queue *q = &r->queues[s->queue];
	const struct vring_setup ring = {
		.size = s->size,
		.desc = s->desc,
		.avail = s->avail,
		.used = s->used,
		.next_avail = (uint16_t)s->next_avail,
		.event_idx = s->features & 1ULL << VRING_FEATURE_EVENT_IDX,
		.indirect = s->features & 1ULL << VRING_FEATURE_INDIRECT,
	};
	struct queue_fds q_fds = {-1, -1, -1};
	uint16_t head;
	int n = 0;

	if (r->recover) {
		fail(r, "START before MEMORY");
		return;
	}
	q_fds.kick = s->fds & LINK_HAS_KICK ? take_fd(&fds[n++]) : -1;
	q_fds.call = s->fds & LINK_HAS_CALL ? take_fd(&fds[n++]) : -1;
	q_fds.err = s->fds & LINK_HAS_ERR ? take_fd(&fds[n++]) : -1;
	unwatch_kick(r, s->queue);
	if (s->queue == QUEUE_CONTROL) {
		gpu_fences_forget(r->gpu);
		gpu_account_fences(r->gpu);
		gpu_negotiated(r->gpu, s->features);
	}
	r->out.broken[s->queue] = NULL;
	queue_start(q, renderer_memory(r), &ring, s->run, &q_fds);
	q->enabled = s->enabled;
	if (renderer_watch_kick(r, s->queue) < 0) {
		_unused_ int err = vring_break(&q->ring, "its kick is no eventfd");
	}
	renderer_resume(r, s->queue, 0);
	if (queue_resume(q, UINT64_MAX, &head)) {
		r->modes_waited = true;
	}
}

static void handle_call(struct renderer *r, const union link_msg *m, int fds[])
{
	struct queue *q = &r->queues[m->queue.queue];

	safe_close(q->call);
	q->call = take_fd(&fds[0]);
}

static void handle_err(struct renderer *r, const union link_msg *m, int fds[])
{
	struct queue *q = &r->queues[m->queue.queue];

	safe_close(q->err);
	q->err = take_fd(&fds[0]);
}

static void handle_enable(struct renderer *r, const union link_msg *m, int fds[])
{
	r->queues[m->enable.queue].enabled = m->enable.enabled;
}

static void answer_waiting(struct renderer *r, uint64_t up_to)
{
	r->gpu->modes_known = true;
	renderer_resume(r, QUEUE_CONTROL, up_to);
	r->gpu->modes_known = false;
}

static void handle_stop(struct renderer *r, const union link_msg *m, int fds[])
{
	uint32_t queue = m->queue.queue;

	/* What waits for modes gets the last ones known: nothing may stay in flight. */
	answer_waiting(r, UINT64_MAX);
	if (queue == QUEUE_CONTROL) {
		renderer_drain_fences(r);
		queue_publish(&r->queues[queue]);
	}
	unwatch_kick(r, queue);
	r->out.stopped_at[queue] = queue_stop(&r->queues[queue]);
	r->out.stopped[queue] = true;
}

static void handle_modes(struct renderer *r, const union link_msg *m, int fds[])
{
	uint64_t up_to = r->modes_asked;

	for (uint32_t i = 0; i < r->gpu->n_scanouts; i++) {
		const struct link_mode *mode = &m->modes.modes[i];

		r->gpu->modes[i] = (struct gpu_mode){mode->width, mode->height, mode->x, mode->y};
	}
	r->modes_asked = 0;
	answer_waiting(r, up_to);
	renderer_ask_modes(r);
}

static void hide_cursors(struct renderer *r)
{
	for (uint32_t i = 0; i < r->gpu->n_scanouts; i++) {
		const struct gpu_cursor hidden = {.scanout = i};

		if (r->gpu->cursors[i].resource_id) {
			renderer_listener.cursor(r, &hidden, NULL);
		}
	}
}

static void handle_reset(struct renderer *r, const union link_msg *m, int fds[])
{
	hide_cursors(r);
	gpu_reset(r->gpu);
	gpu_account_fences(r->gpu);
	spend_forget_contexts(&r->spend);
	record_reset(&r->record);
	memset(r->images, 0, sizeof(r->images));
	r->out.scanouts = r->out.damaged = 0;
	r->out.n_gone = 0;
	r->out.gone_all = true;
	say_done(r, DONE_RESET, 0);
}

static void handle_allow(struct renderer *r, const union link_msg *m, int fds[])
{
	if (r->gpu->three) {
		r->gpu->three->barred = !m->allow.allowed;
	}
}

static_assert((int)GPU_DMABUFS_NONE == (int)LINK_DMABUFS_NONE &&
		      (int)GPU_DMABUFS_PLAIN == (int)LINK_DMABUFS_PLAIN &&
		      (int)GPU_DMABUFS_ALL == (int)LINK_DMABUFS_ALL,
	"the same here and there");

static void handle_dmabufs(struct renderer *r, const union link_msg *m, int fds[])
{
	gpu_set_dmabufs(r->gpu, (enum gpu_dmabufs)m->dmabufs.which);
}

static void handle_read_back(struct renderer *r, const union link_msg *m, int fds[])
{
	uint32_t scanout = m->read_back.scanout;

	if (scanout < r->gpu->n_scanouts) {
		gpu_settle(r->gpu);
		gpu_read_scanout(r->gpu, scanout);
	}
	r->out.read |= 1U << scanout;
	r->out.read_seq[scanout] = m->read_back.seq;
}

static void handle_ping(struct renderer *r, const union link_msg *m, int fds[])
{
	r->out.pong = true;
	r->out.pong_seq = m->ping.seq;
}

static void (*const handlers[])(struct renderer *r, const union link_msg *m, int fds[]) = {
	[LINK_SETUP] = handle_setup,
	[LINK_MEMORY] = handle_memory,
	[LINK_REGION] = handle_region,
	[LINK_START] = handle_start,
	[LINK_CALL] = handle_call,
	[LINK_ERR] = handle_err,
	[LINK_ENABLE] = handle_enable,
	[LINK_STOP] = handle_stop,
	[LINK_MODES] = handle_modes,
	[LINK_RESET] = handle_reset,
	[LINK_PING] = handle_ping,
	[LINK_ALLOW] = handle_allow,
	[LINK_DMABUFS] = handle_dmabufs,
	[LINK_READ_BACK] = handle_read_back,
};

void renderer_receive(struct renderer *r)
{
	for (int i = 0; i < MESSAGES_A_TURN && !r->link_lost; i++) {
		int fds[LINK_FDS_MAX];
		union link_msg m;
		int n = link_receive(r->link, LINK_TO_RENDERER, &m, fds);

		if (n == -EAGAIN) {
			return;
		}
		if (n == 0) {
			r->link_lost = true;
		} else if (n < 0) {
			fail(r, "bad message on the link");
		} else if (m.header.type != LINK_SETUP && !r->gpu) {
			fail(r, "no SETUP first");
		} else {
			handlers[m.header.type](r, &m, fds);
		}
		for (size_t f = 0; f < LINK_FDS_MAX; f++) {
			safe_close(fds[f]);
		}
	}
}
