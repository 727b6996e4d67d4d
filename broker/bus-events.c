/* SPDX-License-Identifier: MIT
 * What is announced on every connection.
 */
#include <stdlib.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device.h"
#include "broker/vm.h"

#define QUEUED_MAX 2048 /* messages that a client has not read */

/* For connections that may be told: authenticated, and reading. */
static bool connection_hears(struct bus_connection *c)
{
	uint64_t queued = 0;

	/* On the system bus nobody looks before the name is there. */
	if (c->dying || !c->bus || sd_bus_is_ready(c->bus) <= 0) {
		return false;
	}
	if (sd_bus_get_n_queued_write(c->bus, &queued) >= 0 && queued > QUEUED_MAX) {
		if (c->system) {
			log_warn("bus: the system bus does not read; dropped");
		} else {
			log_warn("bus: uid %u pid %d does not read; dropped",
				(unsigned int)c->caller.uid, (int)c->caller.pid);
		}
		bus_connection_drop(c);
		return false;
	}
	return true;
}

static void object_event(struct broker *b, const char *prefix, const char *name,
	int (*emit)(sd_bus *bus, const char *path))
{
	_cleanup_free_ char *path = NULL;
	struct bus_connection *c;

	if (!b->bus || sd_bus_path_encode(prefix, name, &path) < 0) {
		return;
	}
	list_for_each (c, &b->bus->connections, link) {
		if (connection_hears(c)) {
			c->announcing = true;
			emit(c->bus, path);
			c->announcing = false;
		}
	}
}

static int emit_added(sd_bus *bus, const char *path)
{
	return sd_bus_emit_object_added(bus, path);
}

static int emit_removed(sd_bus *bus, const char *path)
{
	return sd_bus_emit_object_removed(bus, path);
}

static int emit_device_changed(sd_bus *bus, const char *path)
{
	return sd_bus_emit_properties_changed(bus, path, BUS_IFACE_DEV, "State", "Reason", "Detail",
		"VM", "ReadOnly", "LentInterfaces", "AllowFirmware", "Size", "WorkerPid", "Since",
		"ConnectUsec", "ConfigureUsec", "OfferedTo", NULL);
}

static int emit_vm_changed(sd_bus *bus, const char *path)
{
	return sd_bus_emit_properties_changed(bus, path, BUS_IFACE_VM, "State", "Detail", "VmmPid",
		"Devices", "Streams", "Quota", NULL);
}

void bus_device_added(struct broker *b, struct device *d)
{
	object_event(b, BUS_DEVICES, d->name, emit_added);
}

void bus_device_removed(struct broker *b, struct device *d)
{
	object_event(b, BUS_DEVICES, d->name, emit_removed);
}

void bus_device_changed(struct broker *b, struct device *d)
{
	object_event(b, BUS_DEVICES, d->name, emit_device_changed);
}

void bus_usb_changed(struct broker *b, struct device *d)
{
	object_event(b, BUS_DEVICES, d->name, bus_usb_emit_changed);
}

static int emit_gpu_changed(sd_bus *bus, const char *path)
{
	return sd_bus_emit_properties_changed(bus, path, BUS_IFACE_GPU, "State", "Detail",
		"MemoryMax", "Share", "FrameRateMax", "ContextsMax", "ResourcesMax", NULL);
}

void bus_gpu_changed(struct broker *b, struct vm *vm)
{
	object_event(b, BUS_VMS, vm->name, emit_gpu_changed);
}

void bus_vm_added(struct broker *b, struct vm *vm)
{
	object_event(b, BUS_VMS, vm->name, emit_added);
}

void bus_vm_removed(struct broker *b, struct vm *vm)
{
	object_event(b, BUS_VMS, vm->name, emit_removed);
}

void bus_vm_changed(struct broker *b, struct vm *vm)
{
	object_event(b, BUS_VMS, vm->name, emit_vm_changed);
}

void bus_refused(struct broker *b, const char *device, const char *vm, enum lease_reason reason,
	const char *sentence)
{
	struct bus_connection *c;

	audit_note(b->audit, &(struct audit_event){.action = AUDIT_REFUSED,
				     .uid = AUDIT_NOBODY,
				     .device = device,
				     .vm = vm,
				     .reason = lease_reason_code(reason),
				     .text = sentence});
	if (!b->bus) {
		return;
	}
	list_for_each (c, &b->bus->connections, link) {
		/* To everybody without what may be of one user's paths and programs. */
		bool all = c->system || !bus_is_admin(&c->caller);

		if (connection_hears(c)) {
			sd_bus_emit_signal(c->bus, BUS_ROOT, BUS_IFACE, "Refused", "sssss", device,
				vm, lease_reason_code(reason),
				all ? lease_reason_sentence(reason) : sentence,
				lease_reason_remedy(reason));
		}
	}
}

void bus_offered(struct broker *b, struct device *d, const struct policy_rule *rule)
{
	struct bus_connection *c;

	if (!b->bus) {
		return;
	}
	list_for_each (c, &b->bus->connections, link) {
		_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

		if (connection_hears(c) &&
			sd_bus_message_new_signal(c->bus, &m, BUS_ROOT, BUS_IFACE, "Offered") >=
				0 &&
			sd_bus_message_append(m, "s", d->name) >= 0 &&
			bus_append_offer(m, rule) >= 0) {
			sd_bus_send(c->bus, m, NULL);
		}
	}
}

void bus_logged(struct broker *b, uint64_t seq)
{
	struct bus_connection *c;

	if (!b->bus) {
		return;
	}
	list_for_each (c, &b->bus->connections, link) {
		if (connection_hears(c)) {
			sd_bus_emit_signal(c->bus, BUS_ROOT, BUS_IFACE, "Logged", "t", seq);
		}
	}
}
