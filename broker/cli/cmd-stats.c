/* SPDX-License-Identifier: MIT
 * stats: what devices and VMs did since they are lent or there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"
#include "broker/cli/rates.h"
#include "broker/cli/table.h"

static void number_cell(struct table *t, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	table_cell(t, text);
}

static struct table *vms_table(const struct cli_all *all)
{
	static const char *const columns[] = {"VM", "IN", "OUT", "TRANSFERS", "ERRORS", "REFUSED",
		"GPU TIME", "FROM", "SHARE", "WAITED", "GPU MEMORY", "FRAMES", "COMMANDS",
		"GPU REFUSED"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *vm, *s, *gpu;
	char text[32];
	size_t i;

	json_array_foreach(all->vms, i, vm)
	{
		if (!t) {
			break;
		}
		s = json_object_get(vm, "statistics");
		gpu = rates_find(all->gpus, "vm", cli_text(vm, "name"));
		table_cell(t, cli_text(vm, "name"));
		table_cell_bytes(t, cli_number(s, "bytes-in"));
		table_cell_bytes(t, cli_number(s, "bytes-out"));
		number_cell(t, cli_number(s, "transfers"));
		number_cell(t, cli_number(s, "errors"));
		number_cell(t, cli_number(s, "refused"));
		if (!gpu) {
			for (int k = 0; k < 8; k++) {
				table_cell(t, "");
			}
			continue;
		}
		snprintf(text, sizeof(text), "%.1f s", (double)cli_number(gpu, "time_usec") / 1e6);
		table_cell(t, text);
		table_cell(t, cli_text(gpu, "time_from"));
		table_cell(t, cli_text(gpu, "share"));
		snprintf(
			text, sizeof(text), "%.1f s", (double)cli_number(gpu, "waited_usec") / 1e6);
		table_cell(t, text);
		table_cell_bytes(t, cli_number(gpu, "memory_bytes"));
		number_cell(t, cli_number(gpu, "frames"));
		number_cell(t, cli_number(gpu, "commands"));
		number_cell(t, cli_number(gpu, "refused"));
	}
	return t;
}

static struct table *devices_table(const struct cli_all *all)
{
	static const char *const columns[] = {"DEVICE", "VM", "IN", "OUT", "TRANSFERS", "P50",
		"P99", "STALLS", "ERRORS", "REFUSED"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *d, *s, *latency;
	char text[32];
	size_t i;

	json_array_foreach(all->devices, i, d)
	{
		latency = json_object_get(d, "latency");
		if (!t || json_array_size(latency) == 0) {
			continue;
		}
		s = json_object_get(d, "statistics");
		table_cell(t, cli_text(d, "name"));
		table_cell(t, cli_text(d, "vm"));
		table_cell_bytes(t, cli_number(s, "bytes-in"));
		table_cell_bytes(t, cli_number(s, "bytes-out"));
		number_cell(t, cli_number(s, "transfers"));
		for (unsigned int p = 500; p <= 990; p += 490) {
			snprintf(text, sizeof(text), "%" PRIu64 " us",
				rates_latency(latency, NULL, p));
			table_cell(t, text);
		}
		number_cell(t, cli_number(s, "stalls"));
		number_cell(t, cli_number(s, "errors"));
		number_cell(t, cli_number(s, "refused"));
	}
	return t;
}

/* Some fields of each object. */
static json_t *pick(const json_t *list, const char *const *keys, size_t n)
{
	json_t *out = json_array(), *object;
	size_t i;

	json_array_foreach(list, i, object)
	{
		json_t *picked = json_object();

		for (size_t k = 0; k < n; k++) {
			json_t *value = json_object_get(object, keys[k]);

			if (value) {
				json_object_set(picked, keys[k], value);
			}
		}
		json_array_append_new(out, picked);
	}
	return out;
}

static int print_json(const struct cli_all *all)
{
	static const char *const device[] = {"name", "vm", "state", "statistics", "latency"};
	static const char *const vm[] = {"name", "state", "statistics", "quota"};

	return cli_print_json(json_pack("{s:o, s:o, s:O}", "devices",
				      pick(all->devices, device, ARRAY_SIZE(device)), "vms",
				      pick(all->vms, vm, ARRAY_SIZE(vm)), "gpus", all->gpus),
		"devbroker.stats/1");
}

int cmd_stats(struct cli *c)
{
	_cleanup_(table_destroyp) struct table *vms = NULL;
	_cleanup_(table_destroyp) struct table *devices = NULL;
	struct cli_all all;
	int r = cli_everything(c, &all);

	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		r = print_json(&all);
	} else {
		vms = vms_table(&all);
		devices = devices_table(&all);
		r = cli_print_table(c, vms);
		putchar('\n');
		r = r == 0 ? cli_print_table(c, devices) : r;
	}
	cli_all_finish(&all);
	return r;
}
