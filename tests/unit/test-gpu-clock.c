/* SPDX-License-Identifier: MIT
 * Whose figure of GPU time is taken, when it changes, and what a renderer gains by lying.
 */
#include "broker/gpu-clock.h"

#include <stdlib.h>

#include "tests/unit/test.h"

#define MS      UINT64_C(1000000)
#define MINUTES (60000 * MS)

static struct gpu_clock begun(uint64_t page)
{
	struct gpu_clock c = {0};

	gpu_clock_begin(&c, page);
	return c;
}

/* One look at both, as the arbiter does. */
static void look(struct gpu_clock *c, bool counts, uint64_t kernel, uint64_t page)
{
	uint64_t before = c->used_ns;

	gpu_clock_kernel(c, counts, kernel);
	gpu_clock_page(c, page);
	assert_true(c->used_ns >= before);
}

static void test_kernel(void **state)
{
	struct gpu_clock c = begun(0);

	assert_int_equal(c.from, GPU_TIME_RENDERER);
	look(&c, true, 0, 3 * MS);
	assert_int_equal(c.used_ns, 3 * MS);
	/* From now on the kernel's; what the renderer has said of the same time is not added. */
	look(&c, true, 5 * MS, 1000 * MS);
	assert_int_equal(c.from, GPU_TIME_KERNEL);
	assert_int_equal(c.used_ns, 3 * MS + 2 * MS);
	look(&c, true, 6 * MS, 0);
	assert_int_equal(c.used_ns, 6 * MS);
	/* Drivers may go back for a while. */
	look(&c, true, 4 * MS, 0);
	assert_int_equal(c.used_ns, 6 * MS);
	look(&c, true, 7 * MS, 0);
	assert_int_equal(c.used_ns, 7 * MS);
}

/* It says that it uses nothing. */
static void test_liar(void **state)
{
	struct gpu_clock c = begun(0);

	for (uint64_t i = 0; i < 100; i++) {
		look(&c, true, i * 10 * MS, 0);
	}
	assert_int_equal(c.used_ns, 990 * MS);
}

static void test_renderer_alone(void **state)
{
	struct gpu_clock c = begun(5 * MS);

	look(&c, false, 0, 15 * MS);
	assert_int_equal(c.from, GPU_TIME_RENDERER);
	assert_int_equal(c.used_ns, 10 * MS);
	/* Back, and a leap: neither is believed, and it goes on from there. */
	look(&c, false, 0, 1 * MS);
	look(&c, false, 0, UINT64_MAX);
	look(&c, false, 0, 2 * MINUTES);
	assert_int_equal(c.used_ns, 10 * MS);
	look(&c, false, 0, 2 * MINUTES + MS);
	assert_int_equal(c.used_ns, 11 * MS);
}

/* A driver begins to count late, ceases (panfrost's switch), and begins again. */
static void test_changes(void **state)
{
	struct gpu_clock c = begun(0);

	look(&c, true, 0, 1000 * MS);
	look(&c, true, 0, 2000 * MS);
	/* What it counts now is not what it did not count before. */
	look(&c, true, 4 * MS, 2010 * MS);
	assert_int_equal(c.used_ns, 2000 * MS);
	look(&c, true, 14 * MS, 2020 * MS);
	assert_int_equal(c.used_ns, 2010 * MS);
	look(&c, false, 0, 2030 * MS);
	assert_int_equal(c.from, GPU_TIME_RENDERER);
	assert_int_equal(c.used_ns, 2020 * MS);
	/* The kernel may have counted those 10 ms as well: they are not taken twice. */
	look(&c, true, 28 * MS, 2040 * MS);
	assert_int_equal(c.used_ns, 2024 * MS);
	assert_int_equal(c.from, GPU_TIME_KERNEL);
}

/* Renderers are replaced: the kernel's count begins anew, the page goes on. */
static void test_replaced(void **state)
{
	struct gpu_clock c = begun(0);

	look(&c, true, 50 * MS, 40 * MS);
	gpu_clock_begin(&c, 40 * MS);
	assert_int_equal(c.used_ns, 50 * MS);
	look(&c, true, 20 * MS, 60 * MS);
	assert_int_equal(c.used_ns, 70 * MS);
	look(&c, true, 60 * MS, 60 * MS);
	assert_int_equal(c.used_ns, 110 * MS);
	gpu_clock_begin(&c, 60 * MS);
	look(&c, false, 0, 61 * MS);
	assert_int_equal(c.used_ns, 111 * MS);
}

static void test_extremes(void **state)
{
	struct gpu_clock c = begun(0);

	look(&c, true, UINT64_MAX, 0);
	gpu_clock_begin(&c, 0);
	look(&c, true, 7, 0);
	assert_true(c.used_ns == UINT64_MAX);
}

/* The renderer compares with its own clock. */
static void test_grant(void **state)
{
	struct gpu_clock c = begun(0);

	look(&c, true, 30 * MS, 100 * MS);
	assert_true(gpu_clock_grant(&c, UINT64_MAX) == UINT64_MAX);
	assert_int_equal(gpu_clock_grant(&c, 35 * MS), 105 * MS);
	assert_int_equal(gpu_clock_grant(&c, 30 * MS), 100 * MS);
	assert_int_equal(gpu_clock_grant(&c, 3 * MS), 100 * MS);
	/* A page at its end does not become one without bounds. */
	look(&c, true, 30 * MS, UINT64_MAX - 1);
	assert_true(gpu_clock_grant(&c, 40 * MS) == UINT64_MAX - 1);
	/* Where the renderer counts, both are one. */
	c = begun(0);
	look(&c, false, 0, 100 * MS);
	assert_int_equal(gpu_clock_grant(&c, 123 * MS), 123 * MS);
}

/* Of 1000 cycles in each 10 ms, 250 and then all, and then two kinds of engines at once. */
static void test_cycles(void **state)
{
	struct gpu_cycles c = {0};

	assert_int_equal(gpu_cycles_ns(&c, 77, 5000, 100 * MS), 0);
	assert_int_equal(gpu_cycles_ns(&c, 77 + 250, 6000, 110 * MS), 2500000);
	assert_int_equal(gpu_cycles_ns(&c, 77 + 1250, 7000, 120 * MS), 12500000);
	assert_int_equal(gpu_cycles_ns(&c, 77 + 3250, 8000, 130 * MS), 32500000);
	/* The same again, and back: nothing, and none of it twice. */
	assert_int_equal(gpu_cycles_ns(&c, 77 + 3250, 8000, 140 * MS), 32500000);
	assert_int_equal(gpu_cycles_ns(&c, 0, 9000, 150 * MS), 32500000);
	assert_int_equal(gpu_cycles_ns(&c, 77 + 3250, 10000, 160 * MS), 32500000);
	/* The counter begins anew: that interval is lost, no more. */
	assert_int_equal(gpu_cycles_ns(&c, 77 + 3300, 100, 170 * MS), 32500000);
	assert_int_equal(gpu_cycles_ns(&c, 77 + 3800, 1100, 180 * MS), 37500000);
	/* A count that is none is bounded by what there can be. */
	assert_int_equal(gpu_cycles_ns(&c, UINT64_MAX, 1101, 181 * MS), 37500000 + 64 * MS);
	assert_int_equal(gpu_cycles_ns(&c, UINT64_MAX, UINT64_MAX, 150 * MS), 37500000 + 64 * MS);
}

static void test_random(void **state)
{
	struct gpu_clock c = begun(0);
	uint64_t kernel = 0;

	srandom(1);
	for (int i = 0; i < 100000; i++) {
		kernel += (uint64_t)random() % MS;
		/* A hostile page, and a kernel that can't be asked now and then. */
		if (random() % 8) {
			gpu_clock_kernel(&c, true, kernel - (uint64_t)random() % 3);
		}
		look(&c, random() % 8 == 0, kernel,
			((uint64_t)random() << 33) ^ (uint64_t)random());
		assert_true(c.used_ns >= c.kernel_ns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_liar),
		cmocka_unit_test(test_renderer_alone),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_grant),
		cmocka_unit_test(test_cycles),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
