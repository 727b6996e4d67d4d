/* SPDX-License-Identifier: MIT
 * Commands that lend and take back, and that watch: attach, detach, watch.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "broker/cli/cli.h"
#include "broker/cli/table.h"

#define IFACE_DEVICE     "org.devbroker.Device1"
#define IFACE_VM         "org.devbroker.VM1"
#define IFACE_PROPERTIES "org.freedesktop.DBus.Properties"
#define IFACE_MANAGER    "org.freedesktop.DBus.ObjectManager"
#define PREFIX_DEVICE    "/org/devbroker/device"
#define PREFIX_VM        "/org/devbroker/vm"
#define USEC_PER_SEC     UINT64_C(1000000)
#define WAIT_SECONDS     "30"
/* A flush may take this long. */
#define DETACH_SECONDS "90"

static uint64_t now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

/* One device that is waited for. */
struct wait {
	struct cli *c;
	const char *path;
	const char *until; /* state that ends the wait well */
	bool attach;
	uint64_t started;
	json_t *device; /* as last heard */
	bool done;
	int exit_code;
};

static const char *field(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static void show_progress(const struct wait *w)
{
	_cleanup_free_ char *detail = NULL;

	if (w->c->json || !isatty(STDERR_FILENO)) {
		return;
	}
	detail = text_harmless(field(w->device, "detail"));
	fprintf(stderr, "%8.3f s  %-11s %s\n", (double)(now_usec() - w->started) / USEC_PER_SEC,
		field(w->device, "state"), detail ? detail : "");
}

static void judge(struct wait *w)
{
	const char *state = field(w->device, "state");

	if (strcmp(state, w->until) == 0) {
		w->done = true;
	} else if (w->attach && strcmp(state, "present") == 0) {
		w->done = true;
		w->exit_code = cli_fail_lease(w->c, w->device);
	} else if (!w->attach && strcmp(state, "decided") == 0) {
		/* Somebody attached it again meanwhile: it was released. */
		w->done = true;
	}
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct wait *w = userdata;
	const char *interface;
	json_t *changed;

	if (!w->path || strcmp(sd_bus_message_get_path(m), w->path) != 0 ||
		sd_bus_message_read(m, "s", &interface) < 0 ||
		strcmp(interface, IFACE_DEVICE) != 0 || cli_changed(m, interface, &changed) < 0) {
		return 0;
	}
	json_object_update(w->device, changed);
	json_decref(changed);
	if (!w->done) {
		show_progress(w);
		judge(w);
	}
	return 0;
}

/* Until it is done or the time is over. Returns the exit code. */
static int wait_for(struct wait *w, uint64_t deadline)
{
	while (!w->done) {
		uint64_t now = now_usec();
		int r = sd_bus_process(w->c->bus, NULL);

		if (r < 0) {
			return cli_fail_call(w->c, r, NULL);
		}
		if (r > 0) {
			continue;
		}
		if (now >= deadline) {
			return cli_fail(w->c, refusal_exit_code(REFUSAL_TIMEOUT), "timeout",
				"It goes on in the background; see how far it is with: devbroker "
				"list",
				"%s is only %s so far%s%s", field(w->device, "name"),
				field(w->device, "state"),
				field(w->device, "detail")[0] ? ": " : "",
				field(w->device, "detail"));
		}
		r = sd_bus_wait(w->c->bus, deadline - now);
		if (r < 0 && r != -EINTR) {
			return cli_fail_call(w->c, r, NULL);
		}
	}
	return w->exit_code;
}

static int parse_timeout(const struct cli *c, const char *fallback, uint64_t *out)
{
	const char *text = cli_value(c, "timeout");
	uint64_t seconds;

	if (parse_u64(text ? text : fallback, 1, 86400, &seconds) < 0) {
		return cli_fail(
			c, CLI_EXIT_USAGE, "usage", "", "--timeout takes seconds, 1 to 86400");
	}
	*out = seconds * USEC_PER_SEC;
	return 0;
}

/* Calls Attach or Detach, then waits if wait. */
static int lend(struct cli *c, struct wait *w, bool wait, uint64_t timeout)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	int r;

	/* Before the call, so that no change is missed. */
	r = sd_bus_match_signal(
		c->bus, NULL, NULL, NULL, IFACE_PROPERTIES, "PropertiesChanged", on_changed, w);
	if (r >= 0 && w->attach) {
		r = sd_bus_call_method(c->bus, NULL, "/org/devbroker", "org.devbroker.Broker1",
			"Attach", &error, &reply, "ssa{sv}", c->args[0], c->args[1], 0);
	} else if (r >= 0) {
		r = sd_bus_call_method(c->bus, NULL, "/org/devbroker", "org.devbroker.Broker1",
			"Detach", &error, &reply, "sa{sv}", c->args[0], 0);
	}
	if (r >= 0) {
		r = sd_bus_message_read(reply, "o", &w->path);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r == 0) {
		r = cli_device(c, w->path, &w->device);
	}
	if (r == 0) {
		show_progress(w);
		judge(w);
		if (!wait && !w->done) {
			w->done = true;
		}
		r = wait_for(w, w->started + timeout);
	}
	sd_bus_message_unref(reply);
	return r;
}

static int print_lent(struct cli *c, const struct wait *w, const char *schema)
{
	const char *state = field(w->device, "state");

	if (c->json) {
		return cli_print_json(json_pack("{s:O}", "device", w->device), schema);
	}
	if (w->attach && strcmp(state, "configured") == 0) {
		printf("%s is in vm %s (%.3f s)\n", field(w->device, "name"),
			field(w->device, "vm"), (double)(now_usec() - w->started) / USEC_PER_SEC);
	} else if (w->attach) {
		printf("%s goes to vm %s: %s%s%s\n", field(w->device, "name"),
			field(w->device, "vm"), state, field(w->device, "detail")[0] ? ": " : "",
			field(w->device, "detail"));
	} else {
		printf("%s is %s\n", field(w->device, "name"), state);
	}
	return 0;
}

int cmd_attach(struct cli *c)
{
	struct wait w = {.c = c, .until = "configured", .attach = true, .started = now_usec()};
	uint64_t timeout = 0;
	int r = parse_timeout(c, WAIT_SECONDS, &timeout);

	if (r == 0) {
		r = lend(c, &w, cli_value(c, "wait"), timeout);
	}
	if (r == 0) {
		r = print_lent(c, &w, "devbroker.attach/1");
	}
	json_decref(w.device);
	return r;
}

int cmd_detach(struct cli *c)
{
	struct wait w = {.c = c, .until = "present", .started = now_usec()};
	uint64_t timeout = 0;
	int r = parse_timeout(c, DETACH_SECONDS, &timeout);

	if (r == 0) {
		r = lend(c, &w, !cli_value(c, "no-wait"), timeout);
	}
	if (r == 0) {
		r = print_lent(c, &w, "devbroker.detach/1");
	}
	json_decref(w.device);
	return r;
}

static void stamp(char *out, size_t size)
{
	struct timespec ts;
	struct tm tm;
	char day[32];

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, size, "%s.%03ld", day, ts.tv_nsec / 1000000);
}

/* One change: a line of text, or of JSON. Drops change. */
static void print_change(
	struct cli *c, const char *kind, const char *name, const char *event, json_t *change)
{
	char when[64];

	stamp(when, sizeof(when));
	if (c->json) {
		json_t *doc = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "schema",
			"devbroker.watch/1", "time", when, "kind", kind, "name", name, "event",
			event, "values", change ? change : json_object());

		if (doc) {
			json_dumpf(doc, stdout, JSON_COMPACT);
			putchar('\n');
			json_decref(doc);
		}
	} else {
		_cleanup_free_ char *detail = text_harmless(field(change, "detail"));
		_cleanup_free_ char *shown = text_harmless(name);

		printf("%s  %-6s %-20s %-10s %-11s %s%s%s\n", when, kind, shown ? shown : "", event,
			field(change, "state"), field(change, "vm")[0] ? "vm " : "",
			field(change, "vm"), "");
		if (detail && detail[0]) {
			printf("%*s%s\n", 27, "", detail);
		}
		json_decref(change);
	}
	fflush(stdout);
}

/* "device" or "vm" with its name (to be freed), or NULL if the path is another thing's. */
static const char *thing_of(const char *path, char **name_out)
{
	if (sd_bus_path_decode(path, PREFIX_DEVICE, name_out) > 0) {
		return "device";
	}
	return sd_bus_path_decode(path, PREFIX_VM, name_out) > 0 ? "vm" : NULL;
}

static int on_any_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	_cleanup_free_ char *name = NULL;
	const char *kind = thing_of(sd_bus_message_get_path(m), &name), *interface;
	json_t *changed;

	if (kind && sd_bus_message_read(m, "s", &interface) >= 0 &&
		cli_changed(m, interface, &changed) >= 0) {
		print_change(userdata, kind, name, "changed", changed);
	}
	return 0;
}

static int on_object(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	_cleanup_free_ char *name = NULL;
	const char *path, *kind;

	if (sd_bus_message_read(m, "o", &path) >= 0) {
		kind = thing_of(path, &name);
		if (kind) {
			bool added = sd_bus_message_is_signal(m, NULL, "InterfacesAdded") > 0;

			print_change(userdata, kind, name, added ? "added" : "removed", NULL);
		}
	}
	return 0;
}

static int on_refused(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *device, *vm, *code, *sentence, *remedy;

	if (sd_bus_message_read(m, "sssss", &device, &vm, &code, &sentence, &remedy) >= 0) {
		print_change(userdata, "device", device, "refused",
			json_pack("{s:s, s:s, s:s, s:s}", "vm", vm, "reason", code, "detail",
				sentence, "remedy", remedy));
	}
	return 0;
}

int cmd_watch(struct cli *c)
{
	int r = sd_bus_match_signal(
		c->bus, NULL, NULL, NULL, IFACE_PROPERTIES, "PropertiesChanged", on_any_changed, c);

	if (r >= 0) {
		r = sd_bus_match_signal(
			c->bus, NULL, NULL, NULL, IFACE_MANAGER, NULL, on_object, c);
	}
	if (r >= 0) {
		r = sd_bus_match_signal(c->bus, NULL, NULL, "/org/devbroker",
			"org.devbroker.Broker1", "Refused", on_refused, c);
	}
	if (r >= 0 && !c->json && isatty(STDOUT_FILENO)) {
		printf("Watching devbrokerd; end with Ctrl-C.\n");
	}
	while (r >= 0) {
		r = sd_bus_process(c->bus, NULL);
		if (r == 0) {
			r = sd_bus_wait(c->bus, UINT64_MAX);
			r = r == -EINTR ? 0 : r;
		}
	}
	return cli_fail_call(c, r, NULL);
}
