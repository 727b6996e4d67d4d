/* SPDX-License-Identifier: MIT
 * A VMM's display that says anything at any time, in any pieces, while pictures are shown. A byte
 * says what happens next; most say that so many bytes come from the VMM.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/display.h"
#include "protocol/vhost-user-display.h"
#include "tests/fuzz/fuzz.h"

#define SIDE 32

enum { ASK = 200, SHOW, HIDE, DAMAGE, CURSOR, OVERRIDE, READ, PLUG, HANG_UP };

struct vmm {
	sd_event *event;
	struct display *display;
	int fd; /* -1: it has closed it, or there was none */
	unsigned int owed;
};

static void on_ready(void *userdata)
{
}

static void on_modes(void *userdata, const struct display_mode modes[DISPLAY_SCANOUTS])
{
	struct vmm *v = userdata;

	for (int i = 0; i < DISPLAY_SCANOUTS; i++) {
		assert(modes[i].width <= 16384 && modes[i].height <= 16384);
	}
	assert(v->owed > 0);
	v->owed--;
}

static void on_gone(void *userdata, const char *why)
{
}

static const struct display_ops ops = {.ready = on_ready, .modes = on_modes, .gone = on_gone};

static void plug(struct vmm *v)
{
	int pair[2];

	safe_close(v->fd);
	v->fd = -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		abort();
	}
	v->fd = pair[0];
	_unused_ int r = display_set_socket(v->display, pair[1]);
}

static void take_all(struct vmm *v)
{
	static uint8_t sink[65536];

	while (v->fd >= 0 && recv(v->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
	}
}

static void turn(struct vmm *v)
{
	for (int i = 0; i < 8; i++) {
		display_flush(v->display);
		if (sd_event_run(v->event, 0) <= 0) {
			break;
		}
	}
}

/* Made once: the display only reads them. */
static struct picture *picture(void)
{
	static struct pictures pictures;
	static struct picture *p;
	const size_t size = (size_t)SIDE * SIDE * 4;
	int fd;

	if (p) {
		return p;
	}
	fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	pictures_init(&pictures);
	if (fd < 0 || fd_extend(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0 ||
		pictures_add(&pictures, 1, SIDE, SIDE, fd, &p) < 0) {
		abort();
	}
	close(fd);
	return p;
}

/* Returns how many of the bytes behind the first one belong to it. */
static size_t step(struct vmm *v, const uint8_t *data, size_t size)
{
	static const uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4];
	uint32_t a = size > 1 ? data[1] : 0, b = size > 2 ? data[2] : 0;
	const struct display_rect rect = {a % SIDE, b % SIDE, SIDE - a % SIDE, SIDE - b % SIDE};
	const struct display_cursor cursor = {a & 1, a, b, a % 64, b % 64};
	size_t n;

	switch (data[0]) {
	case ASK:
		v->owed++;
		display_ask_modes(v->display);
		return 0;
	case SHOW:
		display_show(v->display, a % DISPLAY_SCANOUTS, picture(), &rect);
		return 2;
	case HIDE:
		display_show(v->display, a % DISPLAY_SCANOUTS, NULL, NULL);
		return 1;
	case DAMAGE:
		display_damage(v->display, a % DISPLAY_SCANOUTS, &rect);
		return 2;
	case CURSOR:
		display_cursor(v->display, a % DISPLAY_SCANOUTS, &cursor, b & 1 ? pixels : NULL);
		return 2;
	case OVERRIDE:
		display_override(v->display, a % DISPLAY_SCANOUTS, a, b);
		return 2;
	case READ:
		take_all(v);
		return 0;
	case PLUG:
		plug(v);
		return 0;
	case HANG_UP:
		v->fd = safe_close(v->fd);
		return 0;
	default:
		n = MIN((size_t)data[0], size - 1);
		if (v->fd >= 0) {
			_unused_ ssize_t sent =
				send(v->fd, data + 1, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
		return n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmm v = {.fd = -1};

	if (sd_event_new(&v.event) < 0 ||
		display_create(v.event, DISPLAY_SCANOUTS, &ops, &v, &v.display) < 0) {
		abort();
	}
	plug(&v);
	while (size > 0) {
		size_t n = MIN(1 + step(&v, data, size), size);

		turn(&v);
		data += n;
		size -= n;
	}
	take_all(&v);
	turn(&v);
	display_destroy(v.display);
	safe_close(v.fd);
	sd_event_unref(v.event);
	return 0;
}
