/* SPDX-License-Identifier: MIT
 *
 * watch: what is there, then every change as it comes.
 *
 * Signals are matched before the objects are read, and those that the answer has overtaken are
 * dropped by their serial number: a reader has seen every object once and misses no change.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "broker/cli/cli.h"

struct watch {
	struct cli *c;
	uint64_t serial; /* of the answer that known began with; UINT64_MAX: not there yet */
	json_t *known;   /* path → everything that was last heard of it */
};

/* Local time with milliseconds; with the offset from UTC for programs. */
static void stamp(bool offset, char *out, size_t size)
{
	char day[32], zone[8] = "";
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	if (offset) {
		/* RFC 3339 wants a colon in it. */
		strftime(zone, sizeof(zone), "%z", &tm);
		memmove(zone + 4, zone + 3, 3);
		zone[3] = ':';
	}
	snprintf(out, size, "%s.%03ld%s", day, ts.tv_nsec / 1000000, zone);
}

/* One line. changed (borrowed) holds what changed, whole all that is known of the object. */
static void print_event(const struct watch *w, const char *kind, const char *name,
	const char *event, const json_t *changed, const json_t *whole)
{
	const char *vm = cli_text(whole, "vm"), *reason = cli_text(whole, "reason");
	const char *detail = cli_text(whole, "detail"), *state = cli_text(whole, "state");
	char when[64];

	stamp(w->c->o.json, when, sizeof(when));
	if (w->c->o.json) {
		json_t *doc = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "schema",
			"devbroker.watch/1", "time", when, "kind", kind, "name", name, "event",
			event, "values", (json_t *)changed);

		json_dumpf(doc, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(doc);
	} else {
		char place[80];

		snprintf(place, sizeof(place), "%s%s", vm[0] ? "vm " : "", vm);
		text_line(stdout, w->c->colour_out ? cli_state_style(state) : TEXT_PLAIN,
			"%s  %-6s %-16s %-8s %-10s %s%s%s%s%s%s", when, kind, name, event, state,
			place, place[0] && (detail[0] || reason[0]) ? ": " : "", detail,
			reason[0] ? " [" : "", reason, reason[0] ? "]" : "");
	}
	fflush(stdout);
}

/* The object that a path stands for: its kind, and its name (to be freed). NULL: another thing. */
static const char *thing_of(const char *path, char **name_out)
{
	if (sd_bus_path_decode(path, CLI_PATH_DEVICE, name_out) > 0) {
		return "device";
	}
	return sd_bus_path_decode(path, CLI_PATH_VM, name_out) > 0 ? "vm" : NULL;
}

static const char *interface_of(const char *kind)
{
	return strcmp(kind, "vm") == 0 ? CLI_IFACE_VM : CLI_IFACE_DEVICE;
}

static bool is_old(const struct watch *w, sd_bus_message *m)
{
	uint64_t serial;

	return sd_bus_message_get_cookie(m, &serial) < 0 || serial < w->serial;
}

/* A signal names all that may have changed. For people that is a change only if they see one. */
static bool is_news(const struct watch *w, const json_t *before, const json_t *after)
{
	static const char *const seen[] = {"state", "vm", "reason", "detail"};

	if (w->c->o.json) {
		return !json_equal(before, after);
	}
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
		if (strcmp(cli_text(before, seen[i]), cli_text(after, seen[i])) != 0) {
			return true;
		}
	}
	return false;
}

/* Something was heard: remembers values (given up) as path's, and prints it. */
static void heard(struct watch *w, const char *path, const char *event, json_t *values)
{
	_cleanup_free_ char *name = NULL;
	const char *kind = thing_of(path, &name);
	json_t *whole = json_object_get(w->known, path), *before;

	if (!kind || !values) {
		json_decref(values);
		return;
	}
	if (!whole) {
		whole = json_object();
		json_object_set_new(w->known, path, whole);
	}
	before = json_copy(whole);
	json_object_update(whole, values);
	if (is_news(w, before, whole)) {
		print_event(w, kind, name, event, values, whole);
	}
	json_decref(before);
	json_decref(values);
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct watch *w = userdata;
	const char *path = sd_bus_message_get_path(m), *kind, *interface;
	_cleanup_free_ char *name = NULL;
	json_t *values;

	kind = thing_of(path, &name);
	if (kind && !is_old(w, m) && sd_bus_message_read(m, "s", &interface) >= 0 &&
		strcmp(interface, interface_of(kind)) == 0 &&
		cli_changed(m, interface, &values) >= 0) {
		heard(w, path, "changed", values);
	}
	return 0;
}

static int on_added(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct watch *w = userdata;
	_cleanup_free_ char *name = NULL;
	const char *path, *kind;
	json_t *values;

	if (is_old(w, m) || sd_bus_message_read(m, "o", &path) < 0) {
		return 0;
	}
	kind = thing_of(path, &name);
	if (kind && cli_added(m, interface_of(kind), &values) >= 0) {
		heard(w, path, "added", values);
	}
	return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct watch *w = userdata;
	_cleanup_free_ char *name = NULL;
	const char *path, *kind;
	json_t *nothing = json_object();

	if (!is_old(w, m) && sd_bus_message_read(m, "o", &path) >= 0) {
		kind = thing_of(path, &name);
		if (kind) {
			json_object_del(w->known, path);
			print_event(w, kind, name, "removed", nothing, NULL);
		}
	}
	json_decref(nothing);
	return 0;
}

static int on_refused(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *device, *vm, *code, *sentence, *remedy;
	json_t *values;

	if (sd_bus_message_read(m, "sssss", &device, &vm, &code, &sentence, &remedy) >= 0) {
		values = json_pack("{s:s, s:s, s:s, s:s}", "vm", vm, "reason", code, "detail",
			sentence, "remedy", remedy);
		print_event(userdata, "device", device, "refused", values, values);
		json_decref(values);
	}
	return 0;
}

/* What is there when the watching begins. 0 or the exit code. */
static int print_known(struct watch *w)
{
	json_t *lists[2], *object;
	const char *const prefixes[] = {CLI_PATH_VM, CLI_PATH_DEVICE};
	size_t i;
	int r = cli_objects(w->c, &lists[1], &lists[0], &w->serial);

	if (r != 0) {
		return r;
	}
	for (size_t kind = 0; kind < ARRAY_SIZE(lists); kind++) {
		json_array_foreach(lists[kind], i, object)
		{
			_cleanup_free_ char *path = NULL;

			if (sd_bus_path_encode(prefixes[kind], cli_text(object, "name"), &path) >=
				0) {
				heard(w, path, "known", json_incref(object));
			}
		}
		json_decref(lists[kind]);
	}
	return 0;
}

static int on_offered(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	_cleanup_free_ char **vms = NULL;
	json_t *values, *list = json_array();
	const char *device;
	char text[256] = "A rule offers it to";

	if (sd_bus_message_read(m, "s", &device) >= 0 && sd_bus_message_read_strv(m, &vms) >= 0) {
		for (char **vm = vms; vm && *vm; vm++) {
			size_t at = strlen(text);

			snprintf(text + at, sizeof(text) - at, " %s", *vm);
			json_array_append_new(list, json_string(*vm));
			free(*vm);
		}
		values = json_pack("{s:O, s:s}", "offered_to", list, "detail", text);
		print_event(userdata, "device", device, "offered", values, values);
		json_decref(values);
	}
	json_decref(list);
	return 0;
}

static int match(struct watch *w)
{
	sd_bus *bus = w->c->bus;
	const char *to = w->c->destination;
	int r = sd_bus_match_signal(
		bus, NULL, to, NULL, CLI_IFACE_PROPERTIES, "PropertiesChanged", on_changed, w);

	if (r >= 0) {
		r = sd_bus_match_signal(
			bus, NULL, to, NULL, CLI_IFACE_MANAGER, "InterfacesAdded", on_added, w);
	}
	if (r >= 0) {
		r = sd_bus_match_signal(
			bus, NULL, to, NULL, CLI_IFACE_MANAGER, "InterfacesRemoved", on_removed, w);
	}
	if (r >= 0) {
		r = sd_bus_match_signal(
			bus, NULL, to, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Refused", on_refused, w);
	}
	if (r >= 0) {
		r = sd_bus_match_signal(
			bus, NULL, to, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Offered", on_offered, w);
	}
	return r;
}

int cmd_watch(struct cli *c)
{
	struct watch w = {.c = c, .serial = UINT64_MAX, .known = json_object()};
	int r = match(&w), exit_code = 0;

	if (r >= 0) {
		exit_code = print_known(&w);
	}
	while (r >= 0 && exit_code == 0) {
		r = sd_bus_process(c->bus, NULL);
		if (r == 0) {
			r = sd_bus_wait(c->bus, UINT64_MAX);
			r = r == -EINTR ? 0 : r;
		}
		/* Nobody reads it any more, or there is no room. */
		if (ferror(stdout)) {
			exit_code = CLI_EXIT_FAILED;
		}
	}
	json_decref(w.known);
	return r < 0 ? cli_fail_call(c, r, NULL) : exit_code;
}
