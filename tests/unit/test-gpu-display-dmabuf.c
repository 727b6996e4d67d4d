/* SPDX-License-Identifier: MIT
 * Scanouts that are DMABUFs: what the VMM is told, which fd it gets, and what becomes of all that
 * when it answers late, never, nonsense, or is another one. A memfd stands for the DMABUF: the
 * display passes it on and looks at nothing of it.
 */
#include "gpu/display.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/unit/screen.h"
#include "tests/unit/test.h"

#define DMABUF2    (UINT64_C(1) << DISPLAY_F_DMABUF2)
#define TILED      UINT64_C(0x0100000000000002)
#define XR24       0x34325258
#define SIDE_BYTES ((size_t)SIDE * SIDE * 4)

static const struct display_rect whole = {0, 0, SIDE, SIDE};

static int set_up(void **state)
{
	int r = screen_set_up(state);
	struct screen *x = *state;

	display_allow_dmabufs(x->d, true);
	x->takes = DMABUF2;
	return r;
}

static struct picture *dmabuf_picture(struct screen *x, uint32_t number, uint64_t modifier)
{
	struct dmabuf d = {.fd = memfd_create("dmabuf", MFD_CLOEXEC),
		.fourcc = XR24,
		.stride = SIDE * 4,
		.flags = VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP,
		.modifier = modifier};
	uint32_t *map;
	struct picture *p = screen_picture(x, number, SIDE, &map);

	munmap(map, SIDE_BYTES);
	assert_int_equal(pictures_add_dmabuf(&x->pictures, p, &d), 0);
	return p;
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* The next message shows this picture's DMABUF, with its modifier or without. */
static void expect_dmabuf(struct screen *x, uint32_t scanout, const struct picture *p,
	const struct display_rect *rect, bool with_modifier)
{
	struct display_dmabuf2 m = {0};
	size_t size = with_modifier ? sizeof(m) : sizeof(m.dmabuf);
	uint8_t *payload = screen_expect(
		x, with_modifier ? DISPLAY_DMABUF_SCANOUT2 : DISPLAY_DMABUF_SCANOUT, size);

	memcpy(&m, payload, size);
	free(payload);
	assert_int_equal(m.dmabuf.scanout, scanout);
	assert_int_equal(m.dmabuf.x, rect->x);
	assert_int_equal(m.dmabuf.y, rect->y);
	assert_int_equal(m.dmabuf.width, rect->width);
	assert_int_equal(m.dmabuf.height, rect->height);
	assert_int_equal(m.dmabuf.fd_width, SIDE);
	assert_int_equal(m.dmabuf.fd_height, SIDE);
	assert_int_equal(m.dmabuf.stride, SIDE * 4);
	assert_int_equal(m.dmabuf.flags, VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP);
	assert_int_equal(m.dmabuf.fourcc, XR24);
	assert_true(!with_modifier || m.modifier == p->dmabuf.modifier);
	assert_true(x->fd >= 0);
	assert_int_equal(inode(x->fd), inode(p->dmabuf.fd));
}

static void expect_off(struct screen *x, uint32_t scanout)
{
	static const struct display_dmabuf none;
	struct display_dmabuf m;
	uint8_t *payload = screen_expect(x, DISPLAY_DMABUF_SCANOUT, sizeof(m));

	memcpy(&m, payload, sizeof(m));
	free(payload);
	assert_int_equal(m.scanout, scanout);
	m.scanout = 0;
	assert_memory_equal(&m, &none, sizeof(m));
	assert_int_equal(x->fd, -1);
}

static void expect_update(struct screen *x, uint32_t scanout, const struct display_rect *rect)
{
	struct display_update u;
	uint8_t *payload = screen_expect(x, DISPLAY_DMABUF_UPDATE, sizeof(u));

	memcpy(&u, payload, sizeof(u));
	free(payload);
	assert_int_equal(u.scanout, scanout);
	assert_int_equal(u.x, rect->x);
	assert_int_equal(u.y, rect->y);
	assert_int_equal(u.width, rect->width);
	assert_int_equal(u.height, rect->height);
	assert_int_equal(x->fd, -1);
}

static void acknowledge(struct screen *x)
{
	screen_answer(x, DISPLAY_DMABUF_UPDATE, NULL, 0);
}

static void shown(void **state)
{
	struct screen *x = *state;
	struct picture *p = dmabuf_picture(x, 1, TILED);
	const struct display_rect part = {5, 6, 20, 30}, all = {0, 0, 20, 30}, d = {1, 2, 3, 4};

	screen_negotiate(x);
	assert_int_equal(x->dmabufs, 1);
	assert_int_equal(x->last_dmabufs, DISPLAY_DMABUFS_ALL);
	display_show_dmabuf(x->d, 2, p, &part);
	assert_true(display_shows_dmabuf(x->d, 2));
	expect_dmabuf(x, 2, p, &part, true);
	expect_update(x, 2, &all);
	acknowledge(x);
	screen_expect_nothing(x);
	display_damage(x->d, 2, &d);
	expect_update(x, 2, &d);
	acknowledge(x);
	/* The same again is no news to the VMM; its pixels may be. */
	display_show_dmabuf(x->d, 2, p, &part);
	expect_update(x, 2, &all);
	acknowledge(x);
	display_show(x->d, 2, NULL, NULL);
	expect_off(x, 2);
	screen_check_scanout(x, 2, 0, 0);
	screen_expect_nothing(x);
	assert_int_equal(x->gone, 0);
}

/* A modifier that is not known is not told; and a VMM that takes none gets those without. */
static void modifiers(void **state)
{
	struct screen *x = *state;
	struct picture *tiled = dmabuf_picture(x, 1, TILED),
		       *unknown = dmabuf_picture(x, 2, DMABUF_MODIFIER_UNKNOWN),
		       *linear = dmabuf_picture(x, 3, DMABUF_MODIFIER_LINEAR);

	screen_negotiate(x);
	display_show_dmabuf(x->d, 0, unknown, &whole);
	expect_dmabuf(x, 0, unknown, &whole, false);
	expect_update(x, 0, &whole);
	acknowledge(x);
	display_show_dmabuf(x->d, 0, linear, &whole);
	expect_dmabuf(x, 0, linear, &whole, true);
	expect_update(x, 0, &whole);
	x->offers = 0;
	x->takes = 0;
	screen_negotiate(x);
	assert_int_equal(x->last_dmabufs, DISPLAY_DMABUFS_PLAIN);
	expect_dmabuf(x, 0, linear, &whole, false);
	expect_update(x, 0, &whole);
	acknowledge(x);
	display_show_dmabuf(x->d, 0, tiled, &whole);
	screen_expect_nothing(x);
	display_show_dmabuf(x->d, 0, unknown, &whole);
	expect_dmabuf(x, 0, unknown, &whole, false);
	expect_update(x, 0, &whole);
}

/* Nothing is shown of it: not even that there is something. */
static void not_allowed(void **state)
{
	struct screen *x = *state;
	struct picture *p = dmabuf_picture(x, 1, DMABUF_MODIFIER_LINEAR);

	display_allow_dmabufs(x->d, false);
	x->takes = 0;
	screen_negotiate(x);
	assert_int_equal(x->last_dmabufs, DISPLAY_DMABUFS_NONE);
	display_show_dmabuf(x->d, 0, p, &whole);
	display_damage(x->d, 0, NULL);
	screen_expect_nothing(x);
	display_show(x->d, 0, p, &whole);
	screen_check_scanout(x, 0, SIDE, SIDE);
}

/* From a DMABUF to pixels and back, at one size. */
static void changes(void **state)
{
	struct screen *x = *state;
	struct picture *p = dmabuf_picture(x, 1, TILED);
	uint32_t *map;
	struct picture *q = screen_picture(x, 2, SIDE, &map);

	screen_negotiate(x);
	for (int i = 0; i < 2; i++) {
		display_show_dmabuf(x->d, 0, p, &whole);
		expect_dmabuf(x, 0, p, &whole, true);
		expect_update(x, 0, &whole);
		acknowledge(x);
		display_show(x->d, 0, q, &whole);
		assert_false(display_shows_dmabuf(x->d, 0));
		expect_off(x, 0);
		screen_check_scanout(x, 0, SIDE, SIDE);
		screen_check_update(x, 0, &whole, map, SIDE, 0, 0);
	}
	munmap(map, SIDE_BYTES);
}

/* While the VMM draws, a hundred pictures and a hundred damages are one each: the newest. */
static void coalescing(void **state)
{
	struct screen *x = *state;
	struct picture *p[3];
	const struct display_rect d = {3, 3, 1, 1};
	struct display_counters c;

	for (uint32_t i = 0; i < 3; i++) {
		p[i] = dmabuf_picture(x, i + 1, TILED);
	}
	screen_negotiate(x);
	display_show_dmabuf(x->d, 0, p[0], &whole);
	expect_dmabuf(x, 0, p[0], &whole, true);
	expect_update(x, 0, &whole);
	for (uint32_t i = 0; i < 100; i++) {
		display_show_dmabuf(x->d, 0, p[i % 3], &whole);
		display_damage(x->d, 0, &d);
		screen_turn(x, 0);
	}
	screen_expect_nothing(x);
	display_show_dmabuf(x->d, 0, p[2], &whole);
	acknowledge(x);
	expect_dmabuf(x, 0, p[2], &whole, true);
	expect_update(x, 0, &whole);
	for (uint32_t i = 0; i < 100; i++) {
		display_damage(x->d, 0, &(struct display_rect){i % 7, i % 5, 2, 2});
		screen_turn(x, 0);
	}
	acknowledge(x);
	expect_update(x, 0, &(struct display_rect){0, 0, 8, 6});
	display_count(x->d, &c);
	assert_int_equal(c.frames, 2);
	assert_int_equal(x->gone, 0);
}

/* One that never answers holds up its DMABUFs, and nothing else. */
static void never_draws(void **state)
{
	struct screen *x = *state;
	static const uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4] = {1};
	const struct display_cursor cursor = {true, 1, 2, 0, 0};
	struct picture *p = dmabuf_picture(x, 1, TILED), *other = dmabuf_picture(x, 2, TILED);
	uint32_t *map;
	struct picture *q = screen_picture(x, 3, SIDE, &map);
	double start;

	screen_negotiate(x);
	display_show_dmabuf(x->d, 0, p, &whole);
	expect_dmabuf(x, 0, p, &whole, true);
	expect_update(x, 0, &whole);
	display_damage(x->d, 0, NULL);
	display_show_dmabuf(x->d, 1, other, &whole);
	screen_expect_nothing(x);
	display_show(x->d, 2, q, &whole);
	screen_check_scanout(x, 2, SIDE, SIDE);
	screen_check_update(x, 2, &whole, map, SIDE, 0, 0);
	display_cursor(x->d, 0, &cursor, pixels);
	free(screen_expect(x, DISPLAY_CURSOR_UPDATE, sizeof(struct display_cursor_update)));
	/* The guest's question waits its second and is answered with what is known. */
	start = screen_now();
	display_ask_modes(x->d);
	while (x->modes == 0 && screen_now() - start < 5) {
		screen_turn(x, 20);
	}
	assert_int_equal(x->modes, 1);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 2);
	/* It comes back after all. */
	acknowledge(x);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	expect_dmabuf(x, 1, other, &whole, true);
	screen_expect_nothing(x); /* one question at a time */
	screen_answer_modes(x, 300, 200);
	/* Turn by turn: the one behind the last that was sent is the first. */
	expect_update(x, 0, &whole);
	acknowledge(x);
	expect_update(x, 1, &whole);
	acknowledge(x);
	display_ask_modes(x->d);
	free(screen_expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	screen_answer_modes(x, 301, 200);
	assert_int_equal(x->last_modes[0].width, 301);
	assert_int_equal(x->gone, 0);
	munmap(map, SIDE_BYTES);
}

/* Answers that are none: the display goes, the guest goes on. */
static void nonsense(void **state)
{
	struct screen *x = *state;
	const struct display_header bad[] = {
		{DISPLAY_DMABUF_UPDATE, 0, 0},
		{DISPLAY_DMABUF_UPDATE, DISPLAY_REPLY, 1},
		{DISPLAY_DMABUF_UPDATE, DISPLAY_REPLY, UINT32_MAX},
		{DISPLAY_GET_DISPLAY_INFO, DISPLAY_REPLY, 408},
		{0, 0, 0},
	};
	struct picture *p = dmabuf_picture(x, 1, TILED);

	display_show_dmabuf(x->d, 0, p, &whole);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		screen_negotiate(x);
		expect_dmabuf(x, 0, p, &whole, true);
		expect_update(x, 0, &whole);
		assert_int_equal(send(x->vmm, &bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
		screen_turn(x, 0);
		assert_int_equal(x->gone, i + 1);
		assert_non_null(x->why);
	}
	/* A second answer to one question. */
	screen_negotiate(x);
	expect_dmabuf(x, 0, p, &whole, true);
	expect_update(x, 0, &whole);
	acknowledge(x);
	assert_int_equal(x->gone, ARRAY_SIZE(bad));
	acknowledge(x);
	assert_int_equal(x->gone, ARRAY_SIZE(bad) + 1);
}

/* A guest's reboot in the middle of it: the next socket is shown everything, whether the picture's
 * renderer still has it or not. A VMM that has a DMABUF is told that it is off by the next one,
 * too. */
static void another_socket(void **state)
{
	struct screen *x = *state;
	struct picture *p = dmabuf_picture(x, 1, TILED);
	uint32_t *map;
	struct picture *q = screen_picture(x, 2, SIDE, &map);

	screen_negotiate(x);
	display_show_dmabuf(x->d, 0, p, &whole);
	screen_turn(x, 0);
	pictures_forget(&x->pictures, 1);
	screen_negotiate(x);
	assert_int_equal(x->dmabufs, 2);
	expect_dmabuf(x, 0, p, &whole, true);
	expect_update(x, 0, &whole);
	display_show(x->d, 0, q, &whole);
	screen_negotiate(x);
	expect_off(x, 0);
	screen_check_scanout(x, 0, SIDE, SIDE);
	screen_check_update(x, 0, &whole, map, SIDE, 0, 0);
	screen_negotiate(x);
	screen_check_scanout(x, 0, SIDE, SIDE);
	screen_check_update(x, 0, &whole, map, SIDE, 0, 0);
	/* Off by then. */
	p = dmabuf_picture(x, 3, TILED);
	display_show_dmabuf(x->d, 0, p, &whole);
	expect_dmabuf(x, 0, p, &whole, true);
	display_show(x->d, 0, NULL, NULL);
	screen_negotiate(x);
	expect_off(x, 0);
	screen_check_scanout(x, 0, 0, 0);
	screen_expect_nothing(x);
	munmap(map, SIDE_BYTES);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, screen_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(shown),
		TEST(modifiers),
		TEST(not_allowed),
		TEST(changes),
		TEST(coalescing),
		TEST(never_draws),
		TEST(nonsense),
		TEST(another_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
