/* SPDX-License-Identifier: MIT
 * The broker's objects as JSON with the documented names: tables and --json are made of the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/cli/cli.h"

#define IFACE_BROKER "org.devbroker.Broker1"
#define IFACE_DEVICE "org.devbroker.Device1"
#define IFACE_VM     "org.devbroker.VM1"
#define DEPTH_MAX    4

struct name {
	const char *interface;
	const char *property;
	const char *key;
};

/* What is not here is not shown: a newer broker's additions change no schema. */
static const struct name names[] = {
	{IFACE_DEVICE, "Name", "name"},
	{IFACE_DEVICE, "Kind", "kind"},
	{IFACE_DEVICE, "Source", "source"},
	{IFACE_DEVICE, "State", "state"},
	{IFACE_DEVICE, "Reason", "reason"},
	{IFACE_DEVICE, "Detail", "detail"},
	{IFACE_DEVICE, "VM", "vm"},
	{IFACE_DEVICE, "Description", "description"},
	{IFACE_DEVICE, "Serial", "serial"},
	{IFACE_DEVICE, "Speed", "speed"},
	{IFACE_DEVICE, "ReadOnly", "read_only"},
	{IFACE_DEVICE, "Size", "size_bytes"},
	{IFACE_DEVICE, "Path", "path"},
	{IFACE_DEVICE, "WorkerPid", "worker_pid"},
	{IFACE_DEVICE, "Since", "since_usec"},
	{IFACE_DEVICE, "ConnectUsec", "connect_usec"},
	{IFACE_DEVICE, "ConfigureUsec", "configure_usec"},
	{IFACE_DEVICE, "Statistics", "statistics"},
	{IFACE_VM, "Name", "name"},
	{IFACE_VM, "Source", "source"},
	{IFACE_VM, "State", "state"},
	{IFACE_VM, "Detail", "detail"},
	{IFACE_VM, "Qmp", "qmp"},
	{IFACE_VM, "Bus", "bus"},
	{IFACE_VM, "VmmPid", "vmm_pid"},
	{IFACE_VM, "Devices", "devices"},
	{IFACE_VM, "Quota", "quota"},
	{IFACE_BROKER, "Version", "version"},
	{IFACE_BROKER, "ApiVersion", "api_version"},
	{IFACE_BROKER, "Sandbox", "sandbox"},
	{IFACE_BROKER, "Warnings", "warnings"},
	{IFACE_BROKER, "ConfigDirectory", "config_directory"},
	{IFACE_BROKER, "RunDirectory", "run_directory"},
	{IFACE_BROKER, "UsbBus", "usb_bus"},
	{IFACE_BROKER, "Workers", "workers"},
	{IFACE_BROKER, "Pid", "pid"},
	{IFACE_BROKER, "OpenFds", "open_fds"},
};

static const char *key_of(const char *interface, const char *property)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i].interface, interface) == 0 &&
			strcmp(names[i].property, property) == 0) {
			return names[i].key;
		}
	}
	return NULL;
}

static json_t *read_value(sd_bus_message *m, int depth);

static json_t *read_basic(sd_bus_message *m, char type)
{
	union {
		const char *s;
		uint64_t t;
		int64_t x;
		uint32_t u;
		int32_t i;
		int b;
	} v = {0};

	if (sd_bus_message_read_basic(m, type, &v) < 0) {
		return NULL;
	}
	switch (type) {
	case 's':
	case 'o':
		/* jansson refuses broken UTF-8; sd-bus lets none through. */
		return json_string(v.s);
	case 'b':
		return json_boolean(v.b);
	case 'u':
		return json_integer(v.u);
	case 'i':
		return json_integer(v.i);
	case 't':
		return json_integer((json_int_t)v.t);
	case 'x':
		return json_integer(v.x);
	default:
		return NULL;
	}
}

/* (used, limit) of a quota. */
static json_t *read_struct(sd_bus_message *m, const char *contents)
{
	uint64_t used, limit;

	if (strcmp(contents, "tt") != 0 || sd_bus_message_read(m, "(tt)", &used, &limit) < 0) {
		return NULL;
	}
	return json_pack("{s:I, s:I}", "used", (json_int_t)used, "limit", (json_int_t)limit);
}

static json_t *read_array(sd_bus_message *m, const char *contents, int depth)
{
	bool dict = contents[0] == '{';
	json_t *out = dict ? json_object() : json_array();
	int r = sd_bus_message_enter_container(m, 'a', contents);

	while (r >= 0 && sd_bus_message_at_end(m, false) == 0) {
		const char *key = NULL;
		json_t *value;

		if (dict) {
			const char *inner;
			char type;

			r = sd_bus_message_peek_type(m, &type, &inner);
			if (r >= 0) {
				r = sd_bus_message_enter_container(m, 'e', inner);
			}
			if (r >= 0) {
				r = sd_bus_message_read_basic(m, 's', &key);
			}
		}
		value = r >= 0 ? read_value(m, depth + 1) : NULL;
		if (!value) {
			json_decref(out);
			return NULL;
		}
		if (dict) {
			json_object_set_new(out, key, value);
			r = sd_bus_message_exit_container(m);
		} else {
			json_array_append_new(out, value);
		}
	}
	if (r < 0 || sd_bus_message_exit_container(m) < 0) {
		json_decref(out);
		return NULL;
	}
	return out;
}

static json_t *read_value(sd_bus_message *m, int depth)
{
	const char *contents;
	char type;

	if (depth > DEPTH_MAX || sd_bus_message_peek_type(m, &type, &contents) <= 0) {
		return NULL;
	}
	switch (type) {
	case 'a':
		return read_array(m, contents, depth);
	case 'r':
		return read_struct(m, contents);
	default:
		return read_basic(m, type);
	}
}

/* a{sv} of one interface. 0 or -errno. */
static int read_properties(sd_bus_message *m, const char *interface, json_t *out)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const char *property, *contents, *key;
		json_t *value;

		r = sd_bus_message_read_basic(m, 's', &property);
		if (r < 0) {
			return r;
		}
		key = key_of(interface, property);
		if (!key) {
			r = sd_bus_message_skip(m, "v");
		} else {
			char type;

			r = sd_bus_message_peek_type(m, &type, &contents);
			if (r >= 0) {
				r = sd_bus_message_enter_container(m, 'v', contents);
			}
			value = r >= 0 ? read_value(m, 0) : NULL;
			if (!value) {
				return -EBADMSG;
			}
			json_object_set_new(out, key, value);
			r = sd_bus_message_exit_container(m);
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(m);
		}
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* a{sa{sv}} of one object. */
static int read_interfaces(sd_bus_message *m, json_t *devices, json_t *vms)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
		const char *interface;
		json_t *list, *object;

		r = sd_bus_message_read_basic(m, 's', &interface);
		if (r < 0) {
			return r;
		}
		list = strcmp(interface, IFACE_DEVICE) == 0 ? devices
		       : strcmp(interface, IFACE_VM) == 0   ? vms
							    : NULL;
		if (!list) {
			r = sd_bus_message_skip(m, "a{sv}");
		} else {
			object = json_object();
			json_array_append_new(list, object);
			r = read_properties(m, interface, object);
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(m);
		}
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_objects(sd_bus_message *m, json_t *devices, json_t *vms)
{
	int r = sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "oa{sa{sv}}")) > 0) {
		const char *path;

		r = sd_bus_message_read_basic(m, 'o', &path);
		if (r >= 0) {
			r = read_interfaces(m, devices, vms);
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(m);
		}
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int by_name(const void *a, const void *b)
{
	const char *x = json_string_value(json_object_get(*(json_t *const *)a, "name"));
	const char *y = json_string_value(json_object_get(*(json_t *const *)b, "name"));

	return strcmp(x ? x : "", y ? y : "");
}

static json_t *sorted(json_t *list)
{
	size_t n = json_array_size(list);
	json_t **items = calloc(n + 1, sizeof(*items));
	json_t *out = json_array();

	for (size_t i = 0; items && i < n; i++) {
		items[i] = json_array_get(list, i);
	}
	if (items) {
		qsort(items, n, sizeof(*items), by_name);
	}
	for (size_t i = 0; items && i < n; i++) {
		json_array_append(out, items[i]);
	}
	free(items);
	json_decref(list);
	return out;
}

int cli_objects(struct cli *c, json_t **devices_out, json_t **vms_out)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	json_t *devices = json_array(), *vms = json_array();
	int r = sd_bus_call_method(c->bus, NULL, "/org/devbroker",
		"org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &error, &reply, NULL);

	if (r >= 0) {
		r = read_objects(reply, devices, vms);
	}
	if (r < 0) {
		r = cli_fail_call(c, r, &error);
		json_decref(devices);
		json_decref(vms);
	} else {
		r = 0;
		*devices_out = sorted(devices);
		*vms_out = sorted(vms);
	}
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	return r;
}

int cli_properties(struct cli *c, const char *path, const char *interface, json_t **out)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	json_t *object = json_object();
	int r = sd_bus_call_method(c->bus, NULL, path, "org.freedesktop.DBus.Properties", "GetAll",
		&error, &reply, "s", interface);

	if (r >= 0) {
		r = read_properties(reply, interface, object);
	}
	if (r < 0) {
		r = cli_fail_call(c, r, &error);
		json_decref(object);
	} else {
		r = 0;
		*out = object;
	}
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	return r;
}

int cli_device(struct cli *c, const char *path, json_t **out)
{
	return cli_properties(c, path, IFACE_DEVICE, out);
}

int cli_vm(struct cli *c, const char *path, json_t **out)
{
	return cli_properties(c, path, IFACE_VM, out);
}

int cli_changed(sd_bus_message *m, const char *interface, json_t **out)
{
	json_t *object = json_object();
	int r = read_properties(m, interface, object);

	if (r < 0) {
		json_decref(object);
		return r;
	}
	*out = object;
	return 0;
}

int cli_print_json(json_t *doc, const char *schema)
{
	json_t *whole = json_pack("{s:s}", "schema", schema);
	int r = 0;

	if (!whole || json_object_update(whole, doc) < 0 ||
		json_dumpf(whole, stdout, JSON_INDENT(2)) < 0 || fputc('\n', stdout) == EOF ||
		fflush(stdout) == EOF) {
		r = CLI_EXIT_FAILED;
	}
	json_decref(whole);
	json_decref(doc);
	return r;
}
