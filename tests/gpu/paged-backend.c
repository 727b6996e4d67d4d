/* SPDX-License-Identifier: MIT
 * paged-backend PROGRAM PAGE GRANT WANT [OPTION...] --fd=N: a backend whose renderers, one after
 * the other, share the page in the fd PAGE and its two bells, as those of one VM do behind
 * devbrokerd. The options are the front's and the renderers'. It ends with its front.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/spawn.h"
#include "protocol/gpu-parent.h"

#define OPTIONS_MAX 8

struct parent {
	int program;
	int page_fds[3];
	const char *options[OPTIONS_MAX];
	size_t n_options;
	int control;
};

static int start(const struct parent *p, const char *const *first, const int *fds, size_t n_fds)
{
	const char *argv[OPTIONS_MAX + 8] = {"devbroker-gpu", "--name=test"};
	const struct spawn_spec spec = {.program_fd = p->program,
		.argv = argv,
		.fds = fds,
		.n_fds = n_fds,
		.stderr_fd = STDERR_FILENO,
		.namespaces = true,
		.die_with_caller = true};
	size_t n = 2;
	int pidfd;
	pid_t pid;

	while (*first) {
		argv[n++] = *first++;
	}
	memcpy(&argv[n], p->options, p->n_options * sizeof(p->options[0]));
	return spawn_process(&spec, &pid, &pidfd) < 0 ? -1 : pidfd;
}

static int start_front(struct parent *p, int vhost)
{
	static const char *const first[] = {"--front", "--control-fd=3", "--vhost-fd=4", NULL};
	int pair[2], pidfd;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -1;
	}
	p->control = pair[0];
	pidfd = start(p, first, (const int[]){pair[1], vhost}, 2);
	close(pair[1]);
	return pidfd;
}

static int start_renderer(const struct parent *p)
{
	static const char *const first[] = {"--renderer", "--link-fd=3", "--allowance-fd=4",
		"--grant-fd=5", "--want-fd=6", NULL};
	const struct parent_msg m = {.type = PARENT_RENDERER};
	int pair[2], pidfd;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -1;
	}
	pidfd = start(p, first,
		(const int[]){pair[1], p->page_fds[0], p->page_fds[1], p->page_fds[2]}, 4);
	close(pair[1]);
	if (pidfd >= 0 && fd_send(p->control, &m, sizeof(m), &pair[0], 1) < 0) {
		pidfd = safe_close(pidfd);
	}
	close(pair[0]);
	return pidfd;
}

/* Whether the front is still there. */
static bool replace_if_lost(const struct parent *p, int *renderer)
{
	struct parent_msg m;
	siginfo_t info;
	size_t n_fds = 0;
	int fd = -1;

	if (fd_recv(p->control, &m, sizeof(m), &fd, 1, &n_fds) != sizeof(m)) {
		return false;
	}
	safe_close(fd);
	if (m.type == PARENT_RENDERER_LOST) {
		/* It was killed by the test, or ends now that its link is gone. */
		waitid(P_PIDFD, (id_t)*renderer, &info, WEXITED);
		close(*renderer);
		*renderer = start_renderer(p);
	}
	return true;
}

int main(int argc, char **argv)
{
	struct parent p = {.control = -1};
	int vhost = -1, front, renderer;
	siginfo_t info;

	if (argc < 6 || argc - 6 > OPTIONS_MAX || sscanf(argv[argc - 1], "--fd=%d", &vhost) != 1) {
		return EXIT_FAILURE;
	}
	p.program = open(argv[1], O_PATH | O_CLOEXEC);
	for (int i = 0; i < 3; i++) {
		p.page_fds[i] = atoi(argv[2 + i]);
	}
	for (int i = 5; i < argc - 1; i++) {
		p.options[p.n_options++] = argv[i];
	}
	front = start_front(&p, vhost);
	renderer = front >= 0 ? start_renderer(&p) : -1;
	close(vhost);
	while (renderer >= 0) {
		struct pollfd fds[] = {
			{.fd = p.control, .events = POLLIN}, {.fd = front, .events = POLLIN}};

		poll(fds, 2, -1);
		if (fds[1].revents || !replace_if_lost(&p, &renderer)) {
			break;
		}
	}
	if (front < 0 || waitid(P_PIDFD, (id_t)front, &info, WEXITED) < 0 ||
		info.si_code != CLD_EXITED || renderer < 0) {
		return EXIT_FAILURE;
	}
	/* It ends with its link. */
	waitid(P_PIDFD, (id_t)renderer, &info, WEXITED);
	return info.si_code == CLD_EXITED && info.si_status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
