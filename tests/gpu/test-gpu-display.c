/* SPDX-License-Identifier: MIT
 * The real backend, in front of it a good VM: what its display is shown is what its guest drew.
 */
#include "tests/gpu/sim.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "tests/unit/test.h"

#define WIDTH  320u
#define HEIGHT 200u
#define BYTES  (WIDTH * HEIGHT * 4)
#define OK     VIRTIO_GPU_RESP_OK_NODATA

static const struct virtio_gpu_rect all = {0, 0, WIDTH, HEIGHT};

static int setup(void **state)
{
	const char *argv[] = {getenv("DEVBROKER_GPU"), NULL};
	const struct sim_options o = {
		.argv = argv, .cpu = -1, .memory = 64U << 20, .width = WIDTH, .height = HEIGHT};
	struct sim *s = calloc(1, sizeof(*s));

	*state = s;
	return sim_start(s, &o);
}

static int teardown(void **state)
{
	struct sim *s = *state;
	int status;

	s->backend.vhost = safe_close(s->backend.vhost);
	status = sim_backend_wait(&s->backend, 5000);
	sim_stop(s);
	free(s);
	return status;
}

static uint32_t *paint(struct sim *s, uint64_t at, uint32_t seed)
{
	uint32_t *pixels = sim_memory_at(&s->vmm.memory, at);

	for (uint32_t i = 0; i < WIDTH * HEIGHT; i++) {
		pixels[i] = (i * 2654435761u) ^ seed;
	}
	return pixels;
}

/* Until the display has this picture. */
static void wait_for_picture(struct sim *s, uint32_t scanout, const uint32_t *pixels)
{
	const struct sim_scanout *o = &s->screen.scanouts[scanout];

	for (int i = 0; i < 500; i++) {
		if (o->pixels && o->width == WIDTH && memcmp(o->pixels, pixels, BYTES) == 0) {
			break;
		}
		sim_wait(s, 10);
	}
	assert_string_equal(s->screen.wrong, "");
	assert_non_null(o->pixels);
	assert_memory_equal(o->pixels, pixels, BYTES);
}

/* Until the backend has nothing more to say. */
static void wait_for_quiet(struct sim *s)
{
	while (sim_wait(s, 100)) {
	}
}

static void test_shown(void **state)
{
	struct sim *s = *state;
	const uint32_t *pixels = paint(s, SIM_PIXELS, 1);
	const struct virtio_gpu_rect part = {17, 33, 64, 48};

	assert_int_equal(sim_show(s, 1, 0, WIDTH, HEIGHT, SIM_PIXELS), 0);
	assert_int_equal(sim_transfer(s, 1, &all, 0), OK);
	assert_int_equal(sim_flush(s, 1, &all), OK);
	wait_for_picture(s, 0, pixels);

	/* And a part of it. */
	wait_for_quiet(s);
	((uint32_t *)(uintptr_t)pixels)[(part.y + 5) * WIDTH + part.x + 7] ^= 0xffffff;
	assert_int_equal(sim_transfer(s, 1, &part, (part.y * WIDTH + part.x) * 4), OK);
	assert_int_equal(sim_flush(s, 1, &part), OK);
	wait_for_picture(s, 0, pixels);
	assert_int_equal(s->screen.scanouts[0].last.x, part.x);
	assert_int_equal(s->screen.scanouts[0].last.y, part.y);
	assert_int_equal(s->screen.scanouts[0].last.width, part.width);
	assert_int_equal(s->screen.scanouts[0].last.height, part.height);
}

static void test_rebooted(void **state)
{
	struct sim *s = *state;
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	const struct virtio_gpu_resp_display_info *answer;

	for (uint32_t i = 0; i < 3; i++) {
		const uint32_t *pixels = paint(s, SIM_PIXELS, 7 + i);

		assert_int_equal(
			sim_command(s, &info, sizeof(info)), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
		answer = sim_answer(s, SIM_CONTROL, 0);
		assert_int_equal(answer->pmodes[0].r.width, WIDTH);
		assert_int_equal(answer->pmodes[0].r.height, HEIGHT);
		/* Nothing is left of the guest before it. */
		assert_int_equal(sim_show(s, 1, 0, WIDTH, HEIGHT, SIM_PIXELS), 0);
		assert_int_equal(sim_transfer(s, 1, &all, 0), OK);
		assert_int_equal(sim_flush(s, 1, &all), OK);
		wait_for_picture(s, 0, pixels);
		assert_int_equal(sim_reboot(s), 0);
	}
}

static void test_two_scanouts(void **state)
{
	struct sim *s = *state;
	const uint64_t second = SIM_HIGH + 0x100000;
	const uint32_t *a = paint(s, SIM_PIXELS, 3), *b = paint(s, second, 4);

	assert_int_equal(sim_show(s, 1, 0, WIDTH, HEIGHT, SIM_PIXELS), 0);
	assert_int_equal(sim_show(s, 2, 1, WIDTH, HEIGHT, second), 0);
	for (uint32_t id = 1; id <= 2; id++) {
		assert_int_equal(sim_transfer(s, id, &all, 0), OK);
		assert_int_equal(sim_flush(s, id, &all), OK);
	}
	wait_for_picture(s, 0, a);
	wait_for_picture(s, 1, b);
}

/* A display that reads nothing costs the guest nothing; when it reads again it gets the newest. */
static void test_coalesced(void **state)
{
	struct sim *s = *state;
	const uint32_t *pixels = NULL;

	assert_int_equal(sim_show(s, 1, 0, WIDTH, HEIGHT, SIM_PIXELS), 0);
	s->screen_reads = false;
	for (uint32_t i = 0; i < 200; i++) {
		pixels = paint(s, SIM_PIXELS, 100 + i);
		assert_int_equal(sim_transfer(s, 1, &all, 0), OK);
		assert_int_equal(sim_flush(s, 1, &all), OK);
	}
	s->screen_reads = true;
	wait_for_picture(s, 0, pixels);
	/* What the socket holds, one on its way and the newest. */
	assert_in_range(s->screen.scanouts[0].n_updates, 1, 8);
}

static void move_cursor(struct sim *s, uint32_t type, uint32_t id, uint32_t x)
{
	const struct virtio_gpu_update_cursor c = {{.type = type}, {0, x, 20, 0}, id, 3, 4, 0};
	uint32_t written;

	assert_true(sim_offer(s, SIM_CURSOR, &c, sizeof(c), 0) >= 0);
	sim_ring_kick(&s->rings[SIM_CURSOR]);
	assert_true(sim_take(s, SIM_CURSOR, 5000, &written) >= 0);
	for (int i = 0; i < 500 && s->screen.cursor_pos.x != x; i++) {
		sim_wait(s, 10);
	}
	assert_int_equal(s->screen.cursor_pos.x, x);
	assert_int_equal(s->screen.cursor_pos.y, 20);
}

static void test_cursor(void **state)
{
	struct sim *s = *state;
	const uint32_t *pixels = paint(s, SIM_PIXELS, 9);
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, 64 * 64 * 4, 0};
	const struct virtio_gpu_rect side = {0, 0, 64, 64};

	assert_int_equal(sim_create(s, 5, VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 64, 64), OK);
	assert_int_equal(sim_attach(s, 5, &entry, 1), OK);
	assert_int_equal(sim_transfer(s, 5, &side, 0), OK);
	move_cursor(s, VIRTIO_GPU_CMD_UPDATE_CURSOR, 5, 10);
	assert_int_equal(s->screen.n_messages[DISPLAY_CURSOR_UPDATE], 1);
	assert_int_equal(s->screen.cursor.hot_x, 3);
	assert_int_equal(s->screen.cursor.hot_y, 4);
	assert_memory_equal(s->screen.cursor.pixels, pixels, 64 * 64 * 4);
	move_cursor(s, VIRTIO_GPU_CMD_MOVE_CURSOR, 5, 11);
	assert_int_equal(s->screen.n_messages[DISPLAY_CURSOR_UPDATE], 1);
	assert_false(s->screen.cursor_hidden);
	move_cursor(s, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 12);
	assert_true(s->screen.cursor_hidden);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_shown),
		TEST(test_rebooted),
		TEST(test_two_scanouts),
		TEST(test_coalesced),
		TEST(test_cursor),
	};

	return cmocka_run_group_tests_name("gpu-display", tests, NULL, NULL);
}
