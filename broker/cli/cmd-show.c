/* SPDX-License-Identifier: MIT
 * Commands that only look: status, list, vm list, vm show, disk list.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"
#include "broker/cli/table.h"

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static uint64_t number_of(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static int print_table(struct table *t)
{
	if (!t) {
		return CLI_EXIT_FAILED;
	}
	table_print(t, stdout, terminal_width());
	return fflush(stdout) == EOF ? CLI_EXIT_FAILED : 0;
}

static struct table *devices_table(const json_t *devices)
{
	static const char *const columns[] = {
		"DEVICE", "STATE", "VM", "SIZE", "SPEED", "ACCESS", "NOTE"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *d;
	size_t i;

	json_array_foreach(devices, i, d)
	{
		if (!t) {
			break;
		}
		table_cell(t, text_of(d, "name"));
		table_cell(t, text_of(d, "state"));
		table_cell(t, text_of(d, "vm"));
		table_cell_bytes(t, number_of(d, "size_bytes"));
		table_cell(t, text_of(d, "speed"));
		table_cell(t,
			json_is_true(json_object_get(d, "read_only")) ? "read-only" : "read-write");
		table_cell(t, text_of(d, "detail"));
	}
	return t;
}

static int print_devices(struct cli *c, json_t *devices, const char *schema)
{
	_cleanup_(table_destroyp) struct table *t = NULL;

	if (c->json) {
		return cli_print_json(json_pack("{s:o}", "devices", devices), schema);
	}
	if (json_array_size(devices) == 0) {
		json_decref(devices);
		printf("No devices. Add a disk image: devbroker disk add IMAGE\n");
		return 0;
	}
	t = devices_table(devices);
	json_decref(devices);
	return print_table(t);
}

int cmd_list(struct cli *c)
{
	json_t *devices, *vms;
	int r = cli_objects(c, &devices, &vms);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	return print_devices(c, devices, "devbroker.list/1");
}

int cmd_disk_list(struct cli *c)
{
	json_t *devices, *vms;
	size_t i = 0;
	int r = cli_objects(c, &devices, &vms);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	while (i < json_array_size(devices)) {
		if (strcmp(text_of(json_array_get(devices, i), "kind"), "disk") == 0) {
			i++;
		} else {
			json_array_remove(devices, i);
		}
	}
	return print_devices(c, devices, "devbroker.disk-list/1");
}

/* Every VM is asked how it is first. */
static int refresh(struct cli *c)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(c->bus, NULL, "/org/devbroker", "org.devbroker.Broker1",
		"RefreshVMs", &error, NULL, NULL);

	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

static void join(const json_t *list, char *out, size_t size)
{
	const json_t *item;
	size_t i, at = 0;

	out[0] = '\0';
	json_array_foreach(list, i, item)
	{
		int n = snprintf(
			out + at, size - at, "%s%s", i ? ", " : "", json_string_value(item));

		at = n < 0 || at + (size_t)n >= size ? size - 1 : at + (size_t)n;
	}
}

int cmd_vm_list(struct cli *c)
{
	static const char *const columns[] = {"VM", "STATE", "DEVICES", "QMP", "BUS", "NOTE"};
	_cleanup_(table_destroyp) struct table *t = NULL;
	json_t *devices, *vms;
	const json_t *vm;
	char joined[512];
	size_t i;
	int r = refresh(c);

	if (r == 0) {
		r = cli_objects(c, &devices, &vms);
	}
	if (r != 0) {
		return r;
	}
	json_decref(devices);
	if (c->json) {
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
			table_cell(t, text_of(vm, "name"));
			table_cell(t, text_of(vm, "state"));
			table_cell(t, joined);
			table_cell(t, text_of(vm, "qmp"));
			table_cell(t, text_of(vm, "bus"));
			table_cell(t, text_of(vm, "detail"));
		}
		r = print_table(t);
	}
	json_decref(vms);
	return r;
}

/* The one VM that name means: exactly, or as the only one that begins so. */
static json_t *find_vm(struct cli *c, json_t *vms, const char *name, int *exit_out)
{
	json_t *vm, *found = NULL;
	char candidates[512] = "";
	size_t i, n = 0, at;

	json_array_foreach(vms, i, vm)
	{
		const char *full = text_of(vm, "name");

		if (strcmp(full, name) == 0) {
			return vm;
		}
		if (name[0] && strncmp(full, name, strlen(name)) == 0) {
			at = strlen(candidates);
			snprintf(candidates + at, sizeof(candidates) - at, "%s%s", n++ ? ", " : "",
				full);
			found = vm;
		}
	}
	if (n == 1) {
		return found;
	}
	if (n > 1) {
		*exit_out = cli_fail(c, refusal_exit_code(REFUSAL_AMBIGUOUS), "ambiguous",
			refusal_remedy(REFUSAL_AMBIGUOUS), "%s could be any of %zu: %s", name, n,
			candidates);
	} else {
		*exit_out = cli_fail(c, refusal_exit_code(REFUSAL_NOT_FOUND), "not-found",
			refusal_remedy(REFUSAL_NOT_FOUND), "there is no VM %s", name);
	}
	return NULL;
}

static void print_vm(const json_t *vm)
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
	const char *key;
	json_t *quota;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		_cleanup_free_ char *text = text_harmless(text_of(vm, lines[i].key));

		if (text && text[0]) {
			printf("%-12s %s\n", lines[i].title, text);
		}
	}
	if (number_of(vm, "vmm_pid") > 0) {
		printf("%-12s %" PRIu64 "\n", "VMM's pid", number_of(vm, "vmm_pid"));
	}
	json_object_foreach(json_object_get(vm, "quota"), key, quota)
	{
		printf("%-12s %s: %" PRIu64 " of %" PRIu64 "\n", "Quota", key,
			number_of(quota, "used"), number_of(quota, "limit"));
	}
}

int cmd_vm_show(struct cli *c)
{
	json_t *devices, *vms, *vm, *own = json_array(), *d;
	size_t i;
	int r = refresh(c);

	if (r == 0) {
		r = cli_objects(c, &devices, &vms);
	}
	if (r != 0) {
		json_decref(own);
		return r;
	}
	vm = find_vm(c, vms, c->args[0], &r);
	if (vm) {
		json_array_foreach(devices, i, d)
		{
			if (strcmp(text_of(d, "vm"), text_of(vm, "name")) == 0) {
				json_array_append(own, d);
			}
		}
		if (c->json) {
			r = cli_print_json(json_pack("{s:O, s:O}", "vm", vm, "devices", own),
				"devbroker.vm-show/1");
		} else {
			print_vm(vm);
			if (json_array_size(own) > 0) {
				putchar('\n');
				r = print_devices(c, json_incref(own), "");
			}
		}
	}
	json_decref(own);
	json_decref(devices);
	json_decref(vms);
	return r;
}

static void print_status(const json_t *status, const json_t *devices, const json_t *vms)
{
	size_t lent = 0, up = 0, i;
	const json_t *o;

	json_array_foreach(devices, i, o)
	{
		lent += text_of(o, "vm")[0] != '\0';
	}
	json_array_foreach(vms, i, o)
	{
		up += strcmp(text_of(o, "state"), "up") == 0 ||
		      strcmp(text_of(o, "state"), "paused") == 0;
	}
	printf("devbrokerd   %s, pid %" PRIu64 "\n", text_of(status, "version"),
		number_of(status, "pid"));
	printf("Sandbox      %s\n", text_of(status, "sandbox"));
	printf("Devices      %zu, %zu of them lent\n", json_array_size(devices), lent);
	printf("VMs          %zu, %zu of them up\n", json_array_size(vms), up);
	printf("Workers      %" PRIu64 "\n", number_of(status, "workers"));
	printf("USB bus      %s\n", json_is_true(json_object_get(status, "usb_bus"))
					    ? "yes"
					    : "none on this host (disk images work all the same)");
	printf("Config       %s\n", text_of(status, "config_directory"));
	printf("Sockets      %s\n", text_of(status, "run_directory"));
	json_array_foreach(json_object_get(status, "warnings"), i, o)
	{
		printf("Warning      %s\n", json_string_value(o));
	}
}

int cmd_status(struct cli *c)
{
	json_t *status, *devices, *vms;
	int r = cli_properties(c, "/org/devbroker", "org.devbroker.Broker1", &status);

	if (r != 0) {
		return r;
	}
	r = cli_objects(c, &devices, &vms);
	if (r != 0) {
		json_decref(status);
		return r;
	}
	if (c->json) {
		json_object_set_new(
			status, "devices", json_integer((json_int_t)json_array_size(devices)));
		json_object_set_new(status, "vms", json_integer((json_int_t)json_array_size(vms)));
		r = cli_print_json(status, "devbroker.status/1");
	} else {
		print_status(status, devices, vms);
		json_decref(status);
	}
	json_decref(devices);
	json_decref(vms);
	return r;
}
