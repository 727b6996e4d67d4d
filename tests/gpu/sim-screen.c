/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim-screen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/fd.h"

/* Above a picture of 8192 by 8192. */
#define PAYLOAD_MAX (300U << 20)
#define PIXEL       4u
#define READ_MAX    (256U << 10)

void sim_screen_init(struct sim_screen *s, uint32_t width, uint32_t height)
{
	*s = (struct sim_screen){.fd = -1, .fd_received = -1};
	for (size_t i = 0; i < SIM_SCANOUTS; i++) {
		s->scanouts[i].dmabuf_fd = -1;
	}
	s->info.hdr.type = VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
	s->info.pmodes[0].enabled = 1;
	s->info.pmodes[0].r.width = width;
	s->info.pmodes[0].r.height = height;
}

static void forget(struct sim_screen *s)
{
	s->fd = safe_close(s->fd);
	s->fd_received = safe_close(s->fd_received);
	s->received = 0;
	for (size_t i = 0; i < SIM_SCANOUTS; i++) {
		free(s->scanouts[i].pixels);
		safe_close(s->scanouts[i].dmabuf_fd);
		s->scanouts[i] = (struct sim_scanout){.dmabuf_fd = -1};
	}
}

void sim_screen_finish(struct sim_screen *s)
{
	forget(s);
	free(s->payload);
	s->payload = NULL;
	s->room = 0;
}

int sim_screen_connect(struct sim_screen *s)
{
	int pair[2], r;

	forget(s);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	s->fd = pair[0];
	r = fd_set_nonblock(s->fd, true);
	if (r < 0) {
		safe_close(pair[1]);
		return r;
	}
	return pair[1];
}

int sim_screen_say(struct sim_screen *s, const void *data, size_t size)
{
	return send(s->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -EPIPE;
}

static bool wrong(struct sim_screen *s, const char *why)
{
	snprintf(s->wrong, sizeof(s->wrong), "%s (request %u, %u bytes)", why, s->header.request,
		s->header.size);
	return false;
}

static bool answer(struct sim_screen *s, const void *data, uint32_t size)
{
	const struct display_header h = {s->header.request, DISPLAY_REPLY, size};

	return s->mute ||
	       (sim_screen_say(s, &h, sizeof(h)) == 0 && sim_screen_say(s, data, size) == 0);
}

static bool take_scanout(struct sim_screen *s)
{
	struct display_scanout m;
	struct sim_scanout *o;

	memcpy(&m, s->payload, sizeof(m));
	if (m.scanout >= SIM_SCANOUTS) {
		return wrong(s, "no such scanout");
	}
	o = &s->scanouts[m.scanout];
	free(o->pixels);
	o->pixels = NULL;
	o->width = m.width;
	o->height = m.height;
	if (m.width > 0 && m.height > 0 && !s->drop_pixels) {
		o->pixels = calloc((size_t)m.width * m.height, PIXEL);
	}
	return true;
}

/* As QEMU does it: without an fd it is off. */
static bool take_dmabuf(struct sim_screen *s)
{
	struct display_dmabuf2 m = {0};
	struct sim_scanout *o;

	memcpy(&m, s->payload, s->header.size);
	if (m.dmabuf.scanout >= SIM_SCANOUTS) {
		return wrong(s, "no such scanout");
	}
	o = &s->scanouts[m.dmabuf.scanout];
	safe_close(o->dmabuf_fd);
	o->dmabuf_fd = steal_fd(&s->fd_received);
	o->dmabuf = m;
	if (o->dmabuf_fd < 0) {
		return m.dmabuf.width == 0 || wrong(s, "a DMABUF without its fd");
	}
	return (m.dmabuf.width > 0 && m.dmabuf.height > 0 &&
		       m.dmabuf.x + (uint64_t)m.dmabuf.width <= m.dmabuf.fd_width &&
		       m.dmabuf.y + (uint64_t)m.dmabuf.height <= m.dmabuf.fd_height) ||
	       wrong(s, "a scanout outside of its DMABUF");
}

static bool take_drawing(struct sim_screen *s)
{
	struct display_update u;
	struct sim_scanout *o;

	memcpy(&u, s->payload, sizeof(u));
	if (u.scanout >= SIM_SCANOUTS) {
		return wrong(s, "no such scanout");
	}
	o = &s->scanouts[u.scanout];
	if (o->dmabuf_fd < 0 || u.width > o->dmabuf.dmabuf.width ||
		u.x > o->dmabuf.dmabuf.width - u.width || u.height > o->dmabuf.dmabuf.height ||
		u.y > o->dmabuf.dmabuf.height - u.height) {
		return wrong(s, "an update outside of its scanout");
	}
	o->last = u;
	o->n_updates++;
	return s->never_draws || answer(s, NULL, 0);
}

static bool take_update(struct sim_screen *s)
{
	struct display_update u;
	struct sim_scanout *o;
	const uint8_t *from = s->payload + sizeof(u);

	memcpy(&u, s->payload, sizeof(u));
	if (u.scanout >= SIM_SCANOUTS ||
		s->header.size != sizeof(u) + (uint64_t)u.width * u.height * PIXEL) {
		return wrong(s, "an update of another size than it says");
	}
	o = &s->scanouts[u.scanout];
	if (u.width > o->width || u.x > o->width - u.width || u.height > o->height ||
		u.y > o->height - u.height) {
		return wrong(s, "an update outside of its scanout");
	}
	for (uint32_t y = 0; o->pixels && y < u.height; y++) {
		memcpy(o->pixels + (size_t)(u.y + y) * o->width + u.x,
			from + (size_t)y * u.width * PIXEL, u.width * PIXEL);
	}
	o->last = u;
	if (o->watch_x - u.x < u.width && o->watch_y - u.y < u.height) {
		size_t at = (size_t)(o->watch_y - u.y) * u.width + (o->watch_x - u.x);

		memcpy(&o->watched, from + at * PIXEL, PIXEL);
	}
	o->n_updates++;
	return true;
}

/* Sizes of payloads; an update's is checked by itself. */
static bool size_fits(const struct display_header *h)
{
	switch (h->request) {
	case DISPLAY_GET_PROTOCOL_FEATURES:
	case DISPLAY_GET_DISPLAY_INFO:
		return h->size == 0;
	case DISPLAY_SET_PROTOCOL_FEATURES:
		return h->size == sizeof(uint64_t);
	case DISPLAY_CURSOR_POS:
	case DISPLAY_CURSOR_POS_HIDE:
	case DISPLAY_SCANOUT:
		return h->size == sizeof(struct display_scanout);
	case DISPLAY_CURSOR_UPDATE:
		return h->size == sizeof(struct display_cursor_update);
	case DISPLAY_DMABUF_SCANOUT:
		return h->size == sizeof(struct display_dmabuf);
	case DISPLAY_DMABUF_SCANOUT2:
		return h->size == sizeof(struct display_dmabuf2);
	case DISPLAY_DMABUF_UPDATE:
		return h->size == sizeof(struct display_update);
	case DISPLAY_UPDATE:
		return h->size >= sizeof(struct display_update) && h->size < PAYLOAD_MAX;
	default:
		return false;
	}
}

static bool take(struct sim_screen *s)
{
	s->n_messages[s->header.request]++;
	switch (s->header.request) {
	case DISPLAY_GET_PROTOCOL_FEATURES:
		return answer(s, &s->offers, sizeof(s->offers));
	case DISPLAY_SET_PROTOCOL_FEATURES:
		memcpy(&s->backend_features, s->payload, sizeof(s->backend_features));
		return (s->backend_features & ~s->offers) == 0 ||
		       wrong(s, "features that were not offered");
	case DISPLAY_GET_DISPLAY_INFO:
		return answer(s, &s->info, sizeof(s->info));
	case DISPLAY_CURSOR_POS:
	case DISPLAY_CURSOR_POS_HIDE:
		memcpy(&s->cursor_pos, s->payload, sizeof(s->cursor_pos));
		s->cursor_hidden = s->header.request == DISPLAY_CURSOR_POS_HIDE;
		return true;
	case DISPLAY_CURSOR_UPDATE:
		memcpy(&s->cursor, s->payload, sizeof(s->cursor));
		s->cursor_pos = s->cursor.pos;
		s->cursor_hidden = false;
		return true;
	case DISPLAY_SCANOUT:
		return take_scanout(s);
	case DISPLAY_DMABUF_SCANOUT:
	case DISPLAY_DMABUF_SCANOUT2:
		return take_dmabuf(s);
	case DISPLAY_DMABUF_UPDATE:
		return take_drawing(s);
	default:
		return take_update(s);
	}
}

/* Whether the header is one that there can be; room for its payload. */
static bool begin(struct sim_screen *s)
{
	if (!size_fits(&s->header)) {
		return wrong(s, "a message that there is none of");
	}
	if (s->header.size > s->room) {
		free(s->payload);
		s->room = s->header.size;
		s->payload = malloc(s->room);
	}
	return s->payload || s->header.size == 0;
}

/* As fd_recv; an fd that comes is the message's. */
static ssize_t receive(struct sim_screen *s, void *to, size_t size)
{
	size_t n_fds = 0;
	int fd;
	ssize_t n = fd_recv(s->fd, to, size, &fd, 1, &n_fds);

	if (n_fds > 0) {
		safe_close(s->fd_received);
		s->fd_received = fd;
	}
	return n;
}

bool sim_screen_read(struct sim_screen *s)
{
	const size_t head = sizeof(s->header);
	uint64_t enough = s->n_bytes + READ_MAX;

	while (s->fd >= 0 && s->n_bytes < enough) {
		bool in_head = s->received < head;
		uint8_t *to = in_head ? (uint8_t *)&s->header + s->received
				      : s->payload + (s->received - head);
		size_t left = in_head ? head - s->received : head + s->header.size - s->received;
		ssize_t n = receive(s, to, left);

		if (n <= 0) {
			return n == -EAGAIN;
		}
		s->received += (size_t)n;
		s->n_bytes += (size_t)n;
		if (s->received == head && !begin(s)) {
			return false;
		}
		if (s->received >= head && s->received == head + s->header.size) {
			s->received = 0;
			if (!take(s) || (s->fd_received >= 0 && wrong(s, "an fd too many"))) {
				return false;
			}
		}
	}
	return true;
}
