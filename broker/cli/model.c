/* SPDX-License-Identifier: MIT
 * The broker's objects as JSON with the documented names: tables and --json are made of the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/cli/cli.h"

#define DEPTH_MAX 4

struct name {
	const char *interface;
	const char *property;
	const char *key;
};

/* What is not here is not shown: a newer broker's additions change no schema. */
static const struct name names[] = {
	{CLI_IFACE_DEVICE, "Name", "name"},
	{CLI_IFACE_DEVICE, "Kind", "kind"},
	{CLI_IFACE_DEVICE, "Source", "source"},
	{CLI_IFACE_DEVICE, "State", "state"},
	{CLI_IFACE_DEVICE, "Reason", "reason"},
	{CLI_IFACE_DEVICE, "Detail", "detail"},
	{CLI_IFACE_DEVICE, "VM", "vm"},
	{CLI_IFACE_DEVICE, "Description", "description"},
	{CLI_IFACE_DEVICE, "Drivers", "drivers"},
	{CLI_IFACE_DEVICE, "Serial", "serial"},
	{CLI_IFACE_DEVICE, "Speed", "speed"},
	{CLI_IFACE_DEVICE, "ReadOnly", "read_only"},
	{CLI_IFACE_DEVICE, "LentInterfaces", "lent_interfaces"},
	{CLI_IFACE_DEVICE, "AllowFirmware", "allow_firmware"},
	{CLI_IFACE_DEVICE, "Size", "size_bytes"},
	{CLI_IFACE_DEVICE, "Path", "path"},
	{CLI_IFACE_DEVICE, "WorkerPid", "worker_pid"},
	{CLI_IFACE_DEVICE, "Since", "since_usec"},
	{CLI_IFACE_DEVICE, "ConnectUsec", "connect_usec"},
	{CLI_IFACE_DEVICE, "ConfigureUsec", "configure_usec"},
	{CLI_IFACE_DEVICE, "OfferedTo", "offered_to"},
	{CLI_IFACE_DEVICE, "Statistics", "statistics"},
	{CLI_IFACE_DEVICE, "Latency", "latency"},
	{CLI_IFACE_USB, "VendorId", "vendor_id"},
	{CLI_IFACE_USB, "ProductId", "product_id"},
	{CLI_IFACE_USB, "Release", "release"},
	{CLI_IFACE_USB, "Manufacturer", "manufacturer"},
	{CLI_IFACE_USB, "Product", "product"},
	{CLI_IFACE_USB, "DescriptorHash", "descriptor_hash"},
	{CLI_IFACE_USB, "DeviceClass", "device_class"},
	{CLI_IFACE_USB, "InterfaceClasses", "interface_classes"},
	{CLI_IFACE_USB, "InterfaceClassesComplete", "interface_classes_complete"},
	{CLI_IFACE_USB, "Configurations", "configurations"},
	{CLI_IFACE_USB, "Configuration", "configuration"},
	{CLI_IFACE_USB, "Authorized", "authorized"},
	{CLI_IFACE_USB, "Interfaces", "interfaces"},
	{CLI_IFACE_USB, "Removable", "removable"},
	{CLI_IFACE_USB, "Controller", "controller"},
	{CLI_IFACE_USB, "Hub", "hub"},
	{CLI_IFACE_USB, "RootHub", "root_hub"},
	{CLI_IFACE_USB, "Sysname", "sysname"},
	{CLI_IFACE_USB, "Syspath", "syspath"},
	{CLI_IFACE_USB, "BusNumber", "bus_number"},
	{CLI_IFACE_USB, "DeviceNumber", "device_number"},
	{CLI_IFACE_USB, "UdevProperties", "udev_properties"},
	{CLI_IFACE_GPU, "State", "state"},
	{CLI_IFACE_GPU, "Detail", "detail"},
	{CLI_IFACE_GPU, "Socket", "socket"},
	{CLI_IFACE_GPU, "MemoryMax", "memory_max_bytes"},
	{CLI_IFACE_GPU, "Memory", "memory_bytes"},
	{CLI_IFACE_GPU, "MemoryUncharged", "memory_uncharged_bytes"},
	{CLI_IFACE_GPU, "Resources", "resources"},
	{CLI_IFACE_GPU, "Scanouts", "scanouts"},
	{CLI_IFACE_GPU, "Frames", "frames"},
	{CLI_IFACE_GPU, "FramesMerged", "frames_merged"},
	{CLI_IFACE_GPU, "Bytes", "bytes"},
	{CLI_IFACE_GPU, "Commands", "commands"},
	{CLI_IFACE_GPU, "Errors", "errors"},
	{CLI_IFACE_GPU, "Renderers", "renderers"},
	{CLI_IFACE_GPU, "Display", "display"},
	{CLI_IFACE_GPU, "DrawnBy", "drawn_by"},
	{CLI_IFACE_GPU, "Contexts", "contexts"},
	{CLI_IFACE_GPU, "Fences", "fences"},
	{CLI_IFACE_GPU, "Refused", "refused"},
	{CLI_IFACE_GPU, "Poisoned", "poisoned"},
	{CLI_IFACE_GPU, "Hangs", "hangs"},
	{CLI_IFACE_GPU, "Quarantined", "quarantined"},
	{CLI_IFACE_GPU, "CpuUsec", "cpu_usec"},
	{CLI_IFACE_GPU, "HeardUsec", "heard_usec"},
	{CLI_IFACE_GPU, "Share", "share"},
	{CLI_IFACE_GPU, "FrameRateMax", "frame_rate_max"},
	{CLI_IFACE_GPU, "ContextsMax", "contexts_max"},
	{CLI_IFACE_GPU, "ResourcesMax", "resources_max"},
	{CLI_IFACE_GPU, "FramesPerSecond", "frames_per_second"},
	{CLI_IFACE_GPU, "FramesDelayed", "frames_delayed"},
	{CLI_IFACE_GPU, "TimeUsec", "time_usec"},
	{CLI_IFACE_GPU, "TimePermille", "time_permille"},
	{CLI_IFACE_GPU, "WaitedUsec", "waited_usec"},
	{CLI_IFACE_GPU, "RendererBytes", "renderer_bytes"},
	{CLI_IFACE_GPU, "DeviceBytes", "device_memory_bytes"},
	{CLI_IFACE_GPU, "TimeFrom", "time_from"},
	{CLI_IFACE_GPU, "ContextTimes", "context_times"},
	{CLI_IFACE_VM, "Name", "name"},
	{CLI_IFACE_VM, "Source", "source"},
	{CLI_IFACE_VM, "State", "state"},
	{CLI_IFACE_VM, "Detail", "detail"},
	{CLI_IFACE_VM, "Qmp", "qmp"},
	{CLI_IFACE_VM, "Bus", "bus"},
	{CLI_IFACE_VM, "Owners", "owners"},
	{CLI_IFACE_VM, "VmmPid", "vmm_pid"},
	{CLI_IFACE_VM, "Devices", "devices"},
	{CLI_IFACE_VM, "Streams", "streams"},
	{CLI_IFACE_VM, "Quota", "quota"},
	{CLI_IFACE_VM, "Statistics", "statistics"},
	{CLI_IFACE_BROKER, "Version", "version"},
	{CLI_IFACE_BROKER, "ApiVersion", "api_version"},
	{CLI_IFACE_BROKER, "Sandbox", "sandbox"},
	{CLI_IFACE_BROKER, "Warnings", "warnings"},
	{CLI_IFACE_BROKER, "ConfigDirectory", "config_directory"},
	{CLI_IFACE_BROKER, "RunDirectory", "run_directory"},
	{CLI_IFACE_BROKER, "UsbBus", "usb_bus"},
	{CLI_IFACE_BROKER, "Workers", "workers"},
	{CLI_IFACE_BROKER, "Pid", "pid"},
	{CLI_IFACE_BROKER, "OpenFds", "open_fds"},
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

/* JSON's integers are signed here: what is beyond them becomes the largest. */
static json_int_t number(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (json_int_t)n;
}

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
		return json_integer(number(v.t));
	case 'x':
		return json_integer(v.x);
	default:
		return NULL;
	}
}

/* A quota, an interface of a USB device, or a stream of a VM. */
static json_t *read_struct(sd_bus_message *m, const char *contents)
{
	uint64_t used, limit;
	uint32_t index, altsetting;
	const char *class, *driver, *address, *state, *device;
	int authorized;

	if (strcmp(contents, "tt") == 0 && sd_bus_message_read(m, "(tt)", &used, &limit) >= 0) {
		return json_pack("{s:I, s:I}", "used", number(used), "limit", number(limit));
	}
	if (strcmp(contents, "uusbs") == 0 && sd_bus_message_read(m, "(uusbs)", &index, &altsetting,
						      &class, &authorized, &driver) >= 0) {
		return json_pack("{s:i, s:i, s:s, s:b, s:s}", "number", (int)index, "altsetting",
			(int)altsetting, "class", class, "authorized", authorized, "driver",
			driver);
	}
	if (strcmp(contents, "sss") == 0 &&
		sd_bus_message_read(m, "(sss)", &address, &state, &device) >= 0) {
		return json_pack(
			"{s:s, s:s, s:s}", "address", address, "state", state, "device", device);
	}
	if (strcmp(contents, "ust") == 0 &&
		sd_bus_message_read(m, "(ust)", &index, &state, &used) >= 0) {
		return json_pack("{s:I, s:s, s:I}", "id", (json_int_t)index, "name", state, "usec",
			number(used));
	}
	return NULL;
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

/* Where the objects of an interface go; NULL: nowhere. */
struct lists {
	json_t *devices, *vms, *gpus;
};

static json_t *list_of(const struct lists *lists, const char *interface)
{
	return strcmp(interface, CLI_IFACE_DEVICE) == 0 ? lists->devices
	       : strcmp(interface, CLI_IFACE_VM) == 0   ? lists->vms
	       : strcmp(interface, CLI_IFACE_GPU) == 0  ? lists->gpus
							: NULL;
}

/* A GPU's object is its VM's. */
static void name_vm(json_t *gpu, const char *path)
{
	_cleanup_free_ char *name = NULL;

	if (sd_bus_path_decode(path, CLI_PATH_VM, &name) > 0) {
		json_object_set_new(gpu, "vm", json_string(name));
	}
}

/* a{sa{sv}} of one object. */
static int read_interfaces(sd_bus_message *m, const char *path, const struct lists *lists)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
		const char *interface;
		json_t *list, *object;

		r = sd_bus_message_read_basic(m, 's', &interface);
		if (r < 0) {
			return r;
		}
		list = list_of(lists, interface);
		if (!list) {
			r = sd_bus_message_skip(m, "a{sv}");
		} else {
			object = json_object();
			json_array_append_new(list, object);
			r = read_properties(m, interface, object);
			if (r >= 0 && list == lists->gpus) {
				name_vm(object, path);
			}
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(m);
		}
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_objects(sd_bus_message *m, const struct lists *lists)
{
	int r = sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "oa{sa{sv}}")) > 0) {
		const char *path;

		r = sd_bus_message_read_basic(m, 'o', &path);
		if (r >= 0) {
			r = read_interfaces(m, path, lists);
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(m);
		}
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int by_text(const void *a, const void *b, void *key)
{
	return strcmp(cli_text(*(json_t *const *)a, key), cli_text(*(json_t *const *)b, key));
}

static json_t *sorted(json_t *list, const char *key)
{
	size_t n = json_array_size(list);
	json_t **items = calloc(n + 1, sizeof(*items));
	json_t *out = json_array();

	for (size_t i = 0; items && i < n; i++) {
		items[i] = json_array_get(list, i);
	}
	if (items) {
		qsort_r(items, n, sizeof(*items), by_text, (void *)(uintptr_t)key);
	}
	for (size_t i = 0; items && i < n; i++) {
		json_array_append(out, items[i]);
	}
	free(items);
	json_decref(list);
	return out;
}

/* Calls a method of reading and gives its answer, or prints why there is none. 0 or the exit code.
 */
static int ask(struct cli *c, const char *path, const char *interface, const char *member,
	const char *arg, sd_bus_message **reply_out, uint64_t *serial_out)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	uint64_t serial = 0;
	int r = sd_bus_call_method(c->bus, c->destination, path, interface, member, &error, &reply,
		arg ? "s" : NULL, arg);

	if (r >= 0) {
		r = sd_bus_message_get_cookie(reply, &serial);
	}
	if (r < 0) {
		r = cli_fail_call(c, r, &error);
		sd_bus_message_unref(reply);
	} else {
		r = 0;
		*reply_out = reply;
		if (serial_out) {
			*serial_out = serial;
		}
	}
	sd_bus_error_free(&error);
	return r;
}

static int ask_objects(struct cli *c, struct lists *lists, uint64_t *serial_out)
{
	sd_bus_message *reply = NULL;
	int r = ask(c, CLI_PATH_BROKER, CLI_IFACE_MANAGER, "GetManagedObjects", NULL, &reply,
		serial_out);

	if (r != 0) {
		return r;
	}
	*lists = (struct lists){json_array(), json_array(), json_array()};
	r = read_objects(reply, lists);
	sd_bus_message_unref(reply);
	if (r < 0) {
		json_decref(lists->devices);
		json_decref(lists->vms);
		json_decref(lists->gpus);
		return cli_fail_call(c, r, NULL);
	}
	lists->devices = sorted(lists->devices, "name");
	lists->vms = sorted(lists->vms, "name");
	lists->gpus = sorted(lists->gpus, "vm");
	return 0;
}

int cli_objects(struct cli *c, json_t **devices_out, json_t **vms_out, uint64_t *serial_out)
{
	struct lists lists;
	int r = ask_objects(c, &lists, serial_out);

	if (r == 0) {
		*devices_out = lists.devices;
		*vms_out = lists.vms;
		json_decref(lists.gpus);
	}
	return r;
}

int cli_everything(struct cli *c, struct cli_all *out)
{
	struct lists lists;
	int r = ask_objects(c, &lists, NULL);

	if (r == 0) {
		*out = (struct cli_all){lists.devices, lists.vms, lists.gpus};
	}
	return r;
}

void cli_all_finish(struct cli_all *all)
{
	json_decref(all->devices);
	json_decref(all->vms);
	json_decref(all->gpus);
	*all = (struct cli_all){0};
}

int cli_gpus(struct cli *c, json_t **gpus_out, json_t **vms_out)
{
	struct lists lists;
	int r = ask_objects(c, &lists, NULL);

	if (r == 0) {
		*gpus_out = lists.gpus;
		*vms_out = lists.vms;
		json_decref(lists.devices);
	}
	return r;
}

int cli_properties(
	struct cli *c, const char *path, const char *interface, json_t **out, uint64_t *serial_out)
{
	sd_bus_message *reply = NULL;
	json_t *object;
	int r = ask(c, path, CLI_IFACE_PROPERTIES, "GetAll", interface, &reply, serial_out);

	if (r != 0) {
		return r;
	}
	object = json_object();
	r = read_properties(reply, interface, object);
	sd_bus_message_unref(reply);
	if (r < 0) {
		json_decref(object);
		return cli_fail_call(c, r, NULL);
	}
	*out = object;
	return 0;
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

int cli_added(sd_bus_message *m, const char *interface, json_t **out)
{
	json_t *list = json_array(), *found;
	bool vm = strcmp(interface, CLI_IFACE_VM) == 0;
	const struct lists lists = {.devices = vm ? NULL : list, .vms = vm ? list : NULL};
	int r = read_interfaces(m, "", &lists);

	found = json_array_get(list, 0);
	if (r >= 0) {
		r = found ? 0 : -ENOENT;
	}
	if (r == 0) {
		*out = json_incref(found);
	}
	json_decref(list);
	return r;
}

const char *cli_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

uint64_t cli_number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

int cli_print_json(json_t *doc, const char *schema)
{
	json_t *whole = doc ? json_pack("{s:s}", "schema", schema) : NULL;
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
