/* SPDX-License-Identifier: MIT
 *
 * The broker's side: requests go out on a socketpair without waiting, answers come back in order on
 * the event loop. A request that was forgotten stays in the list until its answer comes, because
 * that answer holds the only handle on the worker: it is killed then, and reaped when its pidfd
 * says that it has ended.
 */
#include "broker/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/list.h"
#include "base/log.h"
#include "broker/spawner-wire.h"

/* Answers taken per turn of the loop, so that a burst doesn't keep others waiting. */
#define ANSWERS_PER_TURN 16

struct pending {
	struct list link; // spawner::pending
	uint64_t id;
	spawner_done done; // may be NULL: forgotten
	void *userdata;
};

/* A worker that was killed, until it can be reaped. */
struct dying {
	struct list link; // spawner::dying
	int pidfd;
	sd_event_source *source;
};

struct spawner {
	int sock; /* -1 when the spawner is gone */
	int pidfd;
	uint64_t last_id;
	uint32_t uid_count;
	sd_event *event;         // may be NULL: not attached
	sd_event_source *source; // may be NULL
	struct list pending;
	struct list dying;
};

static void reap(int pidfd, int options)
{
	siginfo_t info;

	while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | options) < 0 && errno == EINTR) {
	}
}

static void dying_destroy(struct dying *d)
{
	list_remove(&d->link);
	sd_event_source_disable_unref(d->source);
	safe_close(d->pidfd);
	free(d);
}

static int handle_dead(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	reap(fd, WNOHANG);
	dying_destroy(userdata);
	return 0;
}

/* Kills and reaps without waiting for it. Takes pidfd. */
static void put_down(struct spawner *s, int pidfd)
{
	struct dying *d = calloc(1, sizeof(*d));

	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	if (!d || sd_event_add_io(s->event, &d->source, pidfd, EPOLLIN, handle_dead, d) < 0) {
		/* It is being killed: this lasts as long as the kernel needs. */
		reap(pidfd, 0);
		safe_close(pidfd);
		free(d);
		return;
	}
	d->pidfd = pidfd;
	list_append(&s->dying, &d->link);
}

static struct pending *pending_find(struct spawner *s, uint64_t id)
{
	struct pending *p;

	/* Answers come in the order of requests: it is the first, or nearly. */
	list_for_each (p, &s->pending, link) {
		if (p->id == id) {
			return p;
		}
	}
	return NULL;
}

/* Takes p out and tells who asked. Takes pidfd. */
static void finish(struct spawner *s, struct pending *p, int result, pid_t pid, int pidfd)
{
	spawner_done done = p->done;
	void *userdata = p->userdata;

	list_remove(&p->link);
	free(p);
	if (pidfd >= 0 && (result < 0 || !done)) {
		put_down(s, pidfd);
		pidfd = -1;
	}
	if (done) {
		done(userdata, result, pid, pidfd);
	}
}

static void spawner_lost(struct spawner *s)
{
	s->source = sd_event_source_disable_unref(s->source);
	s->sock = safe_close(s->sock);
	log_error("spawner: gone; no device can be lent until devbrokerd is started again");
	while (!list_empty(&s->pending)) {
		struct pending *p = list_first(&s->pending, struct pending, link);

		finish(s, p, -EPIPE, 0, -1); // NOLINT(clang-analyzer-core.*): not empty
	}
}

static void handle_answer(struct spawner *s, const struct spawner_answer *answer, int pidfd)
{
	struct pending *p = pending_find(s, answer->id);

	if (!p) {
		if (pidfd >= 0) {
			put_down(s, pidfd);
		}
		return;
	}
	if (answer->result == 0 && pidfd < 0) {
		/* We had no number free for its pidfd. It is our child and not reaped, so its pid
		 * can't be another's. */
		kill(answer->pid, SIGKILL);
		while (waitpid(answer->pid, NULL, 0) < 0 && errno == EINTR) {
		}
		finish(s, p, -EMFILE, 0, -1);
		return;
	}
	finish(s, p, answer->result, answer->pid, pidfd);
}

static int handle_readable(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct spawner *s = userdata;

	for (int i = 0; i < ANSWERS_PER_TURN && s->sock >= 0; i++) {
		struct spawner_answer answer = {0};
		int pidfd = -1;
		size_t n_fds = 0;
		ssize_t n = fd_recv(s->sock, &answer, sizeof(answer), &pidfd, 1, &n_fds);

		if (n == -EAGAIN) {
			break;
		}
		/* -EMSGSIZE: its fd was lost on the way (no number free), what it says was not. */
		if (n == sizeof(answer) || n == -EMSGSIZE) {
			handle_answer(s, &answer, n_fds == 1 ? pidfd : -1);
			continue;
		}
		spawner_lost(s);
	}
	return 0;
}

static int open_programs(
	const char *dir, int programs[SPAWNER_PROGRAM_COUNT_], const char **missing_out)
{
	/* Worker ids are nobody's owner or group. */
	const mode_t executable = geteuid() == 0 ? S_IXOTH : 0111;
	_cleanup_close_ int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = dir_fd < 0 ? -errno : 0;

	for (uint32_t i = 0; i < SPAWNER_PROGRAM_COUNT_; i++) {
		const char *name = spawner_program_name(i);
		struct stat st;

		if (r == 0) {
			programs[i] = openat(dir_fd, name, O_PATH | O_CLOEXEC);
			if (programs[i] < 0 && errno == ENOENT &&
				(i == SPAWNER_GPU || i == SPAWNER_USB_NBD)) {
				continue;
			}
			if (programs[i] < 0 || fstat(programs[i], &st) < 0) {
				r = -errno;
			} else if (!S_ISREG(st.st_mode) || !(st.st_mode & executable)) {
				r = -EACCES;
			}
		}
		if (r < 0) {
			*missing_out = name;
			return r;
		}
	}
	return 0;
}

static int start(struct spawner *s, struct spawner_process *p)
{
	int pair[2], size = 1 << 20;
	sigset_t all, before;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	s->sock = pair[0];
	p->sock = pair[1];
	/* Room for a burst of requests; the kernel cuts it at net.core.wmem_max, which will do. */
	setsockopt(s->sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (fcntl(s->sock, F_SETFL, O_NONBLOCK) < 0) {
		return -errno;
	}
	/* A Ctrl-C must not reach it before it ignores that. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0) {
		spawner_process_run(p);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0) {
		return -errno;
	}
	s->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (s->pidfd < 0) {
		int r = -errno;

		/* It ends when the socket closes. */
		s->sock = safe_close(s->sock);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
		}
		return r;
	}
	return 0;
}

int spawner_create(const char *libexec_dir, struct spawner **out, const char **missing_out)
{
	struct spawner *s = calloc(1, sizeof(*s));
	struct spawner_process p = {
		.sock = -1,
		.programs = {-1, -1, -1, -1, -1},
	};
	int r;

	*missing_out = NULL;
	if (!s) {
		return -ENOMEM;
	}
	s->sock = s->pidfd = -1;
	list_init(&s->pending);
	list_init(&s->dying);
	r = open_programs(libexec_dir, p.programs, missing_out);
	if (r == 0) {
		r = start(s, &p);
	}
	safe_close(p.sock);
	for (size_t i = 0; i < SPAWNER_PROGRAM_COUNT_; i++) {
		safe_close(p.programs[i]);
	}
	if (r < 0) {
		spawner_destroy(s);
		return r;
	}
	*out = s;
	return 0;
}

int spawner_configure(struct spawner *s, const struct spawner_settings *settings)
{
	int r = fd_send(s->sock, settings, sizeof(*settings), NULL, 0);

	if (r == 0) {
		s->uid_count = settings->uid_count;
	}
	return r;
}

int spawner_attach(struct spawner *s, sd_event *event)
{
	int r = sd_event_add_io(event, &s->source, s->sock, EPOLLIN, handle_readable, s);

	if (r < 0) {
		return r;
	}
	s->event = sd_event_ref(event);
	return 0;
}

bool spawner_alive(const struct spawner *s)
{
	return s->sock >= 0;
}

void spawner_destroy(struct spawner *s)
{
	struct pending *p, *next;
	struct dying *d, *next_d;

	if (!s) {
		return;
	}
	sd_event_source_disable_unref(s->source);
	safe_close(s->sock);
	list_for_each_safe (p, next, &s->pending, link) {
		list_remove(&p->link);
		free(p);
	}
	list_for_each_safe (d, next_d, &s->dying, link) {
		reap(d->pidfd, 0);
		dying_destroy(d);
	}
	if (s->pidfd >= 0) {
		reap(s->pidfd, 0);
		safe_close(s->pidfd);
	}
	sd_event_unref(s->event);
	free(s);
}

static int pack(struct spawner_request *request, const char *const *args, size_t n_args)
{
	size_t at = 0;

	if (n_args > SPAWNER_ARGV_MAX - 2) {
		return -E2BIG;
	}
	for (size_t i = 0; i < n_args; i++) {
		size_t n = strlen(args[i]) + 1;

		if (n > sizeof(request->args) - at) {
			return -E2BIG;
		}
		memcpy(request->args + at, args[i], n);
		at += n;
	}
	request->n_args = (uint32_t)n_args;
	request->args_size = (uint32_t)at;
	return 0;
}

int spawner_spawn(struct spawner *s, enum spawner_program program, const char *const *args,
	size_t n_args, const int *fds, size_t n_fds, uint32_t uid_slot, spawner_done done,
	void *userdata, uint64_t *id_out)
{
	struct spawner_request request = {
		.id = s->last_id + 1,
		.program = program,
		.uid_slot = s->uid_count > 0 ? uid_slot : 0,
		.n_fds = (uint32_t)n_fds,
	};
	struct pending *p;
	int r;

	if (s->sock < 0) {
		return -EPIPE;
	}
	if (program >= SPAWNER_PROGRAM_COUNT_ || n_fds > SPAWN_FDS_MAX ||
		(s->uid_count > 0 && uid_slot >= s->uid_count)) {
		return -EINVAL;
	}
	r = pack(&request, args, n_args);
	if (r < 0) {
		return r;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		return -ENOMEM;
	}
	r = fd_send(s->sock, &request, sizeof(request), fds, n_fds);
	if (r < 0) {
		free(p);
		return r;
	}
	p->id = s->last_id = request.id;
	p->done = done;
	p->userdata = userdata;
	list_append(&s->pending, &p->link);
	*id_out = request.id;
	return 0;
}

void spawner_forget(struct spawner *s, uint64_t id)
{
	struct pending *p = pending_find(s, id);

	if (p) {
		p->done = NULL;
	}
}
