/* SPDX-License-Identifier: MIT
 * Texts as drivers write them, by the kernel's documentation, and texts as none should.
 */
#include "broker/drm-usage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/unit/test.h"

#define COMMON "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t685\n"
#define KIB    UINT64_C(1024)
#define MIB    (KIB * KIB)
#define BIG    UINT64_C(1000000000000)

struct driver {
	const char *name;
	const char *text;
	struct drm_usage usage;
};

static const struct driver drivers[] = {
	/* 6.1: engines, those of which there are more than one with how many, and no memory. */
	{"i915",
		COMMON "drm-driver:\ti915\ndrm-pdev:\t0000:00:02.0\ndrm-client-id:\t42\n"
		       "drm-engine-render:\t5000000 ns\ndrm-engine-copy:\t300 ns\n"
		       "drm-engine-video:\t9000 ns\ndrm-engine-capacity-video:\t2\n"
		       "drm-engine-video-enhance:\t0 ns\n",
		{.counts_time = true, .engine_ns = 5000000 + 300 + 4500}},
	/* 6.8 and later: what there is, and what of it is in RAM. */
	{"i915 with memory",
		COMMON "drm-driver:\ti915\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\n"
		       "drm-total-system0:\t8 MiB\ndrm-shared-system0:\t0\n"
		       "drm-active-system0:\t0\ndrm-resident-system0:\t6144 KiB\n"
		       "drm-purgeable-system0:\t64 KiB\ndrm-total-local0:\t64 MiB\n"
		       "drm-resident-local0:\t32 MiB\ndrm-engine-render:\t25662044495 ns\n",
		{.counts_time = true,
			.counts_memory = true,
			.engine_ns = 25662044495,
			.memory = 38 * MIB}},
	/* 6.1 and later: a driver's own lines, and a space before a tab. */
	{"amdgpu",
		COMMON "pasid:\t32771\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:04:00.0\n"
		       "drm-client-id:\t18\ndrm-memory-vram:\t98304 KiB\n"
		       "drm-memory-gtt: \t512 KiB\ndrm-memory-cpu: \t0 KiB\n"
		       "amd-evicted-vram:\t77 KiB\namd-requested-vram:\t98304 KiB\n"
		       "drm-engine-gfx:\t1234567 ns\ndrm-engine-dma:\t8 ns\n",
		{.counts_time = true,
			.counts_memory = true,
			.engine_ns = 1234575,
			.memory = 96 * MIB + 512 * KIB}},
	/* Its newer text has the same memory twice over, by two names. */
	{"amdgpu, newer",
		COMMON "drm-driver:\tamdgpu\ndrm-total-vram:\t2 MiB\ndrm-resident-vram:\t1 MiB\n"
		       "drm-memory-vram:\t1 MiB\ndrm-memory-gtt:\t3 MiB\ndrm-engine-gfx:\t0 ns\n",
		{.counts_time = true, .counts_memory = true, .memory = MIB}},
	/* Cycles, and how many there were. */
	{"xe",
		COMMON "drm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\n"
		       "drm-total-system:\t0\ndrm-resident-system:\t0\n"
		       "drm-total-vram0:\t23992 KiB\ndrm-shared-vram0:\t16 MiB\n"
		       "drm-resident-vram0:\t23992 KiB\ndrm-cycles-rcs:\t28257900\n"
		       "drm-total-cycles-rcs:\t7655183225\ndrm-cycles-vcs:\t9\n"
		       "drm-total-cycles-vcs:\t7655183225\ndrm-engine-capacity-vcs:\t2\n",
		{.counts_memory = true,
			.memory = 23992 * KIB,
			.counts_cycles = true,
			.cycles = 28257900 + 4,
			.cycles_all = 7655183225}},
	{"xe with two clocks",
		"drm-cycles-rcs:\t5\ndrm-total-cycles-rcs:\t100\n"
		"drm-cycles-vcs:\t6\ndrm-total-cycles-vcs:\t101\n",
		{0}},
	{"msm",
		COMMON "drm-driver:\tmsm\ndrm-client-id:\t5\ndrm-engine-gpu:\t1000000 ns\n"
		       "drm-cycles-gpu:\t999\ndrm-maxfreq-gpu:\t650000000 Hz\n",
		{.counts_time = true, .engine_ns = 1000000}},
	{"panfrost",
		COMMON "drm-driver:\tpanfrost\ndrm-client-id:\t14\n"
		       "drm-engine-fragment:\t1846584880 ns\ndrm-cycles-fragment:\t1424359409\n"
		       "drm-maxfreq-fragment:\t799999987 Hz\ndrm-curfreq-fragment:\t799999987 Hz\n"
		       "drm-engine-vertex-tiler:\t71932239 ns\ndrm-total-memory:\t290 MiB\n"
		       "drm-shared-memory:\t0 MiB\ndrm-active-memory:\t226 MiB\n"
		       "drm-resident-memory:\t36496 KiB\ndrm-purgeable-memory:\t128 KiB\n",
		{.counts_time = true,
			.counts_memory = true,
			.engine_ns = 1846584880 + 71932239,
			.memory = 36496 * KIB}},
	{"panfrost that does not count",
		COMMON "drm-driver:\tpanfrost\ndrm-maxfreq-fragment:\t799999987 Hz\n"
		       "drm-total-memory:\t290 MiB\n",
		{.counts_memory = true, .memory = 290 * MIB}},
	/* 6.1: they write nothing of their own. */
	{"vgem, virtio_gpu", COMMON, {0}},
	{"virtio_gpu, newer",
		COMMON "drm-driver:\tvirtio_gpu\ndrm-client-id:\t7\ndrm-pdev:\t0000:00:02.0\n",
		{0}},
	{"nothing", "", {0}},
};

static void test_drivers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		const struct driver *d = &drivers[i];
		struct drm_usage u = {.engine_ns = 1};
		int r = drm_usage_parse(d->text, strlen(d->text), &u);

		if (r != 0 || u.counts_time != d->usage.counts_time ||
			u.counts_memory != d->usage.counts_memory ||
			u.counts_cycles != d->usage.counts_cycles || u.cycles != d->usage.cycles ||
			u.cycles_all != d->usage.cycles_all || u.engine_ns != d->usage.engine_ns ||
			u.memory != d->usage.memory) {
			fail_msg("%s: %d; %d %llu ns, %d %llu bytes", d->name, r, u.counts_time,
				(unsigned long long)u.engine_ns, u.counts_memory,
				(unsigned long long)u.memory);
		}
	}
}

static const struct {
	int result;
	const char *text;
} wrong[] = {
	/* Cut off. */
	{-EBADMSG, "drm-engine-gfx:\t12"},
	{-EBADMSG, "drm-engine-gfx:\t12 ns"},
	{-EBADMSG, COMMON "drm-dri"},
	/* No number, or more than one. */
	{-EBADMSG, "drm-engine-gfx:\n"},
	{-EBADMSG, "drm-engine-gfx: ns\n"},
	{-EBADMSG, "drm-engine-gfx: -1 ns\n"},
	{-EBADMSG, "drm-engine-gfx: +1 ns\n"},
	{-EBADMSG, "drm-engine-gfx: 0x10 ns\n"},
	{-EBADMSG, "drm-engine-gfx: 1.5 ns\n"},
	{-EBADMSG, "drm-engine-gfx: 1 2 ns\n"},
	{-EBADMSG, "drm-engine-gfx: 1ns\n"},
	/* A unit as there is none, or not of that. */
	{-EBADMSG, "drm-engine-gfx: 1\n"},
	{-EBADMSG, "drm-engine-gfx: 1 us\n"},
	{-EBADMSG, "drm-engine-gfx: 1 nsec\n"},
	{-EBADMSG, "drm-memory-vram: 1 GiB\n"},
	{-EBADMSG, "drm-memory-vram: 1 kib\n"},
	{-EBADMSG, "drm-memory-vram: 1 KiB KiB\n"},
	{-EBADMSG, "drm-engine-capacity-gfx: 2 ns\n"},
	{-EBADMSG, "drm-engine-capacity-gfx: 0\n"},
	{-EBADMSG, "drm-cycles-rcs: 1 Hz\n"},
	{-EBADMSG, "drm-total-cycles-rcs: 1 ns\n"},
	/* Keys. */
	{-EBADMSG, "drm-engine-: 1 ns\n"},
	{-EBADMSG, "drm-engine-a b: 1 ns\n"},
	{-EBADMSG, "drm-engine-gfx: 1 ns\ndrm-engine-gfx: 1 ns\n"},
	{-EBADMSG, "drm-memory-vram: 1\ndrm-memory-gtt: 1\ndrm-memory-vram: 2\n"},
	{-EBADMSG, "drm-engine-capacity-x: 1\ndrm-engine-capacity-x: 1\n"},
	/* What fits into no number. */
	{-ERANGE, "drm-engine-gfx: 18446744073709551616 ns\n"},
	{-ERANGE, "drm-engine-gfx: 99999999999999999999999999999999999999 ns\n"},
	{-ERANGE, "drm-engine-gfx: 18446744073709551615 ns\ndrm-engine-dma: 1 ns\n"},
	{-ERANGE, "drm-cycles-rcs: 18446744073709551615\ndrm-cycles-vcs: 1\n"},
	{-ERANGE, "drm-memory-vram: 18014398509481984 KiB\n"},
	{-ERANGE, "drm-memory-vram: 17592186044415 MiB\ndrm-memory-gtt: 1 MiB\n"},
};

static void test_wrong(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct drm_usage u = {.engine_ns = 77, .memory = 78};
		int r = drm_usage_parse(wrong[i].text, strlen(wrong[i].text), &u);

		if (r != wrong[i].result || u.engine_ns != 77 || u.memory != 78) {
			fail_msg("%d of \"%s\"", r, wrong[i].text);
		}
	}
}

/* At the edges of what is right. */
static void test_edges(void **state)
{
	static const char most[] = "drm-engine-gfx:18446744073709551615 ns  \t\n"
				   "drm-memory-vram: \t 17592186044415 MiB\n",
			  zero[] = "drm-engine-a: 1 ns\n\0:\n\n:\ndrm-engine\n";
	struct drm_usage u;

	assert_int_equal(drm_usage_parse(most, sizeof(most) - 1, &u), 0);
	assert_true(u.engine_ns == UINT64_MAX && u.memory == UINT64_MAX - (MIB - 1));
	/* Other lines may be anything, a zero byte included. */
	assert_int_equal(drm_usage_parse(zero, sizeof(zero) - 1, &u), 0);
	assert_int_equal(u.engine_ns, 1);
	/* How many there are may come first, and be of an engine that is not there. */
	assert_int_equal(drm_usage_parse("drm-engine-capacity-a: 4\ndrm-engine-a: 9 ns\n"
					 "drm-engine-capacity-b: 2\n",
				 69, &u),
		0);
	assert_int_equal(u.engine_ns, 2);
}

static void test_many_keys(void **state)
{
	char text[16384];
	struct drm_usage u;
	size_t n = 0;

	for (int i = 0; i < 200; i++) {
		n += (size_t)snprintf(text + n, sizeof(text) - n, "drm-engine-e%d:\t10 ns\n", i);
		assert_int_equal(drm_usage_parse(text, n, &u), i < 128 ? 0 : -E2BIG);
		assert_int_equal(u.engine_ns, MIN(i + 1, 128) * 10);
	}
}

/* No part of a text is taken for the whole: the kernel's is read at once. */
static void test_cut_anywhere(void **state)
{
	const char *text = drivers[0].text;

	for (size_t n = 0; n < strlen(text); n++) {
		/* Where it ends is what is looked for. */
		char *copy = malloc(n + 1);
		struct drm_usage u = {.engine_ns = BIG};
		int r;

		assert_non_null(copy);
		memcpy(copy, text, n);
		r = drm_usage_parse(copy, n, &u);
		assert_true(n == 0 || copy[n - 1] == '\n' ? r == 0 : r == -EBADMSG);
		assert_true(r == 0 ? u.engine_ns <= 5004800 + 4500 : u.engine_ns == BIG);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drivers),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_cut_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
