/* SPDX-License-Identifier: MIT
 *
 * Who may call what, in one table. An administrator is root, the user who runs the broker, a member
 * of group devbroker, or on the system bus whoever polkit says may do this one thing now. Owners of
 * a VM may look after it, and attach to it what a rule offers to it; options of an attachment are
 * then the rule's. A method that is not in the table is for administrators: so is one that somebody
 * adds and forgets here.
 *
 * What is public: which devices and VMs there are, how they are called, their states, which VM has
 * which device; of a USB device what every user can read in sysfs. What only owners and
 * administrators see: where images and QMP sockets are, sentences about what happened (they name
 * files and programs), owners, what is remembered, the log's records, why a rule decided.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/bus-polkit.h"
#include "broker/device-usb.h"
#include "broker/policy.h"
#include "broker/vm.h"

#define ACTION_LEND      "org.devbroker.lend"
#define ACTION_CONFIGURE "org.devbroker.configure"
#define ACTION_INSPECT   "org.devbroker.inspect"

enum who {
	WHO_ANYBODY, /* the answer holds what the caller may see */
	WHO_OWNER,   /* the handler asks for which VM */
	WHO_ADMIN,
	WHO_HOST, /* root and the broker's own user: the broker connects to a socket that is named
		   */
};

struct permission {
	const char *member;
	enum who who;
	const char *action; /* polkit's, that makes an administrator for one call; NULL: none */
	const char *what;   /* "may not …" */
};

static const struct permission permissions[] = {
	{"Hello", WHO_ANYBODY, NULL, ""},
	{"RefreshVMs", WHO_ANYBODY, NULL, ""},
	{"Refresh", WHO_ANYBODY, NULL, ""},
	{"Log", WHO_ANYBODY, NULL, ""},
	{"Attach", WHO_OWNER, ACTION_LEND, "attach devices"},
	{"Detach", WHO_OWNER, ACTION_LEND, "take devices out of VMs"},
	{"Explain", WHO_OWNER, ACTION_INSPECT, "ask why rules decided"},
	{"SetDisplay", WHO_OWNER, ACTION_LEND, "set displays of VMs"},
	{"Reserve", WHO_OWNER, ACTION_LEND, "use GPU memory of VMs"},
	{"Screenshot", WHO_OWNER, ACTION_INSPECT, "see what VMs show"},
	{"Allow", WHO_ADMIN, ACTION_CONFIGURE, "give VMs 3D again"},
	{"RemoveVM", WHO_ADMIN, ACTION_CONFIGURE, "remove VMs"},
	{"AddDisk", WHO_ADMIN, ACTION_CONFIGURE, "add disks"},
	{"RemoveDisk", WHO_ADMIN, ACTION_CONFIGURE, "remove disks"},
	{"Forget", WHO_ADMIN, ACTION_CONFIGURE, "make devbroker forget"},
	{"ReloadPolicy", WHO_ADMIN, ACTION_CONFIGURE, "have the rules read"},
	{"Capture", WHO_OWNER, ACTION_INSPECT, "capture what VMs and devices say"},
	{"Export", WHO_ADMIN, ACTION_LEND, "export devices"},
	{"SetQuota", WHO_ADMIN, ACTION_CONFIGURE, "change limits of VMs"},
	{"AddVM", WHO_HOST, NULL, "add VMs"},
};

static const struct permission unknown = {
	"", WHO_ADMIN, ACTION_CONFIGURE, "change what devbroker does"};

static const struct permission *permission_of(sd_bus_message *m)
{
	const char *member = sd_bus_message_get_member(m);
	const char *interface = sd_bus_message_get_interface(m);

	for (size_t i = 0; member && i < ARRAY_SIZE(permissions); i++) {
		if (strcmp(permissions[i].member, member) == 0) {
			return &permissions[i];
		}
	}
	/* The standard interfaces are sd-bus's; what they show is for the getters to say. */
	return interface && strncmp(interface, "org.devbroker.", 14) == 0 ? &unknown : NULL;
}

/* Who may not is refused, unless polkit is there to be asked. */
static int deny(struct bus_connection *c, sd_bus_message *m, const char *device, const char *vm,
	const struct refusal_text *text, sd_bus_error *error)
{
	const struct permission *p = permission_of(m);
	const struct bus_question q = {
		.action = p ? p->action : NULL, .device = device, .vm = vm, .text = text};

	if (c->system && q.action && bus_polkit_ask(c, m, &q) == 0) {
		return 1;
	}
	bus_audit_refused(c, &c->caller, device, vm, REFUSAL_DENIED, text->sentence);
	return bus_fail(error, REFUSAL_DENIED, text);
}

int bus_permit_call(struct bus_connection *c, sd_bus_message *m, sd_bus_error *error)
{
	const struct permission *p = permission_of(m);
	struct refusal_text text = {0};

	if (!p || p->who == WHO_ANYBODY || p->who == WHO_OWNER ||
		(p->who == WHO_ADMIN && bus_is_admin(&c->caller)) || c->caller.class == UID_HOST) {
		return 0;
	}
	_unused_ int r =
		p->who == WHO_HOST
			? refuse_with(&text, REFUSAL_DENIED,
				  "Run it as root, or as the user who runs devbrokerd.",
				  "user %u may not %s", (unsigned int)c->caller.uid, p->what)
			: refuse(&text, REFUSAL_DENIED, "user %u may not %s",
				  (unsigned int)c->caller.uid, p->what);
	return deny(c, m, "", "", &text, error);
}

static int deny_vm(struct bus_connection *c, sd_bus_message *m, const char *device,
	const struct vm *vm, sd_bus_error *error)
{
	const struct permission *p = permission_of(m);
	struct refusal_text text = {0};

	_unused_ int r = refuse_with(&text, REFUSAL_DENIED,
		"Ask its owner, or run it as root or as a member of the group devbroker.",
		"user %u may not %s: vm %s is somebody else's", (unsigned int)c->caller.uid,
		p ? p->what : "do that", vm->name);
	return deny(c, m, device, vm->name, &text, error);
}

int bus_permit_vm(
	struct bus_connection *c, sd_bus_message *m, const struct vm *vm, sd_bus_error *error)
{
	if (bus_is_admin(&c->caller) || owners_have(&vm->owners, c->caller.uid)) {
		return 0;
	}
	return deny_vm(c, m, "", vm, error);
}

int bus_permit_detach(
	struct bus_connection *c, sd_bus_message *m, const struct device *d, sd_bus_error *error)
{
	const struct vm *vm = d->lease->vm;

	if (bus_is_admin(&c->caller) || owners_have(&vm->owners, c->caller.uid)) {
		return 0;
	}
	return deny_vm(c, m, d->name, vm, error);
}

/* Whether rules give or offer it to this VM. */
static bool offered_to(struct device *d, const char *vm)
{
	const struct device_usb *u = device_usb(d);
	const struct policy_decision *p = u ? &u->decision : NULL;

	if (!u || !u->facts) {
		return false;
	}
	if (p->action == POLICY_ATTACH) {
		return strcmp(p->vm, vm) == 0;
	}
	for (size_t i = 0; p->action == POLICY_OFFER && p->rule && i < p->rule->n_vms; i++) {
		if (strcmp(p->rule->vms[i], vm) == 0) {
			return true;
		}
	}
	return false;
}

int bus_permit_attach(struct bus_connection *c, sd_bus_message *m, struct device *d,
	const struct vm *vm, struct lease_options *lend, sd_bus_error *error)
{
	struct refusal_text text = {0};

	if (bus_is_admin(&c->caller)) {
		return 0;
	}
	if (!owners_have(&vm->owners, c->caller.uid)) {
		return deny_vm(c, m, d->name, vm, error);
	}
	if (!offered_to(d, vm->name)) {
		_unused_ int r = refuse_with(&text, REFUSAL_DENIED,
			"An administrator can attach it, or write a rule: Action=offer VM.",
			"user %u may not attach %s: no rule offers it to vm %s",
			(unsigned int)c->caller.uid, d->name, vm->name);
		return deny(c, m, d->name, vm->name, &text, error);
	}
	*lend = device_usb(d)->decision.options;
	return 0;
}

/* The one who is being answered, or NULL: what is said now is said to everybody. */
static const struct bus_caller *reader(struct broker *b, sd_bus *bus)
{
	const struct bus_connection *c = bus_connection_of(b, bus);

	return !c || (c->system && c->announcing) ? NULL : &c->caller;
}

bool bus_sees_all(struct broker *b, sd_bus *bus)
{
	const struct bus_caller *caller = reader(b, bus);

	return caller && bus_is_admin(caller);
}

bool bus_sees_vm(struct broker *b, sd_bus *bus, const struct vm *vm)
{
	const struct bus_caller *caller = reader(b, bus);

	return caller && (bus_is_admin(caller) || owners_have(&vm->owners, caller->uid));
}

/* It is in one of the caller's VMs, or could be. */
static bool concerns(struct broker *b, const struct bus_caller *caller, struct device *d)
{
	const struct vm *vm;

	if (d->lease) {
		return owners_have(&d->lease->vm->owners, caller->uid);
	}
	list_for_each (vm, &b->vms, link) {
		if (owners_have(&vm->owners, caller->uid) && offered_to(d, vm->name)) {
			return true;
		}
	}
	return false;
}

bool bus_sees_device(struct broker *b, sd_bus *bus, struct device *d)
{
	const struct bus_caller *caller = reader(b, bus);

	return caller && (bus_is_admin(caller) || concerns(b, caller, d));
}

int bus_permit_explain(
	struct bus_connection *c, sd_bus_message *m, struct device *d, sd_bus_error *error)
{
	struct refusal_text text = {0};

	if (bus_is_admin(&c->caller) || concerns(bus_broker(c), &c->caller, d)) {
		return 0;
	}
	_unused_ int r = refuse(&text, REFUSAL_DENIED,
		"user %u may not ask why rules decided about %s: no VM of that user has to do with "
		"it",
		(unsigned int)c->caller.uid, d->name);
	return deny(c, m, d->name, "", &text, error);
}
