/* SPDX-License-Identifier: MIT
 *
 * Level-triggered: hotplug says what is there, policy what should be, and usb_host_reconcile does
 * the next step between the two, however often it is called. A decision is carried out once for
 * each time that a device appears, or that the rules say something else of it: one that was taken
 * out of its VM by a user, by its guest or by a failure stays out until then. What time may mend
 * (the host uses it, a quota is full) is tried again, later and later, each device for itself.
 */
#include "broker/usb-host.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "broker/adopt.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/device-usb.h"
#include "broker/hotplug.h"
#include "broker/usb-bus.h"
#include "broker/usb-facts.h"
#include "broker/usb-record.h"
#include "broker/vm.h"

/* µs until a decision that could not be carried out is tried again, at first; doubled up to 64 s.
 */
#define AGAIN_FIRST     UINT64_C(2000000)
#define AGAIN_DOUBLINGS 5
/* µs between two looks at everything, whatever happened. */
#define SLOW_INTERVAL UINT64_C(60000000)

static struct device_usb *find(struct broker *b, const char *key)
{
	struct device *d = broker_device_named(b, key);

	return d ? device_usb(d) : NULL;
}

/* What holds a decision up; said once, and shown until it is otherwise. Whether it is news. */
static bool set_detail(struct device_usb *u, enum lease_reason reason, const char *detail)
{
	struct device *d = &u->device;

	if (d->reason == reason && strcmp(d->detail, detail) == 0) {
		return false;
	}
	d->reason = reason;
	snprintf(d->detail, sizeof(d->detail), "%.255s", detail);
	if (reason != LEASE_REASON_NONE) {
		log_warn("%s: %s", d->name, d->detail);
	}
	device_changed(d);
	return true;
}

/* A fresh start. */
static void forgive(struct device_usb *u)
{
	u->again = sd_event_source_disable_unref(u->again);
	u->failures = 0;
	u->held_off = false;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct device_usb *u = userdata;

	u->again = sd_event_source_disable_unref(u->again);
	u->held_off = false;
	usb_host_reconcile(u);
	return 0;
}

/* Its decision could not be carried out, and time may mend that: it alone waits, 2 s at first. */
static void back_off(struct device_usb *u)
{
	uint64_t usec = AGAIN_FIRST << MIN(u->failures, AGAIN_DOUBLINGS);

	u->held_off = true;
	u->failures++;
	u->again = sd_event_source_disable_unref(u->again);
	if (sd_event_add_time_relative(u->device.broker->event, &u->again, CLOCK_MONOTONIC, usec, 0,
		    on_again, u) < 0) {
		log_error("%s: out of memory; it is not tried again", u->device.name);
	}
}

/* Nobody asked: a rule did, udev, or what was remembered. */
static void audit(const struct device_usb *u, enum audit_action action)
{
	const struct policy_decision *p = &u->decision;

	audit_note(u->device.broker->audit, &(struct audit_event){.action = action,
						    .uid = AUDIT_NOBODY,
						    .device = u->device.name,
						    .vm = p->vm,
						    .rule = p->rule ? p->rule->name : "",
						    .reason = policy_action_name(p->action),
						    .text = p->why});
}

static void attach(struct device_usb *u)
{
	struct device *d = &u->device;
	const struct policy_decision *p = &u->decision;
	struct lease_options options = p->options;
	struct vm *vm = broker_vm_named(d->broker, p->vm);
	struct refusal_text text = {0};
	char detail[256];
	int r;

	if (!vm) {
		snprintf(detail, sizeof(detail),
			"It waits for vm %s, which is not known: devbroker vm add", p->vm);
		set_detail(u, LEASE_REASON_VM_GONE, detail);
		return;
	}
	options.by_policy = true;
	r = lease_create(d, vm, &options, &text);
	if (r == 0) {
		audit(u, AUDIT_ATTACH);
		return;
	}
	if (set_detail(u,
		    r == REFUSAL_DENIED  ? LEASE_REASON_DENIED
		    : r == REFUSAL_QUOTA ? LEASE_REASON_QUOTA
					 : LEASE_REASON_DEVICE_BUSY,
		    r < 0 ? strerror(-r) : text.sentence)) {
		bus_refused(d->broker, d->name, vm->name, d->reason, d->detail);
	}
	back_off(u);
}

void usb_host_reconcile(struct device_usb *u)
{
	struct device *d = &u->device;

	if (!u->facts || u->run || u->restoring || d->lease || d->broker->stopping) {
		return;
	}
	if (u->decision.action == POLICY_DENY) {
		usb_claim_deny(u);
	} else if (u->decision.action == POLICY_ATTACH && !u->held_off) {
		attach(u);
	} else {
		usb_claim_to_host(u);
	}
}

void usb_host_reconcile_all(struct broker *b)
{
	struct device *d, *next;

	list_for_each_safe (d, next, &b->devices, link) {
		if (device_usb(d)) {
			usb_host_reconcile(device_usb(d));
		}
	}
}

/* Of why a lease ended after all its tries: the host lets go of a device, others of their quota,
 * a VMM of its QMP socket. */
static bool time_may_mend(enum lease_reason reason)
{
	return reason == LEASE_REASON_DEVICE_BUSY || reason == LEASE_REASON_QUOTA ||
	       reason == LEASE_REASON_VM_BUSY;
}

void usb_host_lease_ended(struct device *d)
{
	struct device_usb *u = device_usb(d);

	u->held_off = d->reason != LEASE_REASON_POLICY;
	if (time_may_mend(d->reason) && u->facts && u->decision.action == POLICY_ATTACH) {
		back_off(u);
	}
	device_usb_settle(u);
}

/* Whether a lease that there is goes against what policy says now. */
static bool contradicts(const struct lease *l, const struct policy_decision *p)
{
	switch (p->action) {
	case POLICY_DENY:
	case POLICY_IGNORE:
		return true;
	case POLICY_ATTACH:
		return l->options.by_policy &&
		       (strcmp(l->vm->name, p->vm) != 0 ||
			       !lease_options_same_view(&l->options, &p->options));
	default:
		return l->options.by_policy;
	}
}

/* Takes what policy says now. Something new is a fresh start; u's lease may end. */
static void decide(struct device_usb *u)
{
	struct policy_decision now;

	usb_host_decision(u, NULL, &now);
	if (usb_host_same_decision(&now, &u->decision)) {
		u->decision = now; /* its rule may be one of other rules now */
		return;
	}
	u->decision = now;
	forgive(u);
	if (now.why[0]) {
		log_info("%s: %s", u->device.name, now.why);
		audit(u, AUDIT_DECIDED);
	}
	if (now.action != POLICY_ATTACH && now.why[0]) {
		set_detail(u, LEASE_REASON_NONE, now.why);
	}
	if (u->device.lease && contradicts(u->device.lease, &now)) {
		lease_release(u->device.lease, LEASE_REASON_POLICY);
	} else if (usb_host_offer(u)) {
		bus_offered(u->device.broker, &u->device, now.rule);
	}
}

void usb_host_decide_all(struct broker *b)
{
	struct device *d, *next;

	list_for_each (d, &b->devices, link) {
		if (device_usb(d) && device_usb(d)->facts) {
			decide(device_usb(d));
		}
	}
	list_for_each_safe (d, next, &b->devices, link) {
		if (device_usb(d)) {
			usb_host_reconcile(device_usb(d));
		}
	}
}

static int on_decide(sd_event_source *source, void *userdata)
{
	struct broker *b = userdata;

	b->decide = sd_event_source_disable_unref(b->decide);
	usb_host_decide_all(b);
	return 0;
}

void usb_host_vm_changed(struct broker *b)
{
	/* Not from within: a lease may be in the middle of something that made the VM change. */
	if (b->policy && b->policy->is_volatile && b->hotplug && !b->decide &&
		sd_event_add_defer(b->event, &b->decide, on_decide, b) < 0) {
		log_error("devbrokerd: out of memory; rules that look at VMs wait");
	}
}

static struct device_usb *add(struct broker *b, const struct usb_facts *f)
{
	struct refusal_text text = {0};
	struct device_usb *u;
	int r;

	if (find(b, f->key)) {
		/* The one before it is still on its way out; usb_host_look comes then. */
		return NULL;
	}
	r = device_usb_add(b, f, &u, &text);
	if (r != 0) {
		log_error("%s: not taken in: %s", f->key, r < 0 ? strerror(-r) : text.sentence);
		return NULL;
	}
	u->since_boot = usb_host_since_boot(f);
	usb_follow_take(u);
	decide(u);
	return u;
}

void usb_host_look(struct broker *b, const char *key)
{
	const struct usb_facts *f = b->hotplug ? hotplug_find(b->hotplug, key) : NULL;
	struct device_usb *u = f ? add(b, f) : NULL;

	if (u) {
		usb_host_reconcile(u);
	}
}

static bool names_controller(const char *list, const char *controller)
{
	size_t n = strlen(controller);

	for (const char *p = list; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
		size_t word = strcspn(p, " ");

		if ((word == n && strncmp(p, controller, n) == 0) ||
			(word == 3 && strncmp(p, "all", 3) == 0)) {
			return true;
		}
	}
	return false;
}

static bool is_root_hub(const struct usb_facts *f)
{
	return strcmp(f->sysname, f->bus) == 0;
}

static void root_hub_appeared(struct broker *b, const struct usb_facts *f)
{
	int r;

	if (!b->config.usb.quarantine ||
		!names_controller(b->config.usb.quarantine, f->controller)) {
		return;
	}
	r = usb_bus_quarantine(f->syspath);
	if (r < 0) {
		log_error("%s: can't be quarantined: %s; the host's drivers take what is plugged "
			  "in there",
			f->bus, strerror(-r));
	} else {
		log_info("%s (%s): quarantined: the host's drivers get what policy leaves to them",
			f->bus, f->controller);
	}
}

/* A hub behind a quarantined root hub is the host's: without its driver nothing behind it appears.
 */
static void hub_appeared(struct broker *b, const struct usb_facts *f);

static void on_appeared(void *userdata, const struct usb_facts *f)
{
	struct broker *b = userdata;
	struct device_usb *u;

	if (f->hub) {
		if (is_root_hub(f)) {
			root_hub_appeared(b, f);
		} else {
			hub_appeared(b, f);
		}
		return;
	}
	u = add(b, f);
	if (u && b->usb_started) {
		usb_host_reconcile(u);
	}
}

static void on_changed(void *userdata, const struct usb_facts *old, const struct usb_facts *f)
{
	struct broker *b = userdata;
	struct device_usb *u = f->hub ? NULL : find(b, f->key);
	bool same = usb_facts_same_device(old, f);

	if (!u || !u->facts) {
		return;
	}
	if (!same) {
		usb_follow_note(u);
	}
	device_usb_update(u, f);
	if (!same) {
		/* Never inherited: what came out of the reset is somebody new. */
		log_warn("%s: another device since its reset: %s", u->device.name, u->description);
		u->decision = (struct policy_decision){0};
		u->denied = false;
		forgive(u);
		usb_follow_take(u);
		decide(u);
		if (u->device.lease) {
			lease_release(u->device.lease, LEASE_REASON_DEVICE_LOST);
			return;
		}
	} else {
		decide(u);
		if (usb_claim_lost(u)) {
			lease_retake(u->device.lease);
		}
	}
	usb_host_reconcile(u);
}

static void on_gone(void *userdata, const struct usb_facts *f)
{
	struct broker *b = userdata;
	struct device_usb *u = f->hub ? NULL : find(b, f->key);

	if (u && u->facts) {
		log_info("%s: unplugged", u->device.name);
		usb_follow_note(u);
		device_usb_gone(u);
	}
}

static const struct hotplug_ops hotplug_ops = {
	.appeared = on_appeared,
	.changed = on_changed,
	.gone = on_gone,
};

static void hub_appeared(struct broker *b, const struct usb_facts *f)
{
	for (size_t i = 0; i < f->n_interfaces; i++) {
		if (!f->interfaces[i].driver[0] && !f->interfaces[i].authorized) {
			usb_claim_hub(b, f);
			return;
		}
	}
}

static void on_record(void *userdata, const struct usb_record *record)
{
	struct broker *b = userdata;
	struct device_usb *u = find(b, record->key);

	if (!u || !u->facts || u->facts->instance != record->instance) {
		/* It was unplugged since: nothing of it is left to give back. */
		usb_record_remove(b->run_dir, record->key);
		return;
	}
	if (u->device.lease && u->device.lease->taken) {
		usb_adopt_claim(u, record);
		return;
	}
	usb_claim_restore(u, record);
}

/* Events only wake what compares what should be with what is: one that is missed is made up for. */
static int on_slow(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct broker *b = userdata;
	struct device *d, *next;

	usb_host_decide_all(b);
	list_for_each_safe (d, next, &b->devices, link) {
		if (d->lease) {
			lease_reconcile(d->lease);
		}
	}
	sd_event_source_set_time_relative(source, SLOW_INTERVAL);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* The rules may be others than when it was lent. */
static void check_adopted(struct broker *b)
{
	struct device *d, *next;

	list_for_each_safe (d, next, &b->devices, link) {
		if (device_usb(d) && d->lease && contradicts(d->lease, &device_usb(d)->decision)) {
			lease_release(d->lease, LEASE_REASON_POLICY);
		}
	}
}

int usb_host_start(struct broker *b)
{
	int r = hotplug_create(b->event, &hotplug_ops, b, &b->hotplug);

	if (r >= 0) {
		r = hotplug_start(b->hotplug);
	}
	if (r < 0) {
		return r;
	}
	adopt_leases(b, "usb:");
	r = usb_record_each(b->run_dir, on_record, b);
	if (r < 0) {
		log_warn("devbrokerd: can't read what an earlier one has taken from the host: %s",
			strerror(-r));
	}
	r = sd_event_add_time_relative(
		b->event, &b->slow, CLOCK_MONOTONIC, SLOW_INTERVAL, 0, on_slow, b);
	if (r < 0) {
		return r;
	}
	b->usb_started = true;
	adopt_finish(b);
	check_adopted(b);
	/* Now that all are known: twins can't be told apart. */
	usb_host_decide_all(b);
	return 0;
}

void usb_host_stop(struct broker *b)
{
	b->decide = sd_event_source_disable_unref(b->decide);
	b->slow = sd_event_source_disable_unref(b->slow);
	usb_follow_finish(b);
	hotplug_destroy(b->hotplug);
	b->hotplug = NULL;
}
