/* SPDX-License-Identifier: MIT
 *
 * Level-triggered: hotplug says what is there, policy what should be, and usb_host_reconcile does
 * the next step between the two, however often it is called. A decision is carried out once for
 * each time that a device appears, or that the rules say something else of it: one that was taken
 * out of its VM by a user, by its guest or by a failure stays out until then.
 */
#include "broker/usb-host.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/device-usb.h"
#include "broker/hotplug.h"
#include "broker/usb-bus.h"
#include "broker/usb-facts.h"
#include "broker/usb-record.h"
#include "broker/vm.h"

static struct device_usb *find(struct broker *b, const char *key)
{
	struct device *d;

	list_for_each (d, &b->devices, link) {
		if (strcmp(d->name, key) == 0) {
			return device_usb(d);
		}
	}
	return NULL;
}

/* What holds a decision up; said once, and shown until it is otherwise. */
static void set_detail(struct device_usb *u, enum lease_reason reason, const char *detail)
{
	struct device *d = &u->device;

	if (d->reason == reason && strcmp(d->detail, detail) == 0) {
		return;
	}
	d->reason = reason;
	snprintf(d->detail, sizeof(d->detail), "%.255s", detail);
	if (reason != LEASE_REASON_NONE) {
		log_warn("%s: %s", d->name, d->detail);
	}
	device_changed(d);
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
		return;
	}
	set_detail(u, r == REFUSAL_DENIED ? LEASE_REASON_DENIED : LEASE_REASON_DEVICE_BUSY,
		r < 0 ? strerror(-r) : text.sentence);
	bus_refused(d->broker, d->name, vm->name, d->reason, d->detail);
	u->held_off = true;
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

void usb_host_lease_ended(struct device *d)
{
	struct device_usb *u = device_usb(d);

	u->held_off = d->reason != LEASE_REASON_POLICY;
	device_usb_settle(u);
}

static const char *vm_state_of(void *userdata, const char *name)
{
	const struct vm *vm = broker_vm_named(userdata, name);

	return vm ? vm_state_name(vm->state) : NULL;
}

struct policy_context usb_host_context(struct broker *b)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (struct policy_context){
		.vm_state = vm_state_of, .userdata = b, .since_boot = (uint64_t)now.tv_sec};
}

/* Whether nothing else shall be done, and for the same reason; a rule is known by its name. */
static bool same_decision(const struct policy_decision *a, const struct policy_decision *b)
{
	if (a->action != b->action || strcmp(a->vm, b->vm) != 0 || !a->rule != !b->rule ||
		!lease_options_equal(&a->options, &b->options)) {
		return false;
	}
	return a->rule ? strcmp(a->rule->name, b->rule->name) == 0 : strcmp(a->why, b->why) == 0;
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
	*d = (struct policy_decision){.action = POLICY_ATTACH};
	snprintf(d->vm, sizeof(d->vm), "%s", e->vm);
	snprintf(d->why, sizeof(d->why),
		"It is remembered for vm %s (devbroker forget %s undoes that).", e->vm, e->key);
}

void usb_host_decision(
	const struct device_usb *u, const struct policy_trace *trace, struct policy_decision *out)
{
	struct broker *b = u->device.broker;
	const struct policy_context context = usb_host_context(b);

	policy_decide(b->policy, u->facts, &context, trace, out);
	remember(u, out);
}

/* Takes what policy says now. Something new is a fresh start; u's lease may end. */
static void decide(struct device_usb *u)
{
	struct policy_decision now;

	usb_host_decision(u, NULL, &now);
	if (same_decision(&now, &u->decision)) {
		u->decision = now; /* its rule may be one of other rules now */
		return;
	}
	u->decision = now;
	u->held_off = false;
	if (now.why[0]) {
		log_info("%s: %s", u->device.name, now.why);
	}
	if (now.action != POLICY_ATTACH && now.why[0]) {
		set_detail(u, LEASE_REASON_NONE, now.why);
	}
	if (u->device.lease && contradicts(u->device.lease, &now)) {
		lease_release(u->device.lease, LEASE_REASON_POLICY);
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
	device_usb_update(u, f);
	if (!same) {
		/* Never inherited: what came out of the reset is somebody new. */
		log_warn("%s: another device since its reset: %s", u->device.name, u->description);
		u->decision = (struct policy_decision){0};
		u->denied = false;
		u->held_off = false;
		decide(u);
		if (u->device.lease) {
			lease_release(u->device.lease, LEASE_REASON_DEVICE_LOST);
			return;
		}
	} else {
		decide(u);
	}
	usb_host_reconcile(u);
}

static void on_gone(void *userdata, const struct usb_facts *f)
{
	struct broker *b = userdata;
	struct device_usb *u = f->hub ? NULL : find(b, f->key);

	if (u && u->facts) {
		log_info("%s: unplugged", u->device.name);
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
	usb_claim_restore(u, record);
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
	r = usb_record_each(b->run_dir, on_record, b);
	if (r < 0) {
		log_warn("devbrokerd: can't read what an earlier one has taken from the host: %s",
			strerror(-r));
	}
	b->usb_started = true;
	/* Now that all are known: twins can't be told apart. */
	usb_host_decide_all(b);
	return 0;
}

void usb_host_stop(struct broker *b)
{
	b->decide = sd_event_source_disable_unref(b->decide);
	hotplug_destroy(b->hotplug);
	b->hotplug = NULL;
}
