/* SPDX-License-Identifier: MIT
 *
 * The control API on the system bus, which is the door for ordinary users: the private socket is
 * for administrators. One connection carries all callers, so who asks is looked up for each
 * message (bus-peer), and what it says by itself is said to everybody (bus-permit). A host without
 * a message bus is a normal host; one that comes late or is restarted is tried again, less and
 * less often.
 */
#include "broker/bus-system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-polkit.h"

#define NAME          "org.devbroker.Broker1"
#define FIRST_DELAY   (250 * UINT64_C(1000))
#define LONGEST_DELAY (30 * UINT64_C(1000000))

/* Names that are never used again: who talked under them is gone. */
#define GONE_MATCH                                                                      \
	"type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus'," \
	"member='NameOwnerChanged',arg2=''"

static int connect_bus(struct bus_system *s);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct bus_system *s = userdata;

	s->retry = sd_event_source_disable_unref(s->retry);
	_unused_ int r = connect_bus(s);
	return 0;
}

static void retry_later(struct bus_system *s)
{
	sd_event *event = s->server->broker->event;

	if (s->retry || s->server->broker->stopping) {
		return;
	}
	if (sd_event_add_time_relative(
		    event, &s->retry, CLOCK_MONOTONIC, s->delay, 0, on_retry, s) < 0) {
		log_error("system bus: out of memory for a timer");
	}
	s->delay = s->delay * 2 < LONGEST_DELAY ? s->delay * 2 : LONGEST_DELAY;
}

static void disconnect(struct bus_system *s)
{
	s->losing = sd_event_source_disable_unref(s->losing);
	if (!s->c.bus) {
		return;
	}
	bus_peers_clear(s);
	list_remove(&s->c.link);
	sd_bus_detach_event(s->c.bus);
	s->c.bus = sd_bus_close_unref(s->c.bus);
	s->c.caller = (struct bus_caller){0};
	s->named = false;
}

static int on_losing(sd_event_source *source, void *userdata)
{
	struct bus_system *s = userdata;

	disconnect(s);
	retry_later(s);
	return 0;
}

/* From the loop: one of its handlers may be running. */
void bus_system_lost(struct bus_system *s)
{
	if (s->losing) {
		return;
	}
	if (s->named) {
		log_warn("system bus: the connection is lost; it is tried again");
	}
	if (sd_event_add_defer(s->server->broker->event, &s->losing, on_losing, s) < 0) {
		log_error("system bus: out of memory");
	}
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	bus_system_lost(userdata);
	return 0;
}

static int on_gone(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *name;

	if (sd_bus_message_read(m, "s", &name) >= 0 && name[0] == ':') {
		bus_peer_gone(userdata, name);
	}
	return 0;
}

static int on_name(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_system *s = userdata;
	const sd_bus_error *e = sd_bus_message_get_error(m);
	uint32_t answer = 0;

	/* 1: it is ours. Anything else: another one has it. */
	if (!e && sd_bus_message_read(m, "u", &answer) >= 0 && answer == 1) {
		s->named = true;
		s->told = false;
		s->delay = FIRST_DELAY;
		log_info("system bus: serving as " NAME);
		return 0;
	}
	if (!s->told) {
		s->told = true;
		log_warn("system bus: can't be " NAME ": %s; it is tried again. See that "
			 "org.devbroker.Broker1.conf is in dbus-1/system.d, and that no other "
			 "devbrokerd runs",
			e ? e->name : "the name is taken");
	}
	s->delay = LONGEST_DELAY;
	bus_system_lost(s);
	return 0;
}

static int on_connected(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_system *s = userdata;

	/* 4: not in a queue behind another one. */
	if (sd_bus_add_match_async(s->c.bus, NULL, GONE_MATCH, on_gone, NULL, s) < 0 ||
		sd_bus_call_method_async(s->c.bus, NULL, "org.freedesktop.DBus",
			"/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", on_name, s,
			"su", NAME, UINT32_C(4)) < 0) {
		bus_system_lost(s);
	}
	return 0;
}

/* Before any handler: who asks, and whether it may. */
static int on_incoming(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_system *s = userdata;
	struct bus_peer *peer;
	int r;

	if (sd_bus_message_is_method_call(m, NULL, NULL) <= 0) {
		return 0;
	}
	if (s->losing) {
		return 1;
	}
	r = bus_peer_of(s, m, &peer, error);
	if (r != 0) {
		return r;
	}
	s->c.caller = peer->caller;
	if (peer->n_questions > 0 && bus_polkit_allowed(s, m)) {
		/* It was charged when it came first. */
		s->c.caller.by_polkit = true;
		return bus_permit_call(&s->c, m, error);
	}
	return bus_admit(&s->c, m, error);
}

static int connect_bus(struct bus_system *s)
{
	sd_event *event = s->server->broker->event;
	int r = sd_bus_new(&s->c.bus);

	if (r < 0) {
		retry_later(s);
		return r;
	}
	list_append(&s->server->connections, &s->c.link);
	r = sd_bus_set_address(s->c.bus, s->address);
	if (r >= 0) {
		r = sd_bus_set_bus_client(s->c.bus, true);
	}
	if (r >= 0) {
		r = sd_bus_negotiate_fds(s->c.bus, true);
	}
	if (r >= 0) {
		r = sd_bus_set_connected_signal(s->c.bus, true);
	}
	if (r >= 0) {
		r = bus_export(&s->c, &s->vtables);
	}
	if (r >= 0) {
		r = sd_bus_add_filter(s->c.bus, NULL, on_incoming, s);
	}
	if (r >= 0) {
		r = sd_bus_match_signal_async(s->c.bus, NULL, NULL, "/org/freedesktop/DBus/Local",
			"org.freedesktop.DBus.Local", "Connected", on_connected, NULL, s);
	}
	if (r >= 0) {
		r = sd_bus_match_signal_async(s->c.bus, NULL, NULL, "/org/freedesktop/DBus/Local",
			"org.freedesktop.DBus.Local", "Disconnected", on_disconnected, NULL, s);
	}
	if (r >= 0) {
		r = sd_bus_start(s->c.bus);
	}
	if (r >= 0) {
		/* The end of the loop would flush it, however long the bus doesn't read. */
		r = sd_bus_set_close_on_exit(s->c.bus, false);
	}
	if (r >= 0) {
		r = sd_bus_attach_event(s->c.bus, event, SD_EVENT_PRIORITY_NORMAL);
	}
	if (r < 0) {
		log_debug("system bus: not there: %s", strerror(-r));
		disconnect(s);
		retry_later(s);
	}
	return r;
}

sd_bus *bus_system_connection(const struct bus_server *s)
{
	return s->system && s->system->named && !s->system->losing ? s->system->c.bus : NULL;
}

int bus_system_create(struct bus_server *server, const char *address, struct bus_system **out)
{
	struct bus_system *s = calloc(1, sizeof(*s));

	if (!s) {
		return -ENOMEM;
	}
	s->server = s->c.server = server;
	s->c.system = s;
	s->delay = FIRST_DELAY;
	list_init(&s->c.link);
	list_init(&s->questions);
	for (size_t i = 0; i < PEER_BUCKETS; i++) {
		list_init(&s->peers[i]);
	}
	s->address = strdup(address);
	s->vtables.device = s->device_vtable = bus_vtable_discreet(bus_device_vtable);
	s->vtables.vm = s->vm_vtable = bus_vtable_discreet(bus_vm_vtable);
	s->vtables.gpu = s->gpu_vtable = bus_vtable_discreet(bus_gpu_vtable);
	if (!s->address || !s->device_vtable || !s->vm_vtable || !s->gpu_vtable) {
		bus_system_destroy(s);
		return -ENOMEM;
	}
	_unused_ int r = connect_bus(s);
	*out = s;
	return 0;
}

void bus_system_destroy(struct bus_system *s)
{
	if (!s) {
		return;
	}
	disconnect(s);
	sd_event_source_disable_unref(s->retry);
	free(s->address);
	free(s->device_vtable);
	free(s->vm_vtable);
	free(s->gpu_vtable);
	free(s);
}
