/* SPDX-License-Identifier: MIT */
#include "tests/unit/screen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

static void on_ready(void *userdata)
{
	((struct screen *)userdata)->ready++;
}

static void on_modes(void *userdata, const struct display_mode modes[DISPLAY_SCANOUTS])
{
	struct screen *x = userdata;

	x->modes++;
	memcpy(x->last_modes, modes, sizeof(x->last_modes));
}

static void on_gone(void *userdata, const char *why)
{
	struct screen *x = userdata;

	x->gone++;
	x->why = why;
}

static void on_dmabufs(void *userdata, enum display_dmabufs which)
{
	struct screen *x = userdata;

	x->dmabufs++;
	x->last_dmabufs = which;
}

static const struct display_ops ops = {
	.ready = on_ready, .modes = on_modes, .dmabufs = on_dmabufs, .gone = on_gone};

int screen_set_up(void **state)
{
	struct screen *x = calloc(1, sizeof(*x));

	assert_int_equal(sd_event_new(&x->event), 0);
	assert_int_equal(display_create(x->event, DISPLAY_SCANOUTS, &ops, x, &x->d), 0);
	pictures_init(&x->pictures);
	x->vmm = x->fd = -1;
	x->offers = 3;
	*state = x;
	return 0;
}

int screen_tear_down(void **state)
{
	struct screen *x = *state;

	display_destroy(x->d);
	pictures_finish(&x->pictures);
	safe_close(x->vmm);
	safe_close(x->fd);
	sd_event_unref(x->event);
	free(x);
	return 0;
}

void screen_turn(struct screen *x, int ms)
{
	do {
		display_flush(x->d);
	} while (sd_event_run(x->event, (uint64_t)ms * 1000) > 0);
}

double screen_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void screen_plug(struct screen *x)
{
	const int small = 16384;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	safe_close(x->vmm);
	x->vmm = pair[0];
	assert_int_equal(fd_set_nonblock(x->vmm, true), 0);
	assert_int_equal(display_set_socket(x->d, pair[1]), 0);
}

/* As fd_recv; an fd that comes is the message's. */
static ssize_t receive(struct screen *x, void *to, size_t size)
{
	size_t n_fds = 0;
	int fd;
	ssize_t n = fd_recv(x->vmm, to, size, &fd, 1, &n_fds);

	if (n_fds > 0) {
		assert_int_equal(x->fd, -1);
		x->fd = fd;
	}
	return n;
}

/* Reads exactly size bytes, with the display working meanwhile. False if they don't come. */
static bool take(struct screen *x, void *to, size_t size)
{
	size_t have = 0;

	for (int idle = 0; have < size && idle < 50;) {
		ssize_t n = receive(x, (uint8_t *)to + have, size - have);

		if (n == 0) {
			return false;
		}
		have += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		screen_turn(x, idle > 2 ? 1 : 0);
	}
	return have == size;
}

bool screen_next(struct screen *x, struct screen_message *m)
{
	x->fd = safe_close(x->fd);
	if (!take(x, &m->h, sizeof(m->h))) {
		return false;
	}
	assert_int_equal(m->h.flags, 0);
	assert_true(m->h.size <= (1U << 30) + sizeof(struct display_update));
	m->payload = malloc(m->h.size + 1);
	assert_true(take(x, m->payload, m->h.size));
	return true;
}

uint8_t *screen_expect(struct screen *x, enum display_request request, size_t size)
{
	struct screen_message m;

	assert_true(screen_next(x, &m));
	assert_int_equal(m.h.request, request);
	assert_int_equal(m.h.size, size);
	return m.payload;
}

void screen_expect_nothing(struct screen *x)
{
	uint8_t byte;

	screen_turn(x, 10);
	assert_int_equal(recv(x->vmm, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

void screen_answer(struct screen *x, uint32_t request, const void *payload, uint32_t size)
{
	const struct display_header h = {request, DISPLAY_REPLY, size};

	assert_int_equal(send(x->vmm, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
	assert_int_equal(send(x->vmm, payload, size, MSG_NOSIGNAL), size);
	screen_turn(x, 0);
}

void screen_answer_features(struct screen *x)
{
	screen_answer(x, DISPLAY_GET_PROTOCOL_FEATURES, &x->offers, sizeof(x->offers));
}

void screen_answer_modes(struct screen *x, uint32_t width, uint32_t height)
{
	struct virtio_gpu_resp_display_info info = {0};

	info.pmodes[0].enabled = 1;
	info.pmodes[0].r.width = width;
	info.pmodes[0].r.height = height;
	screen_answer(x, DISPLAY_GET_DISPLAY_INFO, &info, sizeof(info));
}

void screen_negotiate(struct screen *x)
{
	uint64_t features;
	uint8_t *payload;

	screen_plug(x);
	free(screen_expect(x, DISPLAY_GET_PROTOCOL_FEATURES, 0));
	screen_answer_features(x);
	payload = screen_expect(x, DISPLAY_SET_PROTOCOL_FEATURES, sizeof(features));
	memcpy(&features, payload, sizeof(features));
	assert_int_equal(features, x->takes);
	free(payload);
}

struct picture *screen_picture(struct screen *x, uint32_t number, uint32_t side, uint32_t **out)
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

void screen_check_scanout(struct screen *x, uint32_t scanout, uint32_t width, uint32_t height)
{
	uint8_t *payload = screen_expect(x, DISPLAY_SCANOUT, sizeof(struct display_scanout));
	struct display_scanout s;

	memcpy(&s, payload, sizeof(s));
	free(payload);
	assert_int_equal(s.scanout, scanout);
	assert_int_equal(s.width, width);
	assert_int_equal(s.height, height);
}

void screen_check_update(struct screen *x, uint32_t scanout, const struct display_rect *r,
	const uint32_t *map, uint32_t side, uint32_t dx, uint32_t dy)
{
	struct display_update u;
	size_t pixels = (size_t)r->width * r->height * 4;
	uint8_t *payload = screen_expect(x, DISPLAY_UPDATE, sizeof(u) + pixels);

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
