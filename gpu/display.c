/* SPDX-License-Identifier: MIT
 *
 * Nothing here ever waits for the VMM. What it has not been shown yet is not a queue of messages
 * but a difference: per scanout whether it must be told what is on it, the rectangle that is out of
 * date, and whether its cursor moved or changed. When the socket takes something, the next message
 * is made from that, with the pixels as they are then; a slow VMM so gets fewer and newer frames,
 * and a dead one costs nothing. A message that has begun is finished, whatever happens to its
 * scanout: its picture is held until then, so that no message is ever torn.
 *
 * A picture that is a DMABUF goes to the VMM as an fd, and then only word of what is new in it,
 * which the VMM answers when it has drawn that. One such word is out at a time, for all scanouts
 * together (QEMU answers several with one): what comes meanwhile is a difference as above, another
 * picture too, so that a VMM that never answers gets no more fds. The guest waits for none of this.
 *
 * The VMM's bytes are hostile: the only ones that are looked at are answers to what was asked, of
 * exactly the size that they have to have; anything else ends the connection, and the guest goes
 * on without a display. A guest that waits for an answer waits for ANSWER_USEC, whatever the VMM
 * does, and is told what was known before.
 */
#include "gpu/display-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"

/* In one turn; more than there can be to say, for nothing would wake us for the rest. */
#define MESSAGES_PER_TURN (4 * DISPLAY_SCANOUTS + 4)
/* How long a VMM may take to answer. The guest waits meanwhile. */
#define ANSWER_USEC UINT64_C(1000000)

static const struct display_mode default_mode = {.width = 1280, .height = 800};

static struct display_rect join(const struct display_rect *a, const struct display_rect *b)
{
	struct display_rect r;

	if (a->width == 0 || a->height == 0) {
		return *b;
	}
	r.x = MIN(a->x, b->x);
	r.y = MIN(a->y, b->y);
	r.width = MAX(a->x + a->width, b->x + b->width) - r.x;
	r.height = MAX(a->y + a->height, b->y + b->height) - r.y;
	return r;
}

/* rect cut to width by height; no width if nothing is left. */
static struct display_rect cut(const struct display_rect *rect, uint32_t width, uint32_t height)
{
	struct display_rect r = *rect;

	if (r.x >= width || r.y >= height) {
		return (struct display_rect){0};
	}
	r.width = MIN(r.width, width - r.x);
	r.height = MIN(r.height, height - r.y);
	return r.height > 0 ? r : (struct display_rect){0};
}

static void update_events(struct display *d)
{
	uint32_t events = EPOLLIN | (d->out.busy ? EPOLLOUT : 0);

	if (d->io && events != d->io_events) {
		d->io_events = events;
		sd_event_source_set_io_events(d->io, events);
	}
}

/* Everything has to be shown anew on the next socket. */
static void forget_shown(struct display *d)
{
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		struct scanout *s = &d->scanouts[i];

		/* A VMM goes on with its DMABUF: it is told that it is off. */
		s->announce = s->picture || s->vmm_has_dmabuf;
		s->damage = s->picture ? (struct display_rect){0, 0, s->rect.width, s->rect.height}
				       : (struct display_rect){0};
		s->cursor_changed = s->has_pixels;
		s->cursor_moved = true;
	}
}

static void close_socket(struct display *d)
{
	d->io = sd_event_source_disable_unref(d->io);
	d->fd = safe_close(d->fd);
	display_drop_message(d);
	d->received = 0;
	d->asked = ASKED_NOTHING;
	d->dmabufs = DISPLAY_DMABUFS_NONE;
	d->want_modes = d->guest_waits;
	d->negotiated = d->features_set = d->late = false;
	d->io_events = 0;
	forget_shown(d);
}

/* What the guest is told where nobody says anything: what was said last, or a usual size. */
static void answer_modes(struct display *d)
{
	struct display_mode modes[DISPLAY_SCANOUTS] = {{0}};

	if (!d->have_modes) {
		d->modes[0] = default_mode;
	}
	d->guest_waits = false;
	d->want_modes = d->want_modes && d->fd >= 0; /* there is somebody to ask */
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		const struct scanout *s = &d->scanouts[i];

		modes[i] = d->modes[i];
		if (s->override_width > 0) {
			modes[i].width = s->override_width;
			modes[i].height = s->override_height;
		}
	}
	d->ops->modes(d->userdata, modes);
}

static void watch_the_time(struct display *d)
{
	sd_event_source_set_time_relative(d->timer, ANSWER_USEC);
	sd_event_source_set_enabled(d->timer, SD_EVENT_ONESHOT);
}

/* The guest waits no longer for what the VMM owes. */
static void go_on_without(struct display *d)
{
	bool first = !d->ready;

	sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
	d->ready = true;
	if (first) {
		d->ops->ready(d->userdata);
	}
	if (d->guest_waits) {
		answer_modes(d);
	}
}

/* why: NULL if the VMM just closed it, as it does whenever its guest reboots. */
static void end(struct display *d, const char *why)
{
	close_socket(d);
	go_on_without(d);
	d->ops->gone(d->userdata, why);
}

/* A VMM that hangs may be back in a while: its answer is still owed then, and is the next thing
 * that it says. */
static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct display *d = userdata;

	d->late = true;
	go_on_without(d);
	return 0;
}

void display_flush(struct display *d)
{
	int r = 1;

	for (int i = 0; d->fd >= 0 && r > 0 && i < MESSAGES_PER_TURN; i++) {
		if (!d->out.busy && !display_next_message(d)) {
			break;
		}
		r = display_send(d);
	}
	if (r < 0) {
		end(d, NULL);
		return;
	}
	update_events(d);
}

/* Bytes of the answer to what was asked, behind its header. */
static size_t answer_size(const struct display *d)
{
	return d->asked == ASKED_FEATURES  ? sizeof(uint64_t)
	       : d->asked == ASKED_TO_DRAW ? 0
					   : sizeof(struct virtio_gpu_resp_display_info);
}

/* The EDID is made in the renderer. */
static void take_features(struct display *d)
{
	uint64_t offered;

	memcpy(&offered, d->answer + sizeof(struct display_header), sizeof(offered));
	d->features = 0;
	if (d->allow_dmabufs) {
		d->features = offered & UINT64_C(1) << DISPLAY_F_DMABUF2;
		d->dmabufs = d->features ? DISPLAY_DMABUFS_ALL : DISPLAY_DMABUFS_PLAIN;
	}
	d->negotiated = d->features_set = d->ready = true;
	if (d->ops->dmabufs) {
		d->ops->dmabufs(d->userdata, d->dmabufs);
	}
}

static void take_modes(struct display *d)
{
	struct virtio_gpu_resp_display_info info;

	memcpy(&info, d->answer + sizeof(struct display_header), sizeof(info));
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		const struct virtio_gpu_display_one *one = &info.pmodes[i];
		bool on = le32toh(one->enabled) && le32toh(one->r.width) > 0 &&
			  le32toh(one->r.height) > 0 && le32toh(one->r.width) <= PICTURE_SIDE_MAX &&
			  le32toh(one->r.height) <= PICTURE_SIDE_MAX;

		d->modes[i] = (struct display_mode){0};
		if (on) {
			d->modes[i] = (struct display_mode){le32toh(one->r.x), le32toh(one->r.y),
				le32toh(one->r.width), le32toh(one->r.height)};
		}
	}
	d->have_modes = true;
}

static void take_answer(struct display *d)
{
	enum asked asked = d->asked;
	bool first = !d->ready;

	d->asked = ASKED_NOTHING;
	d->received = 0;
	d->late = false;
	sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
	if (asked == ASKED_FEATURES) {
		take_features(d);
		if (first) {
			d->ops->ready(d->userdata);
		}
	} else if (asked == ASKED_MODES) {
		take_modes(d);
		if (d->guest_waits && !d->want_modes) {
			answer_modes(d);
		}
	}
	if (d->guest_waits) {
		watch_the_time(d);
	}
}

/* NULL, or why what was received is no answer. */
static const char *check_answer(const struct display *d)
{
	static const uint32_t requests[] = {
		[ASKED_FEATURES] = DISPLAY_GET_PROTOCOL_FEATURES,
		[ASKED_MODES] = DISPLAY_GET_DISPLAY_INFO,
		[ASKED_TO_DRAW] = DISPLAY_DMABUF_UPDATE,
	};
	struct display_header h;

	memcpy(&h, d->answer, sizeof(h));
	if (h.request != requests[d->asked] || !(h.flags & DISPLAY_REPLY) ||
		h.size != answer_size(d)) {
		return "it answers something else than it was asked";
	}
	return NULL;
}

static void receive(struct display *d)
{
	size_t wanted = sizeof(struct display_header);
	const char *why;
	ssize_t n;

	if (d->asked == ASKED_NOTHING) {
		uint8_t byte;

		n = recv(d->fd, &byte, 1, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			end(d, NULL);
		} else if (n > 0) {
			end(d, "it says what nobody asked for");
		}
		return;
	}
	if (d->received >= wanted) {
		wanted += answer_size(d);
	}
	n = recv(d->fd, d->answer + d->received, wanted - d->received, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			end(d, NULL);
		}
		return;
	}
	d->received += (size_t)n;
	if (d->received == sizeof(struct display_header)) {
		why = check_answer(d);
		if (why) {
			end(d, why);
		} else if (answer_size(d) == 0) {
			take_answer(d);
		}
	} else if (d->received == sizeof(struct display_header) + answer_size(d)) {
		take_answer(d);
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct display *d = userdata;

	if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		receive(d);
	}
	if (d->fd >= 0 && revents & EPOLLOUT) {
		display_flush(d);
	}
	return 0;
}

int display_create(sd_event *event, uint32_t n_scanouts, const struct display_ops *ops,
	void *userdata, struct display **out)
{
	struct display *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		return -ENOMEM;
	}
	d->event = sd_event_ref(event);
	d->ops = ops;
	d->userdata = userdata;
	d->n_scanouts = n_scanouts;
	d->fd = -1;
	r = sd_event_add_time(event, &d->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_late, d);
	if (r >= 0) {
		r = sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
	}
	if (r < 0) {
		display_destroy(d);
		return r;
	}
	*out = d;
	return 0;
}

void display_destroy(struct display *d)
{
	if (!d) {
		return;
	}
	sd_event_source_disable_unref(d->io);
	sd_event_source_disable_unref(d->timer);
	safe_close(d->fd);
	display_drop_message(d);
	for (uint32_t i = 0; i < d->n_scanouts; i++) {
		picture_unref(d->scanouts[i].picture);
	}
	sd_event_unref(d->event);
	free(d);
}

int display_set_socket(struct display *d, int fd)
{
	int r;

	close_socket(d);
	d->ready = false;
	r = fd_set_nonblock(fd, true);
	if (r >= 0) {
		r = sd_event_add_io(d->event, &d->io, fd, EPOLLIN, on_io, d);
	}
	if (r < 0) {
		safe_close(fd);
		go_on_without(d);
		return r;
	}
	d->fd = fd;
	d->io_events = EPOLLIN;
	display_ask(d, ASKED_FEATURES, DISPLAY_GET_PROTOCOL_FEATURES, 0);
	watch_the_time(d);
	display_flush(d);
	return 0;
}

void display_allow_dmabufs(struct display *d, bool allowed)
{
	d->allow_dmabufs = allowed;
}

bool display_is_ready(const struct display *d)
{
	return d->fd < 0 || d->ready;
}

void display_ask_modes(struct display *d)
{
	bool waited = d->guest_waits;

	d->guest_waits = true;
	if (d->fd < 0) {
		answer_modes(d);
		return;
	}
	/* From now on, not from when the question is sent: the socket may be full. */
	d->want_modes = true;
	if (d->late) {
		answer_modes(d);
	} else if (!waited) {
		watch_the_time(d);
	}
}

void display_override(struct display *d, uint32_t scanout, uint32_t width, uint32_t height)
{
	d->scanouts[scanout].override_width = width;
	d->scanouts[scanout].override_height = height;
}

static void show(struct display *d, uint32_t scanout, struct picture *picture,
	const struct display_rect *rect, bool is_dmabuf)
{
	struct scanout *s = &d->scanouts[scanout];
	/* Of pixels the VMM has to know no more than that. */
	bool same_size = s->picture && picture && s->rect.width == rect->width &&
			 s->rect.height == rect->height && !is_dmabuf && !s->is_dmabuf;
	bool same_dmabuf = is_dmabuf && s->is_dmabuf && s->picture == picture &&
			   memcmp(&s->rect, rect, sizeof(*rect)) == 0;

	if (picture) {
		picture_ref(picture);
	}
	picture_unref(s->picture);
	s->picture = picture;
	s->is_dmabuf = is_dmabuf;
	s->rect = picture ? *rect : (struct display_rect){0};
	s->damage = picture ? (struct display_rect){0, 0, rect->width, rect->height}
			    : (struct display_rect){0};
	s->has_frame = s->has_frame && picture;
	s->announce = s->announce || !(same_size || same_dmabuf);
}

void display_show(struct display *d, uint32_t scanout, struct picture *picture,
	const struct display_rect *rect)
{
	show(d, scanout, picture, rect, false);
}

void display_show_dmabuf(struct display *d, uint32_t scanout, struct picture *picture,
	const struct display_rect *rect)
{
	show(d, scanout, picture, rect, true);
}

void display_damage(struct display *d, uint32_t scanout, const struct display_rect *rect)
{
	struct scanout *s = &d->scanouts[scanout];
	struct display_rect all = {0, 0, s->rect.width, s->rect.height}, part;

	if (!s->picture) {
		return;
	}
	part = cut(rect ? rect : &all, s->rect.width, s->rect.height);
	if (part.width == 0) {
		return;
	}
	d->count.merged += s->has_frame;
	s->has_frame = true;
	s->damage = join(&s->damage, &part);
}

void display_cursor(struct display *d, uint32_t scanout, const struct display_cursor *cursor,
	const uint8_t *pixels)
{
	struct scanout *s = &d->scanouts[scanout];

	s->cursor = *cursor;
	s->cursor_moved = true;
	if (pixels) {
		memcpy(s->pixels, pixels, sizeof(s->pixels));
		s->has_pixels = s->cursor_changed = true;
	}
}

struct picture *display_shown(
	const struct display *d, uint32_t scanout, struct display_rect *rect_out)
{
	*rect_out = d->scanouts[scanout].rect;
	return d->scanouts[scanout].picture;
}

bool display_shows_dmabuf(const struct display *d, uint32_t scanout)
{
	return d->scanouts[scanout].is_dmabuf;
}

void display_count(const struct display *d, struct display_counters *out)
{
	*out = d->count;
	out->connected = d->fd >= 0;
}
