/* SPDX-License-Identifier: MIT
 *
 * What the parent asks: renderers come from it, modes, pictures of a screen (front-picture.c).
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "gpu/front-internal.h"

#define MESSAGES_PER_TURN 16

void front_parent_say(struct front *f, const struct parent_msg *m, int fd)
{
	int r = fd_send(f->control, m, sizeof(*m), &fd, fd >= 0 ? 1 : 0);

	/* A parent that doesn't read gets no answers; it asks again, or ends us. */
	if (r < 0 && r != -EAGAIN) {
		front_end(f, FRONT_EXIT_FAILED, "its parent is gone");
	}
}

static void handle_ping(struct front *f, const struct parent_msg *ask)
{
	struct parent_msg m = {.type = PARENT_PONG,
		.seq = ask->seq,
		.commands = f->pong.commands + f->pong.cursor_commands,
		.errors = f->pong.errors,
		.memory = f->pong.bytes,
		.uncharged = f->pong.uncharged,
		.memory_max = f->pong.bytes_max,
		.resources = f->pong.resources,
		.renderers = f->renderers,
		.quarantined = f->watch.quarantined,
		.cpu_ns = f->pong.cpu_ns,
		.refused = f->pong.refused,
		.poisoned = f->pong.poisoned,
		.hangs = f->watch.n_offences,
		.contexts = f->pong.contexts,
		.fences = f->pong.fences};
	struct display_counters shown;
	struct display_rect rect;

	memcpy(m.renderer, f->drawn_by, sizeof(m.renderer));
	display_count(f->display, &shown);
	m.frames = shown.frames;
	m.merged = shown.merged;
	m.bytes = shown.bytes;
	m.display = shown.connected;
	for (uint32_t i = 0; i < DISPLAY_SCANOUTS; i++) {
		m.scanouts |= display_shown(f->display, i, &rect) ? 1u << i : 0;
	}
	front_parent_say(f, &m, -1);
	front_watch_ask(f);
}

static void handle(struct front *f, const struct parent_msg *m, int *fd)
{
	switch (m->type) {
	case PARENT_RENDERER:
		front_renderer_set(f, steal_fd(fd));
		break;
	case PARENT_DISPLAY:
		display_override(f->display, m->scanout, m->width, m->height);
		break;
	case PARENT_SCREENSHOT:
		front_picture_copy(f, m);
		break;
	case PARENT_ALLOW:
		front_watch_allow(f);
		break;
	default:
		handle_ping(f, m);
	}
}

static int on_control(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
	struct front *f = userdata;

	for (int i = 0; i < MESSAGES_PER_TURN && !f->ended; i++) {
		struct parent_msg m, checked;
		_cleanup_close_ int fd = -1;
		size_t n_fds = 0;
		ssize_t n = fd_recv(f->control, &m, sizeof(m), &fd, 1, &n_fds);

		if (n == -EAGAIN) {
			break;
		}
		if (n <= 0 || parent_decode(PARENT_TO_FRONT, &m, (size_t)n, n_fds, &checked) < 0) {
			front_end(f, FRONT_EXIT_FAILED, "its parent is gone");
			break;
		}
		handle(f, &checked, &fd);
	}
	return 0;
}

int front_parent_init(struct front *f)
{
	int r = fd_set_nonblock(f->control, true);

	return r < 0 ? r
		     : sd_event_add_io(
			       f->event, &f->control_io, f->control, EPOLLIN, on_control, f);
}

void front_parent_finish(struct front *f)
{
	sd_event_source_disable_unref(f->control_io);
	safe_close(f->control);
}
