/* SPDX-License-Identifier: MIT
 *
 * The VMM's vhost-user messages: read without waiting, checked by protocol/vhost-user, handled one
 * at a time. A message whose answer depends on the renderer (memory, the end of a ring, reset)
 * holds up those behind it, and nothing else. A VMM that breaks the protocol is dropped, with one
 * line that says how; a table or a ring that can't be used is refused where the protocol has an
 * answer for it (REPLY_ACK).
 */
#include "gpu/front.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "gpu/front-internal.h"

#define MESSAGES_PER_TURN 64
/* How long a renderer may take for what the VMM waits for: much longer than its turns are, and as
 * long as it takes to fill all images again. */
#define RENDERER_USEC UINT64_C(10000000)

void front_end(struct front *f, int exit_code, const char *why)
{
	if (f->ended) {
		return;
	}
	f->ended = true;
	f->exit_code = exit_code;
	if (exit_code == 0) {
		log_info("%s: ends: %s", f->o->name, why);
	} else {
		log_warn("%s: ends: %s", f->o->name, why);
	}
	sd_event_exit(f->event, exit_code);
}

static void bad(struct front *f, const char *why)
{
	char text[160];

	snprintf(text, sizeof(text), "the VMM broke vhost-user: %s (%s)", why,
		vhost_user_name(f->header.request));
	front_end(f, FRONT_EXIT_PEER_BAD, text);
}

/* The VMM waits for it, so that its socket takes it. */
void front_reply(
	struct front *f, const struct vhost_user_header *to, const void *payload, size_t size)
{
	struct vhost_user_header h = {.request = to->request,
		.flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
		.size = (uint32_t)size};
	uint8_t bytes[sizeof(h) + VHOST_USER_PAYLOAD_MAX];
	ssize_t n;

	memcpy(bytes, &h, sizeof(h));
	memcpy(bytes + sizeof(h), payload, size);
	n = send(f->vhost_fd, bytes, sizeof(h) + size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != (ssize_t)(sizeof(h) + size)) {
		front_end(f, FRONT_EXIT_PEER_BAD, "the VMM doesn't read its answers");
	}
}

void front_reply_number(struct front *f, const struct vhost_user_header *to, uint64_t number)
{
	front_reply(f, to, &number, sizeof(number));
}

static void read_on(struct front *f)
{
	f->wait = FRONT_WAIT_NOTHING;
	sd_event_source_set_enabled(f->late, SD_EVENT_OFF);
	sd_event_source_set_enabled(f->vhost_io, SD_EVENT_ON);
}

void front_answer_waiting(struct front *f, const void *payload, size_t size)
{
	front_reply(f, &f->waiting, payload, size);
	read_on(f);
}

bool front_acknowledges(const struct front *f, const struct vhost_user_header *h)
{
	return h->flags & VHOST_USER_NEED_REPLY &&
	       f->protocol_features & UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK;
}

void front_acknowledge(struct front *f, int error)
{
	if (front_acknowledges(f, &f->waiting)) {
		front_reply_number(f, &f->waiting, error ? 1 : 0);
	}
	read_on(f);
}

void front_restart_waiting(struct front *f)
{
	if (f->wait != FRONT_WAIT_NOTHING) {
		sd_event_source_set_time_relative(f->late, RENDERER_USEC);
		sd_event_source_set_enabled(f->late, SD_EVENT_ONESHOT);
	}
}

/* The VMM stands still meanwhile. */
static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct front *f = userdata;

	front_watch_hung(f);
	front_restart_waiting(f);
	return 0;
}

/* The answer comes later; nothing is read until then. */
void front_wait_for(struct front *f, enum front_wait what, const struct vhost_user_msg *m)
{
	f->wait = what;
	f->waiting = m->header;
	sd_event_source_set_enabled(f->vhost_io, SD_EVENT_OFF);
	front_restart_waiting(f);
}

static void close_fds(struct front *f)
{
	for (size_t i = 0; i < f->n_fds; i++) {
		f->fds[i] = safe_close(f->fds[i]);
	}
	f->n_fds = 0;
}

static void handle(struct front *f)
{
	struct vhost_user_msg m;
	const char *why = vhost_user_decode(&f->header, f->payload, f->n_fds, &m);
	enum front_done done = why ? FRONT_BAD : front_dispatch(f, &m, &why);

	close_fds(f);
	f->received = 0;
	if (done == FRONT_BAD) {
		bad(f, why);
	} else if (done == FRONT_DONE && front_acknowledges(f, &m.header)) {
		front_reply_number(f, &m.header, 0);
	}
}

/* Bytes of a message, and the fds that come with its first ones. 1: some; 0: none now; -1: it
 * ended. */
static int receive(struct front *f, void *to, size_t size)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {to, size};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(f->vhost_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0) {
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (f->n_fds == VHOST_USER_FDS_MAX) {
				safe_close(fd);
				m.msg_flags |= MSG_CTRUNC;
			} else {
				f->fds[f->n_fds++] = fd;
			}
		}
	}
	if (m.msg_flags & MSG_CTRUNC) {
		bad(f, "more fds than a message may carry");
		return 0;
	}
	f->received += (size_t)n;
	return n > 0 ? 1 : -1;
}

/* False when nothing more is to be had now. */
static bool read_some(struct front *f)
{
	size_t head = sizeof(f->header), wanted = head;
	const char *why;
	int r;

	if (f->received >= head) {
		wanted += f->header.size;
	}
	if (f->received < head) {
		r = receive(f, (uint8_t *)&f->header + f->received, head - f->received);
	} else {
		r = receive(f, f->payload + (f->received - head), wanted - f->received);
	}
	if (r < 0) {
		front_end(f, 0, "the VMM closed the connection");
	}
	if (r <= 0 || f->ended) {
		return false;
	}
	if (f->received == head) {
		why = vhost_user_check_header(&f->header);
		if (why) {
			bad(f, why);
			return false;
		}
		wanted = head + f->header.size;
	}
	if (f->received >= head && f->received == wanted) {
		handle(f);
	}
	return !f->ended && f->wait == FRONT_WAIT_NOTHING;
}

static int on_vhost(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct front *f = userdata;

	for (int i = 0; i < MESSAGES_PER_TURN && read_some(f); i++) {
	}
	return 0;
}

static void on_display_ready(void *userdata)
{
	front_vrings_start(userdata);
}

static void on_modes(void *userdata, const struct display_mode *modes)
{
	front_renderer_send_modes(userdata, modes);
}

static void on_display_gone(void *userdata, const char *why)
{
	struct front *f = userdata;

	if (why) {
		log_warn("%s: its display is closed: %s", f->o->name, why);
	} else {
		log_debug("%s: the VMM closed its display", f->o->name);
	}
}

static const struct display_ops display_ops = {
	.ready = on_display_ready,
	.modes = on_modes,
	.dmabufs = front_picture_dmabufs,
	.gone = on_display_gone,
};

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	front_end(userdata, 0, "it was told to");
	return 0;
}

static int set_up(struct front *f)
{
	sigset_t set;
	int r = sd_event_new(&f->event);

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (r >= 0) {
		r = sd_event_add_signal(f->event, NULL, SIGTERM, on_signal, f);
	}
	if (r >= 0) {
		r = display_create(f->event, DISPLAY_SCANOUTS, &display_ops, f, &f->display);
	}
	if (r >= 0) {
		display_allow_dmabufs(f->display, f->o->dmabuf);
		r = front_renderer_init(f);
	}
	if (r >= 0) {
		r = front_watch_init(f);
	}
	if (r >= 0) {
		r = front_parent_init(f);
	}
	if (r >= 0) {
		r = sd_event_add_time(
			f->event, &f->late, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_late, f);
	}
	if (r >= 0) {
		r = sd_event_source_set_enabled(f->late, SD_EVENT_OFF);
	}
	if (r >= 0) {
		r = sd_event_add_io(f->event, &f->vhost_io, f->vhost_fd, EPOLLIN, on_vhost, f);
	}
	return r;
}

static int enter_sandbox(const struct front_options *o)
{
	const int keep[] = {o->control_fd, o->vhost_fd};
	sd_id128_t boot;

	/* sd-event's timers ask for it; cached from now on. */
	sd_id128_get_boot(&boot);
	return sandbox_enter(o->name, SANDBOX_GPU_FRONT, o->stages, keep, ARRAY_SIZE(keep));
}

/* Turn by turn, so that what came of all that was ready is shown once. */
static void loop(struct front *f)
{
	while (!f->ended) {
		bool idle = front_renderer_collect(f);

		display_flush(f->display);
		if (f->ended || sd_event_run(f->event, idle ? UINT64_MAX : 0) < 0) {
			break;
		}
	}
}

static void finish(struct front *f)
{
	close_fds(f);
	display_destroy(f->display);
	pictures_finish(&f->pictures);
	front_renderer_finish(f);
	front_vrings_finish(f);
	front_memory_finish(f);
	front_watch_finish(f);
	front_parent_finish(f);
	sd_event_source_disable_unref(f->late);
	sd_event_source_disable_unref(f->vhost_io);
	safe_close(f->vhost_fd);
	sd_event_unref(f->event);
}

int front_run(const struct front_options *o)
{
	struct front *f = calloc(1, sizeof(*f));
	struct parent_msg ready = {
		.type = PARENT_READY, .version = PARENT_VERSION, .sandbox_stages = o->stages};
	int r = f ? enter_sandbox(o) : -ENOMEM, exit_code;

	if (r < 0) {
		free(f);
		return FRONT_EXIT_FAILED;
	}
	f->o = o;
	f->vhost_fd = o->vhost_fd;
	f->control = o->control_fd;
	f->link = f->bell = f->journal_fd = f->watch.kicks = -1;
	front_vrings_init(f);
	r = set_up(f);
	if (r >= 0) {
		r = sandbox_lock(SANDBOX_GPU_FRONT, o->stages);
	}
	if (r < 0) {
		log_error("%s: can't start: %s", o->name, strerror(-r));
		return FRONT_EXIT_FAILED;
	}
	front_parent_say(f, &ready, -1);
	loop(f);
	exit_code = f->exit_code;
	finish(f);
	free(f);
	return exit_code;
}
