/* SPDX-License-Identifier: MIT */
#include "broker/policy.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "broker/policy-index.h"
#include "broker/usb-facts.h"

static void say(struct policy_decision *d, enum policy_action action, const char *fmt, ...)
	_printf_(3, 4);

static void say(struct policy_decision *d, enum policy_action action, const char *fmt, ...)
{
	va_list ap;

	d->action = action;
	va_start(ap, fmt);
	vsnprintf(d->why, sizeof(d->why), fmt, ap);
	va_end(ap);
}

/* A value that is none: the host keeps the device, because that loses nothing. */
static void bad_value(
	struct policy_decision *d, const char *key, const char *value, const char *wanted)
{
	char shown[80];

	say(d, POLICY_HOLD, "Its udev property %s=%s is not %s; the host keeps it.", key,
		log_escape(value, strlen(value), shown, sizeof(shown)), wanted);
}

/* False if a value makes no sense; the decision is made then. */
static bool take_options(const struct usb_facts *f, struct policy_decision *d)
{
	const char *drivers = usb_facts_property(f, "DEVBROKER_HOST_DRIVERS");
	const char *input = usb_facts_property(f, "DEVBROKER_LAST_INPUT");

	if (drivers && strcmp(drivers, "away") != 0 && strcmp(drivers, "return") != 0) {
		bad_value(d, "DEVBROKER_HOST_DRIVERS", drivers, "return or away");
		return false;
	}
	d->options.keep_drivers_off = drivers && strcmp(drivers, "away") == 0;
	if (input && parse_bool(input, &d->options.last_input) < 0) {
		bad_value(d, "DEVBROKER_LAST_INPUT", input, "yes or no");
		return false;
	}
	return true;
}

/* Where no rule matched: what udev rules said. */
static void decide_by_udev(const struct usb_facts *f, struct policy_decision *out)
{
	const char *action = usb_facts_property(f, "DEVBROKER_ACTION");
	const char *vm = usb_facts_property(f, "DEVBROKER_VM");

	if (action && strcmp(action, "deny") == 0) {
		say(out, POLICY_DENY, "A udev rule denies it (DEVBROKER_ACTION=deny).");
		return;
	}
	if (action && strcmp(action, "host") == 0) {
		say(out, POLICY_HOLD, "A udev rule leaves it to the host (DEVBROKER_ACTION=host).");
		return;
	}
	if (action) {
		bad_value(out, "DEVBROKER_ACTION", action, "deny or host");
		return;
	}
	if (!vm) {
		return;
	}
	if (!config_name_ok(vm)) {
		bad_value(out, "DEVBROKER_VM", vm, "the name of a VM");
		return;
	}
	if (take_options(f, out)) {
		snprintf(out->vm, sizeof(out->vm), "%s", vm);
		say(out, POLICY_ATTACH, "A udev rule gives it to vm %s (DEVBROKER_VM).", vm);
	}
}

static void decide_by_rule(const struct policy_rule *rule, struct policy_decision *out)
{
	static const char *const sayings[] = {
		[POLICY_HOLD] = "leaves it to the host",
		[POLICY_ATTACH] = "gives it to vm",
		[POLICY_OFFER] = "offers it to",
		[POLICY_DENY] = "denies it to host and VMs",
		[POLICY_IGNORE] = "keeps it on the host",
	};
	char vms[160] = "";

	static_assert(ARRAY_SIZE(sayings) == POLICY_ACTION_COUNT_, "one per action");
	out->rule = rule;
	out->options = rule->options;
	if (rule->action == POLICY_ATTACH) {
		snprintf(out->vm, sizeof(out->vm), "%s", rule->vms[0]);
	}
	for (size_t i = 0, at = 0; i < rule->n_vms && at < sizeof(vms); i++) {
		at += (size_t)snprintf(vms + at, sizeof(vms) - at, " %s", rule->vms[i]);
	}
	say(out, rule->action, "Rule %s (%s) %s%s.", rule->name, rule->where, sayings[rule->action],
		vms);
}

/* Any line of it, or none at all. */
static bool rule_matches(const struct policy_rule *rule, const struct usb_facts *f,
	const struct policy_context *context, const struct policy_trace *trace)
{
	for (size_t i = 0; i < rule->n_matches; i++) {
		const char *failed = policy_match_fails(&rule->matches[i], f, context);

		trace->looked(trace->userdata, rule, i, failed);
		if (!failed) {
			return true;
		}
	}
	if (rule->n_matches == 0) {
		trace->looked(trace->userdata, rule, 0, NULL);
	}
	return rule->n_matches == 0;
}

/* With all that is looked at on the way told. */
static const struct policy_rule *find_rule(const struct policy *p, const struct usb_facts *f,
	const struct policy_context *context, const struct policy_trace *trace)
{
	const struct policy_rule *rule;

	list_for_each (rule, &p->rules, link) {
		if (rule_matches(rule, f, context, trace)) {
			return rule;
		}
	}
	return NULL;
}

/* The same rule, without looking at lines that can't hold. */
static const struct policy_rule *find_rule_by_index(
	const struct policy *p, const struct usb_facts *f, const struct policy_context *context)
{
	const struct policy_line *line;
	struct policy_candidates c;

	policy_candidates_init(&c, p->index, f);
	while ((line = policy_candidates_next(&c))) {
		if (line->rule->n_matches == 0 ||
			!policy_match_fails(&line->rule->matches[line->match], f, context)) {
			return line->rule;
		}
	}
	return NULL;
}

void policy_decide(const struct policy *p, const struct usb_facts *f,
	const struct policy_context *context, const struct policy_trace *trace,
	struct policy_decision *out)
{
	const struct policy_rule *rule =
		trace ? find_rule(p, f, context, trace) : find_rule_by_index(p, f, context);

	*out = (struct policy_decision){.action = POLICY_HOLD};
	if (rule) {
		decide_by_rule(rule, out);
	} else {
		decide_by_udev(f, out);
	}
}

const struct policy_rule *policy_rule_named(const struct policy *p, const char *name)
{
	const struct policy_rule *rule;

	list_for_each (rule, &p->rules, link) {
		if (strcmp(rule->name, name) == 0) {
			return rule;
		}
	}
	return NULL;
}

void policy_follow(const struct policy_rule *rule, const char *vm, const struct usb_facts *f,
	struct policy_decision *d)
{
	static const struct policy_context nothing = {0};

	if (d->action == POLICY_DENY || d->action == POLICY_IGNORE) {
		return;
	}
	for (size_t i = 0; i < rule->n_follow; i++) {
		/* An id, which asks for nothing but the device. */
		if (policy_match_fails(&rule->follow[i], f, &nothing)) {
			continue;
		}
		d->rule = rule;
		d->options = rule->options;
		snprintf(d->vm, sizeof(d->vm), "%.*s", NAME_MAX_LENGTH, vm);
		say(d, POLICY_ATTACH,
			"Rule %s (%s) follows the device that was there before it to vm %s.",
			rule->name, rule->where, vm);
		return;
	}
}
