/* SPDX-License-Identifier: MIT */
#include "tests/unit/fake-spawner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

struct answer {
	spawner_done done;
	void *userdata;
	int result;
	pid_t pid;
};

static int on_answer(sd_event_source *source, void *userdata)
{
	struct answer *a = userdata;
	int pidfd = a->result == 0 ? (int)syscall(SYS_pidfd_open, a->pid, 0) : -1;

	sd_event_source_disable_unref(source);
	a->done(a->userdata, a->result, a->pid, pidfd);
	free(a);
	return 0;
}

static pid_t fork_program(struct spawner *s, const int *fds, size_t n_fds)
{
	char *argv[SPAWNER_ARGV_MAX + 1] = {0};
	pid_t pid = fork();

	if (pid != 0) {
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Nothing of the broker's is open in a worker: not its end of the control socket, or it
	 * would never see that closed. */
	if (close_all_except(3, fds, n_fds) < 0) {
		_exit(99);
	}
	for (size_t i = 0; i < s->last.n_args; i++) {
		argv[i] = s->last.args[i];
	}
	_exit(s->programs[s->last.program]((int)s->last.n_args, argv, fds, n_fds));
}

int spawner_spawn(struct spawner *s, enum spawner_program program, const char *const *args,
	size_t n_args, const int *fds, size_t n_fds, uint32_t uid_slot, spawner_done done,
	void *userdata, uint64_t *id_out)
{
	struct answer *a = calloc(1, sizeof(*a));
	sd_event_source *source;

	*a = (struct answer){.done = done, .userdata = userdata, .result = s->result};
	s->last = (struct fake_spawner_request){
		.program = program, .n_args = n_args, .n_fds = n_fds, .uid_slot = uid_slot};
	for (size_t i = 0; i < n_args; i++) {
		snprintf(s->last.args[i], sizeof(s->last.args[i]), "%s", args[i]);
	}
	*id_out = ++s->n_requests;
	if (s->result == 0) {
		a->pid = fork_program(s, fds, n_fds);
		s->n_forked++;
	}
	return sd_event_add_defer(s->event, &source, on_answer, a);
}

bool spawner_alive(const struct spawner *s)
{
	return true;
}

void spawner_destroy(struct spawner *s)
{
	/* The test's own. */
}

int fake_spawner_has_arg(const struct spawner *s, const char *arg)
{
	for (size_t i = 0; i < s->last.n_args; i++) {
		if (strcmp(s->last.args[i], arg) == 0) {
			return 1;
		}
	}
	return 0;
}

void fake_say(int control, enum worker_msg_type type, uint32_t number)
{
	union worker_msg m;
	size_t size = worker_msg_init(&m, type);

	switch (type) {
	case WORKER_MSG_READY:
		m.ready.version = WORKER_PROTOCOL_VERSION;
		m.ready.sandbox_stages = number;
		break;
	case WORKER_MSG_STATE:
		m.state.state = number;
		break;
	case WORKER_MSG_DONE:
		m.done.reason = number;
		break;
	case WORKER_MSG_QMP:
		m.qmp.status = number;
		m.qmp.vm_state = QMP_VM_RUNNING;
		break;
	default:
		break;
	}
	if (fd_send(control, &m, size, NULL, 0) < 0) {
		_exit(98);
	}
}

int fake_serve(int control)
{
	struct pollfd p = {.fd = control, .events = POLLIN};
	union worker_msg m;
	size_t n_fds;

	for (;;) {
		ssize_t n;

		poll(&p, 1, -1);
		n = fd_recv(control, &m, sizeof(m), NULL, 0, &n_fds);
		if (n <= 0) {
			return -1;
		}
		if (m.header.type == WORKER_MSG_DETACH) {
			return 0;
		}
		fake_say(control, WORKER_MSG_PONG, 0);
	}
}

const char *spawner_program_name(uint32_t program)
{
	return "fake-program";
}
