/* SPDX-License-Identifier: MIT
 * show: everything that is known of one device.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"

#define TITLE "%-14s "

struct line {
	const char *title;
	const char *key;
};

static void print_texts(const json_t *object, const struct line *lines, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *text = cli_text(object, lines[i].key);

		if (text[0]) {
			text_line(stdout, TEXT_PLAIN, TITLE "%s", lines[i].title, text);
		}
	}
}

/* A list of texts, the title in front of the first. */
static void print_list(const json_t *object, const char *title, const char *key)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(object, key), i, item)
	{
		const char *text = json_string_value(item);

		text_line(stdout, TEXT_PLAIN, TITLE "%s", i ? "" : title, text ? text : "");
	}
}

static bool is_true(const json_t *d, const char *key)
{
	return json_is_true(json_object_get(d, key));
}

/* What the VM sees of it, where that isn't all of it. */
static void print_lent(const json_t *d)
{
	const char *interfaces = cli_text(d, "lent_interfaces");
	bool usb = strcmp(cli_text(d, "kind"), "usb") == 0;

	if (interfaces[0]) {
		text_line(
			stdout, TEXT_PLAIN, TITLE "only interfaces %s", "The VM sees", interfaces);
	}
	if (usb && is_true(d, "read_only")) {
		printf(TITLE "write-protected\n", "Its storage is");
	}
	if (is_true(d, "allow_firmware")) {
		printf(TITLE "by the VM\n", "New firmware");
	}
}

static void print_device(const struct cli *c, const json_t *d)
{
	static const struct line lines[] = {
		{"VM", "vm"},
		{"Reason", "reason"},
		{"Note", "detail"},
		{"Description", "description"},
		{"Serial", "serial"},
		{"Speed", "speed"},
		{"Path", "path"},
		{"Known from", "source"},
	};
	const char *state = cli_text(d, "state");
	char size[32];

	text_line(stdout, TEXT_PLAIN, TITLE "%s", "Device", cli_text(d, "name"));
	text_line(stdout, c->colour_out ? cli_state_style(state) : TEXT_PLAIN, TITLE "%s", "State",
		state);
	print_texts(d, lines, ARRAY_SIZE(lines));
	if (strcmp(cli_text(d, "kind"), "disk") == 0) {
		printf(TITLE "%s, %s\n", "Size",
			cli_number(d, "size_bytes") > 0
				? text_bytes(cli_number(d, "size_bytes"), size, sizeof(size))
				: "not known",
			json_is_true(json_object_get(d, "read_only")) ? "read-only" : "read-write");
	}
	print_lent(d);
	if (cli_number(d, "worker_pid") > 0) {
		printf(TITLE "%" PRIu64 "\n", "Worker's pid", cli_number(d, "worker_pid"));
	}
}

/* Counters, if it is lent. */
static void print_statistics(const json_t *d)
{
	json_t *value;
	const char *key;
	bool first = true;

	if (cli_number(d, "worker_pid") == 0) {
		return;
	}
	json_object_foreach(json_object_get(d, "statistics"), key, value)
	{
		text_line(stdout, TEXT_PLAIN, TITLE "%s: %" JSON_INTEGER_FORMAT,
			first ? "Counters" : "", key, json_integer_value(value));
		first = false;
	}
}

static void print_interfaces(const json_t *usb)
{
	const json_t *n;
	size_t i;

	json_array_foreach(json_object_get(usb, "interfaces"), i, n)
	{
		const char *driver = cli_text(n, "driver");

		text_line(stdout, TEXT_PLAIN,
			TITLE "%" PRIu64 ": class %s, altsetting %" PRIu64 ", %s%s%s", "Interface",
			cli_number(n, "number"), cli_text(n, "class"), cli_number(n, "altsetting"),
			driver[0] ? "driver " : "no driver", driver,
			json_is_true(json_object_get(n, "authorized")) ? "" : ", not authorised");
	}
}

static void print_usb(const json_t *usb)
{
	static const struct line names[] = {
		{"Manufacturer", "manufacturer"},
		{"Product", "product"},
		{"Descriptors", "descriptor_hash"},
		{"Device class", "device_class"},
	};
	static const struct line places[] = {
		{"Removable", "removable"},
		{"Controller", "controller"},
		{"Hub", "hub"},
		{"Kernel's name", "sysname"},
		{"Sysfs", "syspath"},
	};

	text_line(stdout, TEXT_PLAIN, TITLE "%s:%s, release %s", "USB ids",
		cli_text(usb, "vendor_id"), cli_text(usb, "product_id"), cli_text(usb, "release"));
	print_texts(usb, names, ARRAY_SIZE(names));
	print_list(usb, "Classes", "interface_classes");
	if (!json_is_true(json_object_get(usb, "interface_classes_complete"))) {
		printf(TITLE "only those in use: udev did not say\n", "");
	}
	printf(TITLE "%" PRIu64 " of %" PRIu64 "%s\n", "Configuration",
		cli_number(usb, "configuration"), cli_number(usb, "configurations"),
		json_is_true(json_object_get(usb, "authorized")) ? "" : ", device not authorised");
	print_interfaces(usb);
	print_texts(usb, places, ARRAY_SIZE(places));
	print_list(usb, "udev", "udev_properties");
}

/* What is known beside what list shows, of a USB device; *out stays NULL for others. 0 or the exit
 * code. */
static int get_usb(struct cli *c, const json_t *device, json_t **out)
{
	_cleanup_free_ char *path = NULL;
	int r;

	if (strcmp(cli_text(device, "kind"), "usb") != 0) {
		return 0;
	}
	r = sd_bus_path_encode(CLI_PATH_DEVICE, cli_text(device, "name"), &path);
	return r < 0 ? cli_fail_call(c, r, NULL)
		     : cli_properties(c, path, CLI_IFACE_USB, out, NULL);
}

int cmd_device_show(struct cli *c)
{
	json_t *devices, *vms, *device, *usb = NULL;
	int r = cli_objects(c, &devices, &vms, NULL);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	device = cli_find(c, devices, "device", c->o.args[0], &r);
	if (device) {
		r = get_usb(c, device, &usb);
	}
	if (device && r == 0 && c->o.json) {
		r = cli_print_json(
			json_pack("{s:O, s:O*}", "device", device, "usb", usb), "devbroker.show/1");
	} else if (device && r == 0) {
		print_device(c, device);
		print_statistics(device);
		if (usb) {
			print_usb(usb);
		}
	}
	json_decref(usb);
	json_decref(devices);
	return r;
}
