/* SPDX-License-Identifier: MIT
 * 3D resources that are shown from DMABUFs: when they are, that nothing is read back then, and what
 * is read when it has to be.
 */
#include <fcntl.h>

#include "tests/unit/gpu-rig-3d.h"

#define SIDE  64
#define TILED UINT64_C(0x0100000000000002)

static int set_up(void **state)
{
	int r = setup_3d(state);

	fake.exports = true;
	gpu_set_dmabufs(((struct rig *)*state)->gpu, GPU_DMABUFS_ALL);
	return r;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* What scanout n shows. */
static const struct dmabuf *dmabuf(const struct rig *r, uint32_t n)
{
	return gpu_dmabuf_of(r->gpu, r->gpu->scanouts[n].slot);
}

static void show(struct rig *r, uint32_t n, uint32_t id)
{
	assert_int_equal(create_3d(r, id, TARGET_2D, BGRA, SIDE, SIDE), OK);
	assert_int_equal(scanout(r, n, id, 0, 0, SIDE, SIDE), OK);
}

static void flush_all(struct rig *r, uint32_t id)
{
	assert_int_equal(flush(r, id, 0, 0, SIDE, SIDE), OK);
	gpu_settle(r->gpu);
}

static uint32_t pixel(const struct rig *r, uint32_t n, uint32_t x, uint32_t y)
{
	const struct resource *image = &r->gpu->resources[r->gpu->scanouts[n].slot];
	uint32_t p;

	memcpy(&p, image->pixels + ((size_t)y * image->width + x) * 4, 4);
	return p;
}

static void not_read_back(void **state)
{
	struct rig *r = *state;

	show(r, 0, 1);
	assert_int_equal(fake.n_exports, 1);
	assert_non_null(dmabuf(r, 0));
	assert_int_equal(dmabuf(r, 0)->fd, fake.exported);
	assert_int_equal(dmabuf(r, 0)->stride, SIDE * 4);
	flush_all(r, 1);
	assert_int_equal(flush(r, 1, 3, 4, 5, 6), OK);
	gpu_settle(r->gpu);
	assert_int_equal(r->n_damages, 2);
	assert_int_equal(r->damage.x, 3);
	assert_int_equal(r->damage.height, 6);
	assert_int_equal(fake.n_reads, 0);
	/* Once for each resource, on however many scanouts and however often. */
	assert_int_equal(scanout(r, 1, 1, 1, 1, 9, 9), OK);
	assert_int_equal(scanout(r, 0, 1, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(fake.n_exports, 1);
	assert_ptr_equal(dmabuf(r, 0), dmabuf(r, 1));
	assert_int_equal(unref(r, 1), OK);
	assert_false(is_open(fake.exported));
	assert_null(dmabuf(r, 0));
	assert_int_equal(r->gpu->three->n_dmabufs, 0);
}

/* What somebody wants to see is read, and only what the scanout shows. */
static void read_on_demand(void **state)
{
	struct rig *r = *state;

	show(r, 0, 1);
	assert_int_equal(scanout(r, 0, 1, 8, 4, 16, 32), OK);
	fake.pixel = 0x123456;
	gpu_read_scanout(r->gpu, 0);
	assert_int_equal(fake.n_reads, 1);
	assert_int_equal(fake.transfer.area.x, 8);
	assert_int_equal(fake.transfer.area.height, 32);
	assert_int_equal(pixel(r, 0, 8, 4), 0x123456);
	assert_int_equal(pixel(r, 0, 23, 35), 0x123456);
	gpu_read_scanout(r->gpu, 1);
	assert_int_equal(create(r, 2, BGRX, SIDE, SIDE), OK);
	assert_int_equal(scanout(r, 1, 2, 0, 0, SIDE, SIDE), OK);
	gpu_read_scanout(r->gpu, 1);
	assert_int_equal(fake.n_reads, 1);
}

/* Another display: what is shown is read back from then on, all of it first; and the other way. */
static void another_display(void **state)
{
	struct rig *r = *state;

	show(r, 0, 1);
	assert_int_equal(scanout(r, 1, 1, 0, 0, 8, 8), OK);
	flush_all(r, 1);
	r->n_scanouts = r->n_damages = 0;
	fake.pixel = 0xabcdef;
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_NONE);
	assert_null(dmabuf(r, 0));
	assert_int_equal(r->n_scanouts, 2);
	assert_int_equal(r->n_damages, 2);
	assert_true(fake.n_reads > 0);
	assert_int_equal(pixel(r, 0, SIDE - 1, SIDE - 1), 0xabcdef);
	fake.n_reads = 0;
	flush_all(r, 1);
	assert_int_equal(fake.n_reads, 1);
	r->n_scanouts = r->n_damages = 0;
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_PLAIN);
	assert_int_equal(r->n_scanouts, 2);
	assert_int_equal(r->n_damages, 2);
	assert_non_null(dmabuf(r, 1));
	assert_int_equal(fake.n_exports, 1);
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_ALL);
	assert_int_equal(r->n_scanouts, 2); /* nothing changes for those */
	assert_int_equal(fake.n_reads, 1);
}

static void modifiers(void **state)
{
	struct rig *r = *state;

	fake.modifier = TILED;
	show(r, 0, 1);
	assert_int_equal(dmabuf(r, 0)->modifier, TILED);
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_PLAIN);
	assert_null(dmabuf(r, 0));
	fake.modifier = DMABUF_MODIFIER_UNKNOWN;
	show(r, 1, 2);
	assert_non_null(dmabuf(r, 1));
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_ALL);
	assert_non_null(dmabuf(r, 0));
	assert_int_equal(fake.n_exports, 2);
}

/* What can't be exported, or not be told to a display, is shown by copying it, and tried once. */
static void falls_back(void **state)
{
	struct rig *r = *state;

	for (uint32_t i = 0; i < 3; i++) {
		fake.exports = i != 0;
		fake.offset = i == 1 ? 4096 : 0;
		fake.stride = i == 2 ? SIDE * 4 - 1 : 0;
		fake.n_reads = fake.n_exports = 0;
		show(r, 0, 10 + i);
		assert_null(dmabuf(r, 0));
		assert_true(i == 0 || !is_open(fake.exported));
		assert_int_equal(scanout(r, 0, 10 + i, 0, 0, SIDE, SIDE), OK);
		flush_all(r, 10 + i);
		assert_int_equal(fake.n_reads, 1);
		assert_int_equal(fake.n_exports, 1);
	}
	/* Nor is a driver asked for what is no plain texture, or when nobody would take it. */
	fake.exports = true;
	fake.stride = 0;
	fake.n_exports = 0;
	assert_int_equal(create_3d(r, 20, 5 /* RECT */, BGRA, SIDE, SIDE), OK);
	assert_int_equal(scanout(r, 0, 20, 0, 0, SIDE, SIDE), OK);
	gpu_set_dmabufs(r->gpu, GPU_DMABUFS_NONE);
	show(r, 0, 21);
	assert_int_equal(fake.n_exports, 0);
}

static void many(void **state)
{
	struct rig *r = *state;

	for (uint32_t i = 0; i < GPU_DMABUFS_MAX + 2; i++) {
		show(r, 0, 100 + i);
		assert_int_equal(dmabuf(r, 0) != NULL, i < GPU_DMABUFS_MAX);
	}
	assert_int_equal(unref(r, 100), OK);
	show(r, 0, 300);
	assert_non_null(dmabuf(r, 0));
	/* One that was refused stays so: other scanouts may show it. */
	assert_int_equal(unref(r, 101), OK);
	assert_int_equal(scanout(r, 0, 100 + GPU_DMABUFS_MAX, 0, 0, SIDE, SIDE), OK);
	assert_null(dmabuf(r, 0));
	gpu_reset(r->gpu);
	assert_int_equal(r->gpu->three->n_dmabufs, 0);
	assert_false(is_open(fake.exported));
}

/* What was drawn without a fence would stay in the driver's queue while the VMM shows it. */
static void drawn_without_a_fence(void **state)
{
	struct rig *r = *state;
	const uint32_t nothing[] = {0};

	assert_int_equal(context(r, 1), OK);
	show(r, 0, 1);
	assert_int_equal(submit(r, 1, nothing, 1), OK);
	flush_all(r, 1);
	assert_int_equal(fake.n_fences, 1);
	flush_all(r, 1);
	assert_int_equal(fake.n_fences, 1);
	gpu_fence_reached(r->gpu, 1);
	assert_int_equal(submit_as(r, 1, nothing, 1, 4, 7), GPU_FENCED);
	assert_int_equal(fake.n_fences, 2);
	flush_all(r, 1);
	assert_int_equal(fake.n_fences, 2);
	gpu_fences_forget(r->gpu);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, teardown_3d)
	const struct CMUnitTest tests[] = {
		TEST(not_read_back),
		TEST(read_on_demand),
		TEST(another_display),
		TEST(modifiers),
		TEST(falls_back),
		TEST(many),
		TEST(drawn_without_a_fence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
