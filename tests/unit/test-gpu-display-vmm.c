/* SPDX-License-Identifier: MIT
 * A display whose VMM is slow, hangs, reboots its guest, talks nonsense or goes away.
 */
#include "gpu/display.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/unit/screen.h"
#include "tests/unit/test.h"

/* Nobody reads, so that the question can't even be sent: the guest gets what was known, in time,
 * and once the VMM is back it has the newest picture, and is asked again. */
static void hangs(void **state)
{
	struct screen *x = *state;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, LARGE, &map);
	const struct display_rect all = {0, 0, LARGE, LARGE};
	double start;
	struct screen_message m;

	screen_negotiate(x);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_answer_modes(x, 800, 600);
	display_show(x->d, 0, p, &all);
	screen_turn(x, 0);
	start = screen_now();
	display_ask_modes(x->d);
	while (x->modes < 2 && screen_now() - start < 5) {
		screen_turn(x, 20);
	}
	assert_int_equal(x->modes, 2);
	assert_true(screen_now() - start > 0.9 && screen_now() - start < 3);
	assert_int_equal(x->last_modes[0].width, 800);
	/* From then on it is not waited for. */
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 3);
	assert_int_equal(x->gone, 0);
	map[5] = 0x555555;
	display_damage(x->d, 0, NULL);
	screen_check_scanout(x, 0, LARGE, LARGE);
	assert_true(screen_next(x, &m));
	free(m.payload);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_check_update(x, 0, &all, map, LARGE, 0, 0);
	screen_answer_modes(x, 320, 200);
	assert_int_equal(x->modes, 3);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 3);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_answer_modes(x, 321, 200);
	assert_int_equal(x->modes, 4);
	assert_int_equal(x->last_modes[0].width, 321);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

/* An answer that comes late is an answer all the same, to the right question. */
static void answers_late(void **state)
{
	struct screen *x = *state;
	const struct display_rect all = {0, 0, SIDE, SIDE};
	double start = screen_now();
	uint32_t *map;

	screen_plug(x);
	free(screen_expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	display_show(x->d, 0, screen_picture(x, 1, SIDE, &map), &all);
	display_ask_modes(x->d);
	while (x->modes == 0 && screen_now() - start < 5) {
		screen_turn(x, 20);
	}
	assert_int_equal(x->ready, 1);
	assert_int_equal(x->modes, 1);
	screen_expect_nothing(x);
	screen_answer_features(x);
	assert_int_equal(x->ready, 1);
	free(screen_expect(x, DISPLAY_SET_PROTOCOL_FEATURES, 8));
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_check_scanout(x, 0, SIDE, SIDE);
	screen_check_update(x, 0, &all, map, SIDE, 0, 0);
	munmap(map, SIDE * SIDE * 4);
	screen_answer_modes(x, 400, 300);
	assert_int_equal(x->modes, 1);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	start = screen_now();
	while (x->modes == 1 && screen_now() - start < 5) {
		screen_turn(x, 20);
	}
	assert_int_equal(x->last_modes[0].width, 400);
	screen_answer_modes(x, 500, 300);
	assert_int_equal(x->modes, 2);
	assert_int_equal(x->gone, 0);
}

/* A guest's reboot: the new socket is negotiated and shown everything anew. */
static void another_socket(void **state)
{
	struct screen *x = *state;
	static const uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4] = {1, 2, 3};
	const struct display_cursor c = {true, 1, 2, 0, 0};
	const struct display_rect all = {0, 0, LARGE, LARGE};
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, LARGE, &map);
	int old;

	screen_negotiate(x);
	display_cursor(x->d, 0, &c, pixels);
	display_show(x->d, 5, p, &all);
	display_ask_modes(x->d);
	screen_turn(x, 0); /* in the middle of the frame */
	old = x->vmm;
	x->vmm = -1;
	screen_negotiate(x);
	assert_int_equal(x->ready, 2);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	free(screen_expect(x, DISPLAY_CURSOR_UPDATE, sizeof(struct display_cursor_update)));
	screen_check_scanout(x, 5, LARGE, LARGE);
	screen_check_update(x, 5, &all, map, LARGE, 0, 0);
	screen_answer_modes(x, 640, 480);
	assert_int_equal(x->modes, 1);
	screen_expect_nothing(x);
	assert_int_equal(x->gone, 0);
	safe_close(old);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

static void closed(void **state)
{
	struct screen *x = *state;

	screen_negotiate(x);
	display_ask_modes(x->d);
	x->vmm = safe_close(x->vmm);
	screen_turn(x, 0);
	assert_int_equal(x->gone, 1);
	assert_null(x->why);
	assert_int_equal(x->modes, 1);
	assert_true(display_is_ready(x->d));
	/* Before its features were known. */
	screen_plug(x);
	x->vmm = safe_close(x->vmm);
	screen_turn(x, 0);
	assert_int_equal(x->gone, 2);
	assert_int_equal(x->ready, 2);
}

/* Answers that are none: the display goes, the guest goes on. */
static void nonsense(void **state)
{
	struct screen *x = *state;
	const struct display_header bad[] = {
		{DISPLAY_GET_PROTOCOL_FEATURES, 0, 8},
		{DISPLAY_GET_PROTOCOL_FEATURES, DISPLAY_REPLY, 7},
		{DISPLAY_GET_PROTOCOL_FEATURES, DISPLAY_REPLY, UINT32_MAX},
		{DISPLAY_GET_DISPLAY_INFO, DISPLAY_REPLY, 8},
		{0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		screen_plug(x);
		free(screen_expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
		assert_int_equal(send(x->vmm, &bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
		screen_turn(x, 0);
		assert_int_equal(x->gone, i + 1);
		assert_non_null(x->why);
		assert_int_equal(x->ready, i + 1);
	}
	screen_negotiate(x);
	assert_int_equal(send(x->vmm, "?", 1, 0), 1);
	screen_turn(x, 0);
	assert_int_equal(x->gone, ARRAY_SIZE(bad) + 1);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 1);
}

/* Random bytes, in random pieces, behind random good answers. */
static void random_vmm(void **state)
{
	struct screen *x = *state;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, SIDE, &map);
	unsigned int seed = 1;

	for (unsigned int i = 0; i < 2000; i++) {
		uint8_t bytes[600];
		size_t n = (size_t)rand_r(&seed) % sizeof(bytes) + 1;

		screen_plug(x);
		if (rand_r(&seed) % 2) {
			screen_answer_features(x);
			display_ask_modes(x->d);
		}
		display_show(x->d, i % DISPLAY_SCANOUTS, p, &(struct display_rect){0, 0, 9, 9});
		for (size_t k = 0; k < n; k++) {
			bytes[k] =
				(uint8_t)(rand_r(&seed) % 5 ? rand_r(&seed) % 12 : rand_r(&seed));
		}
		_unused_ ssize_t sent = send(x->vmm, bytes, n / 2, MSG_NOSIGNAL | MSG_DONTWAIT);
		screen_turn(x, 0);
		sent = send(x->vmm, bytes + n / 2, n - n / 2, MSG_NOSIGNAL | MSG_DONTWAIT);
		screen_turn(x, 0);
	}
	assert_true(x->gone > 1000);
	screen_negotiate(x);
	munmap(map, SIDE * SIDE * 4);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, screen_set_up, screen_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(hangs),
		TEST(answers_late),
		TEST(another_socket),
		TEST(closed),
		TEST(nonsense),
		TEST(random_vmm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
