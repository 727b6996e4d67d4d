/* SPDX-License-Identifier: MIT
 * Each limit of a VM's GPU is met exactly at its value, in front of the real renderer: what fits is
 * taken to the last byte or the last one, one more is refused as the documents say, and all of it
 * is there again afterwards. What is left of the memory is measured from outside: by the largest
 * buffer that is still taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "gpu/submit-check.h"
#include "tests/gpu/gpu-case.h"
#include "tests/gpu/sim-draw.h"
#include "tests/unit/test.h"

#define MEMORY   (16u << 20)
#define LARGE    (800u << 20)
#define RGBA     VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM
#define BGRX     VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define R8       64
#define COMMANDS 0x1000000u /* in the guest's memory: streams */
#define FILLER   900u       /* a resource's id */
#define TESTED   901u
#define PROBE    902u
/* As docs/protocol.md has them. */
#define CONTEXTS     256u
#define RESOURCES_2D 1024u
#define RESOURCES_3D 32768u
#define ENTRIES      16384u
#define STREAM_BYTES (64u << 10) /* the least that is taken for streams, until a reset */

static int setup(void **state)
{
	return case_begin(
		(struct gpu_case **)state, SIM_FEATURES_3D, "--virgl", "--max-memory=16M");
}

static int setup_large(void **state)
{
	return case_begin(
		(struct gpu_case **)state, SIM_FEATURES_3D, "--virgl", "--max-memory=800M");
}

static uint32_t buffer(struct gpu_case *c, uint32_t id, uint32_t bytes)
{
	return sim_create_3d(&c->sim, &(struct virtio_gpu_resource_create_3d){
					      {0}, id, 0, R8, 1 << 4, bytes, 1, 1, 1, 0, 0, 0, 0});
}

/* Whether a buffer of so many bytes is taken; it is gone again. */
static bool fits(struct gpu_case *c, uint32_t bytes)
{
	uint32_t r = bytes > 0 ? buffer(c, PROBE, bytes) : CASE_OK;

	assert_true(r == CASE_OK || r == CASE_NO_MEMORY);
	/* A refused one is remembered. */
	assert_int_equal(bytes > 0 ? sim_unref(&c->sim, PROBE) : CASE_OK, CASE_OK);
	return r == CASE_OK;
}

/* Bytes that are left, of up to so many. */
static uint32_t left(struct gpu_case *c, uint32_t max)
{
	uint32_t low = 0, high = max;

	while (low < high) {
		uint32_t middle = high - (high - low) / 2;

		if (fits(c, middle)) {
			low = middle;
		} else {
			high = middle - 1;
		}
	}
	return low;
}

/* That so many are left, and not one more. */
static void check_left(struct gpu_case *c, uint32_t bytes)
{
	assert_true(fits(c, bytes));
	assert_false(fits(c, bytes + 1));
}

/* Leaves so many bytes. */
static void leave(struct gpu_case *c, uint32_t bytes)
{
	assert_int_equal(buffer(c, FILLER, left(c, MEMORY) - bytes), CASE_OK);
}

static void images(void **state)
{
	struct gpu_case *c = *state;
	struct virtio_gpu_mem_entry entries[8];

	check_left(c, MEMORY);
	assert_int_equal(sim_create(&c->sim, 1, BGRX, 2048, 2048), CASE_OK);
	assert_int_equal(sim_create(&c->sim, 2, BGRX, 1, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_transfer(&c->sim, 2, &(struct virtio_gpu_rect){0, 0, 1, 1}, 0),
		CASE_BAD_RESOURCE);
	assert_int_equal(sim_unref(&c->sim, 1), CASE_OK);
	/* And with its backing: 24 bytes for a piece. */
	for (uint32_t i = 0; i < 8; i++) {
		entries[i] = (struct virtio_gpu_mem_entry){SIM_PIXELS + i * 8192, 4096, 0};
	}
	leave(c, 64 * 64 * 4 + 7 * 24);
	assert_int_equal(sim_create(&c->sim, 1, BGRX, 64, 64), CASE_OK);
	assert_int_equal(sim_attach(&c->sim, 1, entries, 8), CASE_NO_MEMORY);
	assert_int_equal(sim_attach(&c->sim, 1, entries, 7), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, FILLER), CASE_OK);
	check_left(c, MEMORY);
}

/* What each takes is written out here, not computed. */
static const struct {
	const char *name;
	uint32_t bytes;
	uint32_t target, format, bind, width, height, depth, array_size, last_level, samples;
} textures[] = {
	{"1D", 4000, 1, RGBA, 8, 1000, 1, 1, 1, 0, 0},
	{"2D", 1000 * 10 * 4, 2, RGBA, 10, 1000, 10, 1, 1, 0, 0},
	{"2D with all its levels", (4096 + 1024 + 256 + 64 + 16 + 4 + 1) * 4, 2, RGBA, 10, 64, 64,
		1, 1, 6, 0},
	{"2D with levels that are not square", (100 * 30 + 50 * 15 + 25 * 7) * 4, 2, RGBA, 10, 100,
		30, 1, 1, 2, 0},
	{"2D of 16 bytes a pixel", 64 * 64 * 16, 2, 31, 10, 64, 64, 1, 1, 0, 0},
	{"2D of 4 samples", 64 * 64 * 4 * 4, 2, RGBA, 2, 64, 64, 1, 1, 0, 4},
	{"2D of 7 layers", 64 * 64 * 4 * 7, 7, RGBA, 8, 64, 64, 1, 7, 0, 0},
	{"3D with levels", (32 * 32 * 32 + 16 * 16 * 16) * 4, 3, RGBA, 8, 32, 32, 32, 1, 1, 0},
	{"a cube", 64 * 64 * 4 * 6, 4, RGBA, 8, 64, 64, 1, 6, 0, 0},
	{"compressed blocks", 16 * 16 * 8, 2, 105, 8, 64, 64, 1, 1, 0, 0},
};

/* A resource that was refused is one that there is not, and says so to whatever is done with it. */
static void check_ghost(struct gpu_case *c, uint32_t id)
{
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, 4096, 0};
	const struct virtio_gpu_box box = {0, 0, 0, 1, 1, 1};

	assert_int_equal(sim_attach(&c->sim, id, &entry, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_transfer_3d(&c->sim, true, 0, id, &box, 0), CASE_NO_MEMORY);
	assert_int_equal(sim_transfer_3d(&c->sim, false, 0, id, &box, 0), CASE_NO_MEMORY);
	assert_int_equal(sim_set_scanout(&c->sim, 0, id, 1, 1), CASE_NO_MEMORY);
	assert_int_equal(
		sim_flush(&c->sim, id, &(struct virtio_gpu_rect){0, 0, 1, 1}), CASE_NO_MEMORY);
}

static void textures_fit(void **state)
{
	struct gpu_case *c = *state;

	for (size_t i = 0; i < ARRAY_SIZE(textures); i++) {
		const struct virtio_gpu_resource_create_3d t = {{0}, TESTED, textures[i].target,
			textures[i].format, textures[i].bind, textures[i].width, textures[i].height,
			textures[i].depth, textures[i].array_size, textures[i].last_level,
			textures[i].samples, 0, 0};

		leave(c, textures[i].bytes - 1);
		if (sim_create_3d(&c->sim, &t) != CASE_NO_MEMORY) {
			fail_msg("%s: one byte less was enough", textures[i].name);
		}
		check_ghost(c, TESTED);
		assert_int_equal(sim_unref(&c->sim, FILLER), CASE_OK);
		leave(c, textures[i].bytes);
		/* Once refused it may be asked for again. */
		if (sim_create_3d(&c->sim, &t) != CASE_OK) {
			fail_msg("%s: does not fit", textures[i].name);
		}
		assert_false(fits(c, 1));
		assert_int_equal(sim_unref(&c->sim, TESTED), CASE_OK);
		assert_int_equal(sim_unref(&c->sim, FILLER), CASE_OK);
		printf("%s: %u bytes\n", textures[i].name, textures[i].bytes);
	}
	check_left(c, MEMORY);
}

/* Entries for a command that is too long for its slot. */
static uint32_t attach_many(struct gpu_case *c, uint32_t id, uint32_t n)
{
	const struct virtio_gpu_resource_attach_backing a = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, n};
	struct virtio_gpu_mem_entry *entries = sim_memory_at(&c->sim.vmm.memory, COMMANDS + 4096);
	struct virtio_gpu_ctrl_hdr *answer = sim_memory_at(&c->sim.vmm.memory, COMMANDS + 2048);
	const struct sim_segment segments[3] = {{COMMANDS, sizeof(a), false},
		{COMMANDS + 4096, n * (uint32_t)sizeof(*entries), false},
		{COMMANDS + 2048, sizeof(*answer), true}};
	uint32_t written;

	memcpy(sim_memory_at(&c->sim.vmm.memory, COMMANDS), &a, sizeof(a));
	for (uint32_t i = 0; i < n; i++) {
		/* Every other page, over and over: none is another's neighbour. */
		entries[i] = (struct virtio_gpu_mem_entry){SIM_PIXELS + (i % 1024) * 8192, 4096, 0};
	}
	assert_true(sim_ring_offer(&c->sim.rings[SIM_CONTROL], segments, 3) >= 0);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	assert_true(sim_take(&c->sim, SIM_CONTROL, 5000, &written) >= 0);
	return answer->type;
}

static void backing(void **state)
{
	struct gpu_case *c = *state;

	/* 16 bytes for a piece. */
	leave(c, 4096 + 100 * 16);
	assert_int_equal(buffer(c, TESTED, 4096), CASE_OK);
	assert_int_equal(attach_many(c, TESTED, 101), CASE_NO_MEMORY);
	assert_int_equal(attach_many(c, TESTED, 100), CASE_OK);
	assert_false(fits(c, 1));
	assert_int_equal(sim_unref(&c->sim, TESTED), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, FILLER), CASE_OK);
	assert_int_equal(buffer(c, TESTED, 4096), CASE_OK);
	assert_int_equal(attach_many(c, TESTED, ENTRIES + 1), CASE_BAD_PARAMETER);
	assert_int_equal(attach_many(c, TESTED, ENTRIES), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, TESTED), CASE_OK);
	check_left(c, MEMORY);
}

static uint32_t submit(struct gpu_case *c, uint32_t context, const uint32_t *dwords, uint32_t n)
{
	return sim_submit(&c->sim, context, dwords, n, COMMANDS, true);
}

/* Another context draws right pictures, as it did before. */
static void check_draws(struct gpu_case *c, const struct sim_draw *d, uint32_t n)
{
	const struct sim_scanout *o = &c->sim.screen.scanouts[0];
	int64_t end = now_ms() + 5000;
	uint32_t written;

	assert_true(sim_draw_offer(&c->sim, d, n, 2, ++c->sim.fence) >= 0);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	assert_true(sim_take(&c->sim, SIM_CONTROL, 5000, &written) >= 0);
	assert_int_equal(sim_set_scanout(&c->sim, 0, d->texture, d->width, d->height), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, d->texture,
				 &(struct virtio_gpu_rect){0, 0, d->width, d->height}),
		CASE_OK);
	while (now_ms() < end &&
		!(o->pixels && o->width == d->width && sim_draw_is(d, n, o->pixels))) {
		sim_wait(&c->sim, 10);
	}
	assert_true(o->pixels && sim_draw_is(d, n, o->pixels));
}

/* What a stream makes on its own: storage of 4096 bytes. */
static const uint32_t storage[] = {48 | 11 << 16, 0, R8, 1 << 4, 4096, 1, 1, 1, 0, 0, 0, 77};

static void streams(void **state)
{
	struct gpu_case *c = *state;
	const struct sim_draw neighbour = {50, 50, 51, 64, 64, COMMANDS + 0x800000};
	const uint32_t words[] = {storage[0]};

	assert_int_equal(sim_draw_begin(&c->sim, &neighbour), CASE_OK);
	check_draws(c, &neighbour, 1);
	for (uint32_t less = 0; less < 2; less++) {
		uint32_t fill;

		assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
		fill = left(c, MEMORY);
		assert_int_equal(buffer(c, FILLER, fill - 4096 + less), CASE_OK);
		assert_int_equal(submit(c, 1, storage, ARRAY_SIZE(storage)),
			less ? CASE_NO_MEMORY : CASE_OK);
		/* It is poisoned, and nobody else: whatever it draws. */
		assert_int_equal(submit(c, 1, (uint32_t[]){0}, 1), less ? CASE_NO_MEMORY : CASE_OK);
		assert_int_equal(sim_unref(&c->sim, FILLER), CASE_OK);
		assert_int_equal(submit(c, 1, (uint32_t[]){0}, 1), less ? CASE_NO_MEMORY : CASE_OK);
		check_draws(c, &neighbour, 2 + less);
		assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
		check_left(c, fill + SUBMIT_CONTEXT_BYTES);
	}
	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	assert_int_equal(submit(c, 1, words, 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_draw_end(&c->sim, &neighbour), CASE_OK);
	check_left(c, MEMORY - STREAM_BYTES);
	/* What streams are copied into goes with the driver. */
	assert_int_equal(sim_reboot(&c->sim), 0);
	check_left(c, MEMORY);
}

static void stream_bytes(void **state)
{
	struct gpu_case *c = *state;
	uint32_t *words = calloc(SUBMIT_BYTES_MAX / 4 + 1, 4);

	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	assert_int_equal(submit(c, 1, words, SUBMIT_BYTES_MAX / 4), CASE_OK);
	assert_int_equal(submit(c, 1, words, SUBMIT_BYTES_MAX / 4 + 1), CASE_NO_MEMORY);
	assert_int_equal(submit(c, 1, words, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	assert_int_equal(submit(c, 1, words, 1), CASE_OK);
	free(words);
}

/* What n of them took of the renderer's memory, a piece; the ledger has taken more. */
static void say_growth(struct gpu_case *c, const char *what, uint64_t before, uint32_t n)
{
	uint64_t grown = sim_backend_rss(&c->sim.backend) - before;

	printf("%s: %u of them, %.2f MiB each\n", what, n, (double)grown / n / (1 << 20));
	if (!getenv("GPU_CASE_SANITIZED")) {
		assert_true(grown / n <= SUBMIT_CONTEXT_BYTES);
	}
}

static void contexts(void **state)
{
	struct gpu_case *c = *state;
	uint64_t rss = sim_backend_rss(&c->sim.backend);

	for (uint32_t i = 1; i <= CONTEXTS; i++) {
		assert_int_equal(sim_context(&c->sim, i), CASE_OK);
	}
	say_growth(c, "contexts", rss, CONTEXTS);
	assert_int_equal(sim_context(&c->sim, 1000), CASE_NO_MEMORY);
	assert_int_equal(sim_context_end(&c->sim, 7), CASE_OK);
	assert_int_equal(sim_context(&c->sim, 1000), CASE_OK);
	assert_int_equal(sim_context(&c->sim, 7), CASE_NO_MEMORY);
	assert_int_equal(sim_context_end(&c->sim, 1000), CASE_OK);
	for (uint32_t i = 1; i <= CONTEXTS; i++) {
		assert_int_equal(sim_context_end(&c->sim, i), i == 7 ? CASE_BAD_CONTEXT : CASE_OK);
	}
	check_left(c, LARGE);
}

static void sub_contexts(void **state)
{
	struct gpu_case *c = *state;
	uint64_t rss;

	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(sim_context(&c->sim, i), CASE_OK);
	}
	rss = sim_backend_rss(&c->sim.backend);
	/* In all contexts together. */
	for (uint32_t i = 1; i <= SUB_CONTEXTS_MAX; i++) {
		const uint32_t another[] = {29 | 1 << 16, i};

		assert_int_equal(submit(c, 1 + i % 2, another, 2), CASE_OK);
	}
	say_growth(c, "sub-contexts", rss, SUB_CONTEXTS_MAX);
	assert_int_equal(submit(c, 3, (uint32_t[]){29 | 1 << 16, 1}, 2), CASE_NO_MEMORY);
	assert_int_equal(submit(c, 3, (uint32_t[]){0}, 1), CASE_NO_MEMORY);
	assert_int_equal(submit(c, 1, (uint32_t[]){30 | 1 << 16, 2}, 2), CASE_OK);
	assert_int_equal(submit(c, 2, (uint32_t[]){29 | 1 << 16, 1000}, 2), CASE_OK);
	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(sim_context_end(&c->sim, i), CASE_OK);
	}
	check_left(c, LARGE - STREAM_BYTES);
}

/* States of blending and such: 512 bytes and their length. */
static uint32_t make_objects(struct gpu_case *c, uint32_t first, uint32_t n)
{
	uint32_t *words = calloc((size_t)n * 6, 4), r;

	for (uint32_t i = 0; i < n; i++) {
		words[i * 6] = 1 | 3 << 8 | 5 << 16;
		words[i * 6 + 1] = first + i;
	}
	r = submit(c, 1, words, n * 6);
	free(words);
	return r;
}

static void objects(void **state)
{
	struct gpu_case *c = *state;
	/* What they came in is 4 MiB, rounded up. */
	const uint32_t rest = LARGE - SUBMIT_CONTEXT_BYTES - SUBMIT_BYTES_MAX;

	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	assert_int_equal(make_objects(c, 1, OBJECTS_MAX - 1), CASE_OK);
	check_left(c, rest - (OBJECTS_MAX - 1) * (SUBMIT_OBJECT_BYTES + 20));
	assert_int_equal(make_objects(c, OBJECTS_MAX, 1), CASE_OK);
	check_left(c, rest - OBJECTS_MAX * (SUBMIT_OBJECT_BYTES + 20));
	/* One that is there already counts as one more: it is not known what a stream ends before.
	 */
	assert_int_equal(make_objects(c, OBJECTS_MAX + 1, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	assert_int_equal(make_objects(c, 1, 100), CASE_OK);
	assert_int_equal(sim_reboot(&c->sim), 0);
	check_left(c, LARGE);
}

static void resources(void **state)
{
	struct gpu_case *c = *state;

	for (uint32_t i = 0; i < RESOURCES_3D; i++) {
		assert_int_equal(buffer(c, 2000 + i, 1), CASE_OK);
	}
	assert_int_equal(buffer(c, 1, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_unref(&c->sim, 2000), CASE_OK);
	assert_int_equal(buffer(c, 1, 1), CASE_OK);
	for (uint32_t i = 0; i < RESOURCES_2D; i++) {
		assert_int_equal(sim_create(&c->sim, 100000 + i, BGRX, 1, 1), CASE_OK);
	}
	assert_int_equal(sim_create(&c->sim, 2000, BGRX, 1, 1), CASE_NO_MEMORY);
	assert_int_equal(sim_unref(&c->sim, 100000), CASE_OK);
	assert_int_equal(sim_create(&c->sim, 2000, BGRX, 1, 1), CASE_OK);
	assert_int_equal(sim_reboot(&c->sim), 0);
	check_left(c, LARGE);
}

/* As many as the queue has, all behind one that takes long: each comes back, in order. */
static void fences(void **state)
{
	struct gpu_case *c = *state;
	const struct sim_draw d = {1, 1, 2, 256, 256, COMMANDS};
	uint64_t first = c->sim.fence + 1;
	uint32_t n = 0, written;

	assert_int_equal(sim_draw_begin(&c->sim, &d), CASE_OK);
	first = c->sim.fence + 1;
	while (sim_draw_offer(&c->sim, &d, n, n == 0 ? 100 : 0, ++c->sim.fence) >= 0) {
		n++;
	}
	assert_int_equal(n, c->sim.rings[SIM_CONTROL].vmm.size / 3);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	for (uint32_t i = 0; i < n; i++) {
		int head = sim_take(&c->sim, SIM_CONTROL, 20000, &written);
		const struct virtio_gpu_ctrl_hdr *a;

		assert_true(head >= 0);
		a = sim_answer(&c->sim, SIM_CONTROL, head);
		assert_int_equal(a->type, CASE_OK);
		assert_true(a->fence_id == first + i);
	}
	printf("fences: %u at a time\n", n);
	assert_int_equal(sim_draw_end(&c->sim, &d), CASE_OK);
}

int main(void)
{
#define TEST(f, s) cmocka_unit_test_setup_teardown(f, s, case_teardown)
	const struct CMUnitTest tests[] = {
		TEST(images, setup),
		TEST(textures_fit, setup),
		TEST(backing, setup),
		TEST(streams, setup),
		TEST(stream_bytes, setup),
		TEST(contexts, setup_large),
		TEST(sub_contexts, setup_large),
		TEST(objects, setup_large),
		TEST(resources, setup_large),
		TEST(fences, setup),
	};

	return cmocka_run_group_tests_name("gpu-limits", tests, NULL, NULL);
}
