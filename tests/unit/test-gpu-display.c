/* SPDX-License-Identifier: MIT
 * What a display sends: order and contents, frames that coalesce, messages that are never torn.
 */
#include "gpu/display.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/screen.h"
#include "tests/unit/test.h"

static void order(void **state)
{
	struct screen *x = *state;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, SIDE, &map);
	const struct display_rect all = {0, 0, SIDE, SIDE};

	assert_true(display_is_ready(x->d));
	display_show(x->d, 2, p, &all);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 1);
	assert_int_equal(x->last_modes[0].width, 1280);
	screen_plug(x);
	assert_false(display_is_ready(x->d));
	free(screen_expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	screen_expect_nothing(x);
	assert_int_equal(x->ready, 0);
	screen_answer_features(x);
	assert_int_equal(x->ready, 1);
	assert_true(display_is_ready(x->d));
	free(screen_expect(x, DISPLAY_SET_PROTOCOL_FEATURES, 8));
	screen_check_scanout(x, 2, SIDE, SIDE);
	screen_check_update(x, 2, &all, map, SIDE, 0, 0);
	screen_expect_nothing(x);
	munmap(map, SIDE * SIDE * 4);
}

static void part_of_a_picture(void **state)
{
	struct screen *x = *state;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, SIDE, &map);
	const struct display_rect part = {10, 20, 30, 40}, all = {0, 0, 30, 40};
	struct display_rect d = {5, 6, 1000, 2}, cut = {5, 6, 25, 2}, outside = {30, 0, 1, 1};

	screen_negotiate(x);
	display_show(x->d, 0, p, &part);
	screen_check_scanout(x, 0, 30, 40);
	screen_check_update(x, 0, &all, map, SIDE, 10, 20);
	display_damage(x->d, 0, &d);
	screen_check_update(x, 0, &cut, map, SIDE, 10, 20);
	display_damage(x->d, 0, &outside);
	d = (struct display_rect){0, 0, 0, 5};
	display_damage(x->d, 0, &d);
	d = (struct display_rect){29, 39, UINT32_MAX, UINT32_MAX};
	screen_expect_nothing(x);
	display_damage(x->d, 0, &d);
	cut = (struct display_rect){29, 39, 1, 1};
	screen_check_update(x, 0, &cut, map, SIDE, 10, 20);
	display_damage(x->d, 1, NULL);
	screen_expect_nothing(x);
	/* The same size again is not announced, off and on again is. */
	display_show(x->d, 0, p, &part);
	screen_check_update(x, 0, &all, map, SIDE, 10, 20);
	display_show(x->d, 0, NULL, NULL);
	screen_check_scanout(x, 0, 0, 0);
	screen_expect_nothing(x);
	display_show(x->d, 0, p, &part);
	screen_check_scanout(x, 0, 30, 40);
	screen_check_update(x, 0, &all, map, SIDE, 10, 20);
	munmap(map, SIDE * SIDE * 4);
}

/* While a frame is stuck in the socket, what comes is joined, and is sent with its newest pixels.
 */
static void coalescing(void **state)
{
	struct screen *x = *state;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, LARGE, &map);
	const struct display_rect all = {0, 0, LARGE, LARGE};
	struct display_counters c;
	struct screen_message m;

	screen_negotiate(x);
	display_show(x->d, 0, p, &all);
	screen_turn(x, 0);
	for (uint32_t i = 0; i < 100; i++) {
		const struct display_rect d = {100 + i, 200 + 2 * i, 7, 9};

		map[(size_t)(200 + 2 * i) * LARGE + 100 + i] = i;
		display_damage(x->d, 0, &d);
		screen_turn(x, 0);
	}
	display_count(x->d, &c);
	/* What is shown is none until something has been drawn. */
	assert_int_equal(c.frames, 0);
	assert_int_equal(c.merged, 99);
	map[(size_t)200 * LARGE + 100] = 0xabcdef;
	screen_check_scanout(x, 0, LARGE, LARGE);
	assert_true(screen_next(x, &m)); /* it was on its way while its pixels changed */
	assert_int_equal(m.h.size, sizeof(struct display_update) + (size_t)LARGE * LARGE * 4);
	free(m.payload);
	screen_check_update(x, 0, &(struct display_rect){100, 200, 106, 207}, map, LARGE, 0, 0);
	screen_expect_nothing(x);
	display_count(x->d, &c);
	assert_int_equal(c.frames, 1);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

/* A frame that has begun is finished, even if its scanout and its picture are gone by then. */
static void never_torn(void **state)
{
	struct screen *x = *state;
	uint32_t *map, *small;
	struct picture *p = screen_picture(x, 1, LARGE, &map),
		       *q = screen_picture(x, 2, SIDE, &small);
	const struct display_rect most = {1, 1, LARGE - 1, LARGE - 1}, all = {0, 0, SIDE, SIDE};

	screen_negotiate(x);
	display_show(x->d, 0, p, &most);
	screen_turn(x, 0);
	display_show(x->d, 0, NULL, NULL);
	pictures_forget(&x->pictures, 1);
	display_show(x->d, 0, q, &all);
	display_show(x->d, 0, q, &all);
	screen_turn(x, 0);
	screen_check_scanout(x, 0, LARGE - 1, LARGE - 1);
	screen_check_update(
		x, 0, &(struct display_rect){0, 0, LARGE - 1, LARGE - 1}, map, LARGE, 1, 1);
	screen_check_scanout(x, 0, SIDE, SIDE);
	screen_check_update(x, 0, &all, small, SIDE, 0, 0);
	screen_expect_nothing(x);
	munmap(map, (size_t)LARGE * LARGE * 4);
	munmap(small, SIDE * SIDE * 4);
}

static void check_cursor(struct screen *x, enum display_request request, uint32_t cx, uint32_t cy)
{
	struct display_cursor_pos pos;
	uint8_t *payload = screen_expect(x, request, sizeof(pos));

	memcpy(&pos, payload, sizeof(pos));
	free(payload);
	assert_int_equal(pos.scanout, 3);
	assert_int_equal(pos.x, cx);
	assert_int_equal(pos.y, cy);
}

static void cursor(void **state)
{
	struct screen *x = *state;
	static uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4];
	struct display_cursor c = {true, 7, 8, 3, UINT32_MAX};
	struct display_cursor_update u;
	uint32_t *map;
	struct picture *p = screen_picture(x, 1, LARGE, &map);
	uint8_t *payload;
	struct screen_message m;

	for (size_t i = 0; i < sizeof(pixels); i++) {
		pixels[i] = (uint8_t)(i * 7);
	}
	screen_negotiate(x);
	display_cursor(x->d, 3, &c, NULL);
	screen_expect_nothing(x); /* there was no image yet */
	display_cursor(x->d, 3, &c, pixels);
	payload = screen_expect(x, DISPLAY_CURSOR_UPDATE, sizeof(u));
	memcpy(&u, payload, sizeof(u));
	free(payload);
	assert_int_equal(u.pos.scanout, 3);
	assert_int_equal(u.hot_x, 3);
	assert_int_equal(u.hot_y, DISPLAY_CURSOR_SIDE - 1);
	assert_memory_equal(u.pixels, pixels, sizeof(pixels));
	/* Of many moves the last one is told, and before the frames that wait. */
	display_show(x->d, 0, p, &(struct display_rect){0, 0, LARGE, LARGE});
	screen_turn(x, 0);
	for (c.x = 0; c.x < 100; c.x++) {
		display_cursor(x->d, 3, &c, NULL);
		display_damage(x->d, 0, NULL);
		screen_turn(x, 0);
	}
	screen_check_scanout(x, 0, LARGE, LARGE);
	assert_true(screen_next(x, &m));
	assert_int_equal(m.h.request, DISPLAY_UPDATE);
	free(m.payload);
	check_cursor(x, DISPLAY_CURSOR_POS, 99, 8);
	assert_true(screen_next(x, &m));
	free(m.payload);
	c.visible = false;
	display_cursor(x->d, 3, &c, NULL);
	check_cursor(x, DISPLAY_CURSOR_POS_HIDE, 100, 8);
	screen_expect_nothing(x);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

static void modes(void **state)
{
	struct screen *x = *state;

	screen_negotiate(x);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	assert_int_equal(x->modes, 0);
	screen_answer_modes(x, 800, 600);
	assert_int_equal(x->modes, 1);
	assert_int_equal(x->last_modes[0].width, 800);
	assert_int_equal(x->last_modes[1].width, 0);
	display_override(x->d, 0, 1024, 768);
	display_override(x->d, 1, 640, 480);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_answer_modes(x, 800, 600);
	assert_int_equal(x->last_modes[0].width, 1024);
	assert_int_equal(x->last_modes[1].height, 480);
	display_override(x->d, 0, 0, 0);
	display_override(x->d, 1, 0, 0);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_answer_modes(x, PICTURE_SIDE_MAX + 1, 600);
	assert_int_equal(x->last_modes[0].width, 0);
	assert_int_equal(x->modes, 3);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, screen_set_up, screen_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(order),
		TEST(part_of_a_picture),
		TEST(coalescing),
		TEST(never_torn),
		TEST(cursor),
		TEST(modes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
