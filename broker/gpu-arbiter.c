/* SPDX-License-Identifier: MIT
 *
 * A pool is what is shared: the CPUs that draw in software, or one render node. It is there while
 * renderers draw on it. Its ticks run while somebody in it draws and somebody in it has a
 * guarantee; they begin with a renderer's bell (it has commands and no time), with a look at it
 * that finds it drawing (twice a second: it may be one that does not ring), or with a change.
 *
 * In software the kernel tells what a renderer used. On a render node it does as well where the
 * driver counts engine time (broker/gpu-fdinfo.h); else the renderer's page does: its own word,
 * with which it can take more than its share, but no guarantee from others, for what comes to them
 * does not depend on what it says. Nobody is stopped there: the GPU would draw on without it.
 *
 * A renderer is stopped by a signal. Nothing else is asked of one that is stopped; killing it works
 * all the same, and the pidfd tells of its end only.
 */
#include "broker/gpu-arbiter.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/gpu-internal.h"
#include "broker/gpu-measure.h"
#include "broker/vm.h"
#include "protocol/allowance.h"

#define NS_PER_USEC 1000
#define TIMER_SLACK 500               /* µs */
#define WAKE_NS     UINT64_C(5000000) /* between ticks that somebody wakes */
#define UNSEEN_NS   UINT64_C(5000000) /* used since the last tick: it draws */
/* A renderer's start, unless its guest has made the last one hang: so much of CPU time is free, if
 * its front takes that long to say that it has started. */
#define START_NS        INT64_C(1000000000)
#define START_WITHIN_NS UINT64_C(3000000000)

struct gpu_pool {
	struct list link; // broker::gpu_pools
	struct broker *broker;
	char name[GPU_POOL_NAME_SIZE]; /* "": software */
	struct arbiter arbiter;
	sd_event_source *timer;
	uint64_t due_ns; /* 0: it rests */
};

static struct gpu *gpu_of(struct arbiter_member *m)
{
	return list_entry(list_entry(m, struct gpu_part, member), struct gpu, part);
}

static const char *shown_name(const char *pool)
{
	return pool[0] ? pool : "drawing in software";
}

int gpu_arbiter_check(struct broker *b, const struct gpu *without, const char *pool,
	const struct gpu_limits *l, struct refusal_text *text)
{
	uint32_t sum = l->share == GPU_SHARE_BEST_EFFORT ? 0 : l->percent;
	const struct vm *vm;

	list_for_each (vm, &b->vms, link) {
		if (vm->gpu && vm->gpu != without && strcmp(vm->gpu->pool, pool) == 0 &&
			vm->gpu_limits.share != GPU_SHARE_BEST_EFFORT) {
			sum += vm->gpu_limits.percent;
		}
	}
	if (l->share == GPU_SHARE_BEST_EFFORT || sum <= 100) {
		return 0;
	}
	return refuse_with(text, REFUSAL_QUOTA,
		"See what is given away: devbroker quota show. Give others less first.",
		"%u %% of %s would be %u %% with what other VMs are guaranteed", l->percent,
		shown_name(pool), sum);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata);

static int pool_get(struct broker *b, const char *name, struct gpu_pool **out)
{
	struct gpu_pool *p;
	uint32_t capacity = 1;
	int r;

	list_for_each (p, &b->gpu_pools, link) {
		if (strcmp(p->name, name) == 0) {
			*out = p;
			return 0;
		}
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		return -ENOMEM;
	}
	if (!name[0]) {
		capacity = b->config.software_cpus ? b->config.software_cpus : gpu_measure_cpus();
	}
	p->broker = b;
	snprintf(p->name, sizeof(p->name), "%s", name);
	arbiter_init(&p->arbiter, capacity, now_ns());
	r = sd_event_add_time(
		b->event, &p->timer, CLOCK_MONOTONIC, UINT64_MAX, TIMER_SLACK, on_tick, p);
	if (r >= 0) {
		r = sd_event_source_set_enabled(p->timer, SD_EVENT_OFF);
	}
	if (r < 0) {
		sd_event_source_disable_unref(p->timer);
		free(p);
		return r;
	}
	list_init(&p->link);
	list_append(&b->gpu_pools, &p->link);
	*out = p;
	return 0;
}

static void pool_put(struct gpu_pool *p)
{
	if (list_empty(&p->arbiter.members)) {
		list_remove(&p->link);
		sd_event_source_disable_unref(p->timer);
		free(p);
	}
}

static void tick_at(struct gpu_pool *p, uint64_t ns)
{
	p->due_ns = ns;
	sd_event_source_set_time(p->timer, ns / NS_PER_USEC);
	sd_event_source_set_enabled(p->timer, SD_EVENT_ONESHOT);
}

/* last: it is not asked again. */
static void measure_node(struct gpu *g, bool last)
{
	struct gpu_part *part = &g->part;
	struct gpu_clock *clock = &part->clock;
	enum gpu_time_source before = clock->from;
	struct drm_usage usage = {0};
	int r = gpu_fdinfo_read(&g->fdinfo, last, &usage);

	/* -EBADF: it is not open, or not any more. */
	if (r != -EAGAIN && r != -EBADF) {
		gpu_clock_kernel(clock, usage.counts_time, usage.engine_ns);
		part->device_memory = usage.memory;
	}
	if (g->allowance.page) {
		gpu_clock_page(clock, atomic_load(&g->allowance.page->used_ns));
	}
	part->member.used_ns = clock->used_ns;
	if (clock->from != before && before != GPU_TIME_NOBODY) {
		log_info("%s: its time is counted by %s", g->name,
			clock->from == GPU_TIME_KERNEL ? "the kernel" : "its renderer");
	}
}

/* What can't be measured has not changed. */
static void measure(struct gpu *g)
{
	struct gpu_part *part = &g->part;
	struct arbiter_member *m = &part->member;
	pid_t pid = process_pid(g->renderer);
	uint64_t ns;

	if (part->pool->name[0]) {
		measure_node(g, false);
		return;
	}
	if (pid > 0 && gpu_measure_cpu(pid, &ns) == 0) {
		m->used_ns = part->before_ns + ns;
	}
	if (pid > 0 && m->ask && gpu_measure_delay(pid, &ns) == 0) {
		m->delayed_ns = ns;
	}
}

static void set_stopped(struct gpu *g, bool stopped)
{
	if (g->part.signalled != stopped) {
		g->part.signalled = stopped;
		process_signal(g->renderer, stopped ? SIGSTOP : SIGCONT);
	}
}

/* What the arbiter has said, to whom it concerns. */
static void hand_on(struct gpu *g)
{
	const struct arbiter_member *m = &g->part.member;
	struct allowance_page *page = g->allowance.page;

	if (page) {
		atomic_store(&page->granted_ns,
			g->part.pool->name[0] ? gpu_clock_grant(&g->part.clock, m->granted_ns)
					      : m->granted_ns);
	}
	set_stopped(g, m->stopped);
	/* Its own word: it costs us a message, and may wake it for nothing. */
	if (page && m->granted_ns > m->used_ns && atomic_load(&page->waits)) {
		gpu_allowance_ring(&g->allowance);
	}
	gpu_allowance_listen(&g->allowance);
}

static void tick(struct gpu_pool *p)
{
	struct arbiter_member *m;
	uint64_t now = now_ns(), after;

	list_for_each (m, &p->arbiter.members, link) {
		measure(gpu_of(m));
	}
	after = arbiter_tick(&p->arbiter, now);
	list_for_each (m, &p->arbiter.members, link) {
		hand_on(gpu_of(m));
	}
	p->due_ns = 0;
	if (after > 0) {
		tick_at(p, now + after);
	}
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	tick(userdata);
	return 0;
}

void gpu_arbiter_wake(struct gpu *g)
{
	struct gpu_pool *p = g->part.pool;

	if (p && p->due_ns == 0) {
		tick_at(p, MAX(now_ns(), p->arbiter.last_ns + WAKE_NS));
	}
}

static void take_share(struct gpu *g)
{
	const struct gpu_limits *l = &g->vm->gpu_limits;
	struct arbiter_member *m = &g->part.member;

	m->share = l->share;
	m->percent = l->percent;
}

void gpu_arbiter_changed(struct gpu *g)
{
	if (g->part.pool) {
		take_share(g);
		tick(g->part.pool);
	}
}

int gpu_arbiter_join(struct gpu *g, const char *pool, bool free)
{
	struct gpu_part *part = &g->part;
	struct gpu_pool *p;
	int r = pool_get(g->vm->broker, pool, &p);

	if (r < 0) {
		return r;
	}
	if (part->pool != p) {
		gpu_arbiter_leave(g);
		part->pool = p;
		take_share(g);
		gpu_clock_begin(&part->clock, atomic_load(&g->allowance.page->used_ns));
		part->member.can_be_stopped = pool[0] == '\0';
		arbiter_add(&p->arbiter, &part->member);
		tick(p);
	}
	if (pool[0]) {
		gpu_clock_begin(&part->clock, atomic_load(&g->allowance.page->used_ns));
	} else {
		/* Its clock goes on where the last one's ended. */
		atomic_store(&g->allowance.page->used_ns, part->member.used_ns);
		part->member.free_ns = free ? START_NS : 0;
	}
	part->started_ns = now_ns();
	part->looked_ns = now_ns();
	part->looked_used = part->member.used_ns;
	return 0;
}

void gpu_arbiter_renderer_started(struct gpu *g)
{
	if (g->part.pool && g->part.member.free_ns > 0) {
		tick(g->part.pool);
		g->part.member.free_ns = 0;
	}
}

void gpu_arbiter_renderer_ended(struct gpu *g)
{
	struct gpu_part *part = &g->part;

	if (part->pool && part->pool->name[0]) {
		measure_node(g, true);
	}
	gpu_fdinfo_close(&g->fdinfo);
	part->before_ns = part->member.used_ns;
	part->member.stopped = part->signalled = false;
	part->rss = part->device_memory = part->permille = 0;
}

enum gpu_time_source gpu_arbiter_source(const struct gpu *g)
{
	const struct gpu_pool *p = g->part.pool;

	return !p ? GPU_TIME_NOBODY : p->name[0] ? g->part.clock.from : GPU_TIME_CPU;
}

void gpu_arbiter_leave(struct gpu *g)
{
	struct gpu_pool *p = g->part.pool;

	if (!p) {
		return;
	}
	set_stopped(g, false);
	gpu_fdinfo_close(&g->fdinfo);
	arbiter_remove(&p->arbiter, &g->part.member);
	g->part = (struct gpu_part){0};
	if (!list_empty(&p->arbiter.members)) {
		/* Those that are left may be without any bound now. */
		tick(p);
	}
	pool_put(p);
}

void gpu_arbiter_look(struct gpu *g)
{
	struct gpu_part *part = &g->part;
	const struct arbiter_member *m = &part->member;
	uint64_t now = now_ns(), ns = MAX(now - part->looked_ns, UINT64_C(1)), used;

	if (!part->pool) {
		return;
	}
	if (now - part->started_ns > START_WITHIN_NS) {
		part->member.free_ns = 0;
	}
	measure(g);
	used = m->used_ns - part->looked_used;
	part->permille = (uint32_t)MIN(
		(double)used * 1000 / (double)ns / (double)part->pool->arbiter.capacity, 1000.0);
	part->looked_ns = now;
	part->looked_used = m->used_ns;
	if (gpu_measure_rss(process_pid(g->renderer), &part->rss) < 0) {
		part->rss = 0;
	}
	if (part->pool->arbiter.bounded && m->used_ns - m->seen_used > UNSEEN_NS) {
		gpu_arbiter_wake(g);
	}
}
