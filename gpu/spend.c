/* SPDX-License-Identifier: MIT */
#include "gpu/spend.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"

/* The clock of CPU time is not read more often than that: it adds up all threads. */
#define SAMPLE_NS UINT64_C(200000)
/* One that is drawn, and one behind it. */
#define FENCES_FREE 2

static uint64_t coarse_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

static uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void spend_clocks_init(struct spend_clocks *out)
{
	struct timespec step = {0};

	clock_getres(CLOCK_MONOTONIC_COARSE, &step);
	*out = (struct spend_clocks){.now = now_ns,
		.coarse = coarse_ns,
		.cpu = cpu_ns,
		.coarse_step = (uint64_t)step.tv_sec * 1000000000u + (uint64_t)step.tv_nsec};
}

void spend_init(struct spend *s, struct allowance_page *page, const struct spend_clocks *clocks,
	bool by_work, uint32_t cpus)
{
	*s = (struct spend){.page = page,
		.clocks = *clocks,
		.by_work = by_work,
		.speed = by_work ? 1 : MAX(cpus, 1U),
		.used = atomic_load(&page->used_ns),
		.who = SPEND_NOBODY};
	s->fenced_used = s->used;
	atomic_store(&page->waits, 0);
	spend_forget_contexts(s);
	spend_sample(s);
}

/* By the clock that counts here. */
static uint64_t read_spent(const struct spend *s, uint64_t now)
{
	if (!s->by_work) {
		return s->clocks.cpu();
	}
	return s->work_done + (s->work_since ? now - s->work_since : 0);
}

static void add_share(struct spend *s, uint32_t slot, uint64_t ns)
{
	for (uint32_t i = 0; i < s->n_shares; i++) {
		if (s->shares[i].slot == slot) {
			s->shares[i].ns += ns;
			return;
		}
	}
	assert(s->n_shares < SPEND_SHARES);
	s->shares[s->n_shares++] = (struct spend_share){slot, ns};
}

static void add_to(struct spend *s, uint32_t slot, uint64_t ns)
{
	if (slot == 0 || slot > ALLOWANCE_CONTEXTS) {
		return;
	}
	s->contexts[slot - 1] += ns;
	atomic_store_explicit(
		&s->page->contexts[slot - 1].gpu_ns, s->contexts[slot - 1], memory_order_relaxed);
}

/* What was used since the last reading, to those who were at work since then. */
static void attribute(struct spend *s, uint64_t ns)
{
	uint64_t all = 0;

	if (s->n_shares == 0) {
		add_to(s, s->who, ns);
		return;
	}
	for (uint32_t i = 0; i < s->n_shares; i++) {
		all += s->shares[i].ns;
	}
	for (uint32_t i = 0; all > 0 && i < s->n_shares; i++) {
		add_to(s, s->shares[i].slot,
			(uint64_t)((double)ns * (double)s->shares[i].ns / (double)all));
	}
	s->n_shares = 0;
}

/* Whoever is at work has been until now. */
static void close_share(struct spend *s, uint64_t now)
{
	if (s->who != SPEND_NOBODY) {
		add_share(s, s->who, now - s->since);
	}
	s->since = now;
}

static void sample(struct spend *s, uint64_t now)
{
	uint64_t spent = read_spent(s, now), ns = spent - MIN(s->spent, spent);

	if (s->mixed) {
		close_share(s, now);
	}
	attribute(s, ns);
	s->mixed = false;
	s->since = s->sampled = now;
	s->sampled_coarse = s->clocks.coarse();
	s->spent = spent;
	s->used += MIN(ns, ALLOWANCE_UNBOUNDED - 1 - MIN(s->used, ALLOWANCE_UNBOUNDED - 1));
	atomic_store_explicit(&s->page->used_ns, s->used, memory_order_relaxed);
	if (s->reached > 0) {
		s->fenced_ns = MAX(
			(s->used - s->fenced_used) / s->reached, s->fenced_ns - s->fenced_ns / 8);
		s->fenced_used = s->used;
		s->reached = 0;
	}
}

void spend_reached(struct spend *s, uint32_t n)
{
	s->reached += n;
	if (n > 0 && s->clocks.now() - s->sampled >= SAMPLE_NS) {
		spend_sample(s);
	}
}

bool spend_crowded(const struct spend *s, uint32_t fences_out)
{
	uint64_t granted = atomic_load_explicit(&s->page->granted_ns, memory_order_relaxed);

	return fences_out >= FENCES_FREE && granted != ALLOWANCE_UNBOUNDED &&
	       fences_out * s->fenced_ns >= granted - MIN(s->used, granted);
}

void spend_sample(struct spend *s)
{
	sample(s, s->clocks.now());
}

void spend_change(struct spend *s, uint32_t slot)
{
	uint64_t now = s->clocks.now();

	if (now - s->sampled >= SAMPLE_NS || s->n_shares + 1 >= SPEND_SHARES) {
		sample(s, now);
	} else {
		s->mixed = s->mixed || s->who != SPEND_NOBODY;
		close_share(s, now);
	}
	s->who = slot;
}

bool spend_has(struct spend *s)
{
	uint64_t granted = atomic_load_explicit(&s->page->granted_ns, memory_order_relaxed);
	uint64_t left = granted - MIN(s->used, granted), now;

	/* Even with all CPUs at work it can't be used up yet: the cheap clock first. */
	now = s->clocks.coarse() + s->clocks.coarse_step;
	if ((now - s->sampled_coarse) * s->speed < left) {
		return true;
	}
	now = s->clocks.now();
	if ((now - s->sampled) * s->speed < left) {
		return true;
	}
	if (now - s->sampled >= SAMPLE_NS) {
		sample(s, now);
	}
	return s->used < granted;
}

void spend_rest(struct spend *s, uint32_t waited_for)
{
	if (waited_for != SPEND_NOBODY || s->mixed) {
		spend_on(s, waited_for);
	}
	if (s->clocks.coarse() != s->sampled_coarse) {
		spend_sample(s);
	}
}

void spend_work(struct spend *s, bool there_is)
{
	uint64_t now;

	if (!s->by_work || there_is == (s->work_since != 0)) {
		return;
	}
	now = s->clocks.now();
	if (there_is) {
		s->work_since = now;
		return;
	}
	s->work_done += now - s->work_since;
	s->work_since = 0;
}

static void add_wait(struct spend *s)
{
	uint64_t now = s->clocks.now();

	atomic_fetch_add_explicit(
		&s->page->waited_ns, now - s->waiting_since, memory_order_relaxed);
	s->waiting_since = now;
}

bool spend_wait(struct spend *s, bool *ring_out)
{
	*ring_out = false;
	if (s->waiting) {
		add_wait(s);
		return true;
	}
	spend_sample(s);
	/* Who grants writes the grant and looks at this then; here it is the other way round. */
	atomic_store(&s->page->waits, 1);
	if (s->used < atomic_load(&s->page->granted_ns)) {
		atomic_store(&s->page->waits, 0);
		return false;
	}
	s->waiting = *ring_out = true;
	s->waiting_since = s->sampled;
	return true;
}

void spend_go_on(struct spend *s)
{
	if (s->waiting) {
		add_wait(s);
		s->waiting = false;
		atomic_store(&s->page->waits, 0);
	}
}

void spend_context(struct spend *s, uint32_t slot, uint32_t id, const char *name)
{
	struct allowance_context *c;

	assert(slot > 0 && slot <= ALLOWANCE_CONTEXTS);
	c = &s->page->contexts[slot - 1];
	/* What was used so far is that of whoever had this slot. */
	spend_sample(s);
	atomic_store(&c->id, 0);
	s->contexts[slot - 1] = 0;
	atomic_store(&c->gpu_ns, 0);
	memset(c->name, 0, sizeof(c->name));
	memcpy(c->name, name, strnlen(name, sizeof(c->name) - 1));
	atomic_store(&c->id, id);
}

void spend_forget_contexts(struct spend *s)
{
	for (uint32_t i = 0; i < ALLOWANCE_CONTEXTS; i++) {
		if (atomic_load(&s->page->contexts[i].id) != 0) {
			spend_context(s, i + 1, 0, "");
		}
	}
}
