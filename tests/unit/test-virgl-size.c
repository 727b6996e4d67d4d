/* SPDX-License-Identifier: MIT
 * What 3D resources and transfers are charged: formats, levels, layers, and what there can't be.
 */
#include <stddef.h>

#include "base/checked.h"
#include "gpu/virgl.h"
#include "tests/unit/test.h"

enum { BUFFER, T1D, T2D, T3D, CUBE, RECT, T1D_ARRAY, T2D_ARRAY, CUBE_ARRAY };
enum { BGRA = 1, Z16 = 16, RGBA32F = 31, R8 = 64, DXT1 = 105, DXT5 = 108, ASTC_12X12 = 292 };

struct size_case {
	uint64_t bytes;
	uint32_t target, format, width, height, depth, array_size, last_level, samples;
};

static uint64_t bytes_of(const struct size_case *c)
{
	return virgl_resource_bytes(&(struct virgl_resource){.id = 1,
		.target = c->target,
		.format = c->format,
		.width = c->width,
		.height = c->height,
		.depth = c->depth,
		.array_size = c->array_size,
		.last_level = c->last_level,
		.nr_samples = c->samples});
}

static void test_resources(void **state)
{
	static const struct size_case cases[] = {
		{1000, BUFFER, R8, 1000, 1, 1, 1, 0, 0},
		{536870912, BUFFER, R8, 536870912, 1, 1, 1, 0, 0},
		{16 * 16 * 4, T2D, BGRA, 16, 16, 1, 1, 0, 0},
		{16 * 16 * 4 * 4, T2D, BGRA, 16, 16, 1, 1, 0, 4},
		{(16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1) * 4, T2D, BGRA, 16, 16, 1, 1, 4, 0},
		{10 * 2, T1D, Z16, 10, 1, 1, 1, 0, 0},
		{(8 * 4 * 2 + 4 * 2 * 1) * 16, T3D, RGBA32F, 8, 4, 2, 1, 1, 0},
		{6 * 16 * 16 * 4, CUBE, BGRA, 16, 16, 1, 6, 0, 0},
		{12 * 4 * 4 * 4, CUBE_ARRAY, BGRA, 4, 4, 1, 12, 0, 0},
		{5 * 16 * 4, T1D_ARRAY, BGRA, 16, 1, 1, 5, 0, 0},
		{2 * 2 * 8, T2D, DXT1, 8, 5, 1, 1, 0, 0},
		{(4 + 1 + 1 + 1) * 16, T2D, DXT5, 8, 8, 1, 1, 3, 0},
		{2 * 1 * 16, T2D, ASTC_12X12, 13, 12, 1, 1, 0, 0},
		{UINT64_C(16384) * 16384 * 4, T2D, BGRA, 16384, 16384, 1, 1, 0, 0},
		/* What there can't be. */
		{0, 9, BGRA, 16, 16, 1, 1, 0, 0},
		{0, T2D, 0, 16, 16, 1, 1, 0, 0},
		{0, T2D, 73, 16, 16, 1, 1, 0, 0},
		{0, T2D, UINT32_MAX, 16, 16, 1, 1, 0, 0},
		{0, T2D, BGRA, 0, 16, 1, 1, 0, 0},
		{0, T2D, BGRA, 16, 0, 1, 1, 0, 0},
		{0, T2D, BGRA, 16, 16, 0, 1, 0, 0},
		{0, T2D, BGRA, 16, 16, 2, 1, 0, 0},
		{0, T2D, BGRA, 16, 16, 1, 1, 5, 0},
		{0, T2D, BGRA, 16, 16, 1, 1, UINT32_MAX, 0},
		{0, T2D, BGRA, 16, 16, 1, 1, 0, 1000},
		{0, T2D, BGRA, UINT32_MAX, UINT32_MAX, 1, 1, 0, 0},
		{0, T2D_ARRAY, BGRA, 16, 16, 1, UINT32_MAX, 0, 0},
		{0, T3D, BGRA, 16, 16, UINT32_MAX, 1, 0, 0},
		{0, BUFFER, R8, 0, 1, 1, 1, 0, 0},
		{0, BUFFER, R8, 16, 2, 1, 1, 0, 0},
		{0, BUFFER, R8, 16, 1, 1, 2, 0, 0},
		{0, BUFFER, R8, 16, 1, 1, 1, 1, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (bytes_of(&cases[i]) != cases[i].bytes) {
			fail_msg("case %zu: %llu instead of %llu", i,
				(unsigned long long)bytes_of(&cases[i]),
				(unsigned long long)cases[i].bytes);
		}
	}
}

struct transfer_case {
	uint64_t bytes;
	uint32_t level, x, y, z, width, height, depth, stride, layer_stride;
};

static void check_transfers(
	const struct virgl_resource *r, const struct transfer_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct transfer_case *c = &cases[i];
		const struct virgl_transfer t = {.id = 1,
			.level = c->level,
			.stride = c->stride,
			.layer_stride = c->layer_stride,
			.area = {c->x, c->y, c->z, c->width, c->height, c->depth}};

		if (virgl_transfer_bytes(r, &t) != c->bytes) {
			fail_msg("case %zu: %llu instead of %llu", i,
				(unsigned long long)virgl_transfer_bytes(r, &t),
				(unsigned long long)c->bytes);
		}
	}
}

static void test_transfers(void **state)
{
	const struct virgl_resource texture = {1, T2D, BGRA, 0, 16, 8, 1, 1, 2, 0, 0};
	const struct virgl_resource volume = {1, T3D, BGRA, 0, 8, 8, 4, 1, 1, 0, 0};
	const struct virgl_resource cubes = {1, CUBE, R8, 0, 4, 4, 1, 6, 0, 0, 0};
	const struct virgl_resource packed = {1, T2D, DXT1, 0, 16, 16, 1, 1, 0, 0, 0};
	const struct virgl_resource buffer = {1, BUFFER, R8, 0, 100, 1, 1, 1, 0, 0, 0};
	static const struct transfer_case of_texture[] = {
		{16 * 8 * 4, 0, 0, 0, 0, 16, 8, 1, 0, 0},
		{7 * 64 + 4, 0, 3, 0, 0, 1, 8, 1, 0, 0},
		{7 * 100 + 64, 0, 0, 0, 0, 16, 8, 1, 100, 0},
		{4 * 2 * 4, 2, 0, 0, 0, 4, 2, 1, 0, 0},
		{7 * UINT64_C(0xffffffff) + 4, 0, 0, 0, 0, 1, 8, 1, UINT32_MAX, 0},
		{0, 0, 0, 0, 0, 16, 8, 1, 63, 0},
		{0, 3, 0, 0, 0, 1, 1, 1, 0, 0},
		{0, UINT32_MAX, 0, 0, 0, 1, 1, 1, 0, 0},
		{0, 2, 0, 0, 0, 5, 1, 1, 0, 0},
		{0, 0, 1, 0, 0, 16, 8, 1, 0, 0},
		{0, 0, UINT32_MAX, 0, 0, 2, 1, 1, 0, 0},
		{0, 0, 0, 9, 0, 1, 1, 1, 0, 0},
		{0, 0, 0, 0, 1, 1, 1, 1, 0, 0},
		{0, 0, 0, 0, 0, 0, 1, 1, 0, 0},
		{0, 0, 0, 0, 0, 1, 0, 1, 0, 0},
		{0, 0, 0, 0, 0, 1, 1, 0, 0, 0},
	};
	static const struct transfer_case of_volume[] = {
		{8 * 8 * 4 * 4, 0, 0, 0, 0, 8, 8, 4, 0, 0},
		{4 * 4 * 4 * 2, 1, 0, 0, 0, 4, 4, 2, 0, 0},
		{3 * 1000 + 7 * 32 + 32, 0, 0, 0, 0, 8, 8, 4, 0, 1000},
		{0, 0, 0, 0, 0, 8, 8, 4, 0, 255},
		{0, 1, 0, 0, 1, 4, 4, 2, 0, 0},
	};
	static const struct transfer_case of_cubes[] = {
		{6 * 16, 0, 0, 0, 0, 4, 4, 6, 0, 0},
		{0, 0, 0, 0, 1, 4, 4, 6, 0, 0},
	};
	static const struct transfer_case of_packed[] = {
		{4 * 4 * 8, 0, 0, 0, 0, 16, 16, 1, 0, 0},
		{8, 0, 4, 4, 0, 1, 1, 1, 0, 0},
	};
	static const struct transfer_case of_buffer[] = {
		{100, 0, 0, 0, 0, 100, 1, 1, 0, 0},
		{1, 0, 99, 0, 0, 1, 1, 1, 77, 5},
		{0, 0, 99, 0, 0, 2, 1, 1, 0, 0},
		{0, 0, 0, 0, 0, 1, 2, 1, 0, 0},
	};

	check_transfers(&texture, of_texture, ARRAY_SIZE(of_texture));
	check_transfers(&volume, of_volume, ARRAY_SIZE(of_volume));
	check_transfers(&cubes, of_cubes, ARRAY_SIZE(of_cubes));
	check_transfers(&packed, of_packed, ARRAY_SIZE(of_packed));
	check_transfers(&buffer, of_buffer, ARRAY_SIZE(of_buffer));
}

/* No input makes a number that is smaller than what it stands for. */
static void test_no_overflow(void **state)
{
	static const uint32_t sides[] = {0, 1, 5, 32768, 32769, 0x7fffffff, UINT32_MAX};

	for (uint32_t target = 0; target < 10; target++) {
		for (size_t i = 0; i < ARRAY_SIZE(sides) * ARRAY_SIZE(sides); i++) {
			const uint32_t a = sides[i % ARRAY_SIZE(sides)],
				       b = sides[i / ARRAY_SIZE(sides)];
			const struct virgl_resource r = {
				1, target, RGBA32F, 0, a, b, target == T3D ? a : 1, b, 0, b, 0};
			uint64_t bytes = virgl_resource_bytes(&r);

			assert_true(bytes == 0 || target == BUFFER || bytes / 16 >= a);
			assert_true(bytes < UINT64_C(1) << 56);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resources),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_no_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
