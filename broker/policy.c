/* SPDX-License-Identifier: MIT */
#include "broker/policy.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
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

	say(d, POLICY_HOST, "Its udev property %s=%s is not %s; the host keeps it.", key,
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

void policy_decide(const struct usb_facts *f, struct policy_decision *out)
{
	const char *action = usb_facts_property(f, "DEVBROKER_ACTION");
	const char *vm = usb_facts_property(f, "DEVBROKER_VM");

	*out = (struct policy_decision){.action = POLICY_HOST};
	if (action && strcmp(action, "deny") == 0) {
		say(out, POLICY_DENY, "A udev rule denies it (DEVBROKER_ACTION=deny).");
		return;
	}
	if (action && strcmp(action, "host") == 0) {
		say(out, POLICY_HOST, "A udev rule leaves it to the host (DEVBROKER_ACTION=host).");
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
