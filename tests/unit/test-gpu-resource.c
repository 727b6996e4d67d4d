/* SPDX-License-Identifier: MIT
 * Images and their backing: formats, sizes, the budget, and every box against a slow second copy.
 */
#include "gpu/resource.h"

#include <errno.h>
#include <linux/virtio_gpu.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "gpu/memory.h"
#include "tests/unit/test.h"

#define PAGE 4096
#define BGRA VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM

struct rig {
	struct memory memory;
	struct budget budget;
	uint8_t *guest; /* of both regions, as one file */
	int fd;
};

/* Two regions that touch: 0 to 16 pages, and from there on 16 more, apart in here. */
static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	r->budget.limit = 64 << 20;
	r->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r->fd, 40 * PAGE), 0);
	r->guest = mmap(NULL, 40 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	assert_true(r->guest != MAP_FAILED);
	for (size_t i = 0; i < 40 * PAGE; i++) {
		r->guest[i] = (uint8_t)(i * 7 + i / 251);
	}
	memory_init(&r->memory);
	assert_int_equal(
		memory_add(&r->memory, &(struct memory_region){0, 0, 16 * PAGE, 0}, r->fd), 0);
	assert_int_equal(
		memory_add(&r->memory,
			&(struct memory_region){16 * PAGE, 1 << 20, 16 * PAGE, 20 * PAGE}, r->fd),
		0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	assert_int_equal(r->budget.used, 0);
	memory_finish(&r->memory);
	munmap(r->guest, 40 * PAGE);
	close(r->fd);
	free(r);
	return 0;
}

static uint8_t guest_byte(const struct rig *r, uint64_t at)
{
	return r->guest[at < 16 * PAGE ? at : at + 4 * PAGE];
}

static void creation(void **state)
{
	static const struct {
		uint32_t format, width, height;
		int result;
	} cases[] = {{BGRA, 1, 1, 0}, {BGRA, 0, 1, -EINVAL}, {BGRA, 1, 0, -EINVAL},
		{0, 1, 1, -EINVAL}, {5, 1, 1, -EINVAL}, {UINT32_MAX, 1, 1, -EINVAL},
		{BGRA, RESOURCE_SIDE_MAX, 1, 0}, {BGRA, 1, RESOURCE_SIDE_MAX, 0},
		{BGRA, RESOURCE_SIDE_MAX + 1, 1, -EINVAL}, {BGRA, UINT32_MAX, UINT32_MAX, -EINVAL},
		{BGRA, 0x8000, 0x8000, -EINVAL}, {BGRA, 0x10001, 0x10001, -EINVAL},
		{BGRA, 4096, 4096, 0}, {BGRA, 4096, 4097, -ENOMEM}};
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct resource res = {0};
		int err = resource_init(
			&res, &r->budget, 1, cases[i].format, cases[i].width, cases[i].height);

		assert_int_equal(err, cases[i].result);
		assert_int_equal(r->budget.used, err == 0 ? res.size : 0);
		if (err == 0) {
			/* No byte of anybody's before it was written; and nobody changes the size.
			 */
			assert_int_equal(res.pixels[res.size - 1], 0);
			assert_true(ftruncate(res.image_fd, 0) < 0);
		}
		resource_finish(&res, &r->budget);
	}
}

static void budget(void **state)
{
	struct rig *r = *state;
	struct resource a = {0}, b = {0};
	struct backing_entry many[64];

	r->budget.limit = 4096 + 32 * sizeof(struct backing_span);
	assert_int_equal(resource_init(&a, &r->budget, 1, BGRA, 32, 32), 0);
	assert_int_equal(resource_init(&b, &r->budget, 2, BGRA, 32, 32), -ENOMEM);
	/* Every second page: nothing to be joined. */
	for (size_t i = 0; i < 64; i++) {
		many[i] = (struct backing_entry){(i % 8) * 2 * PAGE, 64};
	}
	assert_int_equal(resource_attach(&a, &r->budget, &r->memory, many, 33), -ENOMEM);
	assert_int_equal(r->budget.used, 4096);
	assert_int_equal(resource_attach(&a, &r->budget, &r->memory, many, 32), 0);
	assert_int_equal(r->budget.used, r->budget.limit);
	resource_detach(&a, &r->budget);
	assert_int_equal(r->budget.used, 4096);
	resource_finish(&a, &r->budget);
}

static void backing(void **state)
{
	static const struct {
		struct backing_entry e[3];
		uint32_t n;
		int result;
		uint32_t spans;
	} cases[] = {
		{{{0, 4096}}, 1, 0, 1},
		{{{0}}, 0, 0, 0},
		{{{0, PAGE}, {PAGE, PAGE}, {2 * PAGE, PAGE}}, 3, 0, 1},
		{{{PAGE, PAGE}, {0, PAGE}, {PAGE, PAGE}}, 3, 0, 2}, /* 0 and 1 are neighbours */
		{{{15 * PAGE, 2 * PAGE}}, 1, 0, 2},                 /* into the next region */
		{{{0, 0}}, 1, -EINVAL, 0},
		{{{32 * PAGE, 1}}, 1, -EINVAL, 0},
		{{{0, 32 * PAGE + 1}}, 1, -EINVAL, 0},
		{{{0, PAGE}, {UINT64_MAX, PAGE}}, 2, -EINVAL, 0},
		{{{0, UINT64_MAX}}, 1, -EINVAL, 0},
	};
	struct rig *r = *state;
	struct resource res = {0};

	assert_int_equal(resource_init(&res, &r->budget, 1, BGRA, 16, 16), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			resource_attach(&res, &r->budget, &r->memory, cases[i].e, cases[i].n),
			cases[i].result);
		assert_int_equal(res.backed, cases[i].result == 0);
		assert_int_equal(res.n_spans, cases[i].spans);
		resource_detach(&res, &r->budget);
		assert_int_equal(r->budget.used, res.size);
	}
	resource_finish(&res, &r->budget);
}

static void bounds(void **state)
{
	static const struct {
		struct rect box;
		uint64_t offset;
		bool ok;
	} cases[] = {
		{{0, 0, 16, 16}, 0, true},
		{{0, 0, 16, 16}, 1, false},
		{{0, 15, 16, 1}, 960, true},
		{{0, 15, 16, 1}, 961, false},
		{{15, 15, 1, 1}, 1020, true},
		{{15, 15, 1, 1}, 1021, false},
		{{0, 0, 1, 16}, 60, true}, /* the last row need not be whole */
		{{0, 0, 1, 16}, 64, false},
		{{0, 0, 16, 16}, UINT64_MAX, false},
		{{0, 0, 16, 16}, UINT64_MAX - 1022, false},
		{{16, 16, 0, 0}, UINT64_MAX, true}, /* nothing */
		{{0, 0, 0, 16}, 0, true},
	};
	struct rig *r = *state;
	struct resource res = {0};

	assert_int_equal(resource_init(&res, &r->budget, 1, BGRA, 16, 16), 0);
	assert_false(resource_has(&res, &(struct rect){0, 0, 16, 16}, 0)); /* unbacked */
	assert_int_equal(
		resource_attach(&res, &r->budget, &r->memory, &(struct backing_entry){0, 1024}, 1),
		0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(resource_has(&res, &cases[i].box, cases[i].offset), cases[i].ok);
		if (cases[i].ok) {
			resource_copy(&res, &res, &cases[i].box, cases[i].offset, 64);
		}
	}
	resource_finish(&res, &r->budget);
}

static void rectangles(void **state)
{
	static const struct {
		struct rect r;
		bool within;
	} cases[] = {{{0, 0, 10, 20}, true}, {{0, 0, 11, 20}, false}, {{0, 0, 10, 21}, false},
		{{10, 20, 0, 0}, true}, {{11, 0, 0, 0}, false}, {{0, 21, 0, 0}, false},
		{{1, 0, UINT32_MAX, 1}, false}, {{UINT32_MAX, 0, 1, 1}, false},
		{{1, 1, UINT32_MAX, UINT32_MAX}, false}, {{9, 19, 1, 1}, true}};
	const struct rect a = {10, 10, 10, 10};
	struct rect i;

	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		assert_int_equal(rect_within(&cases[n].r, 10, 20), cases[n].within);
	}
	i = rect_intersect(&a, &(struct rect){15, 0, 100, 12});
	assert_true(i.x == 15 && i.y == 10 && i.width == 5 && i.height == 2);
	i = rect_intersect(&a, &(struct rect){20, 10, 5, 5});
	assert_true(i.width == 0 && i.height == 0);
}

/* What byte c (0 blue, 1 green, 2 red, 3 alpha) is called in the format's name. */
static int position(uint32_t format, int c)
{
	static const struct {
		uint32_t format;
		const char *name;
	} names[] = {{1, "BGRA"}, {2, "BGRA"}, {3, "ARGB"}, {4, "ARGB"}, {67, "RGBA"},
		{134, "RGBA"}, {121, "ABGR"}, {68, "ABGR"}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].format == format) {
			return (int)(strchr(names[i].name, "BGRA"[c]) - names[i].name);
		}
	}
	fail();
	return 0;
}

struct backing_list {
	struct backing_entry e[64];
	uint32_t n;
	uint64_t bytes;
};

static uint64_t address_of(const struct backing_list *b, uint64_t at)
{
	for (uint32_t i = 0; i < b->n; i++) {
		if (at < b->e[i].length) {
			return b->e[i].guest + at;
		}
		at -= b->e[i].length;
	}
	fail();
	return 0;
}

static void random_backing(struct backing_list *b)
{
	b->n = 1 + (uint32_t)rand() % 64;
	b->bytes = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		/* Odd lengths too: pixels that lie in two and more pieces. */
		b->e[i].length =
			rand() % 3 ? 1 + (uint64_t)rand() % 7 : 1 + (uint64_t)rand() % 3000;
		b->e[i].guest = (uint64_t)rand() % (32 * PAGE - b->e[i].length);
		b->bytes += b->e[i].length;
	}
}

static void check_pixels(const struct rig *r, const struct resource *res,
	const struct backing_list *b, const struct rect *box, uint64_t offset,
	const uint8_t *before)
{
	for (uint32_t y = 0; y < res->height; y++) {
		for (uint32_t x = 0; x < res->width; x++) {
			uint64_t to = ((uint64_t)y * res->width + x) * 4;
			bool in = x >= box->x && x - box->x < box->width && y >= box->y &&
				  y - box->y < box->height;
			uint64_t from = offset + (uint64_t)(y - box->y) * res->width * 4 +
					(uint64_t)(x - box->x) * 4;

			for (int c = 0; c < 4; c++) {
				uint8_t want = before[to + (uint64_t)c];

				if (in) {
					want = guest_byte(r,
						address_of(b,
							from + (uint64_t)position(res->format, c)));
				}
				assert_int_equal(res->pixels[to + (uint64_t)c], want);
			}
		}
	}
}

static void random_transfers(void **state)
{
	static const uint32_t formats[] = {1, 2, 3, 4, 67, 68, 121, 134};
	struct rig *r = *state;
	int copied = 0;

	srand(4);
	for (int round = 0; round < 3000; round++) {
		struct resource res = {0};
		struct backing_list b;
		uint32_t w = 1 + (uint32_t)rand() % 30, h = 1 + (uint32_t)rand() % 30;
		struct rect box = {(uint32_t)rand() % w, (uint32_t)rand() % h, 0, 0};
		_cleanup_free_ uint8_t *before = NULL;
		uint64_t offset, need;
		bool fits;

		box.width = rand() % 3 ? 1 + (uint32_t)rand() % (w - box.x) : w - box.x;
		box.height = 1 + (uint32_t)rand() % (h - box.y);
		random_backing(&b);
		assert_int_equal(resource_init(&res, &r->budget, 1, formats[rand() % 8], w, h), 0);
		assert_int_equal(resource_attach(&res, &r->budget, &r->memory, b.e, b.n), 0);
		for (uint64_t i = 0; i < res.size; i++) {
			res.pixels[i] = (uint8_t)rand();
		}
		before = malloc(res.size);
		memcpy(before, res.pixels, res.size);
		offset = (uint64_t)rand() % 64;
		need = offset + ((uint64_t)box.height - 1) * w * 4 + box.width * 4;
		fits = resource_has(&res, &box, offset);
		assert_int_equal(fits, need <= b.bytes);
		if (fits) {
			resource_copy(&res, &res, &box, offset, 4ULL * w);
			check_pixels(r, &res, &b, &box, offset, before);
			copied++;
		}
		resource_finish(&res, &r->budget);
	}
	assert_in_range(copied, 1000, 2990);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(creation, setup, teardown),
		cmocka_unit_test_setup_teardown(budget, setup, teardown),
		cmocka_unit_test_setup_teardown(backing, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds, setup, teardown),
		cmocka_unit_test(rectangles),
		cmocka_unit_test_setup_teardown(random_transfers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
