/* SPDX-License-Identifier: MIT
 *
 * A way is one connection at a time. While it has one nobody else is accepted: the next one waits
 * in the kernel's queue. What comes over a free connection (the VMM's hello) stays unread, so that
 * the broker parses nothing of it and it costs no more than a socket's buffer; only its end is
 * watched for. A lease takes the connection for its worker. When the lease is over the connection
 * is over, too: the VMM starts the next one with a clean state, which it can't do within one.
 *
 * That the VMM comes back takes it a second (-chardev reconnect=1): until then the VM counts as
 * there.
 */
#include "broker/ways.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/shared-socket.h"
#include "broker/vm.h"

#define USEC_PER_MSEC    UINT64_C(1000)
#define RETRY_FIRST      (100 * USEC_PER_MSEC)
#define RETRY_LONGEST    (3000 * USEC_PER_MSEC)
#define SETTLES_WITHIN   (3000 * USEC_PER_MSEC)
#define TRIES_SETTLING   5 /* they take as long */
#define TCP_DEAD_AFTER_S 30

enum way_kind { WAY_LISTENS, WAY_CONNECTS, WAY_GIVEN };

struct way {
	struct ways *ways;
	enum way_kind kind;
	struct stream_address address; /* of WAY_GIVEN: only shown */
	char shown[STREAM_ADDRESS_TEXT];
	int listener; /* -1: it connects, or can't be had */
	bool own_path;
	sd_event_source *listen_source;
	int stream; /* a connection that no worker has; -1 */
	sd_event_source *stream_source;
	bool connecting;     /* stream is on its way */
	struct lease *lease; // may be NULL
	/* Until the next try to connect or accept, or until the VM does not count as there. */
	sd_event_source *timer;
	bool settling;
	unsigned int tries;
};

struct ways {
	struct vm *vm;
	bool lasting;
	uint32_t n;
	struct way way[];
};

static const char *const state_names[] = {"closed", "waiting", "connected", "lent"};
static_assert(ARRAY_SIZE(state_names) == WAY_STATE_COUNT_, "one per state");

const char *way_state_name(enum way_state state)
{
	return state_names[state];
}

static sd_event *event_of(const struct way *w)
{
	return w->ways->vm->broker->event;
}

static void wait_for_connection(struct way *w);

static void drop_stream(struct way *w)
{
	w->stream_source = sd_event_source_disable_unref(w->stream_source);
	w->stream = safe_close(w->stream);
	w->connecting = false;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct way *w = userdata;
	bool settling = w->settling;

	w->timer = sd_event_source_disable_unref(w->timer);
	w->settling = settling && w->kind == WAY_CONNECTS && w->tries < TRIES_SETTLING;
	wait_for_connection(w);
	if (settling && !w->settling) {
		vm_ways_changed(w->ways->vm);
	}
	return 0;
}

static void start_timer(struct way *w, uint64_t usec)
{
	w->timer = sd_event_source_disable_unref(w->timer);
	if (sd_event_add_time_relative(
		    event_of(w), &w->timer, CLOCK_MONOTONIC, usec, 0, on_timer, w) < 0) {
		log_error("vm %s: out of memory for a timer", w->ways->vm->name);
	}
}

static void retry_later(struct way *w)
{
	uint64_t delay = w->tries < 5 ? RETRY_FIRST << w->tries : RETRY_LONGEST;

	w->tries++;
	start_timer(w, delay);
}

static int on_stream(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct way *w = userdata;

	drop_stream(w);
	if (!w->lease && w->kind == WAY_CONNECTS) {
		/* Or who hangs up each time would be called without end. */
		retry_later(w);
	} else {
		wait_for_connection(w);
	}
	vm_ways_changed(w->ways->vm);
	return 0;
}

/* A peer whose machine is gone says nothing any more. */
static void watch_tcp(int fd)
{
	const int on = 1, seconds = TCP_DEAD_AFTER_S, ms = TCP_DEAD_AFTER_S * 1000;

	_unused_ int r = setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	r = setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	r = setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static void note_peer(struct way *w)
{
	struct vm *vm = w->ways->vm;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (stream_address_is_unix(&w->address) &&
		getsockopt(w->stream, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid > 0) {
		log_info("vm %s: %s: connected, process %d of user %u", vm->name, w->shown,
			(int)peer.pid, (unsigned int)peer.uid);
		vm->vmm_pid = peer.pid;
		return;
	}
	log_info("vm %s: %s: connected", vm->name, w->shown);
}

/* w->stream has somebody at its other end: from now on only its end is of interest. */
static void connected(struct way *w)
{
	int r;

	w->connecting = w->settling = false;
	w->timer = sd_event_source_disable_unref(w->timer);
	w->stream_source = sd_event_source_disable_unref(w->stream_source);
	r = sd_event_add_io(event_of(w), &w->stream_source, w->stream, EPOLLRDHUP, on_stream, w);
	if (r < 0) {
		log_error("vm %s: %s: %s", w->ways->vm->name, w->shown, strerror(-r));
		drop_stream(w);
		retry_later(w);
		return;
	}
	if (!stream_address_is_unix(&w->address)) {
		watch_tcp(w->stream);
	}
	note_peer(w);
	vm_ways_changed(w->ways->vm);
}

static int on_connected(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct way *w = userdata;
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0) {
		drop_stream(w);
		retry_later(w);
		return 0;
	}
	connected(w);
	return 0;
}

static void connect_out(struct way *w)
{
	int family = w->address.socket.any.sa_family;

	w->stream = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (w->stream < 0) {
		retry_later(w);
		return;
	}
	if (connect(w->stream, &w->address.socket.any, w->address.length) == 0) {
		connected(w);
		return;
	}
	if (errno == EINPROGRESS && sd_event_add_io(event_of(w), &w->stream_source, w->stream,
					    EPOLLOUT, on_connected, w) >= 0) {
		w->connecting = true;
		return;
	}
	/* EAGAIN of a unix socket: its queue is full. */
	drop_stream(w);
	retry_later(w);
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct way *w = userdata;

	w->stream = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (w->stream < 0 && errno == EAGAIN) {
		return 0;
	}
	/* The next one waits until this one is gone. */
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	if (w->stream < 0) {
		/* Out of fds, maybe: it would be said again at once. */
		retry_later(w);
		return 0;
	}
	connected(w);
	return 0;
}

static void wait_for_connection(struct way *w)
{
	struct ways *ways = w->ways;

	if (ways->vm->broker->stopping || w->stream >= 0 || w->lease) {
		return;
	}
	if (w->kind == WAY_CONNECTS) {
		if (!w->timer) {
			connect_out(w);
		}
	} else if (w->listen_source) {
		sd_event_source_set_enabled(w->listen_source, SD_EVENT_ON);
	}
}

uint32_t ways_count(const struct ways *w)
{
	return w->n;
}

static enum way_state state_of(const struct way *w)
{
	if (w->lease) {
		return WAY_LENT;
	}
	if (w->stream >= 0 && !w->connecting) {
		return WAY_CONNECTED;
	}
	return w->kind == WAY_CONNECTS || w->listener >= 0 ? WAY_WAITING : WAY_CLOSED;
}

bool ways_connected(const struct ways *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		enum way_state state = state_of(&w->way[i]);

		if (state == WAY_CONNECTED || state == WAY_LENT || w->way[i].settling) {
			return true;
		}
	}
	return false;
}

bool ways_free(const struct ways *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		if (state_of(&w->way[i]) == WAY_CONNECTED) {
			return true;
		}
	}
	return false;
}

bool ways_lasting(const struct ways *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->way[i].kind == WAY_CONNECTS || w->way[i].listener >= 0) {
			return w->lasting;
		}
	}
	return false;
}

struct way *ways_reserve(struct ways *w, struct lease *l)
{
	for (uint32_t i = 0; i < w->n; i++) {
		if (state_of(&w->way[i]) == WAY_CONNECTED) {
			w->way[i].lease = l;
			return &w->way[i];
		}
	}
	return NULL;
}

struct way *ways_adopt(struct ways *w, struct lease *l, uint32_t number)
{
	struct way *way = number < w->n ? &w->way[number] : NULL;

	if (!way || way->lease) {
		return NULL;
	}
	/* Whoever came meanwhile is a second one. */
	drop_stream(way);
	way->timer = sd_event_source_disable_unref(way->timer);
	way->lease = l;
	if (way->listen_source) {
		sd_event_source_set_enabled(way->listen_source, SD_EVENT_OFF);
	}
	vm_ways_changed(w->vm);
	return way;
}

int way_take(struct way *w)
{
	int fd = steal_fd(&w->stream);

	w->tries = 0;
	w->stream_source = sd_event_source_disable_unref(w->stream_source);
	return fd;
}

void way_return(struct way *w, bool hung_up)
{
	if (!w) {
		return;
	}
	w->lease = NULL;
	/* One that was reserved, but not taken, is still good. */
	if (w->stream < 0) {
		w->settling = !hung_up && ways_lasting(w->ways);
		if (w->settling) {
			start_timer(w, SETTLES_WITHIN);
		}
		if (w->kind == WAY_CONNECTS) {
			retry_later(w);
		} else {
			wait_for_connection(w);
		}
	}
	vm_ways_changed(w->ways->vm);
}

uint32_t way_number(const struct way *w)
{
	return (uint32_t)(w - w->ways->way);
}

enum way_state ways_show(
	const struct ways *w, uint32_t i, const char **address_out, const struct lease **lease_out)
{
	*address_out = w->way[i].shown;
	*lease_out = w->way[i].lease;
	return state_of(&w->way[i]);
}

static int listen_on(struct way *w, const char *group)
{
	int r = shared_socket_listen(&w->address, group, &w->listener);

	w->own_path = r == 0 && stream_address_is_unix(&w->address);
	return r;
}

static int set_up(struct way *w, const char *group, const int *given)
{
	int r = 0;

	stream_address_print(&w->address, w->shown);
	if (given) {
		char raw[STREAM_ADDRESS_TEXT];

		memcpy(raw, w->shown, sizeof(raw));
		log_escape(raw, strlen(raw), w->shown, sizeof(w->shown));
		w->kind = WAY_GIVEN;
		w->listener = *given >= 0 ? fcntl(*given, F_DUPFD_CLOEXEC, 3) : -1;
		r = *given >= 0 && w->listener < 0 ? -errno : 0;
	} else if (w->kind == WAY_LISTENS) {
		r = listen_on(w, group);
	}
	if (r == 0 && w->listener >= 0) {
		r = sd_event_add_io(
			event_of(w), &w->listen_source, w->listener, EPOLLIN, on_connection, w);
	} else if (r == 0 && w->kind == WAY_CONNECTS) {
		/* From the loop: what was lent before this broker was started is known then. */
		start_timer(w, 0);
	}
	return r < 0 ? r : 0;
}

static int slot_address(const struct vm *vm, uint32_t i, struct stream_address *out)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/vm/%s/usb%u.sock", vm->broker->run_dir, vm->name, i);
	return stream_address_unix(path, out);
}

static struct ways *allocate(struct vm *vm, const struct ways_options *o)
{
	uint32_t n = o->ways->slots + o->ways->n_streams;
	struct ways *w = calloc(1, sizeof(*w) + n * sizeof(w->way[0]));

	if (w) {
		w->vm = vm;
		w->n = n;
		w->lasting = o->lasting;
	}
	for (uint32_t i = 0; w && i < n; i++) {
		w->way[i].ways = w;
		w->way[i].listener = w->way[i].stream = -1;
	}
	return w;
}

int ways_create(struct vm *vm, const struct ways_options *o, struct ways **out,
	char where_out[STREAM_ADDRESS_TEXT])
{
	const struct config_ways *c = o->ways;
	struct ways *w = allocate(vm, o);
	int r = 0;

	where_out[0] = '\0';
	if (!w) {
		return -ENOMEM;
	}
	if (c->slots > 0) {
		r = shared_socket_directory(vm->broker->run_dir, vm->name);
	}
	for (uint32_t i = 0; i < w->n && r == 0; i++) {
		struct way *way = &w->way[i];

		if (i < c->slots) {
			r = slot_address(vm, i, &way->address);
		} else {
			way->address = c->streams[i - c->slots].address;
			way->kind = c->streams[i - c->slots].listens ? WAY_LISTENS : WAY_CONNECTS;
		}
		if (r == 0) {
			r = set_up(way, c->group, o->listen_fd);
		}
		if (r < 0) {
			memcpy(where_out, way->shown, STREAM_ADDRESS_TEXT);
		}
	}
	if (r < 0) {
		ways_destroy(w);
		return r;
	}
	*out = w;
	return 0;
}

void ways_destroy(struct ways *w)
{
	for (uint32_t i = 0; w && i < w->n; i++) {
		struct way *way = &w->way[i];

		assert(!way->lease);
		drop_stream(way);
		sd_event_source_disable_unref(way->timer);
		sd_event_source_disable_unref(way->listen_source);
		safe_close(way->listener);
		if (way->own_path) {
			unlink(way->address.socket.un.sun_path);
		}
	}
	free(w);
}
