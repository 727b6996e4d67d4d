/* SPDX-License-Identifier: MIT
 *
 * Sizes as Gallium has them. The numbers of formats and targets are virgl's (virglrenderer,
 * src/virgl_hw.h), what a block of each format takes is known from Mesa (u_format).
 */
#include <stddef.h>

#include "base/checked.h"
#include "gpu/capset.h"
#include "gpu/virgl.h"

enum target {
	TARGET_BUFFER,
	TARGET_1D,
	TARGET_2D,
	TARGET_3D,
	TARGET_CUBE,
	TARGET_RECT,
	TARGET_1D_ARRAY,
	TARGET_2D_ARRAY,
	TARGET_CUBE_ARRAY,
	TARGET_COUNT_,
};

/* Beyond what any driver has. One that draws has less (virgl_limits). */
#define SIDE_MAX    32768
#define LAYERS_MAX  16384
#define SAMPLES_MAX 64

/* Bytes of a block of each format; 0: there is none of this number. */
static const uint8_t block_bytes[] = {
	// clang-format off
	/*   0 */ 0, 4, 4, 4, 4, 2, 2, 2, 4, 1, 1, 1, 2, 2, 4, 4, 2, 4, 4, 4,
	/*  20 */ 4, 4, 4, 1, 8, 16, 24, 32, 4, 8, 12, 16, 4, 8, 12, 16, 4, 8, 12, 16,
	/*  40 */ 4, 8, 12, 16, 4, 8, 12, 16, 2, 4, 6, 8, 2, 4, 6, 8, 2, 4, 6, 8,
	/*  60 */ 2, 4, 6, 8, 1, 2, 3, 4, 4, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0,
	/*  80 */ 0, 0, 1, 2, 3, 4, 0, 4, 8, 12, 16, 2, 4, 6, 8, 1, 2, 3, 4, 4,
	/* 100 */ 4, 4, 4, 4, 4, 8, 8, 16, 16, 8, 8, 16, 16, 8, 8, 16, 16, 4, 4, 4,
	/* 120 */ 2, 4, 2, 4, 4, 4, 8, 1, 4, 4, 1, 4, 4, 2, 4, 2, 4, 4, 8, 1,
	/* 140 */ 4, 2, 2, 8, 8, 16, 16, 1, 1, 2, 1, 2, 2, 4, 2, 2, 2, 4, 2, 4,
	/* 160 */ 4, 8, 4, 4, 4, 4, 4, 4, 1, 1, 2, 2, 4, 4, 4, 4, 4, 1, 2, 3,
	/* 180 */ 4, 1, 2, 3, 4, 2, 4, 6, 8, 2, 4, 6, 8, 4, 8, 12, 16, 4, 8, 12,
	/* 200 */ 16, 1, 1, 1, 2, 1, 1, 1, 2, 2, 2, 2, 4, 2, 2, 2, 4, 4, 4, 4,
	/* 220 */ 8, 4, 4, 4, 8, 4, 8, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 16,
	/* 240 */ 16, 16, 2, 4, 4, 4, 8, 2, 2, 4, 4, 8, 8, 4, 2, 16, 16, 16, 16, 2,
	/* 260 */ 2, 2, 4, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 16, 16, 8, 8, 16, 16, 16,
	/* 280 */ 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16,
	/* 300 */ 16, 16, 16, 16, 16, 16, 16, 0, 4, 0, 0, 2, 1, 2, 0, 0, 0, 3, 1, 2,
	/* 320 */ 2, 2,
	// clang-format on
};

/* Blocks of more than one pixel. */
static const struct {
	uint16_t first, last;
	uint8_t width, height;
} blocks[] = {
	{14, 15, 2, 1},
	{105, 116, 4, 4},
	{117, 118, 2, 1},
	{127, 127, 8, 1},
	{143, 146, 4, 4},
	{226, 226, 4, 4},
	{227, 228, 2, 1},
	{255, 258, 4, 4},
	{269, 279, 4, 4},
	{280, 280, 5, 4},
	{281, 281, 5, 5},
	{282, 282, 6, 5},
	{283, 283, 6, 6},
	{284, 284, 8, 5},
	{285, 285, 8, 6},
	{286, 286, 8, 8},
	{287, 287, 10, 5},
	{288, 288, 10, 6},
	{289, 289, 10, 8},
	{290, 290, 10, 10},
	{291, 291, 12, 10},
	{292, 292, 12, 12},
	{293, 293, 4, 4},
	{294, 294, 5, 4},
	{295, 295, 5, 5},
	{296, 296, 6, 5},
	{297, 297, 6, 6},
	{298, 298, 8, 5},
	{299, 299, 8, 6},
	{300, 300, 8, 8},
	{301, 301, 10, 5},
	{302, 302, 10, 6},
	{303, 303, 10, 8},
	{304, 304, 10, 10},
	{305, 305, 12, 10},
	{306, 306, 12, 12},
};

bool virgl_format_block(
	uint32_t format, uint32_t *bytes_out, uint32_t *width_out, uint32_t *height_out)
{
	uint32_t width = 1, height = 1;

	if (format >= ARRAY_SIZE(block_bytes) || block_bytes[format] == 0) {
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
		if (format >= blocks[i].first && format <= blocks[i].last) {
			width = blocks[i].width;
			height = blocks[i].height;
		}
	}
	*bytes_out = block_bytes[format];
	*width_out = width;
	*height_out = height;
	return true;
}

struct format {
	uint32_t bytes, width, height; /* of a block */
};

static bool format_of(const struct virgl_resource *r, struct format *out)
{
	return virgl_format_block(r->format, &out->bytes, &out->width, &out->height);
}

static uint64_t div_up(uint64_t a, uint32_t b)
{
	return (a + b - 1) / b;
}

static uint32_t minify(uint32_t side, uint32_t level)
{
	return level < 32 ? MAX(side >> level, 1U) : 1;
}

static uint32_t layers_of(const struct virgl_resource *r, uint32_t level)
{
	return r->target == TARGET_3D ? minify(r->depth, level) : MAX(r->array_size, 1U);
}

static bool is_buffer_valid(const struct virgl_resource *r)
{
	return r->width > 0 && r->height <= 1 && r->depth <= 1 && r->array_size <= 1 &&
	       r->last_level == 0 && r->nr_samples <= 1;
}

static bool is_texture_valid(const struct virgl_resource *r)
{
	uint32_t side = MAX(MAX(r->width, r->height), r->target == TARGET_3D ? r->depth : 1U);

	return r->width > 0 && r->height > 0 && r->depth > 0 && side <= SIDE_MAX &&
	       (r->target == TARGET_3D || r->depth == 1) && r->array_size <= LAYERS_MAX &&
	       r->nr_samples <= SAMPLES_MAX && r->last_level < 32 && side >> r->last_level > 0;
}

uint64_t virgl_resource_bytes(const struct virgl_resource *r)
{
	struct format f;
	uint64_t sum = 0;

	if (r->target >= TARGET_COUNT_ || !format_of(r, &f)) {
		return 0;
	}
	if (r->target == TARGET_BUFFER) {
		return is_buffer_valid(r) ? r->width : 0;
	}
	if (!is_texture_valid(r)) {
		return 0;
	}
	/* Below 2^15 * 2^15 * 2^5 * 2^15 for each level, and as much again for all of them. */
	for (uint32_t level = 0; level <= r->last_level; level++) {
		uint64_t plane = div_up(minify(r->width, level), f.width) *
				 div_up(minify(r->height, level), f.height) * f.bytes;

		if (!u64_mul(plane, layers_of(r, level), &plane) || !u64_add(sum, plane, &sum)) {
			return 0;
		}
	}
	return u64_mul(sum, MAX(r->nr_samples, 1U), &sum) ? sum : 0;
}

#define CAPSET           2
#define CAPSET_BYTES_MAX 4096

void virgl_limits_of(const struct virgl_ops *ops, struct virgl_limits *out)
{
	uint8_t capset[CAPSET_BYTES_MAX];
	uint32_t version, size,
		*all[] = {&out->side, &out->side_3d, &out->side_cube, &out->layers, &out->samples};

	ops->capset_info(CAPSET, &version, &size);
	size = size <= sizeof(capset) ? size : 0;
	if (size > 0) {
		ops->capset_fill(CAPSET, version, capset, size);
	}
	capset_limits(capset, size, out);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		*all[i] = *all[i] ? *all[i] : UINT32_MAX;
	}
}

bool virgl_resource_fits(const struct virgl_resource *r, const struct virgl_limits *l)
{
	uint32_t side = r->target == TARGET_3D                                       ? l->side_3d
			: r->target == TARGET_CUBE || r->target == TARGET_CUBE_ARRAY ? l->side_cube
										     : l->side;

	if (r->target == TARGET_BUFFER) {
		return true;
	}
	return r->width <= side && r->height <= side &&
	       (r->target != TARGET_3D || r->depth <= side) &&
	       r->array_size <= MAX(l->layers, 6U) && r->nr_samples <= MAX(l->samples, 1U);
}

/* Whether n from at on lie within size. */
static bool is_within(uint32_t at, uint32_t n, uint32_t size)
{
	return n > 0 && at <= size && n <= size - at;
}

uint64_t virgl_transfer_bytes(const struct virgl_resource *r, const struct virgl_transfer *t)
{
	const struct virgl_area *a = &t->area;
	uint64_t row, stride, rows, layer_stride;
	struct format f;

	if (!format_of(r, &f) || t->level > r->last_level ||
		!is_within(a->x, a->width, minify(r->width, t->level)) ||
		!is_within(a->y, a->height, minify(r->height, t->level)) ||
		!is_within(a->z, a->depth, layers_of(r, t->level))) {
		return 0;
	}
	if (r->target == TARGET_BUFFER) {
		return a->width;
	}
	row = div_up(a->width, f.width) * f.bytes;
	rows = div_up(a->height, f.height);
	stride = t->stride ? t->stride : div_up(minify(r->width, t->level), f.width) * f.bytes;
	if (stride < row) {
		return 0;
	}
	layer_stride = t->layer_stride ? t->layer_stride
				       : stride * div_up(minify(r->height, t->level), f.height);
	if (t->layer_stride && layer_stride < stride * (rows - 1) + row) {
		return 0;
	}
	/* Below 2^32 * 2^15 * 2^15, and stride is below 2^32. */
	if (!u64_mul(layer_stride, a->depth - 1, &layer_stride)) {
		return 0;
	}
	return layer_stride + stride * (rows - 1) + row;
}
