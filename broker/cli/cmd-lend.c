/* SPDX-License-Identifier: MIT
 *
 * Commands that lend and take back: attach, detach.
 *
 * Both are one call that decides; the rest is waiting for what the broker says. Nothing is polled:
 * signals are matched before the call, and then the device is read once. A signal that was sent
 * before that answer is older than it and counts no more; the serial numbers of the connection tell
 * which one that is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "broker/cli/cli.h"

#define USEC_PER_SEC UINT64_C(1000000)
#define WAIT_SECONDS "30"
/* A flush may take a minute. */
#define DETACH_SECONDS "90"

/* One device that is waited for. */
struct wait {
	struct cli *c;
	const char *path;
	bool attach;
	uint64_t started;
	uint64_t serial; /* of the answer that device began with */
	json_t *device;  /* as last heard */
	char shown[512]; /* the last line of progress, without its time */
	bool done;
	int exit_code;
};

/* A line for each step, on a terminal. */
static void show_progress(struct wait *w)
{
	const char *state = cli_text(w->device, "state");
	char line[sizeof(w->shown)];

	if (w->c->o.json || !isatty(STDERR_FILENO)) {
		return;
	}
	snprintf(line, sizeof(line), "%-11s %s", state, cli_text(w->device, "detail"));
	if (strcmp(line, w->shown) == 0) {
		return;
	}
	memcpy(w->shown, line, sizeof(line));
	text_line(stderr, w->c->colour_err ? cli_state_style(state) : TEXT_PLAIN, "%8.3f s  %s",
		(double)(now_usec() - w->started) / USEC_PER_SEC, line);
}

static void judge(struct wait *w)
{
	const char *state = cli_text(w->device, "state");

	show_progress(w);
	if (w->attach && strcmp(state, "present") == 0) {
		w->done = true;
		w->exit_code = cli_fail_lease(w->c, w->device);
	} else if (w->attach) {
		w->done = strcmp(state, "configured") == 0;
	} else {
		/* "decided": somebody attached it again meanwhile, so it was released. */
		w->done = strcmp(state, "present") == 0 || strcmp(state, "decided") == 0;
	}
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct wait *w = userdata;
	const char *interface;
	uint64_t serial;
	json_t *changed;

	if (w->done || !w->device || strcmp(sd_bus_message_get_path(m), w->path) != 0 ||
		sd_bus_message_get_cookie(m, &serial) < 0 || serial < w->serial ||
		sd_bus_message_read(m, "s", &interface) < 0 ||
		strcmp(interface, CLI_IFACE_DEVICE) != 0 ||
		cli_changed(m, interface, &changed) < 0) {
		return 0;
	}
	json_object_update(w->device, changed);
	json_decref(changed);
	judge(w);
	return 0;
}

static int fail_timeout(const struct wait *w)
{
	const char *detail = cli_text(w->device, "detail");

	return cli_fail(w->c, refusal_exit_code(REFUSAL_TIMEOUT), "timeout",
		w->attach ? "It goes on in the background. See how far it is: devbroker list; or "
			    "call it off: devbroker detach DEVICE"
			  : "It goes on in the background; see how far it is: devbroker list",
		"%s is only %s so far%s%s", cli_text(w->device, "name"),
		cli_text(w->device, "state"), detail[0] ? ": " : "", detail);
}

/* Until it is done or the time is over. Returns the exit code. */
static int wait_for(struct wait *w, uint64_t deadline)
{
	while (!w->done) {
		int r = sd_bus_process(w->c->bus, NULL);
		uint64_t now = now_usec();

		if (r == 0 && now >= deadline) {
			return fail_timeout(w);
		}
		if (r == 0) {
			r = sd_bus_wait(w->c->bus, deadline - now);
		}
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

int cli_append_lend(const struct cli *c, sd_bus_message *m)
{
	static const char *const flags[] = {"keep", "keep-drivers-off", "last-input", "remember",
		"read-only", "allow-firmware"};
	const char *interfaces = cli_value(c, "interfaces");
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && r >= 0; i++) {
		if (cli_value(c, flags[i])) {
			r = sd_bus_message_append(m, "{sv}", flags[i], "b", 1);
		}
	}
	if (r >= 0 && interfaces) {
		r = sd_bus_message_append(m, "{sv}", "interfaces", "s", interfaces);
	}
	return r;
}

static int append_options(const struct cli *c, sd_bus_message *m)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0) {
		r = cli_append_lend(c, m);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int call_attach(const struct cli *c, sd_bus_error *error, sd_bus_message **reply_out)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
	int r = sd_bus_message_new_method_call(
		c->bus, &m, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Attach");

	if (r >= 0) {
		r = sd_bus_message_append(m, "ss", c->o.args[0], c->o.args[1]);
	}
	if (r >= 0) {
		r = append_options(c, m);
	}
	return r < 0 ? r : sd_bus_call(c->bus, m, 0, error, reply_out);
}

/* Calls Attach or Detach. 0 with the object's path (borrowed from reply), or the exit code. */
static int call(struct wait *w, sd_bus_message **reply_out)
{
	const struct cli *c = w->c;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	if (w->attach) {
		r = call_attach(c, &error, reply_out);
	} else {
		r = sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
			"Detach", &error, reply_out, "sa{sv}", c->o.args[0], 0);
	}
	if (r >= 0) {
		r = sd_bus_message_read(*reply_out, "o", &w->path);
	}
	r = r < 0 ? cli_fail_call(w->c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

static int lend(struct wait *w, bool wait, uint64_t timeout)
{
	sd_bus_message *reply = NULL;
	int r = sd_bus_match_signal(w->c->bus, NULL, w->c->destination, NULL, CLI_IFACE_PROPERTIES,
		"PropertiesChanged", on_changed, w);

	r = r < 0 ? cli_fail_call(w->c, r, NULL) : call(w, &reply);
	if (r == 0) {
		r = cli_properties(w->c, w->path, CLI_IFACE_DEVICE, &w->device, &w->serial);
	}
	if (r == 0) {
		judge(w);
		w->done |= !wait;
		r = wait_for(w, w->started + timeout);
	}
	sd_bus_message_unref(reply);
	return r;
}

static int print_lent(const struct wait *w)
{
	const char *name = cli_text(w->device, "name"), *state = cli_text(w->device, "state");
	const char *detail = cli_text(w->device, "detail");

	if (w->c->o.json) {
		return cli_print_json(json_pack("{s:O}", "device", w->device),
			w->attach ? "devbroker.attach/1" : "devbroker.detach/1");
	}
	if (!w->attach) {
		text_line(stdout, TEXT_PLAIN, "%s is %s", name,
			strcmp(state, "present") == 0 ? "released" : state);
	} else if (strcmp(state, "configured") == 0) {
		text_line(stdout, TEXT_PLAIN, "%s is in vm %s (%.3f s)", name,
			cli_text(w->device, "vm"),
			(double)(now_usec() - w->started) / USEC_PER_SEC);
	} else {
		text_line(stdout, TEXT_PLAIN, "%s goes to vm %s. %s%s%s", name,
			cli_text(w->device, "vm"), detail[0] ? detail : "It is ",
			detail[0] ? "" : state, detail[0] ? "" : " now.");
	}
	return 0;
}

/* No device's name has a slash in it: that is an image or a URI, which is made known first. */
static int add_first(struct cli *c, json_t **device_out)
{
	_cleanup_free_ char *object = NULL;
	int r = cli_add_disk(c, &object);

	if (r == 0) {
		r = cli_properties(c, object, CLI_IFACE_DEVICE, device_out, NULL);
	}
	if (r == 0) {
		c->o.args[0] = cli_text(*device_out, "name");
	}
	return r;
}

int cmd_attach(struct cli *c)
{
	struct wait w = {.c = c, .attach = true, .started = now_usec()};
	uint64_t timeout = 0;
	json_t *added = NULL;
	int r = parse_timeout(c, WAIT_SECONDS, &timeout);

	if (r == 0 && strchr(c->o.args[0], '/')) {
		r = add_first(c, &added);
	} else if (r == 0 && (cli_value(c, "cdrom") || cli_value(c, "allow-remote"))) {
		r = cli_fail(c, CLI_EXIT_USAGE, "usage",
			"Give an image's path (with a slash in it) or a URI.",
			"--cdrom and --allow-remote are about an image, not about %s",
			c->o.args[0]);
	}
	if (r == 0) {
		/* Who says how long to wait wants to wait. */
		r = lend(&w, cli_value(c, "wait") || cli_value(c, "timeout"), timeout);
	}
	if (r == 0) {
		r = print_lent(&w);
	}
	json_decref(w.device);
	json_decref(added);
	return r;
}

int cmd_detach(struct cli *c)
{
	struct wait w = {.c = c, .started = now_usec()};
	uint64_t timeout = 0;
	int r = parse_timeout(c, DETACH_SECONDS, &timeout);

	if (r == 0) {
		r = lend(&w, !cli_value(c, "no-wait"), timeout);
	}
	if (r == 0) {
		r = print_lent(&w);
	}
	json_decref(w.device);
	return r;
}
