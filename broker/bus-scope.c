/* SPDX-License-Identifier: MIT
 *
 * Not below the unit's own cgroup: systemd could not start the broker again in a cgroup that has
 * children with controllers (cgroup v2 allows no processes there), and what is lent outlives it. A
 * scope is gone by itself when its process is.
 */
#include "broker/bus-scope.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/bus-system.h"

#define SYSTEMD_NAME  "org.freedesktop.systemd1"
#define SYSTEMD_PATH  "/org/freedesktop/systemd1"
#define SYSTEMD_IFACE "org.freedesktop.systemd1.Manager"
#define SLICE         "devbroker.slice"

static void failed(struct broker *b, const char *reason)
{
	struct scope_counts *c = &b->scopes;

	c->failed++;
	if (strcmp(c->reason, reason) == 0) {
		return;
	}
	snprintf(c->reason, sizeof(c->reason), "%s", reason);
	log_warn("no cgroup for a GPU's process: %s; rlimits and its own accounting limit it",
		reason);
}

static int on_placed(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct broker *b = userdata;
	const sd_bus_error *e = sd_bus_message_get_error(reply);
	char shown[96];

	if (!e) {
		b->scopes.placed++;
		b->scopes.reason[0] = '\0';
		return 0;
	}
	/* It had ended before it was there: nothing is left to be limited. */
	if (!sd_bus_error_has_name(e, "org.freedesktop.systemd1.UnixProcessIdUnknown") &&
		!sd_bus_error_has_name(e, "org.freedesktop.systemd1.NoSuchProcess")) {
		log_escape(e->name, strlen(e->name), shown, sizeof(shown));
		failed(b, shown);
	}
	return 0;
}

static int append_limits(sd_bus_message *m, const struct scope_limits *l)
{
	int r = sd_bus_message_append(m, "(sv)(sv)(sv)", "MemoryAccounting", "b", 1, "MemoryMax",
		"t", l->memory, "MemorySwapMax", "t", UINT64_C(0));

	return r < 0 ? r
		     : sd_bus_message_append(m, "(sv)(sv)", "TasksMax", "t", l->tasks, "CPUWeight",
			       "t", l->cpu_weight);
}

static int call(
	struct broker *b, sd_bus *bus, const char *unit, pid_t pid, const struct scope_limits *l)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	int r = sd_bus_message_new_method_call(
		bus, &m, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_IFACE, "StartTransientUnit");

	if (r >= 0) {
		r = sd_bus_message_append(m, "ss", unit, "fail");
	}
	if (r >= 0) {
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	}
	if (r >= 0) {
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s",
			"A process of devbroker", "Slice", "s", SLICE, "CollectMode", "s",
			"inactive-or-failed", "PIDs", "au", 1, (uint32_t)pid);
	}
	if (r >= 0) {
		r = append_limits(m, l);
	}
	if (r >= 0) {
		r = sd_bus_message_close_container(m);
	}
	if (r >= 0) {
		r = sd_bus_message_append(m, "a(sa(sv))", 0);
	}
	/* The slot floats: the connection has it, and ends it with itself. */
	return r < 0 ? r : sd_bus_call_async(bus, NULL, m, on_placed, b, 0);
}

void bus_scope_place(struct broker *b, const char *kind, const char *name, pid_t pid,
	const struct scope_limits *limits)
{
	sd_bus *bus = b->bus ? bus_system_connection(b->bus) : NULL;
	char unit[160];
	int r;

	if (!bus) {
		failed(b, "there is no system bus");
		return;
	}
	snprintf(unit, sizeof(unit), "devbroker-%s-%s-%d.scope", kind, name, (int)pid);
	r = call(b, bus, unit, pid, limits);
	if (r < 0) {
		failed(b, strerror(-r));
	}
}
