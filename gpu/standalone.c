/* SPDX-License-Identifier: MIT
 *
 * It reads nothing but the front's fixed-size messages, and holds nothing but two pidfds and a
 * socket: what devbrokerd does for many VMs. A renderer that ends again and again is not replaced
 * for ever.
 */
#include "gpu/standalone.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/restarts.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "gpu/listener.h"
#include "protocol/gpu-parent.h"

struct child {
	pid_t pid;
	int pidfd; /* -1: none */
};

struct standalone {
	const struct standalone_options *o;
	int program;
	int control;
	int signals;
	int render_node; /* -1: drawn in software */
	struct child front, renderer;
	/* The front has lost its renderer: there is another one as soon as that one is reaped. Its
	 * word is waited for, because it is also how it is known which renderer it means. */
	bool wanted;
	struct restarts restarts; // of renderers
};

static int start(const struct standalone *s, const char *const *argv, const int *fds, size_t n_fds,
	struct child *out)
{
	const struct spawn_spec spec = {
		.program_fd = s->program,
		.argv = argv,
		.fds = fds,
		.n_fds = n_fds,
		.stderr_fd = STDERR_FILENO,
		.namespaces = s->o->stages & SANDBOX_NAMESPACES,
		.die_with_caller = true,
	};

	return spawn_process(&spec, &out->pid, &out->pidfd);
}

static void put_down(struct child *c)
{
	siginfo_t info;

	if (c->pidfd < 0) {
		return;
	}
	syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
	while (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0 && errno == EINTR) {
	}
	c->pidfd = safe_close(c->pidfd);
}

/* The exit code of a child that has ended; 128 + signal. */
static int reap(struct child *c)
{
	siginfo_t info = {0};

	while (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0 && errno == EINTR) {
	}
	c->pidfd = safe_close(c->pidfd);
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

#define HANG_SIZE 32

/* What front and renderer are both told, if it is to be said. */
static void add_common(const struct standalone *s, const char *argv[], size_t *n, const char *level,
	char hang[static HANG_SIZE])
{
	snprintf(hang, HANG_SIZE, "--hang-timeout=%u", s->o->hang_seconds);
	argv[(*n)++] = hang;
	if (s->o->log_level) {
		argv[(*n)++] = level;
	}
	if (s->o->virgl) {
		argv[(*n)++] = "--virgl";
	}
}

static int start_renderer(struct standalone *s)
{
	char sandbox[96], name[96], memory[48], level[32], hang[HANG_SIZE];
	const char *argv[11] = {
		"devbroker-gpu", "--renderer", "--link-fd=3", sandbox, name, memory};
	size_t n = 6;
	struct parent_msg m = {.type = PARENT_RENDERER};
	int pair[2], fds[2], r;

	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", s->o->sandbox);
	snprintf(name, sizeof(name), "--name=%s", s->o->name);
	snprintf(memory, sizeof(memory), "--max-memory=%llu", (unsigned long long)s->o->memory);
	snprintf(level, sizeof(level), "--log-level=%s", s->o->log_level ? s->o->log_level : "");
	add_common(s, argv, &n, level, hang);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	fds[0] = pair[1];
	fds[1] = s->render_node;
	if (s->render_node >= 0) {
		argv[n] = "--drm-fd=4";
	}
	r = start(s, argv, fds, s->render_node >= 0 ? 2 : 1, &s->renderer);
	if (r == 0) {
		r = fd_send(s->control, &m, sizeof(m), &pair[0], 1);
		if (r == -EPIPE || r == -ECONNRESET) {
			/* The front has ended, and its status says why. */
			r = 0;
		}
	}
	safe_close(pair[0]);
	safe_close(pair[1]);
	return r;
}

static int start_front(struct standalone *s)
{
	char sandbox[96], name[96], level[32], hang[HANG_SIZE];
	const char *argv[11] = {
		"devbroker-gpu", "--front", "--control-fd=3", "--vhost-fd=4", sandbox, name};
	size_t n = 6;
	int pair[2], r;

	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", s->o->sandbox);
	snprintf(name, sizeof(name), "--name=%s", s->o->name);
	snprintf(level, sizeof(level), "--log-level=%s", s->o->log_level ? s->o->log_level : "");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	s->control = pair[0];
	add_common(s, argv, &n, level, hang);
	if (s->o->dmabuf) {
		argv[n] = "--dmabuf";
	}
	r = start(s, argv, (const int[]){pair[1], s->o->vhost_fd}, 2, &s->front);
	safe_close(pair[1]);
	return r;
}

/* 0, or the exit code to end with. */
static int replace_renderer(struct standalone *s)
{
	if (!s->wanted || s->renderer.pidfd >= 0) {
		return 0;
	}
	s->wanted = false;
	if (restarts_too_often(&s->restarts, RESTARTS_MAX, RESTARTS_USEC, now_usec())) {
		log_error("%s: renderers end too often; giving up", s->o->name);
		return EXIT_FAILURE;
	}
	return start_renderer(s) < 0 ? EXIT_FAILURE : 0;
}

/* The front wants another renderer: the one that there is ends now, if it has not yet. 0, or -errno
 * when the front is gone. */
static int front_said(struct standalone *s)
{
	struct parent_msg m, checked;
	int fd = -1;
	size_t n_fds = 0;
	ssize_t n = fd_recv(s->control, &m, sizeof(m), &fd, 1, &n_fds);

	safe_close(fd);
	if (n <= 0 || parent_decode(FRONT_TO_PARENT, &m, (size_t)n, n_fds, &checked) < 0) {
		return -EPIPE;
	}
	if (checked.type == PARENT_RENDERER_LOST) {
		s->wanted = true;
		if (s->renderer.pidfd >= 0) {
			syscall(SYS_pidfd_send_signal, s->renderer.pidfd, SIGKILL, NULL, 0);
		}
	}
	return 0;
}

/* The exit code of the front when it ends. */
static int serve(struct standalone *s)
{
	int exit_code = 0;

	while (exit_code == 0) {
		struct pollfd fds[] = {{.fd = s->front.pidfd, .events = POLLIN},
			{.fd = s->renderer.pidfd, .events = POLLIN},
			{.fd = s->control, .events = POLLIN}, {.fd = s->signals, .events = POLLIN}};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
			continue;
		}
		if (fds[0].revents) {
			return reap(&s->front);
		}
		if (fds[3].revents) {
			return 0;
		}
		if (fds[1].revents) {
			int status = reap(&s->renderer);

			if (status != 0) {
				log_warn("%s: its renderer ended with status %d", s->o->name,
					status);
			}
		}
		if (fds[2].revents && front_said(s) < 0) {
			/* Its end follows. */
			s->control = safe_close(s->control);
			s->wanted = false;
		}
		exit_code = replace_renderer(s);
	}
	return exit_code;
}

static int open_render_node(struct standalone *s)
{
	if (!s->o->render_node) {
		return 0;
	}
	s->render_node = open(s->o->render_node, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (s->render_node < 0) {
		int r = -errno;

		log_error("%s: render node %s: %s", s->o->name, s->o->render_node, strerror(-r));
		return r;
	}
	return 0;
}

int standalone_run(const struct standalone_options *o)
{
	struct standalone s = {.o = o,
		.program = open("/proc/self/exe", O_PATH | O_CLOEXEC),
		.control = -1,
		.render_node = -1,
		.front.pidfd = -1,
		.renderer.pidfd = -1};
	int r, exit_code = EXIT_FAILURE;

	s.signals = fd_stop_signals();
	r = s.program < 0 || s.signals < 0 ? -errno : open_render_node(&s);
	if (r == 0) {
		r = start_front(&s);
	}
	if (r == 0) {
		r = start_renderer(&s);
	}
	if (r < 0) {
		log_error("%s: can't start: %s", o->name, strerror(-r));
	} else {
		exit_code = serve(&s);
	}
	put_down(&s.front);
	put_down(&s.renderer);
	safe_close(s.control);
	safe_close(s.signals);
	safe_close(s.program);
	safe_close(s.render_node);
	safe_close(o->vhost_fd);
	return exit_code;
}

int standalone_accept(const char *path)
{
	_cleanup_close_ int listener = listener_open(path, LISTENER_UMASK, LISTENER_NO_GROUP, 1);
	int fd;

	if (listener < 0) {
		return listener;
	}
	do {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && errno == EINTR);
	unlink(path);
	return fd < 0 ? -errno : fd;
}
