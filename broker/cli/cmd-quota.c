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
#include "broker/cli/rates.h"
#include "broker/cli/table.h"

/* The broker's name of a quota and ours; the broker says which values are too small or large. */
static const struct quota_name {
	const char *shown;
	const char *name; /* in VM1.Quota and SetQuota */
	char type;        /* of SetQuota's option */
	bool bytes;
	bool none; /* 0 is no limit */
} quotas[] = {
	{"usb.devices", "devices", 'u', false, false},
	{"usb.bytes-in-flight", "bytes-in-flight", 't', true, false},
	{"usb.transfers-in-flight", "transfers-in-flight", 'u', false, false},
	{"usb.bandwidth", "bandwidth", 't', true, true},
	{"usb.transfers-per-second", "transfers-per-second", 't', false, true},
	{"gpu.memory", "gpu-memory", 't', true, false},
	{"gpu.share", "gpu-share", 's', false, false},
	{"gpu.frame-rate", "gpu-frame-rate", 'u', false, true},
	{"gpu.contexts", "gpu-contexts", 'u', false, true},
	{"gpu.resources", "gpu-resources", 'u', false, true},
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

static void add_share(struct table *t, const json_t *q, const json_t *gpu)
{
	char used[32];

	snprintf(used, sizeof(used), "%" PRIu64 "%%", cli_number(q, "used"));
	table_cell(t, used);
	table_cell(t, cli_text(gpu, "share"));
}

/* gpu: NULL if it has none. */
static void add_rows(struct table *t, const json_t *vm, const json_t *gpu)
{
	char text[32];

	for (size_t i = 0; i < ARRAY_SIZE(quotas); i++) {
		const json_t *q = json_object_get(json_object_get(vm, "quota"), quotas[i].name);

		if (!q || (!gpu && strncmp(quotas[i].name, "gpu-", 4) == 0)) {
			continue;
		}
		table_cell(t, cli_text(vm, "name"));
		table_cell(t, quotas[i].shown);
		if (quotas[i].type == 's') {
			add_share(t, q, gpu);
			continue;
		}
		table_cell(t, print(&quotas[i], cli_number(q, "used"), false, text, sizeof(text)));
		table_cell(t, print(&quotas[i], cli_number(q, "limit"), true, text, sizeof(text)));
	}
}

/* "quota" of one VM under our names. */
static json_t *to_json(const json_t *vm, const json_t *gpu)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(quotas); i++) {
		json_t *q = json_object_get(json_object_get(vm, "quota"), quotas[i].name);

		if (!q) {
			continue;
		}
		if (quotas[i].type == 's' && gpu) {
			json_object_set(q, "share", json_object_get(gpu, "share"));
		}
		json_object_set(out, quotas[i].shown, q);
	}
	return json_pack("{s:s, s:o}", "vm", cli_text(vm, "name"), "quota", out);
}

int cmd_quota_show(struct cli *c)
{
	static const char *const columns[] = {"VM", "QUOTA", "USED", "LIMIT"};
	_cleanup_(table_destroyp) struct table *t = table_create(columns, ARRAY_SIZE(columns));
	json_t *gpus = NULL, *vms = NULL, *vm, *only = NULL, *list = json_array();
	size_t i;
	int r = cli_gpus(c, &gpus, &vms);

	if (r == 0) {
		only = c->o.args[0] ? cli_find(c, vms, "VM", c->o.args[0], &r) : NULL;
	}
	json_array_foreach(vms, i, vm)
	{
		const json_t *gpu = rates_find(gpus, "vm", cli_text(vm, "name"));

		if (t && r == 0 && (!only || vm == only)) {
			add_rows(t, vm, gpu);
			json_array_append_new(list, to_json(vm, gpu));
		}
	}
	if (r == 0 && c->o.json) {
		r = cli_print_json(json_pack("{s:O}", "vms", list), "devbroker.quota-show/1");
	} else if (r == 0) {
		r = cli_print_table(c, t);
	}
	json_decref(list);
	json_decref(vms);
	json_decref(gpus);
	return r;
}

/* A value as it was given. */
struct setting {
	const struct quota_name *quota;
	uint64_t number;
	const char *text; /* of one that is no number */
};

static int parse_value(const struct quota_name *q, const char *text, uint64_t *out)
{
	uint64_t max = q->type == 'u' ? UINT32_MAX : UINT64_MAX;

	if (q->none && strcmp(text, "none") == 0) {
		*out = 0;
		return 0;
	}
	return q->bytes ? parse_bytes(text, 0, max, out) : parse_u64(text, 0, max, out);
}

/* KEY=VALUE. 0, or the exit code. */
static int parse_setting(const struct cli *c, const char *text, struct setting *out)
{
	const char *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(quotas) && equals; i++) {
		const struct quota_name *q = &quotas[i];

		if (strlen(q->shown) != n || strncmp(q->shown, text, n) != 0) {
			continue;
		}
		*out = (struct setting){.quota = q, .text = equals + 1};
		if (q->type == 's' || parse_value(q, equals + 1, &out->number) == 0) {
			return 0;
		}
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			q->bytes ? "A size, as in 40M; of a rate also none."
				 : "A number; of what may be without a limit also none.",
			"%s can't be %s", q->shown, equals + 1);
	}
	return cli_fail(c, CLI_EXIT_USAGE, "usage",
		"usb.devices, usb.bytes-in-flight, usb.transfers-in-flight, usb.bandwidth, "
		"usb.transfers-per-second, gpu.memory, gpu.share, gpu.frame-rate, gpu.contexts or "
		"gpu.resources, as in usb.bandwidth=40M",
		"that is no quota and its value: %s", text);
}

static int append_setting(sd_bus_message *m, const struct setting *s)
{
	const char *name = s->quota->name;

	switch (s->quota->type) {
	case 's':
		return sd_bus_message_append(m, "a{sv}", 1, name, "s", s->text);
	case 'u':
		return sd_bus_message_append(m, "a{sv}", 1, name, "u", (uint32_t)s->number);
	default:
		return sd_bus_message_append(m, "a{sv}", 1, name, "t", s->number);
	}
}

static int call(struct cli *c, const char *vm, const struct setting *s, int *lasts_out)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_message_new_method_call(
		c->bus, &m, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, "SetQuota");

	if (r >= 0) {
		r = sd_bus_message_append(m, "s", vm);
	}
	if (r >= 0) {
		r = append_setting(m, s);
	}
	if (r >= 0) {
		r = sd_bus_call(c->bus, m, 0, &error, &reply);
	}
	if (r >= 0) {
		r = sd_bus_message_read(reply, "b", lasts_out);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

int cmd_quota_set(struct cli *c)
{
	const char *vm = c->o.args[0], *shown;
	struct setting s = {.quota = &quotas[0]};
	bool is_text;
	char text[32];
	int lasts = 0;
	int r = parse_setting(c, c->o.args[1], &s);

	if (r == 0) {
		r = call(c, vm, &s, &lasts);
	}
	if (r != 0) {
		return r;
	}
	is_text = s.quota->type == 's';
	shown = is_text ? s.text : print(s.quota, s.number, true, text, sizeof(text));
	if (c->o.json) {
		return cli_print_json(
			json_pack("{s:s, s:s, s:o, s:b}", "vm", vm, "quota", s.quota->shown,
				"limit",
				is_text ? json_string(s.text) : json_integer((json_int_t)s.number),
				"lasts", lasts),
			"devbroker.quota-set/1");
	}
	text_line(stdout, TEXT_PLAIN, "vm %s: %s is %s", vm, s.quota->shown, shown);
	if (!lasts) {
		printf("When devbrokerd starts anew its file holds again: [quota] and [gpu] in "
		       "devbroker-vm.conf(5).\n");
	}
	return 0;
}
