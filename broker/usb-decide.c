/* SPDX-License-Identifier: MIT
 *
 * What shall be done with a device: by rules, by what was remembered of it, by what was at its
 * place before. usb-host.c carries it out.
 */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "broker/broker.h"
#include "broker/device-usb.h"
#include "broker/usb-facts.h"
#include "broker/usb-host.h"
#include "broker/vm.h"

#define USEC_PER_SEC UINT64_C(1000000)

static const char *vm_state_of(void *userdata, const char *name)
{
	const struct vm *vm = broker_vm_named(userdata, name);

	return vm ? vm_state_name(vm->state) : NULL;
}

uint64_t usb_host_since_boot(const struct usb_facts *f)
{
	const char *udev = usb_facts_property(f, "USEC_INITIALIZED");
	uint64_t usec;

	/* udev keeps it over a restart of ours. */
	if (!udev || parse_u64(udev, 0, UINT64_MAX, &usec) < 0) {
		usec = now_usec();
	}
	return usec / USEC_PER_SEC;
}

static bool same_offer(const struct policy_rule *a, const struct policy_rule *b)
{
	if (a->n_vms != b->n_vms) {
		return false;
	}
	for (size_t i = 0; i < a->n_vms; i++) {
		if (strcmp(a->vms[i], b->vms[i]) != 0) {
			return false;
		}
	}
	return true;
}

bool usb_host_same_decision(const struct policy_decision *a, const struct policy_decision *b)
{
	if (a->action != b->action || strcmp(a->vm, b->vm) != 0 || !a->rule != !b->rule ||
		!lease_options_equal(&a->options, &b->options)) {
		return false;
	}
	return a->rule ? strcmp(a->rule->name, b->rule->name) == 0 && same_offer(a->rule, b->rule)
		       : strcmp(a->why, b->why) == 0;
}

/* Whether another device is here that e may mean as well: nobody could tell them apart. */
static bool has_twin(const struct device_usb *u, const struct memory_entry *e)
{
	struct device *d;

	list_for_each (d, &u->device.broker->devices, link) {
		const struct device_usb *other = device_usb(d);

		if (other && other != u && other->facts && memory_entry_means(e, other->facts)) {
			return true;
		}
	}
	return false;
}

/* What a user wanted remembered counts more than any rule that does not forbid it. */
static void remember(const struct device_usb *u, struct policy_decision *d)
{
	const struct memory_entry *e = memory_find(&u->device.broker->memory, u->facts);

	if (!e || d->action == POLICY_DENY || d->action == POLICY_IGNORE) {
		return;
	}
	if (has_twin(u, e) && !u->device.lease) {
		snprintf(d->why, sizeof(d->why),
			"It is remembered for vm %s, but there is another one like it: attach it "
			"by hand.",
			e->vm);
		d->action = POLICY_HOLD;
		d->rule = NULL;
		return;
	}
	/* What the rule says of how it is lent stays. */
	d->action = POLICY_ATTACH;
	d->rule = NULL;
	snprintf(d->vm, sizeof(d->vm), "%s", e->vm);
	snprintf(d->why, sizeof(d->why),
		"It is remembered for vm %s (devbroker forget %s undoes that).", e->vm, e->key);
}

void usb_host_decision(
	const struct device_usb *u, const struct policy_trace *trace, struct policy_decision *out)
{
	struct broker *b = u->device.broker;
	const struct policy_context context = {
		.vm_state = vm_state_of, .userdata = b, .since_boot = u->since_boot};

	policy_decide(b->policy, u->facts, &context, trace, out);
	usb_follow_decide(u, out);
	remember(u, out);
}

const struct policy_rule *usb_host_offer(const struct device_usb *u)
{
	return u->facts && !u->device.lease && u->decision.action == POLICY_OFFER ? u->decision.rule
										  : NULL;
}

int usb_host_restrict(
	const struct device_usb *u, struct lease_options *o, struct refusal_text *text)
{
	const struct lease_options *rule = &u->decision.options;

	if (rule->interfaces && o->interfaces && !(o->interfaces & rule->interfaces)) {
		char all[LEASE_INTERFACES_TEXT];

		return refuse_with(text, REFUSAL_DENIED, "See the rule: devbroker explain DEVICE",
			"a rule lets VMs see only interfaces %s of %s",
			lease_interfaces_print(rule->interfaces, all), u->device.name);
	}
	if (rule->interfaces) {
		o->interfaces = o->interfaces ? o->interfaces & rule->interfaces : rule->interfaces;
	}
	o->read_only |= rule->read_only;
	o->no_reset |= rule->no_reset;
	o->bytes_in_flight = rule->bytes_in_flight;
	o->transfers_in_flight = rule->transfers_in_flight;
	return 0;
}
