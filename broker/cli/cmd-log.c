/* SPDX-License-Identifier: MIT
 *
 * log: what devbrokerd has written down, oldest first. The broker says only that there is more, and
 * is asked for it: each user is told what concerns its VMs.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "broker/cli/cli.h"

#define NOBODY       UINT32_MAX
#define USEC_PER_SEC UINT64_C(1000000)

struct reading {
	struct cli *c;
	uint64_t after;
	uint64_t since;
	json_t *records; // may be NULL: each is printed as it comes
	bool more;       /* the broker has said so */
};

/* "10m" ago, or a day, or a day and a time. 0 or -EINVAL. */
static int parse_since(const char *text, uint64_t *out)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	static const char *const formats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S",
		"%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
	size_t n = strlen(text);
	char digits[16];
	uint64_t ago;

	for (size_t i = 0; n > 1 && i < ARRAY_SIZE(units); i++) {
		if (text[n - 1] != units[i].unit) {
			continue;
		}
		snprintf(digits, sizeof(digits), "%.*s", (int)MIN(n - 1, 15u), text);
		if (n - 1 > 10 || parse_u64(digits, 0, UINT32_MAX, &ago) < 0) {
			return -EINVAL;
		}
		ago *= units[i].seconds * USEC_PER_SEC;
		*out = wall_usec() - MIN(ago, wall_usec());
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm tm = {.tm_isdst = -1};
		const char *end = strptime(text, formats[i], &tm);
		time_t t = end && !*end ? mktime(&tm) : -1;

		if (t >= 0) {
			*out = (uint64_t)t * USEC_PER_SEC;
			return 0;
		}
	}
	return -EINVAL;
}

static void user_name(uint32_t uid, char *out, size_t size)
{
	const struct passwd *user = uid == NOBODY ? NULL : getpwuid(uid);

	if (uid == NOBODY) {
		snprintf(out, size, "-");
	} else if (user) {
		snprintf(out, size, "%s", user->pw_name);
	} else {
		snprintf(out, size, "%u", uid);
	}
}

struct record {
	uint64_t seq, time;
	uint32_t uid;
	const char *action, *device, *vm, *rule, *reason, *text;
};

static void print_record(const struct cli *c, const struct record *r)
{
	char when[40], user[64];
	time_t seconds = (time_t)(r->time / USEC_PER_SEC);
	bool bad = strcmp(r->action, "refused") == 0 || strcmp(r->action, "quota") == 0;
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	user_name(r->uid, user, sizeof(user));
	text_line(stdout, c->colour_out && bad ? TEXT_BAD : TEXT_PLAIN,
		"%s  %-10s %-8s %s%s%s%s%s%s%s%s%s%s%s%s%s", when, user, r->action, r->device,
		r->device[0] ? " " : "", r->vm[0] ? "vm " : "", r->vm, r->vm[0] ? " " : "",
		r->rule[0] ? "rule " : "", r->rule, r->rule[0] ? " " : "", r->reason[0] ? "[" : "",
		r->reason, r->reason[0] ? "] " : "", r->text, "");
}

static json_t *record_json(const struct record *r)
{
	json_t *uid = r->uid == NOBODY ? json_null() : json_integer(r->uid);

	return json_pack("{s:I, s:I, s:o, s:s, s:s, s:s, s:s, s:s, s:s}", "seq", (json_int_t)r->seq,
		"time_usec", (json_int_t)r->time, "uid", uid, "action", r->action, "device",
		r->device, "vm", r->vm, "rule", r->rule, "reason", r->reason, "text", r->text);
}

static void take_record(struct reading *g, const struct record *r)
{
	json_t *doc;

	g->after = r->seq;
	if (g->records) {
		json_array_append_new(g->records, record_json(r));
	} else if (g->c->o.json) {
		doc = record_json(r);
		json_object_set_new(doc, "schema", json_string("devbroker.log-record/1"));
		json_dumpf(doc, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(doc);
	} else {
		print_record(g->c, r);
	}
}

static int read_records(sd_bus_message *reply, struct reading *g, size_t *n_out)
{
	struct record r;
	size_t n = 0;
	int e = sd_bus_message_enter_container(reply, 'a', "(ttussssss)");

	while (e >= 0 && (e = sd_bus_message_read(reply, "(ttussssss)", &r.seq, &r.time, &r.uid,
				  &r.action, &r.device, &r.vm, &r.rule, &r.reason, &r.text)) > 0) {
		take_record(g, &r);
		n++;
	}
	*n_out = n;
	return e;
}

static int append_filter(sd_bus_message *m, const struct reading *g)
{
	const char *device = cli_value(g->c, "device"), *vm = cli_value(g->c, "vm");
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0 && device) {
		r = sd_bus_message_append(m, "{sv}", "device", "s", device);
	}
	if (r >= 0 && vm) {
		r = sd_bus_message_append(m, "{sv}", "vm", "s", vm);
	}
	if (r >= 0) {
		r = sd_bus_message_append(m, "{sv}", "since", "t", g->since);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

/* One answer. 0 with how many records it had, or the exit code. */
static int read_some(struct reading *g, size_t *n_out)
{
	struct cli *c = g->c;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_message_new_method_call(
		c->bus, &m, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Log");

	if (r >= 0) {
		r = sd_bus_message_append(m, "t", g->after);
	}
	if (r >= 0) {
		r = append_filter(m, g);
	}
	if (r >= 0) {
		r = sd_bus_call(c->bus, m, 0, &error, &reply);
	}
	if (r >= 0) {
		r = read_records(reply, g, n_out);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

static int read_all(struct reading *g)
{
	size_t n = 1;
	int r = 0;

	g->more = false;
	while (r == 0 && n > 0) {
		r = read_some(g, &n);
	}
	fflush(stdout);
	return r;
}

static int on_logged(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	((struct reading *)userdata)->more = true;
	return 0;
}

static int follow(struct reading *g)
{
	sd_bus *bus = g->c->bus;
	int r = sd_bus_match_signal(bus, NULL, g->c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
		"Logged", on_logged, g);
	int exit_code = r < 0 ? 0 : read_all(g);

	while (r >= 0 && exit_code == 0) {
		r = sd_bus_process(bus, NULL);
		if (r == 0 && g->more) {
			exit_code = read_all(g);
		} else if (r == 0) {
			r = sd_bus_wait(bus, UINT64_MAX);
			r = r == -EINTR ? 0 : r;
		}
		if (ferror(stdout)) {
			exit_code = CLI_EXIT_FAILED;
		}
	}
	return r < 0 ? cli_fail_call(g->c, r, NULL) : exit_code;
}

int cmd_log(struct cli *c)
{
	struct reading g = {.c = c};
	const char *since = cli_value(c, "since");
	int r;

	if (since && parse_since(since, &g.since) < 0) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"As in --since 10m, --since 2026-01-31 or --since \"2026-01-31 12:00\".",
			"that is no time: %s", since);
	}
	if (cli_value(c, "follow")) {
		return follow(&g);
	}
	if (!c->o.json) {
		return read_all(&g);
	}
	g.records = json_array();
	r = read_all(&g);
	if (r != 0) {
		json_decref(g.records);
		return r;
	}
	return cli_print_json(json_pack("{s:o}", "records", g.records), "devbroker.log/1");
}
