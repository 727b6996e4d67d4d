/* SPDX-License-Identifier: MIT */
#include "broker/cli/top.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "broker/cli/rates.h"
#include "broker/cli/table.h"

#define MB 1e6
/* Of a limit: the broker's log warns there, too. */
#define NEARLY 0.8

/* Numbers to the right; what is left out of a narrow terminal first has the highest rank. */
static const struct table_column vm_columns[] = {
	{.title = "VM", .min = 8},
	{.title = "STATE", .rank = 1},
	{.title = "DEVICES", .right = true, .rank = 4},
	{.title = "USB MB/s", .right = true},
	{.title = "TRANSFERS/s", .right = true, .rank = 3},
	{.title = "GPU TIME", .right = true, .if_any = true},
	{.title = "FROM", .if_any = true, .rank = 6},
	{.title = "SHARE", .if_any = true, .rank = 5},
	{.title = "WAITED", .right = true, .if_any = true, .rank = 2},
	{.title = "GPU MEMORY", .right = true, .if_any = true},
	{.title = "FPS", .right = true, .if_any = true},
	{.title = "CONTEXTS", .right = true, .if_any = true},
	{.title = "REFUSED", .right = true, .if_any = true},
};
static const struct table_column device_columns[] = {
	{.title = "DEVICE", .min = 12},
	{.title = "VM", .min = 8},
	{.title = "IN MB/s", .right = true},
	{.title = "OUT MB/s", .right = true},
	{.title = "TRANSFERS/s", .right = true},
	{.title = "P50", .right = true, .rank = 1},
	{.title = "P99", .right = true},
	{.title = "IN FLIGHT", .right = true, .rank = 2},
	{.title = "ERRORS", .right = true},
	{.title = "REFUSED", .right = true},
	{.title = "DESCRIPTION", .if_any = true, .min = 12, .rank = 3},
};
#define GPU_COLUMNS 8

static void cell(struct table *t, enum text_style style, const char *fmt, ...) _printf_(3, 4);

static void cell(struct table *t, enum text_style style, const char *fmt, ...)
{
	char text[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	table_cell_style(t, text, style);
}

/* A counter of what should not happen: loud while it grows. before may be NULL. */
static void bad_cell(struct table *t, const json_t *now, const json_t *before, const char *key)
{
	uint64_t n = cli_number(now, key);

	cell(t, before && n > cli_number(before, key) ? TEXT_BAD : TEXT_PLAIN, "%" PRIu64, n);
}

/* "3", or "3/12" where there is a limit. */
static void limited_cell(struct table *t, uint64_t used, uint64_t limit)
{
	if (limit == 0) {
		cell(t, TEXT_PLAIN, "%" PRIu64, used);
	} else {
		cell(t, used >= limit ? TEXT_WAITING : TEXT_PLAIN, "%" PRIu64 "/%" PRIu64, used,
			limit);
	}
}

/* "51.3/64 MiB": both in the limit's unit. */
static void memory_cell(struct table *t, uint64_t used, uint64_t limit)
{
	double unit = 1;
	char text[32];

	while ((double)limit / unit >= 1024) {
		unit *= 1024;
	}
	cell(t, (double)used >= NEARLY * (double)limit ? TEXT_WAITING : TEXT_PLAIN, "%.1f/%s",
		(double)used / unit, text_bytes(limit, text, sizeof(text)));
}

static void frames_cell(struct table *t, const json_t *gpu, const json_t *before)
{
	double fps = rates_gpu(gpu, before, "frames");
	uint64_t limit = cli_number(gpu, "frame_rate_max");
	char most[24] = "";

	if (fps < 0) {
		/* Nothing was heard meanwhile: as of the last time. */
		fps = (double)cli_number(gpu, "frames_per_second");
	}
	if (limit > 0) {
		snprintf(most, sizeof(most), "/%" PRIu64, limit);
	}
	cell(t, TEXT_PLAIN, "%.1f%s", fps, most);
}

static void gpu_cells(struct table *t, const json_t *gpu, const json_t *before)
{
	double wait = rates_gpu(gpu, before, "waited_usec");

	if (!gpu) {
		for (int i = 0; i < GPU_COLUMNS; i++) {
			table_cell(t, "");
		}
		return;
	}
	if (json_is_true(json_object_get(gpu, "quarantined"))) {
		table_cell_style(t, "no 3D", TEXT_BAD);
	} else {
		cell(t, TEXT_PLAIN, "%.1f %%", (double)cli_number(gpu, "time_permille") / 10);
	}
	table_cell(t, cli_text(gpu, "time_from"));
	table_cell(t, cli_text(gpu, "share"));
	if (wait >= 0) {
		cell(t, TEXT_PLAIN, "%.0f %%", wait / 1e4);
	} else {
		/* In the first look; the column stays. */
		table_cell(t, "?");
	}
	memory_cell(t, cli_number(gpu, "memory_bytes"), cli_number(gpu, "memory_max_bytes"));
	frames_cell(t, gpu, before);
	limited_cell(t, cli_number(gpu, "contexts"), cli_number(gpu, "contexts_max"));
	bad_cell(t, gpu, before, "refused");
}

static void vm_row(
	struct table *t, const json_t *vm, const struct cli_all *all, const struct cli_all *before)
{
	const json_t *s = json_object_get(vm, "statistics");
	const char *name = cli_text(vm, "name"), *state = cli_text(vm, "state");

	table_cell(t, name);
	table_cell_style(t, state, cli_state_style(state));
	cell(t, TEXT_PLAIN, "%zu", json_array_size(json_object_get(vm, "devices")));
	cell(t, TEXT_PLAIN, "%.1f", (double)cli_number(s, "bytes-per-second") / MB);
	cell(t, TEXT_PLAIN, "%" PRIu64, cli_number(s, "transfers-per-second"));
	gpu_cells(t, rates_find(all->gpus, "vm", name), rates_find(before->gpus, "vm", name));
}

/* What so many of 1000 transfers took at most, as of now; us is a power of two. */
static void latency_cell(
	struct table *t, const json_t *latency, const json_t *before, unsigned int permille)
{
	uint64_t us = rates_latency(latency, before, permille);

	if (us == 0) {
		table_cell(t, "");
	} else if (us < 1000) {
		cell(t, TEXT_PLAIN, "<%" PRIu64 " us", us);
	} else if (us < 1000000) {
		cell(t, TEXT_PLAIN, us < 10000 ? "<%.1f ms" : "<%.0f ms", (double)us / 1e3);
	} else {
		cell(t, TEXT_WAITING, "<%.1f s", (double)us / 1e6);
	}
}

static void device_row(struct table *t, const json_t *d, const struct cli_all *before)
{
	const json_t *s = json_object_get(d, "statistics"),
		     *latency = json_object_get(d, "latency");
	const json_t *was = rates_find(before->devices, "name", cli_text(d, "name"));
	const json_t *was_latency = json_object_get(was, "latency");

	was = json_object_get(was, "statistics");
	table_cell(t, cli_text(d, "name"));
	table_cell(t, cli_text(d, "vm"));
	cell(t, TEXT_PLAIN, "%.1f", (double)cli_number(s, "bytes-in-per-second") / MB);
	cell(t, TEXT_PLAIN, "%.1f", (double)cli_number(s, "bytes-out-per-second") / MB);
	cell(t, TEXT_PLAIN, "%" PRIu64, cli_number(s, "transfers-per-second"));
	latency_cell(t, latency, was_latency, 500);
	latency_cell(t, latency, was_latency, 990);
	cell(t, TEXT_PLAIN, "%" PRIu64, cli_number(s, "in-flight"));
	bad_cell(t, s, was, "errors");
	bad_cell(t, s, was, "refused");
	table_cell(t, cli_text(d, "description"));
}

static bool is_lent(const json_t *device)
{
	return json_array_size(json_object_get(device, "latency")) > 0;
}

/* The objects of list, which are sorted by name, in their order on the screen. */
struct row {
	const json_t *object;
	uint64_t weight; /* the largest first */
	size_t place;    /* in list */
};

static uint64_t bytes_of(const json_t *object, const char *key)
{
	return cli_number(json_object_get(object, "statistics"), key);
}

static uint64_t weight_of_vm(const json_t *vm, const struct cli_all *all, enum top_order order)
{
	return order == TOP_BY_USB   ? bytes_of(vm, "bytes-per-second")
	       : order == TOP_BY_GPU ? cli_number(rates_find(all->gpus, "vm", cli_text(vm, "name")),
					       "time_permille")
				     : 0;
}

static uint64_t weight_of_device(const json_t *d, enum top_order order)
{
	return order == TOP_BY_USB
		       ? bytes_of(d, "bytes-in-per-second") + bytes_of(d, "bytes-out-per-second")
		       : 0;
}

static int heavier(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->weight != y->weight ? (x->weight < y->weight ? 1 : -1)
				      : (x->place > y->place) - (x->place < y->place);
}

static struct table *vms_table(
	const struct cli_all *all, const struct cli_all *before, enum top_order order)
{
	struct table *t = table_create_columns(vm_columns, ARRAY_SIZE(vm_columns));
	size_t n = json_array_size(all->vms);
	_cleanup_free_ struct row *rows = calloc(n + 1, sizeof(*rows));

	for (size_t i = 0; rows && i < n; i++) {
		const json_t *vm = json_array_get(all->vms, i);

		rows[i] = (struct row){vm, weight_of_vm(vm, all, order), i};
	}
	if (t && rows) {
		qsort(rows, n, sizeof(*rows), heavier);
		for (size_t i = 0; i < n; i++) {
			vm_row(t, rows[i].object, all, before);
		}
	}
	return t;
}

static struct table *devices_table(
	const struct cli_all *all, const struct cli_all *before, enum top_order order)
{
	struct table *t = table_create_columns(device_columns, ARRAY_SIZE(device_columns));
	size_t n = json_array_size(all->devices), n_rows = 0;
	_cleanup_free_ struct row *rows = calloc(n + 1, sizeof(*rows));

	for (size_t i = 0; rows && i < n; i++) {
		const json_t *d = json_array_get(all->devices, i);

		if (is_lent(d)) {
			rows[n_rows++] = (struct row){d, weight_of_device(d, order), i};
		}
	}
	if (t && rows) {
		qsort(rows, n_rows, sizeof(*rows), heavier);
		for (size_t i = 0; i < n_rows; i++) {
			device_row(t, rows[i].object, before);
		}
	}
	return t;
}

void top_print(FILE *out, const struct cli *c, const struct cli_all *all,
	const struct cli_all *before, size_t width, enum top_order order)
{
	_cleanup_(table_destroyp) struct table *vms = vms_table(all, before, order);
	_cleanup_(table_destroyp) struct table *devices = devices_table(all, before, order);

	if (vms && devices) {
		table_print(vms, out, width, c->colour_out);
		fputc('\n', out);
		table_print(devices, out, width, c->colour_out);
	}
}

void top_print_sum(FILE *out, const struct cli_all *all)
{
	size_t n = json_array_size(all->vms), up = 0, lent = 0, i;
	const json_t *object;
	double bytes = 0;

	json_array_foreach(all->vms, i, object)
	{
		up += strcmp(cli_text(object, "state"), "up") == 0;
		bytes += (double)bytes_of(object, "bytes-per-second");
	}
	json_array_foreach(all->devices, i, object)
	{
		lent += is_lent(object);
	}
	fprintf(out, "%zu of %zu VM%s up  %zu device%s lent  USB %.1f MB/s", up, n,
		n == 1 ? "" : "s", lent, lent == 1 ? "" : "s", bytes / MB);
}
