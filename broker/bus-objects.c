/* SPDX-License-Identifier: MIT
 * org.devbroker.Device1 and org.devbroker.VM1: the objects, their properties, VM1.Refresh.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device.h"
#include "broker/vm.h"
#include "broker/worker.h"

static struct broker *broker_of(struct bus_connection *c)
{
	return c->server->broker;
}

/* The name in an object's path, or NULL. To be freed. */
static char *name_in_path(const char *path, const char *prefix)
{
	char *name = NULL;

	return sd_bus_path_decode(path, prefix, &name) > 0 ? name : NULL;
}

int bus_device_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error)
{
	_cleanup_free_ char *name = name_in_path(path, BUS_DEVICES);
	struct device *d = name ? broker_device_named(broker_of(userdata), name) : NULL;

	if (!d) {
		return 0;
	}
	*found_out = d;
	return 1;
}

int bus_vm_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error)
{
	_cleanup_free_ char *name = name_in_path(path, BUS_VMS);
	struct vm *vm = name ? broker_vm_named(broker_of(userdata), name) : NULL;

	if (!vm) {
		return 0;
	}
	*found_out = vm;
	return 1;
}

static void strv_free(char **v)
{
	for (char **p = v; p && *p; p++) {
		free(*p);
	}
	free(v);
}

int bus_device_enumerate(
	sd_bus *bus, const char *prefix, void *userdata, char ***nodes_out, sd_bus_error *error)
{
	struct broker *b = broker_of(userdata);
	char **nodes = calloc(b->n_devices + 1, sizeof(*nodes));
	struct device *d;
	size_t n = 0;

	if (!nodes) {
		return -ENOMEM;
	}
	list_for_each (d, &b->devices, link) {
		if (sd_bus_path_encode(BUS_DEVICES, d->name, &nodes[n++]) < 0) {
			strv_free(nodes);
			return -ENOMEM;
		}
	}
	*nodes_out = nodes;
	return 1;
}

int bus_vm_enumerate(
	sd_bus *bus, const char *prefix, void *userdata, char ***nodes_out, sd_bus_error *error)
{
	struct broker *b = broker_of(userdata);
	char **nodes = calloc(b->n_vms + 1, sizeof(*nodes));
	struct vm *vm;
	size_t n = 0;

	if (!nodes) {
		return -ENOMEM;
	}
	list_for_each (vm, &b->vms, link) {
		if (sd_bus_path_encode(BUS_VMS, vm->name, &nodes[n++]) < 0) {
			strv_free(nodes);
			return -ENOMEM;
		}
	}
	*nodes_out = nodes;
	return 1;
}

struct text_property {
	const char *name;
	const char *(*get)(const void *object);
};

static const char *device_name(const void *o)
{
	return ((const struct device *)o)->name;
}

static const char *device_kind(const void *o)
{
	return ((const struct device *)o)->ops->kind;
}

static const char *source_name(bool from_config)
{
	return from_config ? "config" : "runtime";
}

static const char *device_source(const void *o)
{
	return source_name(((const struct device *)o)->from_config);
}

static const char *device_state_text(const void *o)
{
	return lease_state_name(device_state(o));
}

static const char *device_reason_text(const void *o)
{
	return device_reason(o);
}

static const char *device_detail_text(const void *o)
{
	return device_detail(o);
}

static const char *device_vm(const void *o)
{
	const struct device *d = o;

	return d->lease ? d->lease->vm->name : "";
}

static const char *device_description(const void *o)
{
	const struct device *d = o;

	return d->ops->description(d);
}

static const char *device_serial(const void *o)
{
	return ((const struct device *)o)->serial;
}

static const char *device_speed(const void *o)
{
	const struct device *d = o;

	return d->ops->speed(d);
}

static const char *device_path(const void *o)
{
	const struct device *d = o;

	return d->ops->path(d);
}

static const struct text_property device_texts[] = {
	{"Name", device_name},
	{"Kind", device_kind},
	{"Source", device_source},
	{"State", device_state_text},
	{"Reason", device_reason_text},
	{"Detail", device_detail_text},
	{"VM", device_vm},
	{"Description", device_description},
	{"Serial", device_serial},
	{"Speed", device_speed},
	{"Path", device_path},
};

static const char *vm_name(const void *o)
{
	return ((const struct vm *)o)->name;
}

static const char *vm_source(const void *o)
{
	return source_name(((const struct vm *)o)->from_config);
}

static const char *vm_state_text(const void *o)
{
	return vm_state_name(((const struct vm *)o)->state);
}

static const char *vm_detail(const void *o)
{
	return ((const struct vm *)o)->detail;
}

static const char *vm_qmp(const void *o)
{
	const struct vm *vm = o;

	return vm->qmp ? vm->qmp : "";
}

static const char *vm_bus(const void *o)
{
	return ((const struct vm *)o)->bus;
}

static const struct text_property vm_texts[] = {
	{"Name", vm_name},
	{"Source", vm_source},
	{"State", vm_state_text},
	{"Detail", vm_detail},
	{"Qmp", vm_qmp},
	{"Bus", vm_bus},
};

static const struct text_property *find_text(
	const struct text_property *table, size_t n, const char *property)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, property) == 0) {
			return &table[i];
		}
	}
	return NULL;
}

/* Of devices and VMs: for owners and administrators; "" for others. */
static bool is_discreet(const char *property)
{
	return strcmp(property, "Detail") == 0 || strcmp(property, "Path") == 0 ||
	       strcmp(property, "Qmp") == 0;
}

sd_bus_vtable *bus_vtable_discreet(const sd_bus_vtable *vtable)
{
	sd_bus_vtable *copy;
	size_t n = 0;

	while (vtable[n].type != _SD_BUS_VTABLE_END) {
		n++;
	}
	copy = calloc(n + 1, sizeof(*copy));
	if (!copy) {
		return NULL;
	}
	memcpy(copy, vtable, (n + 1) * sizeof(*copy));
	for (size_t i = 0; i < n; i++) {
		sd_bus_vtable *v = &copy[i];

		if (v->type == _SD_BUS_VTABLE_PROPERTY && is_discreet(v->x.property.member) &&
			v->flags & SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE) {
			v->flags &= ~SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE;
			v->flags |= SD_BUS_VTABLE_PROPERTY_EMITS_INVALIDATION;
		}
	}
	return copy;
}

static int get_device_text(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct text_property *p = find_text(device_texts, ARRAY_SIZE(device_texts), property);
	struct device *d = userdata;
	bool shown = !is_discreet(property) || bus_sees_device(d->broker, bus, d);

	return sd_bus_message_append(reply, "s", shown ? p->get(d) : "");
}

static int get_vm_text(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct text_property *p = find_text(vm_texts, ARRAY_SIZE(vm_texts), property);
	const struct vm *vm = userdata;
	bool shown = !is_discreet(property) || bus_sees_vm(vm->broker, bus, vm);

	return sd_bus_message_append(reply, "s", shown ? p->get(vm) : "");
}

static int get_read_only(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device *d = userdata;

	return sd_bus_message_append(reply, "b", d->ops->read_only(d));
}

/* "" where the VM sees all of them. */
static int get_lent_interfaces(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device *d = userdata;
	char text[LEASE_INTERFACES_TEXT];

	return sd_bus_message_append(reply, "s",
		lease_interfaces_print(d->lease ? d->lease->options.interfaces : 0, text));
}

static int get_allow_firmware(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device *d = userdata;

	return sd_bus_message_append(reply, "b", d->lease && d->lease->options.allow_firmware);
}

static int get_worker_pid(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device *d = userdata;
	pid_t pid = d->lease && d->lease->worker ? worker_pid(d->lease->worker) : 0;

	return sd_bus_message_append(reply, "u", (uint32_t)pid);
}

static int get_device_number(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct device *d = userdata;
	uint64_t n = 0;

	if (strcmp(property, "Size") == 0) {
		n = d->ops->size(d);
	} else if (strcmp(property, "Since") == 0) {
		n = d->since;
	} else if (strcmp(property, "ConnectUsec") == 0) {
		n = d->lease ? d->lease->connect_usec : 0;
	} else if (strcmp(property, "ConfigureUsec") == 0) {
		n = d->lease ? d->lease->configure_usec : 0;
	}
	return sd_bus_message_append(reply, "t", n);
}

static int get_vmm_pid(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	return sd_bus_message_append(reply, "u", (uint32_t)((struct vm *)userdata)->vmm_pid);
}

static int get_devices(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	const struct lease *l;
	int r = sd_bus_message_open_container(reply, 'a', "s");

	list_for_each (l, &vm->leases, link) {
		if (r >= 0) {
			r = sd_bus_message_append(reply, "s", l->device->name);
		}
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_owners(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	uint32_t n = bus_sees_vm(vm->broker, bus, vm) ? vm->owners.n : 0;

	return sd_bus_message_append_array(reply, 'u', vm->owners.uids, n * sizeof(uint32_t));
}

/* One call that waits for some VMs. The connection may be gone before they answer: the message
 * holds a reference to its bus, and a reply on a closed one is lost. */
struct refresh {
	sd_bus_message *call;
	size_t n_waiting;
	size_t n_waiters;
	struct vm_waiter waiters[];
};

static void refresh_done(struct refresh *f)
{
	if (f->n_waiting > 0) {
		return;
	}
	sd_bus_reply_method_return(f->call, NULL);
	sd_bus_message_unref(f->call);
	free(f);
}

static void on_vm_answered(struct vm_waiter *w)
{
	struct refresh *f = w->userdata;

	f->n_waiting--;
	refresh_done(f);
}

static void refresh_add(struct refresh *f, struct vm *vm)
{
	struct vm_waiter *w = &f->waiters[f->n_waiters++];

	w->done = on_vm_answered;
	w->userdata = f;
	f->n_waiting++;
	if (vm_probe(vm, w) < 0) {
		f->n_waiting--;
	}
}

int bus_refresh(sd_bus_message *m, struct broker *b, struct vm *vm)
{
	struct refresh *f = calloc(1, sizeof(*f) + (vm ? 1 : b->n_vms) * sizeof(struct vm_waiter));
	struct vm *each;

	if (!f) {
		return -ENOMEM;
	}
	f->call = sd_bus_message_ref(m);
	/* Held until all are asked: an answer may not come from within, but a failure may. */
	f->n_waiting = 1;
	if (vm && bus_sees_vm(b, sd_bus_message_get_bus(m), vm)) {
		refresh_add(f, vm);
	}
	if (!vm) {
		list_for_each (each, &b->vms, link) {
			/* Others are told what is known: asking takes a process for each. */
			if (bus_sees_vm(b, sd_bus_message_get_bus(m), each)) {
				refresh_add(f, each);
			}
		}
	}
	f->n_waiting--;
	refresh_done(f);
	return 1;
}

static int on_vm_refresh(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct vm *vm = userdata;

	return bus_refresh(m, vm->broker, vm);
}

const sd_bus_vtable bus_device_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Name", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Kind", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Source", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("State", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Reason", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Detail", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("VM", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"Description", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Drivers", "as", bus_get_drivers, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Serial", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Speed", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("ReadOnly", "b", get_read_only, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"LentInterfaces", "s", get_lent_interfaces, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"AllowFirmware", "b", get_allow_firmware, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Size", "t", get_device_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Path", "s", get_device_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("WorkerPid", "u", get_worker_pid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Since", "t", get_device_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"ConnectUsec", "t", get_device_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"ConfigureUsec", "t", get_device_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("OfferedTo", "as", bus_get_offered, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Statistics", "a{st}", bus_get_statistics, 0, 0),
	SD_BUS_PROPERTY("Latency", "at", bus_get_latency, 0, 0),
	SD_BUS_VTABLE_END,
};

const sd_bus_vtable bus_vm_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Name", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Source", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("State", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Detail", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Qmp", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Bus", "s", get_vm_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Owners", "au", get_owners, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("VmmPid", "u", get_vmm_pid, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Devices", "as", get_devices, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Statistics", "a{st}", bus_get_vm_statistics, 0, 0),
	SD_BUS_PROPERTY("Quota", "a{s(tt)}", bus_get_quota, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY(
		"Streams", "a(sss)", bus_get_streams, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_METHOD("Refresh", NULL, NULL, on_vm_refresh, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

/* org.freedesktop.DBus.Hello: what clients of a message bus say first (busctl --address= does). */
static int on_hello(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	return sd_bus_reply_method_return(m, "s", ":1.0");
}

static const sd_bus_vtable hello_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Hello", NULL, "s", on_hello, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

const struct bus_vtables bus_plain_vtables = {
	.device = bus_device_vtable,
	.vm = bus_vm_vtable,
	.gpu = bus_gpu_vtable,
};

int bus_export(struct bus_connection *c, const struct bus_vtables *t)
{
	const struct {
		const char *prefix;
		const char *interface;
		const sd_bus_vtable *vtable;
		sd_bus_object_find_t find;
	} fallbacks[] = {
		{BUS_DEVICES, BUS_IFACE_DEV, t->device, bus_device_find},
		{BUS_DEVICES, BUS_IFACE_USB, bus_usb_vtable, bus_usb_find},
		{BUS_VMS, BUS_IFACE_VM, t->vm, bus_vm_find},
		{BUS_VMS, BUS_IFACE_GPU, t->gpu, bus_gpu_find},
	};
	sd_bus *bus = c->bus;
	/* On a message bus that is the bus's own. */
	int r = c->system ? 0
			  : sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/DBus",
				    "org.freedesktop.DBus", hello_vtable, c);

	if (r >= 0) {
		r = sd_bus_add_object_manager(bus, NULL, BUS_ROOT);
	}
	if (r >= 0) {
		r = sd_bus_add_object_vtable(bus, NULL, BUS_ROOT, BUS_IFACE, bus_broker_vtable, c);
	}
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(fallbacks); i++) {
		r = sd_bus_add_fallback_vtable(bus, NULL, fallbacks[i].prefix,
			fallbacks[i].interface, fallbacks[i].vtable, fallbacks[i].find, c);
	}
	if (r >= 0) {
		r = sd_bus_add_node_enumerator(bus, NULL, BUS_DEVICES, bus_device_enumerate, c);
	}
	if (r >= 0) {
		r = sd_bus_add_node_enumerator(bus, NULL, BUS_VMS, bus_vm_enumerate, c);
	}
	return r;
}
