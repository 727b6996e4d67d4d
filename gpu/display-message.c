/* SPDX-License-Identifier: MIT
 *
 * Messages to the VMM: each is made when the socket takes one, out of what the VMM doesn't know
 * yet, and sent from where its pixels lie.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/checked.h"
#include "gpu/display-internal.h"

/* Rows in one sendmsg, when the damage is narrower than its picture. */
#define ROWS_MAX 256

static void *begin_message(struct display *d, enum display_request request, size_t size)
{
	struct display_header h = {.request = request, .size = (uint32_t)size};

	d->out = (struct outgoing){.busy = true, .head_size = sizeof(h) + size};
	d->out.size = d->out.head_size;
	memcpy(d->out.head.bytes, &h, sizeof(h));
	return d->out.head.bytes + sizeof(h);
}

void display_drop_message(struct display *d)
{
	picture_unref(d->out.picture);
	picture_unref(d->out.dmabuf);
	d->out = (struct outgoing){0};
}

void display_ask(struct display *d, enum asked what, enum display_request request, size_t size)
{
	begin_message(d, request, size);
	d->asked = what;
	d->received = 0;
}

/* A page flip is a picture and then its damage: two messages, and one frame. */
static void sent_frame(struct display *d, struct scanout *s)
{
	d->count.frames += s->has_frame;
	s->has_frame = false;
	s->damage = (struct display_rect){0};
}

static void begin_update(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];
	const struct display_update u = {
		.scanout = index,
		.x = s->damage.x,
		.y = s->damage.y,
		.width = s->damage.width,
		.height = s->damage.height,
	};
	size_t pixels = (size_t)u.width * u.height * PICTURE_PIXEL_BYTES;
	struct display_header h = {
		.request = DISPLAY_UPDATE, .size = (uint32_t)(sizeof(u) + pixels)};

	memcpy(begin_message(d, DISPLAY_UPDATE, sizeof(u)), &u, sizeof(u));
	memcpy(d->out.head.bytes, &h, sizeof(h));
	d->out.size += pixels;
	d->out.picture = picture_ref(s->picture);
	d->out.rect = (struct display_rect){s->rect.x + u.x, s->rect.y + u.y, u.width, u.height};
	sent_frame(d, s);
}

/* Off: with no fd, no width and no height. */
static void begin_dmabuf(struct display *d, uint32_t index, struct picture *picture)
{
	struct scanout *s = &d->scanouts[index];
	struct display_dmabuf2 m = {.dmabuf.scanout = index};
	bool with_modifier = false;

	if (picture) {
		m.dmabuf = (struct display_dmabuf){index, s->rect.x, s->rect.y, s->rect.width,
			s->rect.height, picture->width, picture->height, picture->dmabuf.stride,
			picture->dmabuf.flags, picture->dmabuf.fourcc};
		m.modifier = picture->dmabuf.modifier;
		with_modifier =
			d->dmabufs == DISPLAY_DMABUFS_ALL && m.modifier != DMABUF_MODIFIER_UNKNOWN;
	}
	if (with_modifier) {
		memcpy(begin_message(d, DISPLAY_DMABUF_SCANOUT2, sizeof(m)), &m, sizeof(m));
	} else {
		memcpy(begin_message(d, DISPLAY_DMABUF_SCANOUT, sizeof(m.dmabuf)), &m.dmabuf,
			sizeof(m.dmabuf));
	}
	d->out.dmabuf = picture ? picture_ref(picture) : NULL;
	s->vmm_has_dmabuf = picture != NULL;
}

static void begin_dmabuf_update(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];
	const struct display_update u = {
		index, s->damage.x, s->damage.y, s->damage.width, s->damage.height};

	display_ask(d, ASKED_TO_DRAW, DISPLAY_DMABUF_UPDATE, sizeof(u));
	memcpy(d->out.head.bytes + sizeof(struct display_header), &u, sizeof(u));
	sent_frame(d, s);
}

static void begin_scanout(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];
	const struct display_scanout m = {.scanout = index,
		.width = s->picture ? s->rect.width : 0,
		.height = s->picture ? s->rect.height : 0};

	memcpy(begin_message(d, DISPLAY_SCANOUT, sizeof(m)), &m, sizeof(m));
	s->announce = false;
}

static void begin_cursor(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];
	const struct display_cursor_pos pos = {
		.scanout = index, .x = s->cursor.x, .y = s->cursor.y};

	if (s->cursor_changed && s->cursor.visible) {
		struct display_cursor_update *u =
			begin_message(d, DISPLAY_CURSOR_UPDATE, sizeof(*u));

		u->pos = pos;
		/* The VMM may believe it. */
		u->hot_x = MIN(s->cursor.hot_x, DISPLAY_CURSOR_SIDE - 1U);
		u->hot_y = MIN(s->cursor.hot_y, DISPLAY_CURSOR_SIDE - 1U);
		memcpy(u->pixels, s->pixels, sizeof(u->pixels));
		s->cursor_changed = false;
	} else {
		memcpy(begin_message(d,
			       s->cursor.visible ? DISPLAY_CURSOR_POS : DISPLAY_CURSOR_POS_HIDE,
			       sizeof(pos)),
			&pos, sizeof(pos));
	}
	s->cursor_moved = false;
}

static bool wants_cursor(const struct scanout *s)
{
	return s->has_pixels && (s->cursor_moved || (s->cursor_changed && s->cursor.visible));
}

/* Whether the VMM can be shown a DMABUF now. */
static bool takes_dmabuf(const struct display *d, const struct dmabuf *dmabuf)
{
	return d->asked != ASKED_TO_DRAW &&
	       (d->dmabufs == DISPLAY_DMABUFS_ALL ||
		       (d->dmabufs == DISPLAY_DMABUFS_PLAIN && dmabuf_is_plain(dmabuf)));
}

static bool next_of_dmabuf(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];

	if (!takes_dmabuf(d, &s->picture->dmabuf)) {
		return false;
	}
	if (s->announce) {
		s->announce = false;
		begin_dmabuf(d, index, s->picture);
		return true;
	}
	/* Something else is asked: its answer comes first. */
	if (s->damage.width == 0 || d->asked != ASKED_NOTHING) {
		return false;
	}
	d->next = index + 1;
	begin_dmabuf_update(d, index);
	return true;
}

static bool next_of_scanout(struct display *d, uint32_t index)
{
	struct scanout *s = &d->scanouts[index];

	if (s->is_dmabuf) {
		return next_of_dmabuf(d, index);
	}
	if (s->announce && s->vmm_has_dmabuf) {
		begin_dmabuf(d, index, NULL);
		return true;
	}
	if (s->announce) {
		begin_scanout(d, index);
		return true;
	}
	if (s->picture && s->damage.width > 0) {
		d->next = index + 1;
		begin_update(d, index);
		return true;
	}
	return false;
}

/* Makes the next message out of what the VMM doesn't know yet. Questions and cursors come first:
 * they are small, and somebody waits. */
bool display_next_message(struct display *d)
{
	if (d->features_set) {
		d->features_set = false;
		memcpy(begin_message(d, DISPLAY_SET_PROTOCOL_FEATURES, sizeof(d->features)),
			&d->features, sizeof(d->features));
		return true;
	}
	if (!d->negotiated) {
		return false;
	}
	if (d->want_modes && d->asked == ASKED_NOTHING) {
		d->want_modes = false;
		display_ask(d, ASKED_MODES, DISPLAY_GET_DISPLAY_INFO, 0);
		return true;
	}
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		if (wants_cursor(&d->scanouts[i])) {
			begin_cursor(d, i);
			return true;
		}
	}
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		uint32_t index = (d->next + i) % d->n_scanouts;

		if (next_of_scanout(d, index)) {
			return true;
		}
	}
	return false;
}

/* Appends the pixels of the message that is on its way behind its first done bytes of them. */
static size_t gather_pixels(const struct outgoing *o, size_t done, struct iovec *iov, size_t max)
{
	size_t row_bytes = (size_t)o->rect.width * PICTURE_PIXEL_BYTES;
	size_t stride = (size_t)o->picture->width * PICTURE_PIXEL_BYTES;
	const uint8_t *base =
		o->picture->pixels + o->rect.y * stride + (size_t)o->rect.x * PICTURE_PIXEL_BYTES;
	size_t n = 0;

	if (row_bytes == stride) {
		iov[0] = (struct iovec){
			(void *)(uintptr_t)(base + done), row_bytes * o->rect.height - done};
		return 1;
	}
	for (size_t row = done / row_bytes, skip = done % row_bytes;
		row < o->rect.height && n < max; row++, skip = 0) {
		iov[n++] = (struct iovec){
			(void *)(uintptr_t)(base + row * stride + skip), row_bytes - skip};
	}
	return n;
}

/* The fd of a DMABUF goes with the first byte. */
static void attach_dmabuf(const struct outgoing *o, struct msghdr *m, struct cmsghdr *control)
{
	*control = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(control), &o->dmabuf->dmabuf.fd, sizeof(int));
	m->msg_control = control;
	m->msg_controllen = CMSG_SPACE(sizeof(int));
}

/* 1 when the message is sent, 0 when the socket is full, -errno. */
int display_send(struct display *d)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control;
	struct outgoing *o = &d->out;
	struct iovec iov[ROWS_MAX + 1];
	struct msghdr m = {.msg_iov = iov};
	ssize_t n;

	while (o->sent < o->size) {
		size_t pixels = o->sent > o->head_size ? o->sent - o->head_size : 0;
		size_t offered = 0;

		m.msg_iovlen = 0;
		m.msg_control = NULL;
		m.msg_controllen = 0;
		if (o->dmabuf) {
			attach_dmabuf(o, &m, &control.header);
		}
		if (o->sent < o->head_size) {
			iov[m.msg_iovlen++] =
				(struct iovec){o->head.bytes + o->sent, o->head_size - o->sent};
		}
		if (o->picture) {
			m.msg_iovlen += gather_pixels(o, pixels, iov + m.msg_iovlen, ROWS_MAX);
		}
		for (size_t i = 0; i < m.msg_iovlen; i++) {
			offered += iov[i].iov_len;
		}
		n = sendmsg(d->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0) {
			return errno == EAGAIN ? 0 : errno == EINTR ? 0 : -errno;
		}
		o->dmabuf = picture_unref(o->dmabuf);
		o->sent += (size_t)n;
		d->count.bytes += (uint64_t)n;
		if ((size_t)n < offered) {
			/* Full: asking once more would only be told so. */
			return 0;
		}
	}
	o->picture = picture_unref(o->picture);
	o->busy = false;
	return 1;
}
