/* SPDX-License-Identifier: MIT
 * EDIDs of every size of mode: checksums, and the mode read back out of them.
 */
#include "gpu/edid.h"

#include <string.h>

#include "base/cleanup.h"
#include "tests/unit/test.h"

static void check_sum(const uint8_t *block, size_t size)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size; i++) {
		sum = (uint8_t)(sum + block[i]);
	}
	assert_int_equal(sum, 0);
}

/* Frames a second of the first detailed timing, in thousandths, and its size. */
static uint32_t first_timing(const uint8_t *edid, uint32_t *width, uint32_t *height)
{
	const uint8_t *t = edid + 54;
	uint32_t clock = (t[0] | t[1] << 8) * 10000U, columns, lines;

	*width = t[2] | (t[4] >> 4) << 8;
	*height = t[5] | (t[7] >> 4) << 8;
	columns = *width + (t[3] | (t[4] & 15U) << 8);
	lines = *height + (t[6] | (t[7] & 15U) << 8);
	return (uint32_t)(clock * 1000ULL / columns / lines);
}

static void modes(void **state)
{
	static const uint32_t sizes[][2] = {{1, 1}, {64, 64}, {640, 480}, {720, 400}, {800, 600},
		{1024, 768}, {1280, 800}, {1366, 768}, {1920, 1080}, {1080, 1920}, {2560, 1600},
		{3840, 2160}, {4095, 2160}, {1, 4095}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t edid[EDID_SIZE_MAX];
		uint32_t width, height, rate;

		memset(edid, 0xa5, sizeof(edid));
		assert_int_equal(edid_build(3, sizes[i][0], sizes[i][1], edid), 128);
		assert_memory_equal(edid, "\0\xff\xff\xff\xff\xff\xff\0", 8);
		assert_int_equal(edid[18], 1);
		assert_int_equal(edid[19], 4);
		assert_int_equal(edid[12], 4); /* the serial number tells scanouts apart */
		assert_int_equal(edid[126], 0);
		check_sum(edid, 128);
		rate = first_timing(edid, &width, &height);
		assert_int_equal(width, sizes[i][0]);
		assert_int_equal(height, sizes[i][1]);
		assert_in_range(rate, 58500, 60500);
	}
}

static void large_modes(void **state)
{
	static const uint32_t sizes[][2] = {{4096, 2160}, {2160, 4096}, {5120, 2880}, {7680, 4320},
		{EDID_SIDE_MAX, EDID_SIDE_MAX}, {4095, 4095}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t edid[EDID_SIZE_MAX];
		const uint8_t *t = edid + 128 + 8;
		uint32_t width, height;

		assert_int_equal(edid_build(0, sizes[i][0], sizes[i][1], edid), 256);
		assert_int_equal(edid[126], 1);
		check_sum(edid, 128);
		check_sum(edid + 128, 128);
		check_sum(edid + 129, 126);
		first_timing(edid, &width, &height);
		assert_int_equal(width, 1920);
		assert_int_equal(height, 1080);
		assert_int_equal(edid[128], 0x70);
		assert_int_equal((t[4] | t[5] << 8) + 1, sizes[i][0]);
		assert_int_equal((t[12] | t[13] << 8) + 1, sizes[i][1]);
		assert_true(t[3] & 0x80);
	}
}

/* The CVT tables have 1920x1080 at 60 Hz with reduced blanking at 138.50 MHz. */
static void known_timing(void **state)
{
	uint8_t edid[EDID_SIZE_MAX];

	edid_build(0, 1920, 1080, edid);
	assert_int_equal(edid[54] | edid[55] << 8, 13850);
	edid_build(0, 1280, 800, edid);
	assert_int_equal(edid[54] | edid[55] << 8, 7100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes),
		cmocka_unit_test(large_modes),
		cmocka_unit_test(known_timing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
