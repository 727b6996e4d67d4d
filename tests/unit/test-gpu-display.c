/* SPDX-License-Identifier: MIT
 * The display, with the test as the VMM: order and contents of what is sent, frames that coalesce,
 * messages that are never torn, and a VMM that is slow, hangs, talks nonsense or goes away.
 */
#include "gpu/display.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "protocol/vhost-user-display.h"
#include "tests/unit/test.h"

#define SIDE  64
#define LARGE 1024 /* a frame of it is larger than any socket's buffer here */

struct fixture {
	sd_event *event;
	struct display *d;
	struct pictures pictures;
	int vmm; /* our end; -1: none */
	unsigned int ready, modes, gone;
	struct display_mode last_modes[DISPLAY_SCANOUTS];
	const char *why;
};

struct message {
	struct display_header h;
	uint8_t *payload; /* malloc'ed */
};

static void on_ready(void *userdata)
{
	((struct fixture *)userdata)->ready++;
}

static void on_modes(void *userdata, const struct display_mode modes[DISPLAY_SCANOUTS])
{
	struct fixture *x = userdata;

	x->modes++;
	memcpy(x->last_modes, modes, sizeof(x->last_modes));
}

static void on_gone(void *userdata, const char *why)
{
	struct fixture *x = userdata;

	x->gone++;
	x->why = why;
}

static const struct display_ops ops = {.ready = on_ready, .modes = on_modes, .gone = on_gone};

static int set_up(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));

	assert_int_equal(sd_event_new(&x->event), 0);
	assert_int_equal(display_create(x->event, DISPLAY_SCANOUTS, &ops, x, &x->d), 0);
	pictures_init(&x->pictures);
	x->vmm = -1;
	*state = x;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *x = *state;

	display_destroy(x->d);
	pictures_finish(&x->pictures);
	safe_close(x->vmm);
	sd_event_unref(x->event);
	free(x);
	return 0;
}

/* What front.c's loop does, until nothing happens for ms. */
static void turn(struct fixture *x, int ms)
{
	do {
		display_flush(x->d);
	} while (sd_event_run(x->event, (uint64_t)ms * 1000) > 0);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void plug(struct fixture *x)
{
	const int small = 16384;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	safe_close(x->vmm);
	x->vmm = pair[0];
	assert_int_equal(display_set_socket(x->d, pair[1]), 0);
}

/* Reads exactly size bytes, with the display working meanwhile. False if they don't come. */
static bool take(struct fixture *x, void *to, size_t size)
{
	size_t have = 0;

	for (int idle = 0; have < size && idle < 50;) {
		ssize_t n = recv(x->vmm, (uint8_t *)to + have, size - have, MSG_DONTWAIT);

		if (n == 0) {
			return false;
		}
		have += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		turn(x, idle > 2 ? 1 : 0);
	}
	return have == size;
}

/* The next message. False if there is none. */
static bool next(struct fixture *x, struct message *m)
{
	if (!take(x, &m->h, sizeof(m->h))) {
		return false;
	}
	assert_int_equal(m->h.flags, 0);
	assert_true(m->h.size <= (1U << 30) + sizeof(struct display_update));
	m->payload = malloc(m->h.size + 1);
	assert_true(take(x, m->payload, m->h.size));
	return true;
}

/* The next message is this one, of this size. Its payload is the caller's. */
static uint8_t *expect(struct fixture *x, enum display_request request, size_t size)
{
	struct message m;

	assert_true(next(x, &m));
	assert_int_equal(m.h.request, request);
	assert_int_equal(m.h.size, size);
	return m.payload;
}

static void expect_nothing(struct fixture *x)
{
	uint8_t byte;

	turn(x, 10);
	assert_int_equal(recv(x->vmm, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void answer(struct fixture *x, uint32_t request, const void *payload, uint32_t size)
{
	const struct display_header h = {request, DISPLAY_REPLY, size};

	assert_int_equal(send(x->vmm, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
	assert_int_equal(send(x->vmm, payload, size, MSG_NOSIGNAL), size);
	turn(x, 0);
}

static void answer_features(struct fixture *x)
{
	const uint64_t features = 3;

	answer(x, DISPLAY_GET_PROTOCOL_FEATURES, &features, sizeof(features));
}

static void answer_modes(struct fixture *x, uint32_t width, uint32_t height)
{
	struct virtio_gpu_resp_display_info info = {0};

	info.pmodes[0].enabled = 1;
	info.pmodes[0].r.width = width;
	info.pmodes[0].r.height = height;
	answer(x, DISPLAY_GET_DISPLAY_INFO, &info, sizeof(info));
}

static void negotiate(struct fixture *x)
{
	uint64_t features;
	uint8_t *payload;

	plug(x);
	free(expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	answer_features(x);
	payload = expect(x, DISPLAY_SET_PROTOCOL_FEATURES, sizeof(features));
	memcpy(&features, payload, sizeof(features));
	assert_int_equal(features, 0);
	free(payload);
}

/* A picture whose pixels the test keeps writable. */
static struct picture *picture(struct fixture *x, uint32_t number, uint32_t side, uint32_t **out)
{
	size_t size = (size_t)side * side * 4;
	int fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct picture *p;

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	*out = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(pictures_add(&x->pictures, number, side, side, fd, &p), 0);
	safe_close(fd);
	for (size_t i = 0; i < (size_t)side * side; i++) {
		(*out)[i] = (uint32_t)i;
	}
	return p;
}

static void check_scanout(struct fixture *x, uint32_t scanout, uint32_t width, uint32_t height)
{
	uint8_t *payload = expect(x, DISPLAY_SCANOUT, sizeof(struct display_scanout));
	struct display_scanout s;

	memcpy(&s, payload, sizeof(s));
	free(payload);
	assert_int_equal(s.scanout, scanout);
	assert_int_equal(s.width, width);
	assert_int_equal(s.height, height);
}

/* The next message is an UPDATE of this rectangle, whose pixels are those of map (of side squared)
 * at dx, dy from there. */
static void check_update(struct fixture *x, uint32_t scanout, const struct display_rect *r,
	const uint32_t *map, uint32_t side, uint32_t dx, uint32_t dy)
{
	struct display_update u;
	size_t pixels = (size_t)r->width * r->height * 4;
	uint8_t *payload = expect(x, DISPLAY_UPDATE, sizeof(u) + pixels);

	memcpy(&u, payload, sizeof(u));
	assert_int_equal(u.scanout, scanout);
	assert_int_equal(u.x, r->x);
	assert_int_equal(u.y, r->y);
	assert_int_equal(u.width, r->width);
	assert_int_equal(u.height, r->height);
	for (uint32_t y = 0; y < r->height; y++) {
		assert_memory_equal(payload + sizeof(u) + (size_t)y * r->width * 4,
			map + (size_t)(r->y + dy + y) * side + r->x + dx, (size_t)r->width * 4);
	}
	free(payload);
}

static void order(void **state)
{
	struct fixture *x = *state;
	uint32_t *map;
	struct picture *p = picture(x, 1, SIDE, &map);
	const struct display_rect all = {0, 0, SIDE, SIDE};

	assert_true(display_is_ready(x->d));
	display_show(x->d, 2, p, &all);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 1);
	assert_int_equal(x->last_modes[0].width, 1280);
	plug(x);
	assert_false(display_is_ready(x->d));
	free(expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	expect_nothing(x);
	assert_int_equal(x->ready, 0);
	answer_features(x);
	assert_int_equal(x->ready, 1);
	assert_true(display_is_ready(x->d));
	free(expect(x, DISPLAY_SET_PROTOCOL_FEATURES, 8));
	check_scanout(x, 2, SIDE, SIDE);
	check_update(x, 2, &all, map, SIDE, 0, 0);
	expect_nothing(x);
	munmap(map, SIDE * SIDE * 4);
}

static void part_of_a_picture(void **state)
{
	struct fixture *x = *state;
	uint32_t *map;
	struct picture *p = picture(x, 1, SIDE, &map);
	const struct display_rect part = {10, 20, 30, 40}, all = {0, 0, 30, 40};
	struct display_rect d = {5, 6, 1000, 2}, cut = {5, 6, 25, 2}, outside = {30, 0, 1, 1};

	negotiate(x);
	display_show(x->d, 0, p, &part);
	check_scanout(x, 0, 30, 40);
	check_update(x, 0, &all, map, SIDE, 10, 20);
	display_damage(x->d, 0, &d);
	check_update(x, 0, &cut, map, SIDE, 10, 20);
	display_damage(x->d, 0, &outside);
	d = (struct display_rect){0, 0, 0, 5};
	display_damage(x->d, 0, &d);
	d = (struct display_rect){29, 39, UINT32_MAX, UINT32_MAX};
	expect_nothing(x);
	display_damage(x->d, 0, &d);
	cut = (struct display_rect){29, 39, 1, 1};
	check_update(x, 0, &cut, map, SIDE, 10, 20);
	display_damage(x->d, 1, NULL);
	expect_nothing(x);
	/* The same size again is not announced, off and on again is. */
	display_show(x->d, 0, p, &part);
	check_update(x, 0, &all, map, SIDE, 10, 20);
	display_show(x->d, 0, NULL, NULL);
	check_scanout(x, 0, 0, 0);
	expect_nothing(x);
	display_show(x->d, 0, p, &part);
	check_scanout(x, 0, 30, 40);
	check_update(x, 0, &all, map, SIDE, 10, 20);
	munmap(map, SIDE * SIDE * 4);
}

/* While a frame is stuck in the socket, what comes is joined, and is sent with its newest pixels.
 */
static void coalescing(void **state)
{
	struct fixture *x = *state;
	uint32_t *map;
	struct picture *p = picture(x, 1, LARGE, &map);
	const struct display_rect all = {0, 0, LARGE, LARGE};
	struct display_counters c;
	struct message m;

	negotiate(x);
	display_show(x->d, 0, p, &all);
	turn(x, 0);
	for (uint32_t i = 0; i < 100; i++) {
		const struct display_rect d = {100 + i, 200 + 2 * i, 7, 9};

		map[(size_t)(200 + 2 * i) * LARGE + 100 + i] = i;
		display_damage(x->d, 0, &d);
		turn(x, 0);
	}
	display_count(x->d, &c);
	assert_int_equal(c.frames, 1);
	assert_int_equal(c.merged, 99);
	map[(size_t)200 * LARGE + 100] = 0xabcdef;
	check_scanout(x, 0, LARGE, LARGE);
	assert_true(next(x, &m)); /* it was on its way while its pixels changed */
	assert_int_equal(m.h.size, sizeof(struct display_update) + (size_t)LARGE * LARGE * 4);
	free(m.payload);
	check_update(x, 0, &(struct display_rect){100, 200, 106, 207}, map, LARGE, 0, 0);
	expect_nothing(x);
	display_count(x->d, &c);
	assert_int_equal(c.frames, 2);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

/* A frame that has begun is finished, even if its scanout and its picture are gone by then. */
static void never_torn(void **state)
{
	struct fixture *x = *state;
	uint32_t *map, *small;
	struct picture *p = picture(x, 1, LARGE, &map), *q = picture(x, 2, SIDE, &small);
	const struct display_rect most = {1, 1, LARGE - 1, LARGE - 1}, all = {0, 0, SIDE, SIDE};

	negotiate(x);
	display_show(x->d, 0, p, &most);
	turn(x, 0);
	display_show(x->d, 0, NULL, NULL);
	pictures_forget(&x->pictures, 1);
	display_show(x->d, 0, q, &all);
	display_show(x->d, 0, q, &all);
	turn(x, 0);
	check_scanout(x, 0, LARGE - 1, LARGE - 1);
	check_update(x, 0, &(struct display_rect){0, 0, LARGE - 1, LARGE - 1}, map, LARGE, 1, 1);
	check_scanout(x, 0, SIDE, SIDE);
	check_update(x, 0, &all, small, SIDE, 0, 0);
	expect_nothing(x);
	munmap(map, (size_t)LARGE * LARGE * 4);
	munmap(small, SIDE * SIDE * 4);
}

static void check_cursor(struct fixture *x, enum display_request request, uint32_t cx, uint32_t cy)
{
	struct display_cursor_pos pos;
	uint8_t *payload = expect(x, request, sizeof(pos));

	memcpy(&pos, payload, sizeof(pos));
	free(payload);
	assert_int_equal(pos.scanout, 3);
	assert_int_equal(pos.x, cx);
	assert_int_equal(pos.y, cy);
}

static void cursor(void **state)
{
	struct fixture *x = *state;
	static uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4];
	struct display_cursor c = {true, 7, 8, 3, UINT32_MAX};
	struct display_cursor_update u;
	uint32_t *map;
	struct picture *p = picture(x, 1, LARGE, &map);
	uint8_t *payload;
	struct message m;

	for (size_t i = 0; i < sizeof(pixels); i++) {
		pixels[i] = (uint8_t)(i * 7);
	}
	negotiate(x);
	display_cursor(x->d, 3, &c, NULL);
	expect_nothing(x); /* there was no image yet */
	display_cursor(x->d, 3, &c, pixels);
	payload = expect(x, DISPLAY_CURSOR_UPDATE, sizeof(u));
	memcpy(&u, payload, sizeof(u));
	free(payload);
	assert_int_equal(u.pos.scanout, 3);
	assert_int_equal(u.hot_x, 3);
	assert_int_equal(u.hot_y, DISPLAY_CURSOR_SIDE - 1);
	assert_memory_equal(u.pixels, pixels, sizeof(pixels));
	/* Of many moves the last one is told, and before the frames that wait. */
	display_show(x->d, 0, p, &(struct display_rect){0, 0, LARGE, LARGE});
	turn(x, 0);
	for (c.x = 0; c.x < 100; c.x++) {
		display_cursor(x->d, 3, &c, NULL);
		display_damage(x->d, 0, NULL);
		turn(x, 0);
	}
	check_scanout(x, 0, LARGE, LARGE);
	assert_true(next(x, &m));
	assert_int_equal(m.h.request, DISPLAY_UPDATE);
	free(m.payload);
	check_cursor(x, DISPLAY_CURSOR_POS, 99, 8);
	assert_true(next(x, &m));
	free(m.payload);
	c.visible = false;
	display_cursor(x->d, 3, &c, NULL);
	check_cursor(x, DISPLAY_CURSOR_POS_HIDE, 100, 8);
	expect_nothing(x);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

static void modes(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	display_ask_modes(x->d);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	assert_int_equal(x->modes, 0);
	answer_modes(x, 800, 600);
	assert_int_equal(x->modes, 1);
	assert_int_equal(x->last_modes[0].width, 800);
	assert_int_equal(x->last_modes[1].width, 0);
	display_override(x->d, 0, 1024, 768);
	display_override(x->d, 1, 640, 480);
	display_ask_modes(x->d);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	answer_modes(x, 800, 600);
	assert_int_equal(x->last_modes[0].width, 1024);
	assert_int_equal(x->last_modes[1].height, 480);
	display_override(x->d, 0, 0, 0);
	display_override(x->d, 1, 0, 0);
	display_ask_modes(x->d);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	answer_modes(x, PICTURE_SIDE_MAX + 1, 600);
	assert_int_equal(x->last_modes[0].width, 0);
	assert_int_equal(x->modes, 3);
}

/* Nobody reads, so that the question can't even be sent: the guest gets what was known, in time,
 * and once the VMM is back it has the newest picture, and is asked again. */
static void hangs(void **state)
{
	struct fixture *x = *state;
	uint32_t *map;
	struct picture *p = picture(x, 1, LARGE, &map);
	const struct display_rect all = {0, 0, LARGE, LARGE};
	double start;
	struct message m;

	negotiate(x);
	display_ask_modes(x->d);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	answer_modes(x, 800, 600);
	display_show(x->d, 0, p, &all);
	turn(x, 0);
	start = now();
	display_ask_modes(x->d);
	while (x->modes < 2 && now() - start < 5) {
		turn(x, 20);
	}
	assert_int_equal(x->modes, 2);
	assert_true(now() - start > 0.9 && now() - start < 3);
	assert_int_equal(x->last_modes[0].width, 800);
	/* From then on it is not waited for. */
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 3);
	assert_int_equal(x->gone, 0);
	map[5] = 0x555555;
	display_damage(x->d, 0, NULL);
	check_scanout(x, 0, LARGE, LARGE);
	assert_true(next(x, &m));
	free(m.payload);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	check_update(x, 0, &all, map, LARGE, 0, 0);
	answer_modes(x, 320, 200);
	assert_int_equal(x->modes, 3);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 3);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	answer_modes(x, 321, 200);
	assert_int_equal(x->modes, 4);
	assert_int_equal(x->last_modes[0].width, 321);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

/* An answer that comes late is an answer all the same, to the right question. */
static void answers_late(void **state)
{
	struct fixture *x = *state;
	const struct display_rect all = {0, 0, SIDE, SIDE};
	double start = now();
	uint32_t *map;

	plug(x);
	free(expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	display_show(x->d, 0, picture(x, 1, SIDE, &map), &all);
	display_ask_modes(x->d);
	while (x->modes == 0 && now() - start < 5) {
		turn(x, 20);
	}
	assert_int_equal(x->ready, 1);
	assert_int_equal(x->modes, 1);
	expect_nothing(x);
	answer_features(x);
	assert_int_equal(x->ready, 1);
	free(expect(x, DISPLAY_SET_PROTOCOL_FEATURES, 8));
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	check_scanout(x, 0, SIDE, SIDE);
	check_update(x, 0, &all, map, SIDE, 0, 0);
	munmap(map, SIDE * SIDE * 4);
	answer_modes(x, 400, 300);
	assert_int_equal(x->modes, 1);
	display_ask_modes(x->d);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	start = now();
	while (x->modes == 1 && now() - start < 5) {
		turn(x, 20);
	}
	assert_int_equal(x->last_modes[0].width, 400);
	answer_modes(x, 500, 300);
	assert_int_equal(x->modes, 2);
	assert_int_equal(x->gone, 0);
}

/* A guest's reboot: the new socket is negotiated and shown everything anew. */
static void another_socket(void **state)
{
	struct fixture *x = *state;
	static const uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4] = {1, 2, 3};
	const struct display_cursor c = {true, 1, 2, 0, 0};
	const struct display_rect all = {0, 0, LARGE, LARGE};
	uint32_t *map;
	struct picture *p = picture(x, 1, LARGE, &map);
	int old;

	negotiate(x);
	display_cursor(x->d, 0, &c, pixels);
	display_show(x->d, 5, p, &all);
	display_ask_modes(x->d);
	turn(x, 0); /* in the middle of the frame */
	old = x->vmm;
	x->vmm = -1;
	negotiate(x);
	assert_int_equal(x->ready, 2);
	free(expect(x, DISPLAY_GET_DISPLAY_INFO, 0));
	free(expect(x, DISPLAY_CURSOR_UPDATE, sizeof(struct display_cursor_update)));
	check_scanout(x, 5, LARGE, LARGE);
	check_update(x, 5, &all, map, LARGE, 0, 0);
	answer_modes(x, 640, 480);
	assert_int_equal(x->modes, 1);
	expect_nothing(x);
	assert_int_equal(x->gone, 0);
	safe_close(old);
	munmap(map, (size_t)LARGE * LARGE * 4);
}

static void closed(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	display_ask_modes(x->d);
	x->vmm = safe_close(x->vmm);
	turn(x, 0);
	assert_int_equal(x->gone, 1);
	assert_null(x->why);
	assert_int_equal(x->modes, 1);
	assert_true(display_is_ready(x->d));
	/* Before its features were known. */
	plug(x);
	x->vmm = safe_close(x->vmm);
	turn(x, 0);
	assert_int_equal(x->gone, 2);
	assert_int_equal(x->ready, 2);
}

/* Answers that are none: the display goes, the guest goes on. */
static void nonsense(void **state)
{
	struct fixture *x = *state;
	const struct display_header bad[] = {
		{DISPLAY_GET_PROTOCOL_FEATURES, 0, 8},
		{DISPLAY_GET_PROTOCOL_FEATURES, DISPLAY_REPLY, 7},
		{DISPLAY_GET_PROTOCOL_FEATURES, DISPLAY_REPLY, UINT32_MAX},
		{DISPLAY_GET_DISPLAY_INFO, DISPLAY_REPLY, 8},
		{0, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		plug(x);
		free(expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
		assert_int_equal(send(x->vmm, &bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
		turn(x, 0);
		assert_int_equal(x->gone, i + 1);
		assert_non_null(x->why);
		assert_int_equal(x->ready, i + 1);
	}
	negotiate(x);
	assert_int_equal(send(x->vmm, "?", 1, 0), 1);
	turn(x, 0);
	assert_int_equal(x->gone, ARRAY_SIZE(bad) + 1);
	display_ask_modes(x->d);
	assert_int_equal(x->modes, 1);
}

/* Random bytes, in random pieces, behind random good answers. */
static void random_vmm(void **state)
{
	struct fixture *x = *state;
	uint32_t *map;
	struct picture *p = picture(x, 1, SIDE, &map);
	unsigned int seed = 1;

	for (unsigned int i = 0; i < 2000; i++) {
		uint8_t bytes[600];
		size_t n = (size_t)rand_r(&seed) % sizeof(bytes) + 1;

		plug(x);
		if (rand_r(&seed) % 2) {
			answer_features(x);
			display_ask_modes(x->d);
		}
		display_show(x->d, i % DISPLAY_SCANOUTS, p, &(struct display_rect){0, 0, 9, 9});
		for (size_t k = 0; k < n; k++) {
			bytes[k] =
				(uint8_t)(rand_r(&seed) % 5 ? rand_r(&seed) % 12 : rand_r(&seed));
		}
		_unused_ ssize_t sent = send(x->vmm, bytes, n / 2, MSG_NOSIGNAL | MSG_DONTWAIT);
		turn(x, 0);
		sent = send(x->vmm, bytes + n / 2, n - n / 2, MSG_NOSIGNAL | MSG_DONTWAIT);
		turn(x, 0);
	}
	assert_true(x->gone > 1000);
	negotiate(x);
	munmap(map, SIDE * SIDE * 4);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(order),
		TEST(part_of_a_picture),
		TEST(coalescing),
		TEST(never_torn),
		TEST(cursor),
		TEST(modes),
		TEST(hangs),
		TEST(answers_late),
		TEST(another_socket),
		TEST(closed),
		TEST(nonsense),
		TEST(random_vmm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
