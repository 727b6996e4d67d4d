/* SPDX-License-Identifier: MIT
 *
 * There is no message bus in between: a client connects to the socket and calls. Each accepted
 * connection is an sd-bus server with the same vtables. Clients are hostile until proven
 * otherwise: who they are comes from the kernel (SO_PEERCRED, SO_PEERGROUPS) at accept, a uid has
 * so many connections and requests (broker/uid-account), one that does not authenticate, does not
 * read or sends a message without end is dropped, and when the broker runs out of fds it stops
 * accepting for a while instead of spinning.
 */
#include "broker/bus.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device.h"
#include "broker/vm.h"

#define CONNECTIONS_MAX    128 /* the last of them are for root and the broker's own user */
#define RESERVED           32
#define UNREAD_ANSWERS_MAX 64 /* when it calls again: answers may be large */
#define SEND_BUFFER        (128 << 10)
#define GROUPS_MAX         256
#define HELLO_WITHIN       (10 * UINT64_C(1000000))
#define PAUSE              (100 * UINT64_C(1000))
#define ADMIN_GROUP        "devbroker"

static void connection_destroy(struct bus_connection *c)
{
	list_remove(&c->link);
	c->server->n_connections--;
	sd_event_source_disable_unref(c->hello);
	sd_event_source_disable_unref(c->dying);
	bus_pump_stop(c);
	sd_bus_close_unref(c->bus);
	uid_account_disconnect(&c->server->accounts, c->caller.account, c->caller.class);
	free(c);
}

static int on_dying(sd_event_source *source, void *userdata)
{
	connection_destroy(userdata);
	return 0;
}

void bus_connection_drop(struct bus_connection *c)
{
	if (c->system) {
		bus_system_lost(c->system);
		return;
	}
	if (!c->dying && sd_event_add_defer(c->server->broker->event, &c->dying, on_dying, c) < 0) {
		log_error("bus: out of memory");
	}
}

struct bus_connection *bus_connection_of(struct broker *b, sd_bus *bus)
{
	struct bus_connection *c;

	if (!b->bus) {
		return NULL;
	}
	list_for_each (c, &b->bus->connections, link) {
		if (c->bus == bus) {
			return c;
		}
	}
	return NULL;
}

/* All objects at once are as much work as asking for each few of them. */
static uint32_t cost_of(const struct bus_connection *c, sd_bus_message *m)
{
	const struct broker *b = bus_broker(c);

	if (sd_bus_message_is_method_call(m, BUS_IFACE, "Log") > 0) {
		return 8;
	}
	if (sd_bus_message_is_method_call(
		    m, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects") <= 0) {
		return 1;
	}
	return 1 + (b->n_devices + b->n_vms) / 8;
}

int bus_admit(struct bus_connection *c, sd_bus_message *m, sd_bus_error *error)
{
	struct refusal_text text = {0};
	int r = uid_account_charge(
		c->caller.account, c->caller.class, cost_of(c, m), now_usec(), &text);

	if (r < 0) {
		/* It floods: of a client nothing is heard any more, and on the system bus, where
		 * others talk on the same connection, it isn't answered. */
		if (!c->system) {
			log_warn("bus: uid %u floods; dropped", (unsigned int)c->caller.uid);
			bus_connection_drop(c);
		}
		return 1;
	}
	return r != 0 ? bus_fail_call(c, "", "", error, r, &text) : bus_permit_call(c, m, error);
}

/* Before any handler: one that only asks would be answered into memory. */
static int on_incoming(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	uint64_t queued = 0;

	c->unframed = 0;
	if (c->dying) {
		return 1;
	}
	if (sd_bus_get_n_queued_write(c->bus, &queued) >= 0 && queued > UNREAD_ANSWERS_MAX) {
		log_warn("bus: uid %u pid %d asks, but does not read; dropped",
			(unsigned int)c->caller.uid, (int)c->caller.pid);
		bus_connection_drop(c);
		return 1;
	}
	return sd_bus_message_is_method_call(m, NULL, NULL) > 0 ? bus_admit(c, m, error) : 0;
}

static int on_hello_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct bus_connection *c = userdata;

	c->hello = sd_event_source_disable_unref(c->hello);
	if (sd_bus_is_ready(c->bus) <= 0) {
		log_debug("bus: uid %u did not authenticate", (unsigned int)c->caller.uid);
		bus_connection_drop(c);
	}
	return 0;
}

static bool in_admin_group(const struct bus_server *s, int fd, gid_t primary)
{
	gid_t groups[GROUPS_MAX];
	socklen_t len = sizeof(groups);

	if (s->admin_gid == (gid_t)-1) {
		return false;
	}
	if (s->admin_gid == primary) {
		return true;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0) {
		return false;
	}
	for (size_t i = 0; i < len / sizeof(*groups); i++) {
		if (groups[i] == s->admin_gid) {
			return true;
		}
	}
	return false;
}

/* Root, the broker's own user and group devbroker may change things. Only the first two may name
 * a socket for the broker to connect to. */
static int connection_identify(struct bus_connection *c, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
		return -errno;
	}
	c->caller.uid = peer.uid;
	c->caller.pid = peer.pid;
	c->caller.class = peer.uid == 0 || peer.uid == geteuid()    ? UID_HOST
			  : in_admin_group(c->server, fd, peer.gid) ? UID_ADMIN
								    : UID_ORDINARY;
	return 0;
}

static int connection_check_quota(struct bus_connection *c)
{
	struct bus_server *s = c->server;
	struct refusal_text text = {0};
	unsigned int reserved = c->caller.class == UID_HOST ? 0 : RESERVED;
	int r;

	if (s->n_connections + reserved >= CONNECTIONS_MAX) {
		return -EAGAIN;
	}
	r = uid_account_connect(
		&s->accounts, c->caller.uid, c->caller.class, &c->caller.account, &text);
	if (r > 0) {
		log_debug("bus: %s", text.sentence);
		bus_audit_connection(s, &c->caller, &text);
	}
	return r > 0 ? -EAGAIN : r;
}

/* sd-bus asks for 8 MiB: so much of the kernel's memory for one that does not read is too much. */
static int connection_bound_sending(struct bus_connection *c)
{
	const int size = SEND_BUFFER;
	int fd = sd_bus_get_fd(c->bus);

	if (fd < 0) {
		return fd;
	}
	return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ? -errno : 0;
}

/* fd is taken even on error. */
static int connection_start(struct bus_connection *c, int fd)
{
	sd_id128_t id;
	int r = sd_bus_new(&c->bus);

	if (r >= 0) {
		r = sd_bus_set_fd(c->bus, fd, fd);
	}
	if (r < 0) {
		safe_close(fd);
		return r;
	}
	r = sd_id128_randomize(&id);
	if (r >= 0) {
		r = sd_bus_set_server(c->bus, true, id);
	}
	if (r >= 0) {
		/* Images: who may not add one has no business with our fds. */
		r = sd_bus_negotiate_fds(c->bus, bus_is_admin(&c->caller));
	}
	if (r >= 0) {
		r = sd_bus_negotiate_creds(
			c->bus, true, SD_BUS_CREDS_EUID | SD_BUS_CREDS_PID | SD_BUS_CREDS_EGID);
	}
	if (r >= 0) {
		r = bus_export(c, &bus_plain_vtables);
	}
	if (r >= 0) {
		r = sd_bus_add_filter(c->bus, NULL, on_incoming, c);
	}
	if (r >= 0) {
		r = sd_bus_start(c->bus);
	}
	if (r >= 0) {
		r = connection_bound_sending(c);
	}
	if (r >= 0) {
		r = bus_pump_start(c);
	}
	if (r >= 0) {
		r = sd_event_add_time_relative(c->server->broker->event, &c->hello, CLOCK_MONOTONIC,
			HELLO_WITHIN, 0, on_hello_late, c);
	}
	return r;
}

/* fd is taken. */
static void connection_create(struct bus_server *s, int fd)
{
	struct bus_connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		safe_close(fd);
		return;
	}
	c->server = s;
	list_init(&c->link);
	r = connection_identify(c, fd);
	if (r == 0) {
		r = connection_check_quota(c);
	}
	if (r < 0) {
		safe_close(fd);
		free(c);
		return;
	}
	list_append(&s->connections, &c->link);
	s->n_connections++;
	r = connection_start(c, fd);
	if (r < 0) {
		log_debug("bus: can't serve uid %u: %s", (unsigned int)c->caller.uid, strerror(-r));
		connection_destroy(c);
	}
}

static int on_resume(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct bus_server *s = userdata;

	s->resume = sd_event_source_disable_unref(s->resume);
	if (s->reserve_fd < 0) {
		s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	return sd_event_source_set_enabled(s->listen_source, SD_EVENT_ON);
}

/* Out of fds. The one who is waiting is turned away with the reserve, then nobody for a while:
 * what is lent goes on, and level-triggered accepting would spin. */
static void pause_accepting(struct bus_server *s)
{
	int fd;

	log_warn("bus: out of file descriptors; new connections wait");
	s->reserve_fd = safe_close(s->reserve_fd);
	fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	safe_close(fd);
	s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (sd_event_add_time_relative(
		    s->broker->event, &s->resume, CLOCK_MONOTONIC, PAUSE, 0, on_resume, s) >= 0) {
		sd_event_source_set_enabled(s->listen_source, SD_EVENT_OFF);
	}
}

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
	struct bus_server *s = userdata;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		connection_create(s, fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		pause_accepting(s);
	}
	return 0;
}

/* admin_gid -1: of nobody but the broker's user. */
static int listen_on(const char *path, gid_t admin_gid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	unlink(path);
	/* Nobody but us gets in before its group and mode are right: bind makes it 0755 & ~umask,
	 * and connecting takes write permission. */
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		return -errno;
	}
	if (admin_gid != (gid_t)-1 && geteuid() == 0 && chown(path, 0, admin_gid) < 0) {
		return -errno;
	}
	if (chmod(path, 0660) < 0 || listen(fd, SOMAXCONN) < 0) {
		return -errno;
	}
	return steal_fd(&fd);
}

int bus_listen(struct broker *b, struct bus_server **out)
{
	struct bus_server *s = calloc(1, sizeof(*s));
	const struct group *g;
	char path[512];
	int r;

	if (!s) {
		return -ENOMEM;
	}
	s->broker = b;
	s->listen_fd = s->reserve_fd = -1;
	list_init(&s->connections);
	uid_accounts_init(&s->accounts);
	snprintf(path, sizeof(path), "%s/bus", b->run_dir);
	/* Once: a group database on a network must not stop the loop at an accept. */
	g = getgrnam(ADMIN_GROUP);
	s->admin_gid = g ? g->gr_gid : (gid_t)-1;
	r = listen_on(path, s->admin_gid);
	if (r >= 0) {
		s->listen_fd = r;
		s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		r = sd_event_add_io(
			b->event, &s->listen_source, s->listen_fd, EPOLLIN, on_accept, s);
	}
	if (r < 0) {
		bus_server_destroy(s);
		return r;
	}
	*out = s;
	return 0;
}

int bus_serve_system(struct bus_server *s, const char *address)
{
	return bus_system_create(s, address, &s->system);
}

void bus_server_destroy(struct bus_server *s)
{
	struct bus_connection *c, *next;
	char path[512];

	if (!s) {
		return;
	}
	/* Not flushed: what a client that reads is told is in its socket already, and for one that
	 * does not read, or has not authenticated, sd_bus_flush would wait without end. */
	bus_system_destroy(s->system);
	list_for_each_safe (c, next, &s->connections, link) {
		connection_destroy(c);
	}
	uid_accounts_finish(&s->accounts);
	if (s->listen_fd >= 0) {
		snprintf(path, sizeof(path), "%s/bus", s->broker->run_dir);
		unlink(path);
	}
	sd_event_source_disable_unref(s->listen_source);
	sd_event_source_disable_unref(s->resume);
	safe_close(s->listen_fd);
	safe_close(s->reserve_fd);
	free(s);
}
