/* SPDX-License-Identifier: MIT
 *
 * The one copy of a frame is made here: from the guest's memory, row by row or all at once, into
 * an image that the front sends from. Addresses are looked up when the backing is attached, not
 * when it is copied; neighbours in memory become one span, so that a guest with large pages has a
 * frame in a few.
 */
#include "gpu/resource.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_gpu.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/memory.h"

/* Where the format has blue, green, red and alpha among its four bytes. */
struct layout {
	uint32_t format;
	uint8_t blue, green, red, alpha;
};

static const struct layout layouts[] = {
	{VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 0, 1, 2, 3},
	{VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, 0, 1, 2, 3},
	{VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM, 3, 2, 1, 0},
	{VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM, 3, 2, 1, 0},
	{VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM, 2, 1, 0, 3},
	{VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM, 2, 1, 0, 3},
	{VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM, 1, 2, 3, 0},
	{VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM, 1, 2, 3, 0},
};

bool rect_within(const struct rect *r, uint32_t width, uint32_t height)
{
	return r->x <= width && r->width <= width - r->x && r->y <= height &&
	       r->height <= height - r->y;
}

struct rect rect_intersect(const struct rect *a, const struct rect *b)
{
	uint32_t x = MAX(a->x, b->x), y = MAX(a->y, b->y);
	uint32_t right = MIN(a->x + a->width, b->x + b->width);
	uint32_t bottom = MIN(a->y + a->height, b->y + b->height);

	if (right <= x || bottom <= y) {
		return (struct rect){0};
	}
	return (struct rect){x, y, right - x, bottom - y};
}

static const struct layout *layout_of(uint32_t format)
{
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		if (layouts[i].format == format) {
			return &layouts[i];
		}
	}
	return NULL;
}

bool resource_format_known(uint32_t format)
{
	return layout_of(format) != NULL;
}

int resource_init(struct resource *r, struct budget *budget, uint32_t id, uint32_t format,
	uint32_t width, uint32_t height)
{
	uint64_t size = (uint64_t)width * height * RESOURCE_PIXEL_BYTES;
	void *pixels = NULL;
	int fd = -1, err;

	if (!resource_format_known(format) || width == 0 || height == 0 ||
		width > RESOURCE_SIDE_MAX || height > RESOURCE_SIDE_MAX) {
		return -EINVAL;
	}
	if (!budget_charge(budget, size)) {
		return -ENOMEM;
	}
	/* Sealed: who maps it can trust its size. */
	err = fd_create_sealed("devbroker-image", size, &fd, &pixels);
	if (err < 0) {
		budget_give_back(budget, size);
		return err;
	}
	budget->shared += size;
	*r = (struct resource){
		.id = id,
		.format = format,
		.width = width,
		.height = height,
		.pixels = pixels,
		.size = size,
		.image_fd = fd,
	};
	return 0;
}

void resource_init_blob(struct resource *r, uint32_t id, uint64_t size)
{
	assert(size > 0);
	*r = (struct resource){.id = id, .blob_size = size, .image_fd = -1};
}

void resource_finish(struct resource *r, struct budget *budget)
{
	if (r->id == 0) {
		return;
	}
	resource_detach(r, budget);
	if (r->pixels) {
		munmap(r->pixels, r->size);
	}
	safe_close(r->image_fd);
	budget->shared -= r->size;
	budget_give_back(budget, r->size);
	*r = (struct resource){.image_fd = -1};
}

/* Adds the pieces of an entry to the spans, for which there is room. */
static int add_entry(struct memory *m, const struct backing_entry *e, struct backing_span *spans,
	uint32_t *n, uint64_t *bytes)
{
	uint64_t at = e->guest, left = e->length, end;

	if (left == 0 || !u64_add(at, left, &end) || !u64_add(*bytes, left, &end)) {
		return -EINVAL;
	}
	while (left > 0) {
		uint64_t together;
		const uint8_t *base = memory_piece(m, at, left, &together);
		struct backing_span *last = *n > 0 ? &spans[*n - 1] : NULL;

		if (!base) {
			return -EINVAL;
		}
		if (last && last->base + last->length == base) {
			last->length += together;
		} else {
			spans[(*n)++] = (struct backing_span){base, together, *bytes};
		}
		*bytes += together;
		at += together;
		left -= together;
	}
	return 0;
}

/* An entry falls into as many pieces as there are regions at most; nearly always it is one. */
static uint32_t count_pieces(struct memory *m, const struct backing_entry *entries, uint32_t n)
{
	uint64_t pieces = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = entries[i].guest, left = entries[i].length, together;

		while (left > 0 && memory_piece(m, at, left, &together)) {
			pieces++;
			at += together;
			left -= together;
		}
	}
	return (uint32_t)MIN(pieces, UINT32_MAX);
}

int resource_attach(struct resource *r, struct budget *budget, struct memory *m,
	const struct backing_entry *entries, uint32_t n)
{
	_cleanup_free_ struct backing_span *spans = NULL;
	uint32_t room = count_pieces(m, entries, n), n_spans = 0;
	uint64_t cost = (uint64_t)room * sizeof(*spans), bytes = 0;
	int err = 0;

	assert(!r->backed);
	if (!budget_charge(budget, cost)) {
		return -ENOMEM;
	}
	spans = calloc(MAX(room, 1U), sizeof(*spans));
	if (!spans) {
		err = -ENOMEM;
	}
	for (uint32_t i = 0; err == 0 && i < n; i++) {
		err = add_entry(m, &entries[i], spans, &n_spans, &bytes);
	}
	budget_give_back(budget, cost);
	if (err == 0 && bytes < r->blob_size) {
		err = -EINVAL;
	}
	if (err < 0) {
		return err;
	}
	_unused_ bool charged = budget_charge(budget, (uint64_t)n_spans * sizeof(*spans));
	assert(charged);
	r->backed = true;
	r->spans = steal_ptr(spans);
	r->n_spans = n_spans;
	r->backing_bytes = bytes;
	return 0;
}

void resource_detach(struct resource *r, struct budget *budget)
{
	if (r->backed) {
		budget_give_back(budget, (uint64_t)r->n_spans * sizeof(*r->spans));
		free(r->spans);
		r->spans = NULL;
		r->n_spans = 0;
		r->backing_bytes = 0;
		r->backed = false;
	}
}

static void copy_pixels(
	const struct layout *l, uint8_t *restrict to, const uint8_t *restrict from, size_t bytes)
{
	if (l->blue == 0) {
		memcpy(to, from, bytes);
		return;
	}
	for (size_t i = 0; i + RESOURCE_PIXEL_BYTES <= bytes; i += RESOURCE_PIXEL_BYTES) {
		to[i] = from[i + l->blue];
		to[i + 1] = from[i + l->green];
		to[i + 2] = from[i + l->red];
		to[i + 3] = from[i + l->alpha];
	}
}

void resource_turn(struct resource *r, const struct rect *box)
{
	const struct layout *l = layout_of(r->format);

	for (uint32_t y = box->y; l->blue != 0 && y < box->y + box->height; y++) {
		uint8_t *p = r->pixels + ((uint64_t)y * r->width + box->x) * RESOURCE_PIXEL_BYTES;

		for (uint32_t x = 0; x < box->width; x++, p += RESOURCE_PIXEL_BYTES) {
			uint8_t pixel[RESOURCE_PIXEL_BYTES];

			memcpy(pixel, p, sizeof(pixel));
			copy_pixels(l, p, pixel, sizeof(pixel));
		}
	}
}

/* Where copying is: positions only grow. */
struct reader {
	const struct resource *r; /* that is backed */
	const struct layout *layout;
	uint32_t span;
};

/* The first span that ends behind at. */
static uint32_t find_span(const struct resource *r, uint64_t at)
{
	uint32_t low = 0, high = r->n_spans;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct backing_span *s = &r->spans[middle];

		if (s->at + s->length <= at) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return low;
}

/* A pixel that lies in several spans: gathered byte by byte. */
static void read_split_pixel(struct reader *rd, uint8_t *to, uint64_t at)
{
	uint8_t pixel[RESOURCE_PIXEL_BYTES];

	for (size_t i = 0; i < sizeof(pixel); i++, at++) {
		while (rd->r->spans[rd->span].at + rd->r->spans[rd->span].length <= at) {
			rd->span++;
		}
		pixel[i] = rd->r->spans[rd->span].base[at - rd->r->spans[rd->span].at];
	}
	copy_pixels(rd->layout, to, pixel, sizeof(pixel));
}

static void read_bytes(struct reader *rd, uint8_t *to, uint64_t at, uint64_t bytes)
{
	while (bytes > 0) {
		const struct backing_span *s = &rd->r->spans[rd->span];
		uint64_t n;

		if (s->at + s->length <= at) {
			rd->span++;
			continue;
		}
		n = MIN(bytes, s->at + s->length - at);
		n -= n % RESOURCE_PIXEL_BYTES;
		if (n == 0) {
			n = RESOURCE_PIXEL_BYTES;
			read_split_pixel(rd, to, at);
		} else {
			copy_pixels(rd->layout, to, s->base + (at - s->at), n);
		}
		to += n;
		at += n;
		bytes -= n;
	}
}

static uint64_t row_bytes(const struct resource *r)
{
	return (uint64_t)r->width * RESOURCE_PIXEL_BYTES;
}

bool resource_has_rows(
	const struct resource *r, uint64_t offset, uint64_t stride, uint32_t width, uint32_t height)
{
	uint64_t bytes = (uint64_t)width * RESOURCE_PIXEL_BYTES, rows, end;

	if (width == 0 || height == 0) {
		return true;
	}
	return u64_mul(height - 1, stride, &rows) && u64_add(rows, bytes, &end) &&
	       u64_add(offset, end, &end) && end <= r->backing_bytes;
}

bool resource_has(const struct resource *r, const struct rect *box, uint64_t offset)
{
	assert(rect_within(box, r->width, r->height));
	return resource_has_rows(r, offset, row_bytes(r), box->width, box->height);
}

void resource_copy(struct resource *to, const struct resource *from, const struct rect *box,
	uint64_t offset, uint64_t stride)
{
	uint64_t row = row_bytes(to), bytes = (uint64_t)box->width * RESOURCE_PIXEL_BYTES;
	uint64_t rows = box->height;
	uint8_t *pixels = to->pixels + box->y * row + (uint64_t)box->x * RESOURCE_PIXEL_BYTES;
	struct reader rd = {.r = from, .layout = layout_of(to->format)};

	assert(rect_within(box, to->width, to->height) && stride >= bytes);
	assert(resource_has_rows(from, offset, stride, box->width, box->height));
	if (bytes == 0 || rows == 0) {
		return;
	}
	if (bytes == row && bytes == stride) {
		bytes *= rows;
		rows = 1;
	}
	rd.span = find_span(from, offset);
	for (uint64_t i = 0; i < rows; i++) {
		read_bytes(&rd, pixels + i * row, offset + i * stride, bytes);
	}
}
