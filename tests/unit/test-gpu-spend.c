/* SPDX-License-Identifier: MIT
 * What a renderer uses and who of its guest did, by clocks that the test turns; when it has to
 * wait; how often frames come.
 */
#include <stdlib.h>
#include <string.h>

#include "gpu/cadence.h"
#include "gpu/spend.h"
#include "tests/unit/test.h"

#define MS   UINT64_C(1000000)
#define STEP (4 * MS)

static uint64_t now, cpu;
static unsigned int cpu_reads;

static uint64_t clock_now(void)
{
	return now;
}

static uint64_t clock_coarse(void)
{
	return now / STEP * STEP;
}

static uint64_t clock_cpu(void)
{
	cpu_reads++;
	return cpu;
}

static const struct spend_clocks clocks = {clock_now, clock_coarse, clock_cpu, STEP};

struct rig {
	struct allowance_page page;
	struct spend s;
};

static int set_up(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	now = 1000 * MS;
	cpu = cpu_reads = 0;
	atomic_store(&r->page.granted_ns, ALLOWANCE_UNBOUNDED);
	*state = r;
	return r ? 0 : -1;
}

static int tear_down(void **state)
{
	free(*state);
	return 0;
}

static void begin(struct rig *r, bool by_work)
{
	spend_init(&r->s, &r->page, &clocks, by_work, 2);
	for (uint32_t slot = 1; slot <= 3; slot++) {
		spend_context(&r->s, slot, 10 * slot, "a name");
	}
}

/* Both CPUs at work. */
static void work(uint64_t ns)
{
	now += ns;
	cpu += 2 * ns;
}

static uint64_t gpu_ns(struct rig *r, uint32_t slot)
{
	return atomic_load(&r->page.contexts[slot - 1].gpu_ns);
}

static void counts_all_and_each(void **state)
{
	struct rig *r = *state;

	/* What the last renderer left, and what this one took to start. */
	atomic_store(&r->page.used_ns, 7 * MS);
	cpu = 3 * MS;
	begin(r, false);
	assert_int_equal(atomic_load(&r->page.used_ns), 10 * MS);
	assert_int_equal(atomic_load(&r->page.contexts[0].id), 10);
	assert_string_equal(r->page.contexts[0].name, "a name");
	/* Long turns: each is read at its end. */
	for (int i = 0; i < 10; i++) {
		spend_on(&r->s, 1);
		work(4 * MS);
		spend_on(&r->s, 2);
		work(1 * MS);
		spend_rest(&r->s, SPEND_NOBODY);
		now += 50 * MS; /* idle */
	}
	spend_sample(&r->s);
	assert_int_equal(gpu_ns(r, 1), 80 * MS);
	assert_int_equal(gpu_ns(r, 2), 20 * MS);
	assert_int_equal(gpu_ns(r, 3), 0);
	assert_int_equal(atomic_load(&r->page.used_ns), 110 * MS);
	/* A context that is gone leaves nothing to the next one of its slot. */
	spend_on(&r->s, 1);
	work(MS);
	spend_context(&r->s, 1, 0, "");
	assert_int_equal(atomic_load(&r->page.contexts[0].id), 0);
	spend_context(&r->s, 1, 11, "another");
	spend_sample(&r->s);
	assert_int_equal(gpu_ns(r, 1), 0);
	spend_forget_contexts(&r->s);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(atomic_load(&r->page.contexts[i].id), 0);
	}
}

/* Commands that are far shorter than the clock may be read, with pauses; and 40 contexts at once,
 * more than are kept apart between two readings. */
static void short_turns(void **state)
{
	struct rig *r = *state;
	unsigned int before;

	begin(r, false);
	before = cpu_reads;
	for (int i = 0; i < 10000; i++) {
		spend_on(&r->s, 1);
		work(8000);
		spend_on(&r->s, 2);
		work(2000);
		if (i % 8 == 0) {
			spend_rest(&r->s, SPEND_NOBODY);
			now += 30000;
		}
	}
	spend_sample(&r->s);
	assert_in_range(gpu_ns(r, 1), 158 * MS, 162 * MS);
	assert_in_range(gpu_ns(r, 2), 38 * MS, 42 * MS);
	assert_in_range(gpu_ns(r, 1) + gpu_ns(r, 2), 199 * MS, 200 * MS);
	/* Of 20,000 turns over 137 ms. */
	assert_in_range(cpu_reads - before, 100, 1000);
	for (int i = 0; i < 4000; i++) {
		spend_on(&r->s, 1 + (uint32_t)i % 40);
		work(1000);
	}
	spend_sample(&r->s);
	for (uint32_t slot = 3; slot <= 40; slot++) {
		assert_in_range(gpu_ns(r, slot), 190000, 210000);
	}
}

/* One that works alone is not even asked the time. */
static void alone_costs_nothing(void **state)
{
	struct rig *r = *state;
	unsigned int before;

	begin(r, false);
	spend_on(&r->s, 1);
	before = cpu_reads;
	for (int i = 0; i < 1000; i++) {
		spend_on(&r->s, 1);
		work(10000);
		assert_true(spend_may(&r->s));
		spend_rest(&r->s, SPEND_NOBODY);
	}
	/* 10 ms: twice or three times for who looks at the page. */
	assert_in_range(cpu_reads - before, 2, 3);
	atomic_store(&r->page.granted_ns, 1000 * MS);
	before = cpu_reads;
	for (int i = 0; i < 1000; i++) {
		work(10000);
		assert_true(spend_may(&r->s));
	}
	assert_int_equal(cpu_reads, before);
}

/* What was drawn goes on behind the commands' back: whose fence is waited for. */
static void waits_for_fences(void **state)
{
	struct rig *r = *state;

	begin(r, false);
	spend_on(&r->s, 1);
	work(MS);
	spend_on(&r->s, 2);
	work(MS);
	spend_rest(&r->s, 1);
	work(10 * MS);
	spend_on(&r->s, 2);
	work(5 * MS);
	spend_sample(&r->s);
	assert_int_equal(gpu_ns(r, 1), 22 * MS);
	assert_int_equal(gpu_ns(r, 2), 12 * MS);
}

/* On a render node CPU time means nothing, and overlapping work counts once. */
static void by_work(void **state)
{
	struct rig *r = *state;

	begin(r, true);
	spend_work(&r->s, true);
	spend_on(&r->s, 1);
	work(3 * MS);
	spend_work(&r->s, true);
	spend_sample(&r->s);
	assert_int_equal(atomic_load(&r->page.used_ns), 3 * MS);
	work(2 * MS);
	spend_on(&r->s, 2);
	work(4 * MS);
	spend_work(&r->s, false);
	spend_work(&r->s, false);
	spend_rest(&r->s, SPEND_NOBODY);
	now += 100 * MS;
	spend_work(&r->s, true);
	now += MS;
	spend_work(&r->s, false);
	spend_sample(&r->s);
	assert_int_equal(atomic_load(&r->page.used_ns), 10 * MS);
	assert_int_equal(gpu_ns(r, 1), 5 * MS);
	assert_int_equal(gpu_ns(r, 2), 5 * MS);
}

static void waits_for_time(void **state)
{
	struct rig *r = *state;
	unsigned int before;
	uint64_t used;
	bool ring;

	begin(r, false);
	spend_on(&r->s, 1);
	atomic_store(&r->page.granted_ns, 50 * MS);
	before = cpu_reads;
	while (spend_may(&r->s)) {
		work(20000);
	}
	/* It stops as soon as the clock may be read again, and reads it seldom. */
	used = atomic_load(&r->page.used_ns);
	assert_in_range(used, 50 * MS, 50 * MS + 500000);
	assert_in_range(cpu_reads - before, 1, 30);
	assert_true(spend_wait(&r->s, &ring));
	assert_true(ring);
	assert_int_equal(atomic_load(&r->page.waits), 1);
	now += 20 * MS;
	/* Who grants rings once, and is asked once. */
	assert_true(spend_wait(&r->s, &ring));
	assert_false(ring);
	assert_int_equal(atomic_load(&r->page.waited_ns), 20 * MS);
	now += 5 * MS;
	atomic_store(&r->page.granted_ns, 60 * MS);
	assert_true(spend_may(&r->s));
	spend_go_on(&r->s);
	spend_go_on(&r->s);
	assert_int_equal(atomic_load(&r->page.waits), 0);
	assert_int_equal(atomic_load(&r->page.waited_ns), 25 * MS);
	/* Granted between the look at it and the bell. */
	work(10 * MS);
	assert_false(spend_may(&r->s));
	atomic_store(&r->page.granted_ns, 100 * MS);
	assert_false(spend_wait(&r->s, &ring));
	assert_false(ring);
	assert_int_equal(atomic_load(&r->page.waits), 0);
}

/* What is out counts by what its like took; two may always be. */
static void queue_of_fences(void **state)
{
	struct rig *r = *state;

	begin(r, false);
	assert_false(spend_crowded(&r->s, 1000));
	atomic_store(&r->page.granted_ns, 100 * MS);
	assert_false(spend_crowded(&r->s, 1000));
	work(10 * MS);
	spend_reached(&r->s, 2);
	/* 10 ms each, and 80 are left. */
	assert_false(spend_crowded(&r->s, 7));
	assert_true(spend_crowded(&r->s, 8));
	/* Those that take less make little difference at first, one that takes more does at once.
	 */
	work(MS);
	spend_reached(&r->s, 2);
	assert_true(spend_crowded(&r->s, 9));
	assert_false(spend_crowded(&r->s, 8));
	work(10 * MS);
	spend_reached(&r->s, 1);
	assert_true(spend_crowded(&r->s, 3));
	assert_false(spend_crowded(&r->s, 2));
	work(100 * MS);
	spend_sample(&r->s);
	assert_false(spend_crowded(&r->s, 1));
	assert_true(spend_crowded(&r->s, 2));
	atomic_store(&r->page.granted_ns, ALLOWANCE_UNBOUNDED);
	assert_false(spend_crowded(&r->s, 1000));
}

/* Less than was used already, and numbers at the edge. */
static void nonsense(void **state)
{
	struct rig *r = *state;
	bool ring;

	memset(&r->page, 0xff, sizeof(r->page));
	atomic_store(&r->page.granted_ns, 0);
	cpu = 5;
	begin(r, false);
	assert_int_equal(atomic_load(&r->page.used_ns), UINT64_MAX);
	work(MS);
	assert_false(spend_may(&r->s));
	assert_true(spend_wait(&r->s, &ring));
	atomic_store(&r->page.granted_ns, ALLOWANCE_UNBOUNDED - 1);
	assert_false(spend_may(&r->s));
	atomic_store(&r->page.granted_ns, ALLOWANCE_UNBOUNDED);
	assert_true(spend_may(&r->s));
	spend_sample(&r->s);
	assert_int_equal(atomic_load(&r->page.contexts[100].id), 0);
	assert_string_equal(r->page.contexts[100].name, "");
	/* A name that fills its place, and one that is longer. */
	spend_context(&r->s, 256, 1,
		"0123456789012345678901234567890123456789012345678901234567890123456789");
	assert_int_equal(strlen(r->page.contexts[255].name), 63);
}

static unsigned int frames_in(struct cadence *c, uint64_t ns, uint64_t late)
{
	uint64_t end = now + ns;
	unsigned int n = 0;

	while (now < end) {
		uint64_t wait = cadence_wait(c, 1, now);

		if (wait > 0) {
			/* As epoll rounds it, and then late. */
			now += (wait / MS + 1) * MS + late;
			continue;
		}
		cadence_spend(c, 1, now);
		n++;
		now += 100000;
	}
	return n;
}

static void frames_at_their_rate(void **state)
{
	static const uint32_t rates[] = {1, 30, 60, 144, 240};

	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct cadence c = {0};

		cadence_set(&c, rates[i]);
		/* What it may do at once is over after this. */
		assert_in_range(frames_in(&c, 1000 * MS, 0), rates[i], rates[i] + 6);
		assert_in_range(frames_in(&c, 10000 * MS, 0), rates[i] * 10 - 1, rates[i] * 10 + 1);
		if (rates[i] <= 144) {
			assert_in_range(frames_in(&c, 10000 * MS, 5 * MS), rates[i] * 98 / 10,
				rates[i] * 102 / 10);
		}
	}
}

static void scanouts_have_their_own(void **state)
{
	struct cadence c = {0};

	assert_int_equal(cadence_wait(&c, 1, now), 0);
	cadence_spend(&c, 1, now);
	cadence_set(&c, 10);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cadence_wait(&c, 1, now), 0);
		cadence_spend(&c, 1, now);
	}
	assert_int_equal(cadence_wait(&c, 1, now), 100 * MS);
	assert_int_equal(cadence_wait(&c, 2, now), 0);
	assert_int_equal(cadence_wait(&c, 3, now), 100 * MS);
	assert_int_equal(cadence_wait(&c, 0, now), 0);
	assert_int_equal(cadence_debt(&c, now), 0);
	/* Who does not wait for it waits for everything. */
	cadence_spend(&c, 1, now);
	cadence_spend(&c, 1, now);
	assert_int_equal(cadence_debt(&c, now), 100 * MS);
	/* Another rate holds at once, and the same one again changes nothing. */
	cadence_set(&c, 10);
	assert_int_equal(cadence_wait(&c, 1, now), 300 * MS);
	cadence_set(&c, 20);
	assert_int_equal(cadence_wait(&c, 1, now), 0);
	cadence_set(&c, 0);
	cadence_spend(&c, 1, now);
	assert_int_equal(cadence_wait(&c, 1, now), 0);
	cadence_set(&c, UINT32_MAX);
	assert_int_equal(cadence_wait(&c, UINT32_MAX, now), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(counts_all_and_each),
		TEST(short_turns),
		TEST(alone_costs_nothing),
		TEST(waits_for_fences),
		TEST(by_work),
		TEST(waits_for_time),
		TEST(queue_of_fences),
		TEST(nonsense),
		TEST(frames_at_their_rate),
		TEST(scanouts_have_their_own),
	};

	return cmocka_run_group_tests_name("gpu-spend", tests, NULL, NULL);
}
