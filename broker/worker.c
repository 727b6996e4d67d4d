/* SPDX-License-Identifier: MIT
 *
 * A worker is ours in two ways that end at different times: somebody here is interested in it
 * (until worker_destroy), and the kernel has a process or zombie for it (until it is reaped through
 * its pidfd). The flags destroyed and reaped say which; the struct goes when both are set.
 *
 * Workers are hostile. Each message is checked by worker_msg_decode before it is looked at; a
 * malformed one ends the worker, and so do too many (process.h); what it sends in numbers is only
 * shown. A worker that does not answer pings, or that stays after it was told to go, is killed.
 */
#include "broker/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"

#define USEC_PER_SEC   UINT64_C(1000000)
#define UNANSWERED_MAX 2
#define READY_WITHIN   (10 * USEC_PER_SEC)
#define DETACH_WITHIN  (5 * USEC_PER_SEC)
#define FLUSH_WITHIN   (60 * USEC_PER_SEC)
/* devbroker-qmp ends itself sooner, unless the VMM has taken it over: one that only answers pings
 * would block its VM for ever. */
#define QMP_WITHIN (30 * USEC_PER_SEC)
/* devbroker-claim waits in the kernel for drivers and devices, and answers no ping meanwhile: a
 * bind may try several transfers of 5 s each. */
#define CLAIM_WITHIN       (30 * USEC_PER_SEC)
#define WORKER_ARGS_MAX    (SPAWNER_ARGV_MAX - 2)
#define WORKER_CONTROL_ARG "--control-fd=3"

static void worker_free(struct worker *w)
{
	sd_event_source_disable_unref(w->control_source);
	safe_close(w->control);
	free(w->name);
	free(w);
}

/* The process is gone (or never was): gives back what was charged for it. */
static void worker_forget_process(struct worker *w)
{
	struct broker *b = w->broker;

	w->reaped = true;
	list_remove(&w->link);
	b->n_workers--;
	if (b->n_workers == 0) {
		sd_event_source_set_enabled(b->heartbeat, SD_EVENT_OFF);
	}
}

static void worker_report_end(struct worker *w, enum worker_end end, int status)
{
	worker_forget_process(w);
	if (w->destroyed) {
		worker_free(w);
	} else {
		w->ops->ended(w->userdata, end, status);
	}
}

/* Its numbers may be any: they are only shown. */
static void worker_count(struct worker *w, const struct worker_pong *p)
{
	uint64_t now = now_usec(), usec = MAX(now - w->heard_usec, UINT64_C(1));
	const struct worker_pong *last = &w->counters;

	if (w->heard_usec > 0) {
		w->bytes_in_per_sec = (p->bytes_in - last->bytes_in) * USEC_PER_SEC / usec;
		w->bytes_out_per_sec = (p->bytes_out - last->bytes_out) * USEC_PER_SEC / usec;
		w->transfers_per_sec = (p->transfers - last->transfers) * USEC_PER_SEC / usec;
	}
	w->heard_usec = now;
	w->counters = *p;
}

static bool worker_take_message(struct worker *w, const union worker_msg *m)
{
	w->unanswered = 0;
	switch (m->header.type) {
	case WORKER_MSG_READY:
		if (w->ready || m->ready.version != WORKER_PROTOCOL_VERSION) {
			return false;
		}
		w->ready = true;
		w->end_deadline = 0;
		if (w->program == SPAWNER_QMP) {
			w->end_deadline = now_usec() + QMP_WITHIN;
		} else if (w->program == SPAWNER_CLAIM) {
			w->end_deadline = now_usec() + CLAIM_WITHIN;
		}
		if (!w->destroyed && w->ops->ready) {
			w->ops->ready(w->userdata, m->ready.sandbox_stages);
		}
		return true;
	case WORKER_MSG_PONG:
		worker_count(w, &m->pong);
		return w->ready;
	case WORKER_MSG_DONE:
		/* Even before READY: a device that can't be had is no failure of the worker. */
		w->done = m->done;
		w->done_seen = true;
		return true;
	case WORKER_MSG_STATE:
		if (m->state.state == WORKER_STATE_FLUSHING && !w->flushing) {
			w->flushing = true;
			w->end_deadline = now_usec() + FLUSH_WITHIN;
		}
		break;
	default:
		break;
	}
	if (w->ready && !w->destroyed) {
		w->ops->message(w->userdata, m);
	}
	return w->ready;
}

/* 1: one was taken; 0: none there; -errno: no more will come. */
static int worker_read(struct worker *w)
{
	char buffer[sizeof(union worker_msg)];
	union worker_msg m;
	size_t n_fds = 0;
	ssize_t n = fd_recv(w->control, buffer, sizeof(buffer), NULL, 0, &n_fds);

	if (n == -ECONNRESET) {
		/* It ended with a ping unread: that is said once, before its last words. */
		n = fd_recv(w->control, buffer, sizeof(buffer), NULL, 0, &n_fds);
	}
	if (n == -EAGAIN) {
		return 0;
	}
	if (n == 0 || n == -ECONNRESET) {
		return -EPIPE;
	}
	if (n < 0 || ++w->messages > PROCESS_MESSAGES_PER_PING ||
		worker_msg_decode(WORKER_TO_BROKER, buffer, (size_t)n, &m) < 0 ||
		!worker_take_message(w, &m)) {
		log_warn("%s: worker %d sent a malformed message; ending it", w->name,
			(int)worker_pid(w));
		w->killed_bad = true;
		process_kill(w->process);
		return -EPIPE;
	}
	return 1;
}

static int worker_on_control(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct worker *w = userdata;
	int r = 1;

	for (int i = 0; i < PROCESS_MESSAGES_PER_TURN && r > 0; i++) {
		/* A handler may destroy the worker; it stays valid until it is reaped. */
		r = worker_read(w);
	}
	if (r < 0) {
		w->control_source = sd_event_source_disable_unref(w->control_source);
	}
	return 0;
}

static void worker_on_ended(void *userdata, int error, int status)
{
	struct worker *w = userdata;
	enum worker_end end;

	/* Its last words may lie unread in the socket. */
	while (error == 0 && w->control_source && !w->killed_bad && worker_read(w) > 0) {
	}
	if (error < 0) {
		end = WORKER_END_SPAWN;
		status = -error;
	} else if (w->killed_bad) {
		end = WORKER_END_BAD;
	} else if (w->killed_hung) {
		end = WORKER_END_HUNG;
	} else {
		end = w->done_seen ? WORKER_END_DONE : WORKER_END_EXITED;
	}
	w->process = NULL;
	w->control_source = sd_event_source_disable_unref(w->control_source);
	worker_report_end(w, end, status);
}

static int worker_listen(struct worker *w)
{
	return sd_event_add_io(
		w->broker->event, &w->control_source, w->control, EPOLLIN, worker_on_control, w);
}

static int worker_connect(struct worker *w, int *peer_out)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	w->control = pair[0];
	*peer_out = pair[1];
	return worker_listen(w);
}

static int worker_spawn(struct worker *w, const char *const *args, size_t n_args, int control_peer,
	const int *fds, size_t n_fds)
{
	const char *all_args[WORKER_ARGS_MAX] = {WORKER_CONTROL_ARG};
	int all_fds[SPAWN_FDS_MAX] = {control_peer};

	if (n_args + 1 > ARRAY_SIZE(all_args) || n_fds + 1 > ARRAY_SIZE(all_fds)) {
		return -E2BIG;
	}
	for (size_t i = 0; i < n_args; i++) {
		all_args[i + 1] = args[i];
	}
	for (size_t i = 0; i < n_fds; i++) {
		all_fds[i + 1] = fds[i];
	}
	return process_start(w->broker, w->program, w->name, all_args, n_args + 1, all_fds,
		n_fds + 1, worker_on_ended, w, &w->process);
}

static struct worker *worker_new(struct broker *b, enum spawner_program program, const char *name,
	const struct worker_ops *ops, void *userdata)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w) {
		return NULL;
	}
	*w = (struct worker){
		.broker = b, .program = program, .ops = ops, .userdata = userdata, .control = -1};
	list_init(&w->link);
	w->name = strdup(name);
	if (!w->name) {
		worker_free(w);
		return NULL;
	}
	return w;
}

static void worker_enter(struct worker *w)
{
	struct broker *b = w->broker;

	list_append(&b->workers, &w->link);
	if (b->n_workers++ == 0) {
		sd_event_source_set_time(b->heartbeat, now_usec() + WORKER_HEARTBEAT_USEC);
		sd_event_source_set_enabled(b->heartbeat, SD_EVENT_ON);
	}
}

int worker_start(struct broker *b, enum spawner_program program, const char *name,
	const char *const *args, size_t n_args, const int *fds, size_t n_fds,
	const struct worker_ops *ops, void *userdata, struct worker **out)
{
	_cleanup_close_ int peer = -1;
	struct worker *w;
	int r;

	if (b->n_workers >= BROKER_WORKERS_MAX) {
		return -EAGAIN;
	}
	w = worker_new(b, program, name, ops, userdata);
	if (!w) {
		return -ENOMEM;
	}
	w->end_deadline = now_usec() + READY_WITHIN;
	r = worker_connect(w, &peer);
	if (r >= 0) {
		r = worker_spawn(w, args, n_args, peer, fds, n_fds);
	}
	if (r < 0) {
		worker_free(w);
		return r;
	}
	worker_enter(w);
	*out = w;
	return 0;
}

int worker_adopt(struct broker *b, enum spawner_program program, const char *name, int control,
	pid_t pid, int pidfd, uint32_t uid_slot, const struct worker_ops *ops, void *userdata,
	struct worker **out)
{
	struct worker *w = b->n_workers < BROKER_WORKERS_MAX
				   ? worker_new(b, program, name, ops, userdata)
				   : NULL;
	int r;

	if (!w) {
		safe_close(control);
		safe_close(pidfd);
		return -ENOMEM;
	}
	w->control = control;
	w->ready = true;
	r = process_adopt(b, program, name, pid, pidfd, uid_slot, worker_on_ended, w, &w->process);
	if (r < 0) {
		worker_free(w);
		return r;
	}
	worker_enter(w);
	if (worker_listen(w) < 0) {
		/* Deaf, it would be taken for one that hangs. */
		process_kill(w->process);
	}
	*out = w;
	return 0;
}

/* A worker that doesn't read misses its heartbeat, and one that is gone is being reaped. */
static void worker_send(struct worker *w, const union worker_msg *m)
{
	_unused_ int r = fd_send(w->control, m, m->header.size, NULL, 0);
}

void worker_configured(struct worker *w, int error)
{
	union worker_msg m;

	worker_msg_init(&m, WORKER_MSG_CONFIGURED);
	m.configured.error = error;
	if (!w->reaped) {
		worker_send(w, &m);
	}
}

void worker_keep(struct worker *w, const uint8_t cookie[WORKER_COOKIE_SIZE], uint64_t orphan_usec)
{
	union worker_msg m;

	worker_msg_init(&m, WORKER_MSG_KEEP);
	memcpy(m.keep.cookie, cookie, WORKER_COOKIE_SIZE);
	m.keep.orphan_usec = orphan_usec;
	if (!w->reaped) {
		worker_send(w, &m);
	}
}

int worker_capture(struct worker *w, uint32_t bus, uint32_t device, bool headers_only, int fd)
{
	union worker_msg m;

	worker_msg_init(&m, WORKER_MSG_CAPTURE);
	m.capture.bus = bus;
	m.capture.device = device;
	m.capture.headers_only = headers_only;
	return w->reaped ? -ESRCH : fd_send(w->control, &m, m.header.size, &fd, 1);
}

int worker_pace(struct worker *w, int fd)
{
	union worker_msg m;

	worker_msg_init(&m, WORKER_MSG_PACE);
	return w->reaped ? 0 : fd_send(w->control, &m, m.header.size, &fd, 1);
}

void worker_unplugged(struct worker *w)
{
	union worker_msg m;

	worker_msg_init(&m, WORKER_MSG_UNPLUGGED);
	if (!w->reaped) {
		worker_send(w, &m);
	}
}

void worker_detach(struct worker *w)
{
	union worker_msg m;

	if (w->reaped) {
		return;
	}
	worker_msg_init(&m, WORKER_MSG_DETACH);
	worker_send(w, &m);
	if (!w->flushing) {
		w->end_deadline = now_usec() + DETACH_WITHIN;
	}
}

void worker_kill(struct worker *w)
{
	process_kill(w->process);
}

void worker_destroy(struct worker *w)
{
	if (!w) {
		return;
	}
	w->ops = NULL;
	w->destroyed = true;
	if (w->reaped) {
		worker_free(w);
		return;
	}
	process_kill(w->process);
}

pid_t worker_pid(const struct worker *w)
{
	return process_pid(w->process);
}

/* Whether it has to be ended, and why. NULL: no. */
static const char *worker_complaint(const struct worker *w, uint64_t now)
{
	if (w->ready && w->unanswered >= UNANSWERED_MAX) {
		return "does not answer";
	}
	return w->end_deadline > 0 && now >= w->end_deadline ? "did not end in time" : NULL;
}

static void worker_check(struct worker *w, uint64_t now)
{
	const char *complaint = worker_complaint(w, now);
	union worker_msg m;

	if (w->killed_hung || w->killed_bad || worker_pid(w) == 0) {
		return;
	}
	w->messages = 0;
	if (complaint) {
		log_warn("%s: worker %d %s; ending it", w->name, (int)worker_pid(w), complaint);
		w->killed_hung = true;
		process_kill(w->process);
		return;
	}
	if (w->program != SPAWNER_CLAIM) {
		worker_msg_init(&m, WORKER_MSG_PING);
		m.ping.seq = w->broker->ping_seq;
		w->unanswered++;
		worker_send(w, &m);
	}
}

void workers_heartbeat(struct broker *b)
{
	uint64_t now = now_usec();
	struct worker *w;

	b->ping_seq++;
	list_for_each (w, &b->workers, link) {
		worker_check(w, now);
	}
}
