/* SPDX-License-Identifier: MIT
 * 2D resources: an image of ours in a memfd, and the guest's memory that backs it; or (a blob) that
 * memory alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/budget.h"

struct memory;

#define RESOURCE_SIDE_MAX    16384 /* pixels */
#define RESOURCE_PIXEL_BYTES 4     /* of every format that 2D has */

struct rect {
	uint32_t x;
	uint32_t y;
	uint32_t width;
	uint32_t height;
};

/* Whether r lies within width by height; an empty r at the border does. */
bool rect_within(const struct rect *r, uint32_t width, uint32_t height);
/* The part of a that is in b too; empty (no width or no height) if there is none. */
struct rect rect_intersect(const struct rect *a, const struct rect *b);

/* As the guest told it, and as the journal keeps it. */
struct backing_entry {
	uint64_t guest;
	uint64_t length; /* > 0 */
};

/* A piece of the backing as it lies here. */
struct backing_span {
	const uint8_t *base;
	uint64_t length;
	uint64_t at; /* of its first byte in the backing */
};

struct resource {
	uint32_t id; /* 0: this is none */
	uint32_t format;
	uint32_t width;
	uint32_t height;
	/* B8G8R8A8 or B8G8R8X8 whatever the format is: rows of width pixels without gaps. The
	 * front end of the VMM takes nothing else, and so it is turned while it is copied. */
	uint8_t *pixels; // may be NULL: a blob
	uint64_t size;   /* bytes; the charge */
	int image_fd;
	uint64_t blob_size; /* bytes; 0: it is no blob, and has an image */
	bool backed;
	struct backing_span *spans;
	uint32_t n_spans;
	uint64_t backing_bytes;
};

bool resource_format_known(uint32_t format);
/* Turns a box of pixels that were put into the image as the format has them into what it holds. */
void resource_turn(struct resource *r, const struct rect *box);

/* Makes the image, all zero. 0; -EINVAL for an unknown format, no pixels or a side above
 * RESOURCE_SIDE_MAX; -ENOMEM when it is over the budget or there is no memory; -errno otherwise. */
int resource_init(struct resource *r, struct budget *budget, uint32_t id, uint32_t format,
	uint32_t width, uint32_t height) _must_check_;
/* Makes a blob of size bytes (> 0), which has no format, no sides and no image. */
void resource_init_blob(struct resource *r, uint32_t id, uint64_t size);
void resource_finish(struct resource *r, struct budget *budget);

/* Backs r (not backed) with n entries, in order. 0; -EINVAL if one is empty or not in memory, the
 * sum overflows, or it is less than a blob has; -ENOMEM. */
int resource_attach(struct resource *r, struct budget *budget, struct memory *m,
	const struct backing_entry *entries, uint32_t n) _must_check_;
void resource_detach(struct resource *r, struct budget *budget);

/* Whether all bytes of a box that lies within the image are in the backing, where its first row
 * lies offset bytes into it and each next one a row of the image further. */
bool resource_has(const struct resource *r, const struct rect *box, uint64_t offset) _must_check_;
/* The same of rows of width pixels, the first of them offset bytes into the backing and each next
 * one stride bytes further. */
bool resource_has_rows(const struct resource *r, uint64_t offset, uint64_t stride, uint32_t width,
	uint32_t height) _must_check_;
/* Copies rows that from (resource_has_rows) has into a box that lies within the image of to, whose
 * format they have. stride: at least as long as a row of the box. */
void resource_copy(struct resource *to, const struct resource *from, const struct rect *box,
	uint64_t offset, uint64_t stride);
