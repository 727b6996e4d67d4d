/* SPDX-License-Identifier: MIT
 * Commands that only look: status, list, vm list, vm show, disk list.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"
#include "broker/cli/table.h"

enum text_style cli_state_style(const char *state)
{
	static const struct {
		const char *state;
		enum text_style style;
	} styles[] = {
		{"configured", TEXT_GOOD},
		{"up", TEXT_GOOD},
		{"present", TEXT_PLAIN},
		{"gone", TEXT_PLAIN},
		{"", TEXT_PLAIN},
		{"busy", TEXT_BAD},
		{"error", TEXT_BAD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(styles); i++) {
		if (strcmp(styles[i].state, state) == 0) {
			return styles[i].style;
		}
	}
	return TEXT_WAITING;
}

int cli_print_table(const struct cli *c, const struct table *t)
{
	if (!t) {
		return CLI_EXIT_FAILED;
	}
	table_print(t, stdout, terminal_width(), c->colour_out);
	return 0;
}

static void join(const json_t *list, char *out, size_t size)
{
	const json_t *item;
	size_t i, at = 0;

	out[0] = '\0';
	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(item);
		int n = snprintf(out + at, size - at, "%s%s", i ? ", " : "", text ? text : "");

		at = n < 0 || at + (size_t)n >= size ? size - 1 : at + (size_t)n;
	}
}

static struct table *devices_table(const json_t *devices)
{
	static const char *const columns[] = {
		"DEVICE", "STATE", "VM", "DRIVER", "SPEED", "DESCRIPTION", "NOTE"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *d;
	char drivers[256];
	size_t i;

	json_array_foreach(devices, i, d)
	{
		if (!t) {
			break;
		}
		join(json_object_get(d, "drivers"), drivers, sizeof(drivers));
		table_cell(t, cli_text(d, "name"));
		table_cell_style(t, cli_text(d, "state"), cli_state_style(cli_text(d, "state")));
		table_cell(t, cli_text(d, "vm"));
		table_cell(t, drivers);
		table_cell(t, cli_text(d, "speed"));
		table_cell(t, cli_text(d, "description"));
		table_cell(t, cli_text(d, "detail"));
	}
	return t;
}

static struct table *disks_table(const json_t *disks)
{
	static const char *const columns[] = {
		"DEVICE", "STATE", "VM", "SIZE", "SPEED", "ACCESS", "NOTE"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *d;
	size_t i;

	json_array_foreach(disks, i, d)
	{
		if (!t) {
			break;
		}
		table_cell(t, cli_text(d, "name"));
		table_cell_style(t, cli_text(d, "state"), cli_state_style(cli_text(d, "state")));
		table_cell(t, cli_text(d, "vm"));
		if (cli_number(d, "size_bytes") > 0) {
			table_cell_bytes(t, cli_number(d, "size_bytes"));
		} else { /* an NBD server tells only its worker */
			table_cell(t, "-");
		}
		table_cell(t, cli_text(d, "speed"));
		table_cell(t,
			json_is_true(json_object_get(d, "read_only")) ? "read-only" : "read-write");
		table_cell(t, cli_text(d, "detail"));
	}
	return t;
}

/* devices is given up. */
static int print_devices(struct cli *c, json_t *devices, const char *schema,
	struct table *(*make)(const json_t *devices))
{
	_cleanup_(table_destroyp) struct table *t = NULL;

	if (c->o.json) {
		return cli_print_json(json_pack("{s:o}", "devices", devices), schema);
	}
	if (json_array_size(devices) == 0) {
		json_decref(devices);
		printf("No devices. Add a disk image: devbroker disk add IMAGE\n");
		return 0;
	}
	t = make(devices);
	json_decref(devices);
	return cli_print_table(c, t);
}

int cmd_list(struct cli *c)
{
	json_t *devices, *vms;
	int r = cli_objects(c, &devices, &vms, NULL);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	return print_devices(c, devices, "devbroker.list/1", devices_table);
}

int cmd_disk_list(struct cli *c)
{
	json_t *devices, *vms;
	size_t i = 0;
	int r = cli_objects(c, &devices, &vms, NULL);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	while (i < json_array_size(devices)) {
		if (strcmp(cli_text(json_array_get(devices, i), "kind"), "disk") == 0) {
			i++;
		} else {
			json_array_remove(devices, i);
		}
	}
	return print_devices(c, devices, "devbroker.disk-list/1", disks_table);
}

/* Has one VM (its object's path) or all of them (NULL) asked how they are. 0 or the exit code. */
static int refresh(struct cli *c, const char *vm)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(c->bus, c->destination, vm ? vm : CLI_PATH_BROKER,
		vm ? CLI_IFACE_VM : CLI_IFACE_BROKER, vm ? "Refresh" : "RefreshVMs", &error, NULL,
		NULL);

	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

/* Its QMP socket, or what it has instead. */
static const char *vm_reached(const json_t *vm, char *out, size_t size)
{
	size_t n = json_array_size(json_object_get(vm, "streams"));

	if (n == 0) {
		return cli_text(vm, "qmp");
	}
	snprintf(out, size, "(%zu stream%s)", n, n == 1 ? "" : "s");
	return out;
}

int cmd_vm_list(struct cli *c)
{
	static const char *const columns[] = {"VM", "STATE", "DEVICES", "QMP", "BUS", "NOTE"};
	_cleanup_(table_destroyp) struct table *t = NULL;
	json_t *devices, *vms;
	const json_t *vm;
	char joined[512];
	size_t i;
	int r = refresh(c, NULL);

	if (r == 0) {
		r = cli_objects(c, &devices, &vms, NULL);
	}
	if (r != 0) {
		return r;
	}
	json_decref(devices);
	if (c->o.json) {
		return cli_print_json(json_pack("{s:o}", "vms", vms), "devbroker.vm-list/1");
	}
	if (json_array_size(vms) == 0) {
		printf("No VMs. Add one: devbroker vm add NAME --qmp SOCKET\n");
	} else {
		t = table_create(columns, ARRAY_SIZE(columns));
		json_array_foreach(vms, i, vm)
		{
			if (!t) {
				break;
			}
			join(json_object_get(vm, "devices"), joined, sizeof(joined));
			table_cell(t, cli_text(vm, "name"));
			table_cell_style(
				t, cli_text(vm, "state"), cli_state_style(cli_text(vm, "state")));
			table_cell(t, joined);
			table_cell(t, vm_reached(vm, joined, sizeof(joined)));
			table_cell(t, cli_text(vm, "bus"));
			table_cell(t, cli_text(vm, "detail"));
		}
		r = cli_print_table(c, t);
	}
	json_decref(vms);
	return r;
}

static void print_vm(const struct cli *c, const json_t *vm)
{
	static const struct {
		const char *title;
		const char *key;
	} lines[] = {
		{"VM", "name"},
		{"State", "state"},
		{"Note", "detail"},
		{"QMP socket", "qmp"},
		{"USB bus", "bus"},
		{"Known from", "source"},
	};
	char used[32], limit[32];
	const char *key;
	json_t *quota, *stream;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lines); i++) {
		const char *text = cli_text(vm, lines[i].key);
		enum text_style style = strcmp(lines[i].key, "state") == 0 && c->colour_out
						? cli_state_style(text)
						: TEXT_PLAIN;

		if (text[0]) {
			text_line(stdout, style, "%-12s %s", lines[i].title, text);
		}
	}
	if (cli_number(vm, "vmm_pid") > 0) {
		printf("%-12s %" PRIu64 "\n", "VMM's pid", cli_number(vm, "vmm_pid"));
	}
	json_array_foreach(json_object_get(vm, "streams"), i, stream)
	{
		const char *device = cli_text(stream, "device");

		text_line(stdout, TEXT_PLAIN, "%-12s %s: %s%s%s", "Stream",
			cli_text(stream, "address"), cli_text(stream, "state"),
			device[0] ? ", " : "", device);
	}
	json_object_foreach(json_object_get(vm, "quota"), key, quota)
	{
		bool bytes = strncmp(key, "bytes", 5) == 0 || strcmp(key, "bandwidth") == 0 ||
			     strcmp(key, "gpu-memory") == 0;
		uint64_t u = cli_number(quota, "used"), l = cli_number(quota, "limit");

		if (l == 0 && (strcmp(key, "bandwidth") == 0 ||
				      strcmp(key, "transfers-per-second") == 0 ||
				      strncmp(key, "gpu-", 4) == 0)) {
			continue; /* no limit */
		}
		snprintf(used, sizeof(used), "%" PRIu64, u);
		snprintf(limit, sizeof(limit), "%" PRIu64, l);
		text_line(stdout, TEXT_PLAIN, "%-12s %s: %s of %s", "Quota", key,
			bytes ? text_bytes(u, used, sizeof(used)) : used,
			bytes ? text_bytes(l, limit, sizeof(limit)) : limit);
	}
}

/* Asks vm (given up) how it is, and puts its answer in its place. 0 or the exit code. */
static int ask_vm(struct cli *c, json_t **vm)
{
	_cleanup_free_ char *path = NULL;
	json_t *fresh;
	int r = sd_bus_path_encode(CLI_PATH_VM, cli_text(*vm, "name"), &path);

	r = r < 0 ? cli_fail_call(c, r, NULL) : refresh(c, path);
	if (r == 0) {
		r = cli_properties(c, path, CLI_IFACE_VM, &fresh, NULL);
	}
	if (r == 0) {
		json_decref(*vm);
		*vm = fresh;
	}
	return r;
}

static int print_vm_and_devices(struct cli *c, json_t *vm, const json_t *devices)
{
	json_t *own = json_array(), *d;
	size_t i;
	int r = 0;

	json_array_foreach(devices, i, d)
	{
		if (strcmp(cli_text(d, "vm"), cli_text(vm, "name")) == 0) {
			json_array_append(own, d);
		}
	}
	if (c->o.json) {
		r = cli_print_json(
			json_pack("{s:O, s:O}", "vm", vm, "devices", own), "devbroker.vm-show/1");
	} else {
		print_vm(c, vm);
		if (json_array_size(own) > 0) {
			putchar('\n');
			r = print_devices(c, json_incref(own), "", devices_table);
		}
	}
	json_decref(own);
	return r;
}

int cmd_vm_show(struct cli *c)
{
	json_t *devices, *vms, *vm;
	int r = cli_objects(c, &devices, &vms, NULL);

	if (r != 0) {
		return r;
	}
	vm = json_incref(cli_find(c, vms, "VM", c->o.args[0], &r));
	if (vm) {
		r = ask_vm(c, &vm);
	}
	if (r == 0) {
		r = print_vm_and_devices(c, vm, devices);
	}
	json_decref(vm);
	json_decref(devices);
	json_decref(vms);
	return r;
}

static void print_status(
	const struct cli *c, const json_t *status, const json_t *devices, const json_t *vms)
{
	size_t lent = 0, up = 0, i;
	const json_t *o;

	json_array_foreach(devices, i, o)
	{
		lent += cli_text(o, "vm")[0] != '\0';
	}
	json_array_foreach(vms, i, o)
	{
		up += strcmp(cli_text(o, "state"), "up") == 0 ||
		      strcmp(cli_text(o, "state"), "paused") == 0;
	}
	text_line(stdout, TEXT_PLAIN, "devbrokerd   %s, pid %" PRIu64, cli_text(status, "version"),
		cli_number(status, "pid"));
	text_line(stdout, TEXT_PLAIN, "Sandbox      %s", cli_text(status, "sandbox"));
	printf("Devices      %zu, %zu of them lent\n", json_array_size(devices), lent);
	printf("VMs          %zu, %zu of them up\n", json_array_size(vms), up);
	printf("Workers      %" PRIu64 "\n", cli_number(status, "workers"));
	printf("USB bus      %s\n", json_is_true(json_object_get(status, "usb_bus"))
					    ? "yes"
					    : "none on this host (disk images work all the same)");
	text_line(stdout, TEXT_PLAIN, "Config       %s", cli_text(status, "config_directory"));
	text_line(stdout, TEXT_PLAIN, "Sockets      %s", cli_text(status, "run_directory"));
	json_array_foreach(json_object_get(status, "warnings"), i, o)
	{
		const char *warning = json_string_value(o);

		text_line(stdout, c->colour_out ? TEXT_BAD : TEXT_PLAIN, "Warning      %s",
			warning ? warning : "");
	}
}

int cmd_status(struct cli *c)
{
	json_t *status, *devices, *vms;
	int r = cli_properties(c, CLI_PATH_BROKER, CLI_IFACE_BROKER, &status, NULL);

	if (r != 0) {
		return r;
	}
	r = cli_objects(c, &devices, &vms, NULL);
	if (r != 0) {
		json_decref(status);
		return r;
	}
	if (c->o.json) {
		json_object_set_new(
			status, "devices", json_integer((json_int_t)json_array_size(devices)));
		json_object_set_new(status, "vms", json_integer((json_int_t)json_array_size(vms)));
		r = cli_print_json(status, "devbroker.status/1");
	} else {
		print_status(c, status, devices, vms);
		json_decref(status);
	}
	json_decref(devices);
	json_decref(vms);
	return r;
}
