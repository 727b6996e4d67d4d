/* SPDX-License-Identifier: MIT
 * explain, policy check, policy test, policy reload; forget, remembered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "broker/cli/cli.h"
#include "broker/cli/facts.h"
#include "broker/cli/table.h"
#include "broker/policy.h"
#include "broker/usb-facts.h"
#include "build-config.h"

#define SINCE_BOOT 3600

/* What was looked at, as it is printed and as JSON; both of explain and of test. */
struct story {
	const struct cli *c;
	json_t *steps;
};

static void tell_step(
	struct story *s, const char *rule, const char *where, uint32_t match, const char *failed)
{
	json_array_append_new(s->steps,
		json_pack("{s:s, s:s, s:i, s:b, s:s}", "rule", rule, "where", where, "match_line",
			(int)match + 1, "matched", !failed[0], "failed", failed));
	if (s->c->o.json) {
		return;
	}
	text_line(stdout, s->c->colour_out && !failed[0] ? TEXT_GOOD : TEXT_PLAIN,
		"  %s (%s), Match %u: %s%s", rule, where, match + 1, failed[0] ? "not " : "yes",
		failed);
}

/* Prints the end of the story, and drops it. Returns the exit code. */
static int tell_decision(
	struct story *s, const char *schema, const char *action, const char *vm, const char *why)
{
	if (s->c->o.json) {
		return cli_print_json(json_pack("{s:s, s:s, s:s, s:o}", "action", action, "vm", vm,
					      "why", why, "trace", s->steps),
			schema);
	}
	text_line(stdout, TEXT_PLAIN, "%s%s%s: %s", action, vm[0] ? " " : "", vm,
		why[0] ? why : "Nothing was said about it; the host keeps it.");
	json_decref(s->steps);
	return 0;
}

static int read_trace(sd_bus_message *m, struct story *s)
{
	const char *rule, *where, *failed;
	uint32_t match;
	int r = sd_bus_message_enter_container(m, 'a', "(ssus)");

	while (r >= 0) {
		r = sd_bus_message_read(m, "(ssus)", &rule, &where, &match, &failed);
		if (r <= 0) {
			break;
		}
		tell_step(s, rule, where, match, failed);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

int cmd_explain(struct cli *c)
{
	struct story s = {.c = c, .steps = json_array()};
	const char *action, *vm, *why;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
		"Explain", &error, &reply, "s", c->o.args[0]);

	if (r >= 0) {
		r = read_trace(reply, &s);
	}
	if (r >= 0) {
		r = sd_bus_message_read(reply, "sss", &action, &vm, &why);
	}
	if (r < 0) {
		json_decref(s.steps);
		r = cli_fail_call(c, r, &error);
	} else {
		r = tell_decision(&s, "devbroker.explain/1", action, vm, why);
	}
	sd_bus_error_free(&error);
	return r;
}

int cmd_policy_reload(struct cli *c)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	uint32_t rules = 0;
	int r = sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
		"ReloadPolicy", &error, &reply, "");

	if (r >= 0) {
		r = sd_bus_message_read(reply, "u", &rules);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(
			json_pack("{s:i}", "rules", (int)rules), "devbroker.policy-reload/1");
	}
	printf("%u rule%s\n", rules, rules == 1 ? "" : "s");
	return 0;
}

/* 0 or the exit code; the error is printed. */
static int load(const struct cli *c, const char *dir, struct policy **out)
{
	struct refusal_text text = {0};
	int r = policy_load(dir, out, &text);

	if (r < 0) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "", "%s: %s", dir, strerror(-r));
	}
	return r == 0 ? 0
		      : cli_fail(c, refusal_exit_code(r), refusal_code(r),
				"Correct that place; see devbroker-policy(5).", "%s",
				text.sentence);
}

int cmd_policy_check(struct cli *c)
{
	const char *dir = c->o.args[0] ? c->o.args[0] : DEVBROKER_CONFIG_DIR;
	struct policy *p;
	int r = load(c, dir, &p);

	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		r = cli_print_json(
			json_pack("{s:i}", "rules", (int)p->n_rules), "devbroker.policy-check/1");
	} else {
		printf("%zu rule%s, no errors\n", p->n_rules, p->n_rules == 1 ? "" : "s");
	}
	policy_destroy(p);
	return r;
}

/* The state of vm in "VM:STATE,…"; valid until the next call. */
static const char *given_state(void *userdata, const char *vm)
{
	const char *list = userdata;
	static char state[64];
	size_t n = strlen(vm);

	for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',') {
		if (strncmp(p, vm, n) == 0 && p[n] == ':') {
			snprintf(state, sizeof(state), "%.*s", (int)strcspn(p + n + 1, ","),
				p + n + 1);
			return state;
		}
	}
	return NULL;
}

static void on_looked(
	void *userdata, const struct policy_rule *rule, size_t match, const char *failed)
{
	tell_step(userdata, rule->name, rule->where, (uint32_t)match, failed ? failed : "");
}

static int test_facts(struct cli *c, const struct usb_facts *f, const struct usb_facts *was)
{
	const char *since = cli_value(c, "since-boot"), *vms = cli_value(c, "vms");
	const char *udev = usb_facts_property(f, "USEC_INITIALIZED");
	struct policy_context context = {.vm_state = given_state,
		.userdata = (void *)(uintptr_t)vms,
		.since_boot = SINCE_BOOT};
	struct story s = {.c = c};
	const struct policy_trace trace = {.looked = on_looked, .userdata = &s};
	struct policy_decision d, before;
	struct policy *p;
	int r;

	if (udev && parse_u64(udev, 0, UINT64_MAX, &context.since_boot) == 0) {
		context.since_boot /= 1000000;
	}
	if (since && parse_u64(since, 0, UINT32_MAX, &context.since_boot) < 0) {
		return cli_fail(
			c, CLI_EXIT_USAGE, "usage", "", "--since-boot takes a number of seconds");
	}
	r = load(c, c->o.args[0], &p);
	if (r != 0) {
		return r;
	}
	s.steps = json_array();
	policy_decide(p, f, &context, &trace, &d);
	if (was) {
		policy_decide(p, was, &context, NULL, &before);
		if (before.rule && before.action == POLICY_ATTACH) {
			policy_follow(before.rule, before.vm, f, &d);
		}
	}
	r = tell_decision(&s, "devbroker.policy-test/1", policy_action_name(d.action), d.vm, d.why);
	policy_destroy(p);
	return r;
}

/* The facts in a file, and the document that they point into. 0 or the exit code. */
static int read_facts(struct cli *c, const char *path, json_t **doc_out, struct usb_facts *out)
{
	const char *missing = "";
	json_error_t error;
	json_t *doc = strcmp(path, "-") == 0 ? json_loadf(stdin, 0, &error)
					     : json_load_file(path, 0, &error);

	if (!doc) {
		return cli_fail(c, refusal_exit_code(REFUSAL_INVALID), "invalid",
			"It shall be what devbroker show DEVICE --json printed.", "%s:%d: %s", path,
			error.line, error.text);
	}
	if (cli_facts_read(doc, out, &missing) < 0) {
		json_decref(doc);
		return cli_fail(c, refusal_exit_code(REFUSAL_INVALID), "invalid",
			"It shall be what devbroker show DEVICE --json printed of a USB device.",
			"%s: \"%s\" is missing, or not as it should be", path, missing);
	}
	*doc_out = doc;
	return 0;
}

int cmd_policy_test(struct cli *c)
{
	const char *path = cli_value(c, "device"), *was = cli_value(c, "was");
	json_t *doc = NULL, *was_doc = NULL;
	struct usb_facts f = {0}, before = {0};
	int r;

	if (!path) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"Make one with: devbroker show DEVICE --json >FILE",
			"policy test needs --device FILE");
	}
	r = read_facts(c, path, &doc, &f);
	if (r == 0 && was) {
		r = read_facts(c, was, &was_doc, &before);
	}
	if (r == 0) {
		r = test_facts(c, &f, was ? &before : NULL);
	}
	cli_facts_finish(&f);
	cli_facts_finish(&before);
	json_decref(doc);
	json_decref(was_doc);
	return r;
}

int cmd_forget(struct cli *c)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
		"Forget", &error, NULL, "s", c->o.args[0]);

	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(
			json_pack("{s:s}", "forgotten", c->o.args[0]), "devbroker.forget/1");
	}
	text_line(stdout, TEXT_PLAIN, "%s is forgotten", c->o.args[0]);
	return 0;
}

static int read_remembered(sd_bus_message *m, json_t *out)
{
	const char *key, *id, *serial, *product, *vm;
	int r = sd_bus_message_enter_container(m, 'a', "(sssss)");

	while (r >= 0) {
		r = sd_bus_message_read(m, "(sssss)", &key, &id, &serial, &product, &vm);
		if (r <= 0) {
			return r;
		}
		json_array_append_new(
			out, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", key, "id", id, "serial",
				     serial, "product", product, "vm", vm));
	}
	return r;
}

static int print_remembered(const struct cli *c, const json_t *entries)
{
	static const char *const columns[] = {"DEVICE", "ID", "SERIAL", "PRODUCT", "VM"};
	static const char *const fields[] = {"name", "id", "serial", "product", "vm"};
	_cleanup_(table_destroyp) struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *e;
	size_t i;

	if (json_array_size(entries) == 0) {
		printf("Nothing is remembered: devbroker attach --remember DEVICE VM\n");
		return 0;
	}
	json_array_foreach(entries, i, e)
	{
		for (size_t k = 0; t && k < ARRAY_SIZE(fields); k++) {
			table_cell(t, cli_text(e, fields[k]));
		}
	}
	return cli_print_table(c, t);
}

int cmd_remembered(struct cli *c)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	json_t *entries = json_array();
	int r = sd_bus_get_property(c->bus, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER,
		"Remembered", &error, &reply, "a(sssss)");

	if (r >= 0) {
		r = read_remembered(reply, entries);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r == 0 && c->o.json) {
		return cli_print_json(
			json_pack("{s:o}", "remembered", entries), "devbroker.remembered/1");
	}
	if (r == 0) {
		r = print_remembered(c, entries);
	}
	json_decref(entries);
	return r;
}
