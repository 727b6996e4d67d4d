/* SPDX-License-Identifier: MIT
 *
 * A note is made when a device goes that a rule with Follow= had sent to a VM, and ends with the
 * next device at its place, whatever that is, or with the rule's time. The device that took it over
 * keeps it while it is plugged in: if it goes, in its turn, the same rule follows it on. Rules are
 * looked up by name, so that a reload counts at once.
 */
#include "broker/usb-follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device-usb.h"
#include "broker/usb-facts.h"
#include "broker/vm.h"

#define USEC_PER_SEC UINT64_C(1000000)

static void note_destroy(struct follow *n)
{
	list_remove(&n->link);
	free(n->key);
	free(n);
}

static struct follow *note_of(struct broker *b, const char *key)
{
	struct follow *n;

	list_for_each (n, &b->follows, link) {
		if (strcmp(n->key, key) == 0) {
			return n;
		}
	}
	return NULL;
}

/* Those that no rule can follow any more. */
static void forget_old(struct broker *b)
{
	uint64_t now = now_usec();
	struct follow *n, *next;

	list_for_each_safe (n, next, &b->follows, link) {
		if (now - n->left > POLICY_FOLLOW_SECONDS_MAX * USEC_PER_SEC) {
			note_destroy(n);
		}
	}
}

/* Whether a lease ended because its device went, which its worker may notice first. */
static bool ended_by_going(enum lease_reason reason)
{
	return reason == LEASE_REASON_DEVICE_GONE || reason == LEASE_REASON_DEVICE_LOST ||
	       reason == LEASE_REASON_IO_ERROR;
}

/* The VM that u's device has, had until it went, or waits for; NULL: none. */
static const char *vm_of(const struct device_usb *u)
{
	const struct device *d = &u->device;
	const struct lease *l = d->lease;

	if (l && l->state == LEASE_RELEASING && !l->retry && !ended_by_going(l->reason)) {
		return NULL;
	}
	if (l) {
		return l->vm->name;
	}
	if (d->last_vm[0] && ended_by_going(d->reason)) {
		return d->last_vm;
	}
	return u->decision.action == POLICY_ATTACH && !u->held_off ? u->decision.vm : NULL;
}

void usb_follow_note(const struct device_usb *u)
{
	struct broker *b = u->device.broker;
	const struct policy_rule *rule = u->decision.rule;
	const char *vm = vm_of(u);
	struct follow *n;

	forget_old(b);
	if (!rule || rule->n_follow == 0 || !vm || b->stopping) {
		return;
	}
	n = note_of(b, u->device.name);
	if (n) {
		note_destroy(n);
	}
	n = calloc(1, sizeof(*n));
	if (!n) {
		return;
	}
	list_init(&n->link);
	n->key = strdup(u->device.name);
	if (!n->key) {
		free(n);
		return;
	}
	snprintf(n->rule, sizeof(n->rule), "%s", rule->name);
	snprintf(n->vm, sizeof(n->vm), "%s", vm);
	n->left = now_usec();
	list_append(&b->follows, &n->link);
}

void usb_follow_take(struct device_usb *u)
{
	struct broker *b = u->device.broker;
	struct follow *n = note_of(b, u->device.name);
	const struct policy_rule *rule = n ? policy_rule_named(b->policy, n->rule) : NULL;

	u->followed = (struct follow){.rule = ""};
	if (rule && now_usec() - n->left <= rule->follow_seconds * USEC_PER_SEC) {
		memcpy(u->followed.rule, n->rule, sizeof(n->rule));
		memcpy(u->followed.vm, n->vm, sizeof(n->vm));
		u->followed.left = n->left;
	}
	if (n) {
		note_destroy(n);
	}
}

void usb_follow_decide(const struct device_usb *u, struct policy_decision *d)
{
	const struct policy_rule *rule;

	if (!u->followed.rule[0]) {
		return;
	}
	rule = policy_rule_named(u->device.broker->policy, u->followed.rule);
	if (rule) {
		policy_follow(rule, u->followed.vm, u->facts, d);
	}
}

void usb_follow_finish(struct broker *b)
{
	struct follow *n, *next;

	list_for_each_safe (n, next, &b->follows, link) {
		note_destroy(n);
	}
}
