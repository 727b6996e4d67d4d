/* SPDX-License-Identifier: MIT */
#include "broker/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"

struct process {
	struct broker *broker;
	enum spawner_program program;
	char *name;
	process_ended ended; // NULL: nobody wants to know
	void *userdata;
	pid_t pid;
	int pidfd; /* -1: the spawner has not answered yet */
	sd_event_source *source;
	uint32_t uid_slot; /* PROCESS_NO_SLOT: none of ours */
	bool adopted;      /* no child of ours */
	bool kill;
	struct scope_limits limits; /* memory 0: none */
	const char *kind;
	char vm[NAME_MAX_LENGTH + 1];
};

static void finish(struct process *p, int error, int status)
{
	struct broker *b = p->broker;

	p->source = sd_event_source_disable_unref(p->source);
	if (p->uid_slot != PROCESS_NO_SLOT) {
		broker_return_uid(b, p->uid_slot);
	}
	b->n_processes--;
	if (p->ended) {
		p->ended(p->userdata, error, status);
	}
	safe_close(p->pidfd);
	free(p->name);
	free(p);
	broker_check_stopped(b);
}

static int on_process_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct process *p = userdata;
	siginfo_t info = {0};

	if (p->adopted) {
		finish(p, 0, PROCESS_STATUS_UNKNOWN);
		return 0;
	}
	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0) {
		return 0;
	}
	finish(p, 0, info.si_code == CLD_EXITED ? info.si_status : -info.si_status);
	return 0;
}

void process_limit(
	struct process *p, const char *kind, const char *vm, const struct scope_limits *limits)
{
	p->limits = *limits;
	p->kind = kind;
	snprintf(p->vm, sizeof(p->vm), "%s", vm);
}

pid_t process_pid(const struct process *p)
{
	return p ? p->pid : 0;
}

void process_signal(const struct process *p, int signal)
{
	if (p && p->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, p->pidfd, signal, NULL, 0);
	}
}

void process_kill(struct process *p)
{
	if (p) {
		p->kill = true;
		if (p->pidfd >= 0) {
			syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
		}
	}
}

void process_forget(struct process *p)
{
	if (p) {
		p->ended = NULL;
		process_kill(p);
	}
}

static void on_spawned(void *userdata, int result, pid_t pid, int pidfd)
{
	struct process *p = userdata;
	int r;

	if (result < 0) {
		log_error("%s: can't start %s: %s", p->name, spawner_program_name(p->program),
			strerror(-result));
		finish(p, result, 0);
		return;
	}
	p->pid = pid;
	p->pidfd = pidfd;
	r = sd_event_add_io(p->broker->event, &p->source, pidfd, EPOLLIN, on_process_exit, p);
	if (r < 0) {
		siginfo_t info;

		/* Without a source it could never be reaped: it is hardly born. */
		process_kill(p);
		while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR) {
		}
		finish(p, r, 0);
		return;
	}
	if (p->kill) {
		process_kill(p);
	} else if (p->limits.memory > 0) {
		bus_scope_place(p->broker, p->kind, p->vm, pid, &p->limits);
	}
}

int process_start(struct broker *b, enum spawner_program program, const char *name,
	const char *const *args, size_t n_args, const int *fds, size_t n_fds, process_ended ended,
	void *userdata, struct process **out)
{
	struct process *p;
	uint32_t slot;
	uint64_t id;
	int r = broker_take_uid(b, &slot);

	if (r < 0) {
		return r;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		broker_return_uid(b, slot);
		return -ENOMEM;
	}
	*p = (struct process){.broker = b,
		.program = program,
		.ended = ended,
		.userdata = userdata,
		.pidfd = -1,
		.uid_slot = slot};
	p->name = strdup(name);
	r = p->name ? spawner_spawn(b->spawner, program, args, n_args, fds, n_fds, slot, on_spawned,
			      p, &id)
		    : -ENOMEM;
	if (r < 0) {
		broker_return_uid(b, slot);
		free(p->name);
		free(p);
		return r;
	}
	b->n_processes++;
	*out = p;
	return 0;
}

int process_adopt(struct broker *b, enum spawner_program program, const char *name, pid_t pid,
	int pidfd, uint32_t uid_slot, process_ended ended, void *userdata, struct process **out)
{
	struct process *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (p) {
		*p = (struct process){.broker = b,
			.program = program,
			.ended = ended,
			.userdata = userdata,
			.pid = pid,
			.pidfd = pidfd,
			.uid_slot = uid_slot,
			.adopted = true};
		p->name = strdup(name);
		r = p->name ? sd_event_add_io(
				      b->event, &p->source, pidfd, EPOLLIN, on_process_exit, p)
			    : -ENOMEM;
	}
	if (r < 0) {
		safe_close(pidfd);
		free(p ? p->name : NULL);
		free(p);
		return r;
	}
	if (uid_slot != PROCESS_NO_SLOT) {
		broker_claim_uid(b, uid_slot);
	}
	b->n_processes++;
	*out = p;
	return 0;
}
