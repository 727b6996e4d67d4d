/* SPDX-License-Identifier: MIT
 * org.devbroker.Broker1: what is asked of the broker as a whole.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device-disk.h"
#include "broker/device-nbd.h"
#include "broker/device-usb.h"
#include "broker/hotplug.h"
#include "broker/spawner.h"
#include "broker/usb-host.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "build-config.h"

#define API_VERSION 1

static struct broker *broker_of(struct bus_connection *c)
{
	return c->server->broker;
}

int bus_fail(sd_bus_error *error, int r, const struct refusal_text *text)
{
	if (r < 0) {
		return sd_bus_error_set_errnof(
			error, -r, "%s\nLook at the log of devbrokerd.", strerror(-r));
	}
	return sd_bus_error_setf(error, refusal_dbus_name(r), "%s\n%s",
		text->sentence[0] ? text->sentence : refusal_sentence(r),
		text->remedy[0] ? text->remedy : refusal_remedy(r));
}

int bus_reply_path(sd_bus_message *m, const char *prefix, const char *name)
{
	_cleanup_free_ char *path = NULL;
	int r = sd_bus_path_encode(prefix, name, &path);

	return r < 0 ? r : sd_bus_reply_method_return(m, "o", path);
}

/* ways.group is borrowed. */
static int read_slots(struct config_ways *ways, const char *group, struct vm_options *o,
	struct refusal_text *text)
{
	if (ways->slots > SLOTS_MAX || (group && !config_name_ok(group))) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give up to 16 slots, and the name of a group.",
			"those slots can't be had");
	}
	ways->group = (char *)group;
	o->ways = ways->slots > 0 ? ways : NULL;
	return 0;
}

static int on_add_vm(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct broker *b = broker_of(c);
	struct owners owners = {0};
	struct vm_options o = {.limits = b->config.quota, .owners = &owners};
	struct config_ways ways = {0};
	const char *group = NULL, *virgl = NULL, *share = NULL;
	struct refusal_text text = {0};
	const struct bus_option options[] = {
		{"qmp", 's', &o.qmp},
		{"bus", 's', &o.bus},
		{"slots", 'u', &ways.slots},
		{"slot-group", 's', &group},
		{"gpu-memory", 't', &o.gpu_memory},
		{"gpu-socket-group", 's', &o.gpu_group},
		{"gpu-virgl", 's', &virgl},
		{"gpu-share", 's', &share},
		{"gpu-frame-rate", 'u', &o.gpu_limits.frame_rate},
		{"gpu-contexts", 'u', &o.gpu_limits.contexts},
		{"gpu-resources", 'u', &o.gpu_limits.resources},
		{"devices-max", 'u', &o.limits.devices},
		{"bytes-in-flight-max", 't', &o.limits.bytes_in_flight},
		{"transfers-in-flight-max", 'u', &o.limits.transfers_in_flight},
		{"owners", 'U', &owners},
	};
	struct vm *vm;
	int r;

	r = sd_bus_message_read(m, "s", &o.name);
	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0) {
		r = read_slots(&ways, group, &o, &text);
	}
	if (r == 0 && virgl && gpu_virgl_parse(virgl, &o.gpu_virgl) < 0) {
		r = refuse_with(&text, REFUSAL_INVALID, "Use no, yes or hardware.",
			"gpu-virgl has a value that it can't have");
	}
	if (r == 0) {
		r = gpu_share_read(share, &o.gpu_limits, &text);
	}
	if (r == 0) {
		r = quota_limits_check(&o.limits, &text);
	}
	if (r == 0) {
		r = vm_add(b, &o, &vm, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, "", o.name, error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, "", vm->name, "", "The VM was added.");
	return bus_reply_path(m, BUS_VMS, vm->name);
}

static int on_remove_vm(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	char known[NAME_MAX_LENGTH + 1];
	const char *name = NULL;
	struct vm *vm;
	int r = sd_bus_message_read(m, "s", &name);

	if (r < 0) {
		return r;
	}
	r = broker_find_vm(broker_of(c), name, &vm, &text);
	if (r == 0) {
		snprintf(known, sizeof(known), "%s", vm->name);
		r = vm_remove(vm, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, "", name, error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, "", known, "", "The VM was removed.");
	return sd_bus_reply_method_return(m, NULL);
}

static int on_add_disk(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct device_disk_options o = {.image_fd = -1, .speed = "super"};
	struct refusal_text text = {0};
	int read_only = 0, cdrom = 0, fd;
	const struct bus_option options[] = {
		{"read-only", 'b', &read_only},
		{"cdrom", 'b', &cdrom},
		{"speed", 's', &o.speed},
		{"serial", 's', &o.serial},
		{"path", 's', &o.path},
		{"export", 's', &o.export},
	};
	struct device *d;
	int r = sd_bus_message_read(m, "sh", &o.name, &fd);
	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0) {
		/* The message keeps its own. */
		o.image_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = o.image_fd < 0 ? -errno : 0;
	}
	if (r == 0) {
		o.read_only = read_only;
		o.cdrom = cdrom;
		r = o.export ? device_nbd_renew(broker_of(c), &o, &d, &text) : REFUSAL_NOT_FOUND;
		if (r == REFUSAL_NOT_FOUND) {
			r = device_add_disk(broker_of(c), &o, &d, &text);
		} else if (r != 0) {
			safe_close(o.image_fd);
		}
	}
	if (r != 0) {
		return bus_fail_call(c, o.name, "", error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, d->name, "", "", "The disk was added.");
	return bus_reply_path(m, BUS_DEVICES, d->name);
}

static int on_remove_disk(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	const char *name = NULL;
	_cleanup_free_ char *known = NULL;
	struct device *d;
	int r = sd_bus_message_read(m, "s", &name);

	if (r < 0) {
		return r;
	}
	r = broker_find_device(broker_of(c), name, &d, &text);
	if (r == 0) {
		known = strdup(d->name);
		r = device_remove(d, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, name, "", error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, known, "", "", "The disk was removed.");
	return sd_bus_reply_method_return(m, NULL);
}

/* An owner may ask for less than a rule offers; what would be more is an administrator's to say. */
static int check_wishes(struct bus_connection *c, bool wishes, struct refusal_text *text)
{
	if (!wishes || bus_is_admin(&c->caller)) {
		return 0;
	}
	return refuse_with(text, REFUSAL_DENIED,
		"Leave them out: the rule that offers it says how it is lent.",
		"user %u may not ask for options that give a VM more", (unsigned int)c->caller.uid);
}

/* The rule that let an owner have it; "" if none had to. */
static const char *offering_rule(const struct bus_connection *c, struct device *d)
{
	const struct device_usb *u = device_usb(d);

	return bus_is_admin(&c->caller) || !u || !u->decision.rule ? "" : u->decision.rule->name;
}

int bus_attach(struct bus_connection *c, struct device *d, struct vm *vm,
	struct lease_options *options, bool remember, struct refusal_text *text)
{
	int r = device_usb(d) ? usb_host_restrict(device_usb(d), options, text) : 0;

	if (r == 0) {
		r = lease_create(d, vm, options, text);
	}
	if (r == 0 && remember) {
		r = bus_remember(c, d, vm->name, text);
		if (r != 0 && d->lease) {
			lease_release(d->lease, LEASE_REASON_USER_DETACH);
		}
	}
	return r;
}

static int on_attach(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct broker *b = broker_of(c);
	struct refusal_text text = {0};
	struct lease_options lend = {0};
	int keep_off = 0, last_input = 0, remember = 0, read_only = 0, firmware = 0;
	const char *interfaces = NULL;
	const struct bus_option options[] = {
		{"keep-drivers-off", 'b', &keep_off},
		{"last-input", 'b', &last_input},
		{"remember", 'b', &remember},
		{"read-only", 'b', &read_only},
		{"allow-firmware", 'b', &firmware},
		{"interfaces", 's', &interfaces},
	};
	const char *device = NULL, *name = NULL;
	struct device *d;
	struct vm *vm;
	int r = sd_bus_message_read(m, "ss", &device, &name);

	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0) {
		r = broker_find_device(b, device, &d, &text);
	}
	if (r == 0) {
		r = broker_find_vm(b, name, &vm, &text);
	}
	if (r == 0 && remember && (interfaces || read_only || firmware)) {
		r = refuse_with(&text, REFUSAL_NOT_SUPPORTED,
			"Write a rule that gives it to the VM so: devbroker-policy(5).",
			"only where a device goes can be remembered, not what the VM sees of it");
	}
	if (r == 0) {
		r = bus_permit_attach(c, m, d, vm, &lend, error);
		if (r != 0) {
			return r;
		}
		r = check_wishes(c, keep_off || last_input || remember || firmware, &text);
	}
	if (r == 0 && interfaces && lease_interfaces_parse(interfaces, &lend.interfaces) < 0) {
		r = refuse_with(&text, REFUSAL_INVALID,
			"Write numbers from 0 to 31 with commas between them, as in 0,2.",
			"what interfaces are to be lent is no list of numbers");
	}
	if (r == 0) {
		lend.keep_drivers_off |= keep_off;
		lend.last_input |= last_input;
		lend.read_only |= read_only;
		lend.allow_firmware |= firmware;
		r = bus_attach(c, d, vm, &lend, remember, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, device, name, error, r, &text);
	}
	bus_audit(c, AUDIT_ATTACH, d->name, vm->name, offering_rule(c, d), "Asked for.");
	return bus_reply_path(m, BUS_DEVICES, d->name);
}

static int on_detach(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	const char *device = NULL;
	struct device *d;
	struct lease *l;
	int r = sd_bus_message_read(m, "s", &device);

	if (r >= 0) {
		r = bus_read_options(m, NULL, 0, &text);
	}
	if (r == 0) {
		r = broker_find_device(broker_of(c), device, &d, &text);
	}
	l = r == 0 ? d->lease : NULL;
	if (r == 0 && !l) {
		r = refuse(&text, REFUSAL_NOT_ATTACHED, "%s is in no VM", d->name);
	}
	if (!l) {
		return bus_fail_call(c, device, "", error, r, &text);
	}
	r = bus_permit_detach(c, m, d, error);
	if (r != 0) {
		return r;
	}
	bus_audit(c, AUDIT_DETACH, d->name, l->vm->name, "", "Asked for.");
	lease_release(l, LEASE_REASON_USER_DETACH);
	return bus_reply_path(m, BUS_DEVICES, d->name);
}

static int on_refresh(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	return bus_refresh(m, broker_of(userdata), NULL);
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct broker *b = broker_of(userdata);
	const char *text = "";

	if (strcmp(property, "Version") == 0) {
		text = DEVBROKER_VERSION;
	} else if (strcmp(property, "Sandbox") == 0) {
		text = b->config.sandbox;
	} else if (strcmp(property, "ConfigDirectory") == 0) {
		text = b->config_dir;
	} else if (strcmp(property, "RunDirectory") == 0) {
		text = b->run_dir;
	}
	return sd_bus_message_append(reply, "s", text);
}

static unsigned int count_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	if (!dir) {
		return 0;
	}
	while (readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct broker *b = broker_of(userdata);
	uint32_t n = 0;

	if (strcmp(property, "ApiVersion") == 0) {
		n = API_VERSION;
	} else if (strcmp(property, "Workers") == 0) {
		n = b->n_workers;
	} else if (strcmp(property, "Pid") == 0) {
		n = (uint32_t)getpid();
	} else if (strcmp(property, "OpenFds") == 0) {
		n = count_open_fds();
	}
	return sd_bus_message_append(reply, "u", n);
}

static bool has_usb(void)
{
	return access("/sys/bus/usb/devices", F_OK) == 0;
}

static int get_usb_bus(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	return sd_bus_message_append(reply, "b", has_usb());
}

static int get_warnings(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct broker *b = broker_of(userdata);
	int r = sd_bus_message_open_container(reply, 'a', "s");

	if (r >= 0 && b->config.sandbox_stages != SANDBOX_ALL) {
		r = sd_bus_message_append(reply, "s",
			"The sandbox of workers is reduced by configuration: a guest that takes a "
			"worker over can do more.");
	}
	if (r >= 0 && b->uid_count == 0) {
		r = sd_bus_message_append(reply, "s",
			"Workers run under the broker's own uid, because it is not root or "
			"worker-uids=none: they are told apart by their namespaces only.");
	}
	if (r >= 0 && !spawner_alive(b->spawner)) {
		r = sd_bus_message_append(reply, "s",
			"The spawner of workers has died: what is lent stays so, but nothing more "
			"can be lent until devbrokerd is started again.");
	}
	if (r >= 0 && has_usb() && b->hotplug && hotplug_warning(b->hotplug)) {
		r = sd_bus_message_append(reply, "s", hotplug_warning(b->hotplug));
	}
	if (r >= 0) {
		r = sd_bus_message_append(reply, "s",
			"Workers of USB are limited by rlimits and their own accounting, not by "
			"cgroups.");
	}
	if (r >= 0 && b->scopes.reason[0]) {
		r = sd_bus_message_append(reply, "s",
			"Renderers are limited by rlimits and their own accounting: systemd made "
			"no cgroup for the last one. See the log.");
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* What is fixed for the life of the broker, and what is counted when asked for. */
const sd_bus_vtable bus_broker_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Version", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("ApiVersion", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Sandbox", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Warnings", "as", get_warnings, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("ConfigDirectory", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("RunDirectory", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("UsbBus", "b", get_usb_bus, 0, 0),
	SD_BUS_PROPERTY("Workers", "u", get_number, 0, 0),
	SD_BUS_PROPERTY("Pid", "u", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("OpenFds", "u", get_number, 0, 0),
	SD_BUS_METHOD_WITH_ARGS("AddVM", SD_BUS_ARGS("s", name, "a{sv}", options),
		SD_BUS_RESULT("o", vm), on_add_vm, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("RemoveVM", SD_BUS_ARGS("s", vm), SD_BUS_NO_RESULT, on_remove_vm,
		SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("AddDisk", SD_BUS_ARGS("s", name, "h", image, "a{sv}", options),
		SD_BUS_RESULT("o", device), on_add_disk, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("RemoveDisk", SD_BUS_ARGS("s", device), SD_BUS_NO_RESULT,
		on_remove_disk, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Attach", SD_BUS_ARGS("s", device, "s", vm, "a{sv}", options),
		SD_BUS_RESULT("o", object), on_attach, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Capture", SD_BUS_ARGS("s", device, "a{sv}", options),
		SD_BUS_RESULT("h", pipe), bus_on_capture, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetQuota", SD_BUS_ARGS("s", vm, "a{sv}", limits),
		SD_BUS_RESULT("b", lasts), bus_on_set_quota, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Export", SD_BUS_ARGS("s", device, "a{sv}", options),
		SD_BUS_RESULT("o", object), bus_on_export, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Detach", SD_BUS_ARGS("s", device, "a{sv}", options),
		SD_BUS_RESULT("o", object), on_detach, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_PROPERTY("Remembered", "a(sssss)", bus_get_remembered, 0, 0),
	SD_BUS_METHOD_WITH_ARGS("Forget", SD_BUS_ARGS("s", device), SD_BUS_NO_RESULT, bus_on_forget,
		SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("ReloadPolicy", SD_BUS_NO_ARGS, SD_BUS_RESULT("u", rules),
		bus_on_reload_policy, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Explain", SD_BUS_ARGS("s", device),
		SD_BUS_RESULT("a(ssus)", trace, "s", action, "s", vm, "s", why), bus_on_explain,
		SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Log", SD_BUS_ARGS("t", after, "a{sv}", options),
		SD_BUS_RESULT("a(ttussssss)", records), bus_on_log, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("RefreshVMs", NULL, NULL, on_refresh, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_SIGNAL_WITH_ARGS("Offered", SD_BUS_ARGS("s", device, "as", vms), 0),
	SD_BUS_SIGNAL_WITH_ARGS("Logged", SD_BUS_ARGS("t", last), 0),
	SD_BUS_SIGNAL_WITH_ARGS("Refused",
		SD_BUS_ARGS("s", device, "s", vm, "s", code, "s", sentence, "s", remedy), 0),
	SD_BUS_VTABLE_END,
};
