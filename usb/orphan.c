/* SPDX-License-Identifier: MIT
 *
 * Who may connect is who may enter the directory of the socket: the broker's own user. A connection
 * is nobody's before its first message was ADOPT with our cookie; there is one at a time, and a
 * newer one takes the place of an older one that has said nothing, so that no broker that died on
 * the way is in the way of the next.
 */
#include "usb/orphan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define USEC_PER_SEC UINT64_C(1000000)
#define BACKLOG      4
#define ACCURACY     1000 /* µs */

struct orphan {
	struct orphan_options o;
	struct worker_keep keep;
	bool is_kept;
	sd_event_source *listener;
	sd_event_source *timer;
	int candidate; /* has not said ADOPT yet; -1 */
	sd_event_source *candidate_io;
};

static void drop_candidate(struct orphan *o)
{
	o->candidate_io = sd_event_source_disable_unref(o->candidate_io);
	o->candidate = safe_close(o->candidate);
}

static void stop_waiting(struct orphan *o)
{
	(void)sd_event_source_set_enabled(o->listener, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(o->timer, SD_EVENT_OFF);
}

static int answer(struct orphan *o)
{
	union worker_msg m;
	size_t size = worker_msg_init(&m, WORKER_MSG_HELD);

	m.held.version = WORKER_PROTOCOL_VERSION;
	memcpy(m.held.cookie, o->keep.cookie, sizeof(m.held.cookie));
	o->o.ops->adopt(o->o.userdata, &m.held);
	return fd_send(o->candidate, &m, size, &o->o.image_fd, o->o.image_fd >= 0 ? 1 : 0);
}

/* Whether the candidate is our next broker. -EAGAIN: it has not said so yet. */
static int hear(struct orphan *o)
{
	union worker_msg raw, m;
	size_t n_fds = 0;
	ssize_t n = fd_recv(o->candidate, &raw, sizeof(raw), NULL, 0, &n_fds);

	if (n <= 0) {
		return n < 0 ? (int)n : -EPIPE;
	}
	if (worker_msg_decode(BROKER_TO_WORKER, &raw, (size_t)n, &m) < 0 ||
		m.header.type != WORKER_MSG_ADOPT ||
		memcmp(m.adopt.cookie, o->keep.cookie, sizeof(m.adopt.cookie)) != 0) {
		return -EACCES;
	}
	return answer(o);
}

static int on_candidate(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct orphan *o = userdata;
	int r = hear(o);

	if (r == -EAGAIN) {
		return 0;
	}
	if (r < 0) {
		if (r == -EACCES) {
			log_warn(
				"%s: somebody who is not its next devbrokerd connected", o->o.name);
		}
		drop_candidate(o);
		return 0;
	}
	log_info("%s: adopted by another devbrokerd", o->o.name);
	stop_waiting(o);
	o->candidate_io = sd_event_source_disable_unref(o->candidate_io);
	o->o.ops->adopted(o->o.userdata, steal_fd(&o->candidate));
	return 0;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct orphan *o = userdata;
	int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock < 0) {
		return 0;
	}
	drop_candidate(o);
	o->candidate = sock;
	if (sd_event_add_io(o->o.event, &o->candidate_io, sock, EPOLLIN, on_candidate, o) < 0) {
		drop_candidate(o);
	}
	return 0;
}

static int on_time_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct orphan *o = userdata;

	stop_waiting(o);
	drop_candidate(o);
	o->is_kept = false;
	log_warn("%s: no other devbrokerd came within %" PRIu64 " s", o->o.name,
		o->keep.orphan_usec / USEC_PER_SEC);
	o->o.ops->time_over(o->o.userdata);
	return 0;
}

static void destroy(struct orphan *o)
{
	sd_event_source_disable_unref(o->listener);
	sd_event_source_disable_unref(o->timer);
	safe_close(o->o.listen_fd);
	free(o);
}

static int start(struct orphan *o)
{
	sd_event *event = o->o.event;
	int r = fd_set_nonblock(o->o.listen_fd, true);

	if (r >= 0 && listen(o->o.listen_fd, BACKLOG) < 0) {
		r = -errno;
	}
	r = r < 0 ? r
		  : sd_event_add_io(event, &o->listener, o->o.listen_fd, EPOLLIN, on_connect, o);
	r = r < 0 ? r : sd_event_source_set_priority(o->listener, SD_EVENT_PRIORITY_IMPORTANT);
	r = r < 0 ? r
		  : sd_event_add_time(event, &o->timer, CLOCK_MONOTONIC, UINT64_MAX, ACCURACY,
			    on_time_over, o);
	if (r >= 0) {
		stop_waiting(o);
	}
	return r;
}

int orphan_create(const struct orphan_options *options, struct orphan **out)
{
	struct orphan *o = calloc(1, sizeof(*o));
	int r;

	if (!o) {
		safe_close(options->listen_fd);
		return -ENOMEM;
	}
	o->o = *options;
	o->candidate = -1;
	r = start(o);
	if (r < 0) {
		destroy(o);
		return r;
	}
	*out = o;
	return 0;
}

void orphan_keep(struct orphan *o, const struct worker_keep *keep)
{
	o->keep = *keep;
	o->is_kept = true;
}

bool orphan_is_kept(const struct orphan *o)
{
	return o->is_kept;
}

void orphan_wait(struct orphan *o)
{
	log_info("%s: devbrokerd is gone; serving on for %" PRIu64 " s until another one comes",
		o->o.name, o->keep.orphan_usec / USEC_PER_SEC);
	(void)sd_event_source_set_time(o->timer, now_usec() + o->keep.orphan_usec);
	(void)sd_event_source_set_enabled(o->timer, SD_EVENT_ONESHOT);
	(void)sd_event_source_set_enabled(o->listener, SD_EVENT_ON);
}
