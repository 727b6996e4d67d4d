/* SPDX-License-Identifier: MIT
 *
 * One client, one process, one thread of ours: it waits for nothing but that client, and for what
 * that client waits for, so it simply blocks. Who is never read from, or never written to, sleeps.
 */
#include "gpu/vtest-client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "gpu/virgl.h"
#include "gpu/vtest-session.h"

/* A connection that says nothing takes the place of one that does. */
#define HELLO_MS 10000
/* Of renderers without a poll_fd. */
#define FENCE_POLL_MS 1

/* 1, 0 when the client has gone, or -errno. */
static int receive(struct vtest_session *s, int fd)
{
	size_t room;
	void *to = vtest_session_room(s, &room);
	ssize_t n;

	if (!s->created) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, HELLO_MS) == 0) {
			snprintf(s->why, sizeof(s->why), "said nothing for %d s", HELLO_MS / 1000);
			return -ETIMEDOUT;
		}
	}
	do {
		n = recv(fd, to, room, 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0) {
		return n == 0 || errno == ECONNRESET ? 0 : -errno;
	}
	vtest_session_received(s, (size_t)n);
	return 1;
}

static int send_all(struct vtest_session *s, int fd)
{
	const uint8_t *p = s->out.base + s->out.start;
	size_t left = s->out.end - s->out.start;
	int r = 1;

	while (left > 0) {
		ssize_t n = send(fd, p, left, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR) {
			return errno == EPIPE || errno == ECONNRESET ? 0 : -errno;
		}
		p += MAX(n, 0);
		left -= (size_t)MAX(n, 0);
	}
	if (s->out_fd >= 0) {
		int err = fd_send(fd, "", 1, &s->out_fd, 1);

		r = err == -EPIPE || err == -ECONNRESET ? 0 : err < 0 ? err : 1;
	}
	vtest_session_sent(s);
	return r;
}

/* Until the renderer has something to tell; a client that goes away isn't waited for. */
static int wait_fence(const struct vtest_session *s, int fd)
{
	int poll_fd = s->ops->poll_fd();
	struct pollfd p[] = {{.fd = fd}, {.fd = poll_fd, .events = POLLIN}};

	if (poll(p, ARRAY_SIZE(p), poll_fd >= 0 ? -1 : FENCE_POLL_MS) < 0 && errno != EINTR) {
		return -errno;
	}
	return p[0].revents ? 0 : 1;
}

/* 0 when the client has gone, or -errno. */
static int serve(struct vtest_session *s, int fd)
{
	int r = 1;

	while (r > 0) {
		r = vtest_session_run(s);
		switch (r) {
		case VTEST_NEED_BYTES:
			r = receive(s, fd);
			break;
		case VTEST_NEED_SEND:
			r = send_all(s, fd);
			break;
		case VTEST_NEED_FENCE:
			r = wait_fence(s, fd);
			break;
		default:
			break;
		}
	}
	return r;
}

/* In the order that the driver needs: its files and threads before the lock. */
static int set_up(const struct vtest_client_options *o, struct vtest_session *s)
{
	const struct virgl_options virgl = {
		.drm_fd = o->drm_fd, .fence = vtest_session_fence, .userdata = s};
	/* For good: it ends with the process. */
	const int statm = drift_open();
	const int keep[] = {o->client_fd, statm, o->drm_fd};
	char name[96], renderer[VIRGL_RENDERER_NAME_SIZE];
	struct drift_meter meter;
	int r;

	snprintf(name, sizeof(name), "vm %s: vtest", o->name);
	signal(SIGPIPE, SIG_IGN);
	if (statm < 0) {
		log_error("%s: can't measure its memory: %s", name, strerror(-statm));
		return statm;
	}
	r = o->stages & SANDBOX_FDS ? virgl_bound_memory(o->bytes_max) : 0;
	if (r < 0) {
		log_error("%s: can't bound its memory: %s", name, strerror(-r));
		return r;
	}
	r = sandbox_enter(name, SANDBOX_GPU_VIRGL, o->stages, keep, o->drm_fd >= 0 ? 3 : 2);
	if (r < 0) {
		return r;
	}
	r = virgl_renderer.init(&virgl, renderer);
	if (r < 0) {
		log_error("vm %s: vtest: can't draw in 3D: %s", o->name, strerror(-r));
		return r;
	}
	log_debug("vm %s: vtest: drawn by %s", o->name, renderer);
	drift_meter_init(&meter, statm);
	vtest_session_measure(s, &meter);
	return sandbox_lock(SANDBOX_GPU_VIRGL, o->stages);
}

int vtest_client_run(const struct vtest_client_options *o)
{
	_cleanup_free_ struct vtest_session *s = calloc(1, sizeof(*s));
	int r = s ? vtest_session_init(s, &virgl_renderer, o->bytes_max) : -ENOMEM;

	if (r == 0) {
		r = set_up(o, s);
	}
	if (r < 0) {
		return VTEST_EXIT_FAILED;
	}
	r = serve(s, o->client_fd);
	if (r < 0) {
		log_warn("vm %s: vtest client is dropped: %s", o->name,
			s->why[0] ? s->why : strerror(-r));
	}
	vtest_session_finish(s);
	virgl_renderer.finish();
	safe_close(o->client_fd);
	return r < 0 ? VTEST_EXIT_DROPPED : 0;
}
