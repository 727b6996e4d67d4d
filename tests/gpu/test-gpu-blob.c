/* SPDX-License-Identifier: MIT
 * Blobs in guest memory through the real backend: a guest that paints, flips and flushes sees its
 * pages on the display without a transfer; a renderer's death changes nothing of it; what is bad
 * gets its error, and the VM goes on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/gpu/gpu-case.h"
#include "tests/gpu/sim-3d.h"
#include "tests/unit/test.h"

#define BGRX  VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define HOLE  UINT64_C(0x90000000)
#define KILLS 5
#define PAGE  0x1000u
/* A second one. */
#define OTHER_AT (SIM_PIXELS + 0x100000u)

static uint32_t make(struct gpu_case *c, uint32_t id, uint64_t at, uint32_t bytes)
{
	const struct virtio_gpu_mem_entry entry = {at, bytes, 0};

	return sim_blob(&c->sim, id, bytes, &entry, 1);
}

static uint32_t show(struct gpu_case *c, uint32_t scanout, uint32_t id)
{
	return sim_show_blob(&c->sim, scanout, id, CASE_WIDTH, CASE_HEIGHT);
}

/* That a blob is made and shown, that painting alone shows nothing, and that a flush does. */
static void check_serves(struct gpu_case *c, uint32_t id)
{
	_cleanup_free_ uint32_t *before = malloc(CASE_BYTES);
	const uint32_t *pixels = case_paint(c, SIM_PIXELS, id);

	assert_int_equal(make(c, id, SIM_PIXELS, CASE_BYTES), CASE_OK);
	assert_int_equal(show(c, 0, id), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, id, &case_all), CASE_OK);
	case_check_picture(c, 0, pixels);
	memcpy(before, pixels, CASE_BYTES);
	case_paint(c, SIM_PIXELS, id + 1);
	case_check_picture(c, 0, before);
	assert_int_equal(sim_flush(&c->sim, id, &case_all), CASE_OK);
	case_check_picture(c, 0, pixels);
}

static void test_serves(void **state)
{
	check_serves(*state, 1);
}

/* As a guest's kernel has it: page by page, anywhere in memory. */
static void test_pages(void **state)
{
	struct gpu_case *c = *state;
	struct virtio_gpu_mem_entry entries[64];
	_cleanup_free_ uint32_t *wanted = malloc(CASE_BYTES);

	static_assert(ARRAY_SIZE(entries) * PAGE >= CASE_BYTES, "all of it");
	for (uint32_t i = 0; i < ARRAY_SIZE(entries); i++) {
		/* 37 and 64 have no common factor: each page once. */
		entries[i] = (struct virtio_gpu_mem_entry){
			SIM_PIXELS + i * 37 % ARRAY_SIZE(entries) * 2 * PAGE, PAGE, 0};
	}
	for (uint32_t i = 0; i < CASE_BYTES / 4; i++) {
		wanted[i] = i * 2654435761u;
		memcpy(sim_memory_at(&c->sim.vmm.memory, entries[i * 4 / PAGE].addr + i * 4 % PAGE),
			&wanted[i], 4);
	}
	assert_int_equal(sim_blob(&c->sim, 1, CASE_BYTES, entries, ARRAY_SIZE(entries)), CASE_OK);
	assert_int_equal(show(c, 0, 1), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, 1, &case_all), CASE_OK);
	case_check_picture(c, 0, wanted);
}

/* Two blobs in turn: each time the display has the other one, and is told of no new scanout. */
static void test_flips(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_rect one = {0, 0, 1, 1};
	uint64_t told;

	assert_int_equal(make(c, 1, SIM_PIXELS, CASE_BYTES), CASE_OK);
	assert_int_equal(make(c, 2, OTHER_AT, CASE_BYTES), CASE_OK);
	assert_int_equal(show(c, 0, 1), CASE_OK);
	assert_int_equal(sim_flush(s, 1, &case_all), CASE_OK);
	case_check_picture(c, 0, sim_memory_at(&s->vmm.memory, SIM_PIXELS));
	told = s->screen.n_messages[DISPLAY_SCANOUT];
	for (uint32_t i = 0; i < 20; i++) {
		const uint32_t *pixels = case_paint(c, i % 2 ? SIM_PIXELS : OTHER_AT, i);

		assert_int_equal(show(c, 0, i % 2 ? 1 : 2), CASE_OK);
		assert_int_equal(sim_flush(s, i % 2 ? 1 : 2, &one), CASE_OK);
		case_check_picture(c, 0, pixels);
	}
	assert_int_equal(s->screen.n_messages[DISPLAY_SCANOUT], told);
	/* And an ordinary one takes its place. */
	case_check_serves(c, 3);
	assert_int_equal(sim_unref(s, 1), CASE_OK);
	assert_int_equal(sim_unref(s, 2), CASE_OK);
	assert_int_equal(sim_flush(s, 2, &one), CASE_BAD_RESOURCE);
}

/* The pixels are the guest's own: another renderer has them without a word of the guest. */
static void test_killed(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	struct virtio_gpu_set_scanout_blob part = {.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT_BLOB,
		.r = {4, 2, CASE_WIDTH, CASE_HEIGHT},
		.scanout_id = 0,
		.resource_id = 1,
		.width = CASE_WIDTH + 4,
		.height = CASE_HEIGHT + 2,
		.format = BGRX,
		.strides = {CASE_WIDTH * 4 + 64},
		.offsets = {128}};
	const uint32_t bytes = 128 + part.strides[0] * part.height;
	_cleanup_free_ uint32_t *wanted = malloc(CASE_BYTES);
	pid_t renderer = c->renderer;

	c->renderer = -1;
	assert_int_equal(make(c, 1, SIM_PIXELS, bytes), CASE_OK);
	assert_int_equal(sim_command(s, &part, sizeof(part)), CASE_OK);
	for (uint32_t i = 0; i < KILLS; i++) {
		uint8_t *at = sim_memory_at(&s->vmm.memory, SIM_PIXELS);

		for (uint32_t k = 0; k < bytes; k++) {
			at[k] = (uint8_t)(k * 2654435761u >> 11 ^ i);
		}
		for (uint32_t y = 0; y < CASE_HEIGHT; y++) {
			memcpy(wanted + y * CASE_WIDTH, at + 128 + (y + 2) * part.strides[0] + 16,
				CASE_WIDTH * 4);
		}
		assert_int_equal(kill(renderer, SIGKILL), 0);
		renderer = case_renderer(c, renderer);
		assert_true(renderer > 0);
		case_check_picture(c, 0, wanted);
	}
	assert_int_equal(make(c, 1, SIM_PIXELS, bytes), CASE_BAD_RESOURCE);
	assert_int_equal(sim_unref(s, 1), CASE_OK);
	/* None that was gone comes back. */
	assert_int_equal(kill(renderer, SIGKILL), 0);
	assert_true(case_renderer(c, renderer) > 0);
	assert_int_equal(sim_flush(s, 1, &case_all), CASE_BAD_RESOURCE);
	check_serves(c, 1);
}

static void test_bad(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_mem_entry last_bad[2] = {
		{SIM_PIXELS, CASE_BYTES / 2, 0}, {HOLE, CASE_BYTES / 2, 0}};
	struct virtio_gpu_resource_create_blob host = {
		.hdr.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB,
		.resource_id = 1,
		.blob_mem = VIRTIO_GPU_BLOB_MEM_HOST3D,
		.size = CASE_BYTES};
	const struct virtio_gpu_resource_map_blob map = {
		.hdr.type = VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB, .resource_id = 1};

	assert_int_equal(make(c, 0, SIM_PIXELS, CASE_BYTES), CASE_BAD_RESOURCE);
	assert_int_equal(make(c, 1, HOLE, CASE_BYTES), CASE_BAD_PARAMETER);
	assert_int_equal(make(c, 1, CASE_MEMORY / 2 - 16, 32), CASE_BAD_PARAMETER);
	assert_int_equal(make(c, 1, SIM_PIXELS, UINT32_MAX), CASE_BAD_PARAMETER);
	assert_int_equal(sim_blob(s, 1, CASE_BYTES, last_bad, 2), CASE_BAD_PARAMETER);
	assert_int_equal(sim_blob(s, 1, CASE_BYTES, last_bad, 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_command(s, &host, sizeof(host)), CASE_BAD_PARAMETER);
	assert_int_equal(sim_command(s, &host, sizeof(host) - 1), CASE_UNSPEC);
	assert_int_equal(show(c, 0, 1), CASE_BAD_RESOURCE);
	assert_int_equal(make(c, 1, SIM_PIXELS, CASE_BYTES), CASE_OK);
	assert_int_equal(sim_command(s, &map, sizeof(map)), CASE_UNSPEC);
	assert_int_equal(show(c, 16, 1), CASE_BAD_SCANOUT);
	assert_int_equal(sim_show_blob(s, 0, 1, CASE_WIDTH, CASE_HEIGHT + 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_show_blob(s, 0, 1, 1U << 30, 4), CASE_BAD_PARAMETER);
	/* All of memory as one picture: a gigabyte would be above what a VM may have. */
	assert_int_equal(sim_set_scanout(s, 0, 1, 1, 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_unref(s, 1), CASE_OK);
	check_serves(c, 2);
}

/* A driver that did not take the feature has nothing of it, though it is offered. */
static void test_not_negotiated(void **state)
{
	struct gpu_case *c = *state;
	uint64_t features = 0;

	assert_int_equal(sim_vmm_ask(&c->sim.vmm, VHOST_USER_GET_FEATURES, &features), 0);
	assert_true(features & UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB);
	assert_int_equal(make(c, 1, SIM_PIXELS, CASE_BYTES), CASE_UNSPEC);
	assert_int_equal(show(c, 0, 0), CASE_UNSPEC);
	case_check_serves(c, 1);
}

/* Beside 3D: a context may have it. */
static void test_3d(void **state)
{
	struct gpu_case *c = *state;

	assert_int_equal(sim_context(&c->sim, 1), CASE_OK);
	check_serves(c, 5);
	assert_int_equal(sim_join(&c->sim, 1, 5), CASE_OK);
	assert_int_equal(
		sim_transfer_3d(&c->sim, true, 1, 5, &(struct virtio_gpu_box){0, 0, 0, 1, 1, 1}, 0),
		CASE_BAD_RESOURCE);
	assert_int_equal(sim_unref(&c->sim, 5), CASE_OK);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, case_setup_blob, case_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_serves),
		TEST(test_pages),
		TEST(test_flips),
		TEST(test_killed),
		TEST(test_bad),
		cmocka_unit_test_setup_teardown(test_not_negotiated, case_setup, case_teardown),
		cmocka_unit_test_setup_teardown(test_3d, case_setup_3d, case_teardown),
	};

	return cmocka_run_group_tests_name("gpu-blob", tests, NULL, NULL);
}
