/* SPDX-License-Identifier: MIT
 * Members that draw on a machine that is made up, in steps of a tenth of a millisecond: its
 * scheduler gives each that is ready as much as the next one.
 */
#include "tests/unit/test.h"

#include <stdio.h>

#include "base/checked.h"
#include "broker/arbiter.h"

#define STEP    UINT64_C(100000)
#define MS      UINT64_C(1000000)
#define MEMBERS 4

struct load {
	struct arbiter_member m;
	double wants;  /* of a CPU; 0: nothing; more: threads */
	uint64_t cost; /* of a command, ns: it is not given up in between */
	bool rogue;    /* it does not keep to what it is granted */
	uint64_t left; /* of the command that it draws */
	double unmet;  /* what it will want to draw, ns */
	uint64_t stopped_since, longest_stop, most_over;
};

struct world {
	struct arbiter a;
	struct load l[MEMBERS];
	size_t n;
	double machine; /* CPUs that it has for them */
	uint64_t now, next;
	unsigned int ticks;
};

static void add(
	struct world *w, enum gpu_share share, uint32_t percent, double wants, uint64_t cost)
{
	struct load *l = &w->l[w->n++];

	*l = (struct load){.m = {.share = share, .percent = percent, .can_be_stopped = true},
		.wants = wants,
		.cost = cost};
	arbiter_add(&w->a, &l->m);
}

static void set_up(struct world *w, uint32_t capacity, double machine)
{
	*w = (struct world){.machine = machine, .now = 1000 * MS};
	arbiter_init(&w->a, capacity, w->now);
	w->next = w->now;
}

static bool ready(const struct load *l)
{
	return !l->m.stopped && l->unmet >= 1 &&
	       (l->rogue || l->left > 0 || l->m.used_ns < l->m.granted_ns);
}

static void draw(struct load *l, double ns)
{
	l->unmet -= ns;
	l->m.used_ns += (uint64_t)ns;
	l->left = l->left > (uint64_t)ns ? l->left - (uint64_t)ns : 0;
}

static void step(struct world *w)
{
	double room = w->machine * (double)STEP, wanted[MEMBERS] = {0}, each;
	size_t n = 0, still;

	for (size_t i = 0; i < w->n; i++) {
		struct load *l = &w->l[i];

		/* It has no backlog of more than a command, unless it wants all there is. */
		l->unmet += l->wants * (double)STEP;
		l->unmet = MIN(l->unmet, MAX((double)l->cost, l->wants * (double)STEP));
		if (ready(l)) {
			l->left = l->left ? l->left : l->cost;
			wanted[i] = MIN(l->unmet, MAX(l->wants, 1.0) * (double)STEP);
			n++;
		}
	}
	/* Those that want less than the others leave them the rest. */
	for (; n > 0 && room > 1; n = still) {
		each = room / (double)n;
		still = 0;
		for (size_t i = 0; i < w->n; i++) {
			double got = MIN(wanted[i], each);

			draw(&w->l[i], got);
			wanted[i] -= got;
			room -= got;
			still += wanted[i] > 1;
		}
	}
	for (size_t i = 0; i < w->n; i++) {
		w->l[i].m.delayed_ns += (uint64_t)wanted[i];
	}
	w->now += STEP;
}

static void note_stops(struct world *w)
{
	for (size_t i = 0; i < w->n; i++) {
		struct load *l = &w->l[i];

		if (l->m.stopped && !l->stopped_since) {
			l->stopped_since = w->now;
		} else if (!l->m.stopped && l->stopped_since) {
			l->longest_stop = MAX(l->longest_stop, w->now - l->stopped_since);
			l->stopped_since = 0;
		}
	}
}

static void run(struct world *w, uint64_t ms)
{
	uint64_t end = w->now + ms * MS, after;

	while (w->now < end) {
		/* One that waits rings. */
		for (size_t i = 0; i < w->n && w->next == UINT64_MAX; i++) {
			struct load *l = &w->l[i];

			if (l->unmet >= 1 && l->m.used_ns >= l->m.granted_ns) {
				w->next = w->now;
			}
		}
		if (w->now >= w->next) {
			after = arbiter_tick(&w->a, w->now);
			w->next = after ? w->now + after : UINT64_MAX;
			w->ticks++;
			note_stops(w);
		}
		step(w);
	}
}

/* Percent of what was used by all in ms. */
static void measure(struct world *w, uint64_t ms, double out[MEMBERS])
{
	uint64_t before[MEMBERS] = {0}, all = 0;

	for (size_t i = 0; i < w->n; i++) {
		before[i] = w->l[i].m.used_ns;
	}
	run(w, ms);
	for (size_t i = 0; i < w->n; i++) {
		all += w->l[i].m.used_ns - before[i];
	}
	for (size_t i = 0; i < w->n; i++) {
		out[i] = 100.0 * (double)(w->l[i].m.used_ns - before[i]) / (double)MAX(all, 1U);
	}
}

/* The same of the pool's capacity. */
static void measure_pool(struct world *w, uint64_t ms, double out[MEMBERS])
{
	uint64_t before[MEMBERS] = {0};

	for (size_t i = 0; i < w->n; i++) {
		before[i] = w->l[i].m.used_ns;
	}
	run(w, ms);
	for (size_t i = 0; i < w->n; i++) {
		out[i] = 100.0 * (double)(w->l[i].m.used_ns - before[i]) /
			 (double)(ms * MS * w->a.capacity);
	}
}

static void near(const char *what, double got, double wanted, double by)
{
	print_message("%s: %.1f, %.0f wanted\n", what, got, wanted);
	if (got < wanted - by || got > wanted + by) {
		fail_msg("%s: %.1f is not %.1f", what, got, wanted);
	}
}

/* All that is asked for is there, and on a machine that has a third of it. */
static void test_fixed(void **state)
{
	static const double machines[] = {2, 1, 0.6, 0.3};

	for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
		struct world w;
		double got[MEMBERS];

		set_up(&w, 1, machines[i]);
		add(&w, GPU_SHARE_FIXED, 50, 1, 7 * MS);
		add(&w, GPU_SHARE_FIXED, 30, 1, 3 * MS);
		add(&w, GPU_SHARE_FIXED, 20, 1, 12 * MS);
		run(&w, 500);
		measure(&w, 10000, got);
		print_message("a machine of %.1f CPUs:\n", machines[i]);
		near("50", got[0], 50, 1);
		near("30", got[1], 30, 1);
		near("20", got[2], 20, 1);
	}
}

static void test_fixed_on_an_idle_machine(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 2, 2);
	add(&w, GPU_SHARE_FIXED, 25, 2, 5 * MS);
	add(&w, GPU_SHARE_FIXED, 1, 1, MS);
	run(&w, 500);
	measure_pool(&w, 10000, got);
	near("25 of 2 CPUs", got[0], 25, 0.5);
	near("1", got[1], 1, 0.1);
}

static void test_fair(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 1, 1);
	add(&w, GPU_SHARE_FAIR, 60, 1, 4 * MS);
	add(&w, GPU_SHARE_FAIR, 20, 1, 4 * MS);
	add(&w, GPU_SHARE_FIXED, 10, 1, 4 * MS);
	add(&w, GPU_SHARE_BEST_EFFORT, 0, 1, 4 * MS);
	run(&w, 500);
	measure_pool(&w, 5000, got);
	/* 9 % are nobody's: by 60, 20 and 1. */
	near("fair:60", got[0], 60 + 9 * 60 / 81.0, 1);
	near("fair:20", got[1], 20 + 9 * 20 / 81.0, 1);
	near("fixed:10", got[2], 10, 0.5);
	near("best-effort", got[3], 1 + 9 * 1 / 81.0, 0.5);
}

/* Who is idle leaves it all to the others, and has it back at once. */
static void test_idle_time(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 1, 1);
	add(&w, GPU_SHARE_FAIR, 80, 1, 2 * MS);
	add(&w, GPU_SHARE_FAIR, 10, 1, 2 * MS);
	add(&w, GPU_SHARE_FIXED, 10, 1, 2 * MS);
	w.l[0].wants = 0;
	run(&w, 1000);
	measure_pool(&w, 1000, got);
	near("fair:10 alone", got[1], 90, 1);
	near("fixed:10", got[2], 10, 0.5);
	w.l[0].wants = 1;
	run(&w, 100);
	measure_pool(&w, 50, got);
	near("fair:80 100 ms later", got[0], 80, 8);
	measure_pool(&w, 1000, got);
	near("fair:80", got[0], 80, 1);
	near("fair:10", got[1], 10, 1);
	/* One that draws a little is not waited for. */
	w.l[0].wants = 0.1;
	run(&w, 500);
	measure_pool(&w, 2000, got);
	near("fair:80 that wants 10", got[0], 10, 1);
	near("fair:10 beside it", got[1], 80, 1.5);
}

/* The same where the machine does not have it all: a light one does not make time stand still. */
static void test_light_one_on_a_busy_machine(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 2, 1);
	add(&w, GPU_SHARE_FAIR, 50, 0.1, 2 * MS);
	add(&w, GPU_SHARE_FAIR, 50, 2, 2 * MS);
	run(&w, 1000);
	measure_pool(&w, 2000, got);
	near("light", got[0], 5, 1);
	near("greedy", got[1], 45, 3);
}

static void test_nothing_guaranteed(void **state)
{
	struct world w;

	set_up(&w, 1, 2);
	add(&w, GPU_SHARE_BEST_EFFORT, 0, 1, MS);
	add(&w, GPU_SHARE_BEST_EFFORT, 0, 1, MS);
	assert_true(w.l[0].m.granted_ns == UINT64_MAX);
	run(&w, 1000);
	assert_in_range(w.ticks, 0, 1);
	assert_true(w.l[0].m.granted_ns == UINT64_MAX && !w.l[0].m.stopped);
	assert_in_range(w.l[0].m.used_ns, 990 * MS, 1000 * MS);
	/* Nor is it stopped when others come and go: nobody would let it go on. */
	assert_int_equal(arbiter_tick(&w.a, w.now), 0);
	assert_false(w.l[0].m.stopped || w.l[1].m.stopped);
	/* What it used is not held against it when somebody has a guarantee. */
	w.l[1].m.share = GPU_SHARE_FAIR;
	w.l[1].m.percent = 50;
	w.l[1].wants = 0;
	w.next = w.now;
	run(&w, 20);
	assert_true(w.l[0].m.granted_ns != UINT64_MAX);
	assert_false(w.l[0].m.stopped);
	run(&w, 1000);
	assert_in_range(w.l[0].m.used_ns, 1980 * MS, 2020 * MS);
}

/* Ticks end when nobody draws, and begin when somebody waits. */
static void test_rest(void **state)
{
	struct world w;
	double got[MEMBERS];
	unsigned int ticks;

	set_up(&w, 1, 1);
	add(&w, GPU_SHARE_FIXED, 50, 0, MS);
	add(&w, GPU_SHARE_BEST_EFFORT, 0, 0, MS);
	run(&w, 1000);
	ticks = w.ticks;
	assert_in_range(ticks, 1, 60);
	run(&w, 10000);
	assert_int_equal(w.ticks, ticks);
	w.l[0].wants = w.l[1].wants = 1;
	measure_pool(&w, 1000, got);
	near("fixed:50", got[0], 50, 3);
	near("best-effort", got[1], 50, 3);
}

/* One that draws without end, and one that draws once for half a second. */
static void test_stops(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 2, 2);
	add(&w, GPU_SHARE_FIXED, 20, 1, MS);
	add(&w, GPU_SHARE_FIXED, 20, 1, MS);
	w.l[0].rogue = true;
	run(&w, 1000);
	measure_pool(&w, 10000, got);
	near("rogue", got[0], 20, 1.5);
	near("fixed:20", got[1], 20, 0.5);
	print_message("stopped for %.0f ms at a time\n", (double)w.l[0].longest_stop / 1e6);
	assert_in_range(w.l[0].longest_stop, 1, 170 * MS);
	assert_int_equal(w.l[1].longest_stop, 0);
	/* It is let go on however much it owes. */
	w.l[1].cost = 500 * MS;
	measure_pool(&w, 10000, got);
	near("in one go", got[1], 20, 3);
	assert_in_range(w.l[1].longest_stop, 1, 170 * MS);
	/* Of a render node nobody is stopped. */
	w.l[0].m.can_be_stopped = w.l[1].m.can_be_stopped = false;
	run(&w, 200);
	w.l[0].longest_stop = w.l[1].longest_stop = 0;
	run(&w, 2000);
	assert_int_equal(w.l[0].longest_stop + w.l[1].longest_stop, 0);
	assert_false(w.l[0].m.stopped || w.l[1].m.stopped);
}

/* Very small shares of it, as a rogue: 2 % of its time it runs all the same. */
static void test_smallest_share(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 1, 2);
	add(&w, GPU_SHARE_FIXED, 1, 1, MS);
	w.l[0].rogue = true;
	run(&w, 1000);
	measure_pool(&w, 10000, got);
	near("rogue of fixed:1", got[0], 2, 1.5);
}

/* A start costs more than its share is in a second. */
static void test_start(void **state)
{
	struct world w;

	set_up(&w, 1, 2);
	add(&w, GPU_SHARE_FIXED, 2, 1, MS);
	w.l[0].m.free_ns = 1000 * MS;
	w.l[0].rogue = true;
	run(&w, 1000);
	assert_int_equal(w.l[0].longest_stop, 0);
	assert_in_range(w.l[0].m.used_ns, 990 * MS, 1000 * MS);
	run(&w, 1000);
	assert_in_range(w.l[0].m.used_ns, 1000 * MS, 1120 * MS);
	assert_in_range(w.l[0].longest_stop, 100 * MS, 170 * MS);
}

static void test_changes(void **state)
{
	struct world w;
	double got[MEMBERS];

	set_up(&w, 1, 1);
	add(&w, GPU_SHARE_FIXED, 20, 1, 2 * MS);
	add(&w, GPU_SHARE_FIXED, 80, 1, 2 * MS);
	run(&w, 1000);
	w.l[0].m.percent = 70;
	w.l[1].m.percent = 30;
	run(&w, 100);
	measure_pool(&w, 2000, got);
	near("70", got[0], 70, 1);
	near("30", got[1], 30, 1);
	arbiter_remove(&w.a, &w.l[1].m);
	w.n = 1;
	w.l[0].m.share = GPU_SHARE_FAIR;
	run(&w, 100);
	measure_pool(&w, 2000, got);
	near("alone", got[0], 100, 1);
	/* More than all, which configuration does not allow. */
	add(&w, GPU_SHARE_FAIR, 70, 1, 2 * MS);
	run(&w, 200);
	measure_pool(&w, 2000, got);
	near("one half", got[0], 50, 1);
}

/* Clocks that go backwards, leap, or end: a renderer that was replaced. */
static void test_clocks(void **state)
{
	struct world w;

	set_up(&w, 1, 1);
	add(&w, GPU_SHARE_FIXED, 50, 0, MS);
	run(&w, 100);
	w.l[0].m.used_ns = 0;
	run(&w, 100);
	assert_in_range(w.l[0].m.granted_ns, 1, 100 * MS);
	w.l[0].m.used_ns = UINT64_C(1) << 62;
	run(&w, 10000);
	assert_true(w.l[0].m.granted_ns > w.l[0].m.used_ns);
	w.now += UINT64_C(1) << 60;
	run(&w, 100);
	assert_in_range(w.l[0].m.granted_ns - w.l[0].m.used_ns, 1, 100 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fixed),
		cmocka_unit_test(test_fixed_on_an_idle_machine),
		cmocka_unit_test(test_fair),
		cmocka_unit_test(test_idle_time),
		cmocka_unit_test(test_light_one_on_a_busy_machine),
		cmocka_unit_test(test_nothing_guaranteed),
		cmocka_unit_test(test_rest),
		cmocka_unit_test(test_stops),
		cmocka_unit_test(test_smallest_share),
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_clocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
