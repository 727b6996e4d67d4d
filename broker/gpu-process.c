/* SPDX-License-Identifier: MIT */
#include "broker/gpu-process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/spawner.h"

struct gpu_process {
	struct broker *broker;
	char *name;
	gpu_process_ended ended; // NULL: nobody wants to know
	void *userdata;
	int pidfd; /* -1: the spawner has not answered yet */
	sd_event_source *source;
	uint32_t uid_slot;
	bool kill;
};

static void finish(struct gpu_process *p, int status)
{
	struct broker *b = p->broker;
	gpu_process_ended ended = p->ended;
	void *userdata = p->userdata;

	sd_event_source_disable_unref(p->source);
	safe_close(p->pidfd);
	broker_return_uid(b, p->uid_slot);
	b->n_gpu_processes--;
	free(p->name);
	free(p);
	if (ended) {
		ended(userdata, status);
	}
	broker_check_stopped(b);
}

static int on_process_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	siginfo_t info = {0};

	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0) {
		return 0;
	}
	finish(userdata, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
	return 0;
}

void gpu_process_kill(struct gpu_process *p)
{
	if (p) {
		p->kill = true;
		if (p->pidfd >= 0) {
			syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
		}
	}
}

void gpu_process_forget(struct gpu_process *p)
{
	if (p) {
		p->ended = NULL;
		gpu_process_kill(p);
	}
}

static void on_spawned(void *userdata, int result, pid_t pid, int pidfd)
{
	struct gpu_process *p = userdata;
	int r;

	if (result < 0) {
		log_error("%s: can't start devbroker-gpu: %s", p->name, strerror(-result));
		finish(p, result);
		return;
	}
	p->pidfd = pidfd;
	r = sd_event_add_io(p->broker->event, &p->source, pidfd, EPOLLIN, on_process_exit, p);
	if (r < 0) {
		siginfo_t info;

		/* Without a source it could never be reaped: it is hardly born. */
		gpu_process_kill(p);
		while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR) {
		}
		finish(p, r);
		return;
	}
	if (p->kill) {
		gpu_process_kill(p);
	}
}

int gpu_process_start(struct broker *b, const char *name, const char *const *args, size_t n_args,
	const int *fds, size_t n_fds, gpu_process_ended ended, void *userdata,
	struct gpu_process **out)
{
	struct gpu_process *p;
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
	*p = (struct gpu_process){
		.broker = b, .ended = ended, .userdata = userdata, .pidfd = -1, .uid_slot = slot};
	p->name = strdup(name);
	r = p->name ? spawner_spawn(b->spawner, SPAWNER_GPU, args, n_args, fds, n_fds, slot,
			      on_spawned, p, &id)
		    : -ENOMEM;
	if (r < 0) {
		broker_return_uid(b, slot);
		free(p->name);
		free(p);
		return r;
	}
	b->n_gpu_processes++;
	*out = p;
	return 0;
}
