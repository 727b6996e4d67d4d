/* SPDX-License-Identifier: MIT
 * quota show, quota set.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "broker/cli/cli.h"
#include "broker/cli/table.h"

/* The broker's name of a quota and ours; the broker says which values are too small or large. */
static const struct quota_name {
	const char *shown;
	const char *name; /* in VM1.Quota and SetQuota */
	char type;        /* of SetQuota's option; 0: it can't be set there */
	bool bytes;
	bool none; /* 0 is no limit */
} quotas[] = {
	{"usb.devices", "devices", 'u', false, false},
	{"usb.bytes-in-flight", "bytes-in-flight", 't', true, false},
	{"usb.transfers-in-flight", "transfers-in-flight", 'u', false, false},
	{"usb.bandwidth", "bandwidth", 't', true, true},
	{"usb.transfers-per-second", "transfers-per-second", 't', false, true},
	{"gpu.memory", "gpu-memory", 0, true, false},
};

static const char *print(const struct quota_name *q, uint64_t n, bool limit, char *out, size_t size)
{
	if (limit && q->none && n == 0) {
		return "none";
	}
	if (q->bytes) {
		return text_bytes(n, out, size);
	}
	snprintf(out, size, "%" PRIu64, n);
	return out;
}

static void add_rows(struct table *t, const json_t *vm)
{
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(quotas); i++) {
		const json_t *q = json_object_get(json_object_get(vm, "quota"), quotas[i].name);

		if (!q || (!quotas[i].type && cli_number(q, "limit") == 0)) {
			continue;
		}
		table_cell(t, cli_text(vm, "name"));
		table_cell(t, quotas[i].shown);
		table_cell(t, print(&quotas[i], cli_number(q, "used"), false, text, sizeof(text)));
		table_cell(t, print(&quotas[i], cli_number(q, "limit"), true, text, sizeof(text)));
	}
}

/* "quota" of one VM under our names. */
static json_t *to_json(const json_t *vm)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(quotas); i++) {
		json_t *q = json_object_get(json_object_get(vm, "quota"), quotas[i].name);

		if (q) {
			json_object_set(out, quotas[i].shown, q);
		}
	}
	return json_pack("{s:s, s:o}", "vm", cli_text(vm, "name"), "quota", out);
}

int cmd_quota_show(struct cli *c)
{
	static const char *const columns[] = {"VM", "QUOTA", "USED", "LIMIT"};
	_cleanup_(table_destroyp) struct table *t = table_create(columns, ARRAY_SIZE(columns));
	json_t *devices, *vms, *vm, *only = NULL, *list = json_array();
	size_t i;
	int r = cli_objects(c, &devices, &vms, NULL);

	if (r == 0) {
		json_decref(devices);
		only = c->o.args[0] ? cli_find(c, vms, "VM", c->o.args[0], &r) : NULL;
	} else {
		vms = NULL;
	}
	json_array_foreach(vms, i, vm)
	{
		if (t && r == 0 && (!only || vm == only)) {
			add_rows(t, vm);
			json_array_append_new(list, to_json(vm));
		}
	}
	if (r == 0 && c->o.json) {
		r = cli_print_json(json_pack("{s:O}", "vms", list), "devbroker.quota-show/1");
	} else if (r == 0) {
		r = cli_print_table(c, t);
	}
	json_decref(list);
	json_decref(vms);
	return r;
}

/* KEY=VALUE. 0, or the exit code. */
static int parse_setting(
	const struct cli *c, const char *text, const struct quota_name **out, uint64_t *value_out)
{
	const char *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(quotas) && equals; i++) {
		const struct quota_name *q = &quotas[i];
		uint64_t max = q->type == 'u' ? UINT32_MAX : UINT64_MAX;
		int r;

		if (strlen(q->shown) != n || strncmp(q->shown, text, n) != 0 || !q->type) {
			continue;
		}
		*value_out = 0;
		r = q->none && strcmp(equals + 1, "none") == 0 ? 0
		    : q->bytes ? parse_bytes(equals + 1, 0, max, value_out)
			       : parse_u64(equals + 1, 0, max, value_out);
		*out = q;
		return r == 0 ? 0
			      : cli_fail(c, CLI_EXIT_USAGE, "usage",
					q->bytes ? "A size, as in 40M; of a rate also none."
						 : "A number; of a rate also none.",
					"%s can't be %s", q->shown, equals + 1);
	}
	return cli_fail(c, CLI_EXIT_USAGE, "usage",
		"usb.devices, usb.bytes-in-flight, usb.transfers-in-flight, usb.bandwidth or "
		"usb.transfers-per-second, as in usb.bandwidth=40M",
		"that is no quota and its value: %s", text);
}

static int call(
	struct cli *c, const char *vm, const struct quota_name *q, uint64_t value, int *lasts_out)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = q->type == 'u' ? sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER,
					 CLI_IFACE_BROKER, "SetQuota", &error, &reply, "sa{sv}", vm,
					 1, q->name, "u", (uint32_t)value)
			       : sd_bus_call_method(c->bus, c->destination, CLI_PATH_BROKER,
					 CLI_IFACE_BROKER, "SetQuota", &error, &reply, "sa{sv}", vm,
					 1, q->name, "t", value);

	if (r >= 0) {
		r = sd_bus_message_read(reply, "b", lasts_out);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

int cmd_quota_set(struct cli *c)
{
	const char *vm = c->o.args[0];
	const struct quota_name *q = &quotas[0];
	uint64_t value = 0;
	char text[32];
	int lasts = 0;
	int r = parse_setting(c, c->o.args[1], &q, &value);

	if (r == 0) {
		r = call(c, vm, q, value, &lasts);
	}
	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(json_pack("{s:s, s:s, s:I, s:b}", "vm", vm, "quota", q->shown,
					      "limit", (json_int_t)value, "lasts", lasts),
			"devbroker.quota-set/1");
	}
	text_line(stdout, TEXT_PLAIN, "vm %s: %s is %s", vm, q->shown,
		print(q, value, true, text, sizeof(text)));
	if (!lasts) {
		printf("When devbrokerd starts anew its file holds again: [quota] in "
		       "devbroker-vm.conf(5).\n");
	}
	return 0;
}
