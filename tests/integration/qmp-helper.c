/* SPDX-License-Identifier: MIT */
#include "tests/integration/qmp-helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "tests/unit/test.h"

void qmp_helper_start(struct qmp_helper *h)
{
	char op[32], id[64], bus[64], sandbox[96];
	const char *argv[10] = {"devbroker-qmp", "--control-fd=3", "--qmp-fd=4", op, id, sandbox};
	size_t n = 6;
	int pair[2], fds[3];
	_cleanup_close_ int program = -1;
	struct spawn_spec spec = {.argv = argv, .fds = fds, .n_fds = 2, .stderr_fd = STDERR_FILENO};

	assert_non_null(getenv("DEVBROKER_QMP"));
	program = open(getenv("DEVBROKER_QMP"), O_PATH | O_CLOEXEC);
	assert_true(program >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	snprintf(op, sizeof(op), "--op=%s", h->op);
	snprintf(id, sizeof(id), "--id=%s", h->id);
	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", h->sandbox ? h->sandbox : "full");
	if (h->bus) {
		snprintf(bus, sizeof(bus), "--bus=%s", h->bus);
		argv[n++] = bus;
	}
	fds[0] = pair[1];
	fds[1] = h->qmp_fd;
	if (h->stream_fd >= 0) {
		argv[n++] = "--stream-fd=5";
		fds[spec.n_fds++] = h->stream_fd;
	}
	spec.program_fd = program;
	spec.namespaces = true;
	assert_int_equal(spawn_process(&spec, &h->pid, &h->pidfd), 0);
	close(pair[1]);
	h->control = pair[0];
}

static void receive(struct qmp_helper *h, unsigned int seconds, union worker_msg *out)
{
	struct pollfd p = {.fd = h->control, .events = POLLIN};
	union worker_msg raw;
	size_t n_fds;
	ssize_t n;

	assert_int_equal(poll(&p, 1, (int)seconds * 1000), 1);
	n = fd_recv(h->control, &raw, sizeof(raw), NULL, 0, &n_fds);
	assert_true(n > 0);
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &raw, (size_t)n, out), 0);
}

void qmp_helper_ready(struct qmp_helper *h)
{
	union worker_msg m;

	receive(h, 10, &m);
	assert_int_equal(m.header.type, WORKER_MSG_READY);
	assert_int_equal(m.ready.version, WORKER_PROTOCOL_VERSION);
	if (!h->sandbox) {
		assert_int_equal(m.ready.sandbox_stages, SANDBOX_ALL);
	}
}

int qmp_helper_exit(struct qmp_helper *h, unsigned int seconds)
{
	struct pollfd p = {.fd = h->pidfd, .events = POLLIN};
	int status;

	assert_int_equal(poll(&p, 1, (int)seconds * 1000), 1);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	h->control = safe_close(h->control);
	h->pidfd = safe_close(h->pidfd);
	if (!WIFEXITED(status)) {
		fail_msg("devbroker-qmp ended by signal %d", WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}

void qmp_helper_finish(struct qmp_helper *h, unsigned int seconds, struct worker_qmp *out)
{
	union worker_msg m;
	size_t n_fds;
	ssize_t n;

	receive(h, seconds, &m);
	assert_int_equal(m.header.type, WORKER_MSG_QMP);
	*out = m.qmp;
	n = fd_recv(h->control, &m, sizeof(m), NULL, 0, &n_fds);
	assert_true(n == 0 || n == -ECONNRESET);
	assert_int_equal(qmp_helper_exit(h, 5), 0);
}
