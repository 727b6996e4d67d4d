/* SPDX-License-Identifier: MIT
 *
 * The control API's methods about rules and what was remembered.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device-usb.h"
#include "broker/policy.h"
#include "broker/usb-host.h"
#include "broker/vm.h"

int bus_on_reload_policy(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	int r = broker_reload_policy(bus_broker(c), c->caller.uid, &text);

	return r != 0 ? bus_fail(error, r, &text)
		      : sd_bus_reply_method_return(
				m, "u", (uint32_t)bus_broker(c)->policy->n_rules);
}

int bus_append_offer(sd_bus_message *m, const struct policy_rule *rule)
{
	int r = sd_bus_message_open_container(m, 'a', "s");

	for (size_t i = 0; r >= 0 && rule && i < rule->n_vms; i++) {
		r = sd_bus_message_append(m, "s", rule->vms[i]);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

int bus_get_offered(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device_usb *u = device_usb(userdata);

	return bus_append_offer(reply, u ? usb_host_offer(u) : NULL);
}

struct explanation {
	sd_bus_message *reply;
	int r; /* the first error */
};

static void on_looked(
	void *userdata, const struct policy_rule *rule, size_t match, const char *failed)
{
	struct explanation *e = userdata;

	if (e->r >= 0) {
		e->r = sd_bus_message_append(e->reply, "(ssus)", rule->name, rule->where,
			(uint32_t)match, failed ? failed : "");
	}
}

/* Makes the decision again, with its trace: a(ssus), then action, vm, why. */
static int append_explanation(sd_bus_message *reply, const struct device_usb *u)
{
	struct explanation e = {.reply = reply};
	const struct policy_trace trace = {.looked = on_looked, .userdata = &e};
	struct policy_decision d;

	e.r = sd_bus_message_open_container(reply, 'a', "(ssus)");
	usb_host_decision(u, &trace, &d);
	if (e.r >= 0) {
		e.r = sd_bus_message_close_container(reply);
	}
	return e.r < 0 ? e.r
		       : sd_bus_message_append(
				 reply, "sss", policy_action_name(d.action), d.vm, d.why);
}

int bus_on_explain(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	struct refusal_text text = {0};
	const char *name = NULL;
	struct device *d;
	int r = sd_bus_message_read(m, "s", &name);

	if (r < 0) {
		return r;
	}
	r = broker_find_device(bus_broker(c), name, &d, &text);
	if (r == 0 && (!device_usb(d) || !device_usb(d)->facts)) {
		r = refuse_with(&text, REFUSAL_NOT_SUPPORTED,
			"Rules are about USB devices of the host.", "no rule decides about %s",
			d->name);
	}
	if (r != 0) {
		return bus_fail(error, r, &text);
	}
	r = bus_permit_explain(c, m, d, error);
	if (r != 0) {
		return r;
	}
	r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0) {
		r = append_explanation(reply, device_usb(d));
	}
	return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

int bus_remember(
	struct bus_connection *c, struct device *d, const char *vm, struct refusal_text *text)
{
	struct device_usb *u = device_usb(d);
	int r;

	if (!u || !u->facts) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED,
			"Give the disk its VM in disks.d; see devbroker-disk.conf(5).",
			"%s can't be remembered: that is for USB devices of the host", d->name);
	}
	r = memory_add(&bus_broker(c)->memory, u->facts, vm, text);
	if (r == 0) {
		bus_audit(c, AUDIT_CHANGE, d->name, vm, "", "It is remembered.");
		usb_host_decide_all(bus_broker(c));
	}
	return r;
}

/* name: of an entry, or what it may be shortened to. */
static const struct memory_entry *find_entry(const struct memory *m, const char *name)
{
	const struct memory_entry *e, *found = NULL;

	list_for_each (e, &m->entries, link) {
		if (strcmp(e->key, name) == 0 || strcmp(e->key + strlen("usb:"), name) == 0) {
			return e;
		}
		if (e->serial[0] && strcmp(e->serial, name) == 0) {
			found = e;
		}
	}
	return found;
}

int bus_on_forget(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct memory *memory = &bus_broker(c)->memory;
	const struct memory_entry *e;
	struct refusal_text text = {0};
	const char *name = NULL;
	int r = sd_bus_message_read(m, "s", &name);

	if (r < 0 || !name) {
		return r;
	}
	e = find_entry(memory, name);
	if (!e) {
		char shown[128];

		r = refuse_with(&text, REFUSAL_NOT_FOUND,
			"See what is remembered: devbroker remembered",
			"nothing is remembered of %s",
			log_escape(name, strlen(name), shown, sizeof(shown)));
		return bus_fail(error, r, &text);
	}
	r = memory_remove(memory, e->key);
	if (r < 0) {
		return r;
	}
	bus_audit(c, AUDIT_CHANGE, name, "", "", "It is remembered no more.");
	usb_host_decide_all(bus_broker(c));
	return sd_bus_reply_method_return(m, NULL);
}

int bus_get_remembered(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct memory *memory = &bus_broker(userdata)->memory;
	const struct memory_entry *e;
	int r = sd_bus_message_open_container(reply, 'a', "(sssss)");

	list_for_each (e, &memory->entries, link) {
		const struct vm *vm = broker_vm_named(bus_broker(userdata), e->vm);

		if (r >= 0 && (vm ? bus_sees_vm(vm->broker, bus, vm)
				  : bus_sees_all(bus_broker(userdata), bus))) {
			r = sd_bus_message_append(
				reply, "(sssss)", e->key, e->id, e->serial, e->product, e->vm);
		}
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}
