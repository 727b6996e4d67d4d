/* SPDX-License-Identifier: MIT
 * metrics: Prometheus' text exposition format 0.0.4, for the textfile collector of its node
 * exporter. A file is written beside and renamed, as that one asks for.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/cli/cli.h"
#include "broker/cli/rates.h"

struct metric {
	const char *name;
	const char *type;
	const char *help;
	const char *key;   /* of the object's numbers */
	const char *label; /* one more, with its value; NULL: none */
	double unit;       /* of one of its numbers */
};

/* Lines of one name stand together: the first one has the help. */
static const struct metric device_metrics[] = {
	{"devbroker_usb_bytes_total", "counter", "Bytes moved by a lent device.", "bytes-in",
		"direction=\"in\"", 1},
	{"devbroker_usb_bytes_total", NULL, NULL, "bytes-out", "direction=\"out\"", 1},
	{"devbroker_usb_transfers_total", "counter", "Transfers that ended.", "control",
		"type=\"control\"", 1},
	{"devbroker_usb_transfers_total", NULL, NULL, "bulk", "type=\"bulk\"", 1},
	{"devbroker_usb_transfers_total", NULL, NULL, "interrupt", "type=\"interrupt\"", 1},
	{"devbroker_usb_transfers_total", NULL, NULL, "isochronous", "type=\"isochronous\"", 1},
	{"devbroker_usb_errors_total", "counter", "Transfers that ended with an I/O error.",
		"errors", NULL, 1},
	{"devbroker_usb_stalls_total", "counter", "Transfers that the device stalled.", "stalls",
		NULL, 1},
	{"devbroker_usb_refused_total", "counter", "Transfers over a bound, or forbidden.",
		"refused", NULL, 1},
	{"devbroker_usb_in_flight", "gauge", "Transfers that have not ended.", "in-flight", NULL,
		1},
	{"devbroker_usb_in_flight_bytes", "gauge", "Bytes of their buffers.", "in-flight-bytes",
		NULL, 1},
};

static const struct metric vm_metrics[] = {
	{"devbroker_vm_usb_bytes_total", "counter",
		"Bytes moved by all devices that a VM has and had.", "bytes-in", "direction=\"in\"",
		1},
	{"devbroker_vm_usb_bytes_total", NULL, NULL, "bytes-out", "direction=\"out\"", 1},
	{"devbroker_vm_usb_transfers_total", "counter", "Transfers of all of them.", "transfers",
		NULL, 1},
	{"devbroker_vm_usb_errors_total", "counter", "Those that ended with an I/O error.",
		"errors", NULL, 1},
	{"devbroker_vm_usb_refused_total", "counter", "Those over a bound, or forbidden.",
		"refused", NULL, 1},
};

static const struct metric gpu_metrics[] = {
	{"devbroker_gpu_cpu_seconds_total", "counter", "CPU time of a VM's renderer.", "cpu_usec",
		NULL, 1e-6},
	{"devbroker_gpu_time_seconds_total", "counter",
		"Time of what a VM draws on, since its VMM is connected.", "time_usec", NULL, 1e-6},
	{"devbroker_gpu_time_ratio", "gauge", "Of all of it, in the last half second.",
		"time_permille", NULL, 1e-3},
	{"devbroker_gpu_waited_seconds_total", "counter",
		"With commands and without time left of its share.", "waited_usec", NULL, 1e-6},
	{"devbroker_gpu_frames_delayed_total", "counter", "Frames that waited for the frame rate.",
		"frames_delayed", NULL, 1},
	{"devbroker_gpu_commands_total", "counter", "Commands of the guest.", "commands", NULL, 1},
	{"devbroker_gpu_errors_total", "counter", "Commands answered with an error.", "errors",
		NULL, 1},
	{"devbroker_gpu_frames_total", "counter", "Frames shown.", "frames", NULL, 1},
	{"devbroker_gpu_refused_total", "counter", "Requests over the budget.", "refused", NULL, 1},
	{"devbroker_gpu_poisoned_total", "counter", "Contexts that were given up.", "poisoned",
		NULL, 1},
	{"devbroker_gpu_hangs_total", "counter", "Renderers that hung or died.", "hangs", NULL, 1},
	{"devbroker_gpu_renderers_total", "counter", "Renderers that there were.", "renderers",
		NULL, 1},
	{"devbroker_gpu_memory_bytes", "gauge", "Memory of the guest's resources.", "memory_bytes",
		NULL, 1},
	{"devbroker_gpu_memory_uncharged_bytes", "gauge",
		"What its renderer takes beyond that and a fixed slack; it counts as used.",
		"memory_uncharged_bytes", NULL, 1},
	{"devbroker_gpu_memory_limit_bytes", "gauge", "What they may take.", "memory_max_bytes",
		NULL, 1},
	{"devbroker_gpu_rss_bytes", "gauge",
		"What the VM's renderer has in RAM, by the kernel: more than the ledger by what "
		"drivers and programs take.",
		"renderer_bytes", NULL, 1},
	{"devbroker_gpu_device_memory_bytes", "gauge",
		"What the VM's renderer has in a GPU's memory, by the kernel; 0: its driver does "
		"not say.",
		"device_memory_bytes", NULL, 1},
	{"devbroker_gpu_resources", "gauge", "Resources.", "resources", NULL, 1},
	{"devbroker_gpu_contexts", "gauge", "Contexts.", "contexts", NULL, 1},
	{"devbroker_gpu_fences", "gauge", "Requests that wait for fences.", "fences", NULL, 1},
	{"devbroker_gpu_quarantined", "gauge", "1: its 3D was taken away.", "quarantined", NULL, 1},
};

/* key="text", in which backslash, quote and newline are escaped. */
static void label(FILE *f, const char *key, const char *text)
{
	fprintf(f, "%s=\"", key);
	for (const char *p = text; *p; p++) {
		if (*p == '\n') {
			fputs("\\n", f);
			continue;
		}
		if (*p == '\\' || *p == '"') {
			fputc('\\', f);
		}
		fputc(*p, f);
	}
	fputc('"', f);
}

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Whose it is, for a list of devices, VMs or GPUs. */
static void labels(FILE *f, const json_t *object, const char *what)
{
	const char *vm = strcmp(what, "vm") == 0 ? "name" : "vm";

	if (strcmp(what, "device") == 0) {
		label(f, "device", cli_text(object, "name"));
		fputc(',', f);
	}
	label(f, "vm", cli_text(object, vm));
}

static void print_metrics(FILE *f, const json_t *list, const char *what, const char *numbers,
	const struct metric *m, size_t n)
{
	const json_t *object, *from;
	size_t i;

	for (size_t k = 0; k < n; k++) {
		if (m[k].type && json_array_size(list) > 0) {
			head(f, m[k].name, m[k].type, m[k].help);
		}
		json_array_foreach(list, i, object)
		{
			from = numbers ? json_object_get(object, numbers) : object;
			fprintf(f, "%s{", m[k].name);
			labels(f, object, what);
			fprintf(f, "%s%s} %.17g\n", m[k].label ? "," : "",
				m[k].label ? m[k].label : "",
				(double)cli_number(from, m[k].key) * m[k].unit);
		}
	}
}

static void print_latency(FILE *f, const json_t *devices)
{
	static const char name[] = "devbroker_usb_latency_seconds";
	const json_t *d, *n;
	size_t i, k;

	if (json_array_size(devices) > 0) {
		head(f, name, "histogram",
			"Bulk and control transfers, from the device's getting them.");
	}
	json_array_foreach(devices, i, d)
	{
		const json_t *latency = json_object_get(d, "latency");
		uint64_t sum = 0;

		json_array_foreach(latency, k, n)
		{
			sum += (uint64_t)json_integer_value(n);
			fprintf(f, "%s_bucket{", name);
			labels(f, d, "device");
			if (k + 1 < json_array_size(latency) && k < 63) {
				fprintf(f, ",le=\"%g\"} %" PRIu64 "\n",
					(double)(UINT64_C(1) << k) * 1e-6, sum);
			} else {
				fprintf(f, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
			}
		}
		fprintf(f, "%s_sum{", name);
		labels(f, d, "device");
		fprintf(f, "} %.17g\n%s_count{",
			(double)cli_number(json_object_get(d, "statistics"), "latency-usec") * 1e-6,
			name);
		labels(f, d, "device");
		fprintf(f, "} %" PRIu64 "\n", sum);
	}
}

/* A gauge that is always 1: what a label says. */
static void print_info(
	FILE *f, const json_t *gpus, const char *name, const char *help, const char *key)
{
	const json_t *g;
	size_t i;

	if (json_array_size(gpus) > 0) {
		head(f, name, "gauge", help);
	}
	json_array_foreach(gpus, i, g)
	{
		fprintf(f, "%s{", name);
		labels(f, g, "gpu");
		fputc(',', f);
		label(f, key, cli_text(g, key));
		fputs("} 1\n", f);
	}
}

static void print_quotas(FILE *f, const json_t *vms)
{
	static const char *const names[][3] = {
		{"devbroker_vm_quota_limit", "limit", "What a VM may use; 0 of a rate: no limit."},
		{"devbroker_vm_quota_used", "used", "What it uses of that."},
	};
	json_t *vm, *quota;
	const char *key;
	size_t i;

	for (size_t k = 0; k < ARRAY_SIZE(names) && json_array_size(vms) > 0; k++) {
		head(f, names[k][0], "gauge", names[k][2]);
		json_array_foreach(vms, i, vm)
		{
			json_object_foreach(json_object_get(vm, "quota"), key, quota)
			{
				fprintf(f, "%s{", names[k][0]);
				labels(f, vm, "vm");
				fputc(',', f);
				label(f, "quota", key);
				fprintf(f, "} %" PRIu64 "\n", cli_number(quota, names[k][1]));
			}
		}
	}
}

/* Those that somebody serves. */
static json_t *served(const json_t *devices)
{
	json_t *out = json_array(), *d;
	size_t i;

	json_array_foreach(devices, i, d)
	{
		if (json_array_size(json_object_get(d, "latency")) > 0) {
			json_array_append(out, d);
		}
	}
	return out;
}

static void print_all(FILE *f, const struct cli_all *all)
{
	json_t *devices = served(all->devices);

	head(f, "devbroker_devices", "gauge", "Devices that devbrokerd knows.");
	fprintf(f, "devbroker_devices %zu\n", json_array_size(all->devices));
	head(f, "devbroker_vms", "gauge", "VMs that it knows.");
	fprintf(f, "devbroker_vms %zu\n", json_array_size(all->vms));
	print_metrics(
		f, devices, "device", "statistics", device_metrics, ARRAY_SIZE(device_metrics));
	print_latency(f, devices);
	print_metrics(f, all->vms, "vm", "statistics", vm_metrics, ARRAY_SIZE(vm_metrics));
	print_quotas(f, all->vms);
	print_metrics(f, all->gpus, "gpu", NULL, gpu_metrics, ARRAY_SIZE(gpu_metrics));
	print_info(f, all->gpus, "devbroker_gpu_share_info",
		"A VM's share of the time of what it draws on.", "share");
	print_info(f, all->gpus, "devbroker_gpu_time_info",
		"Who counts it: kernel, renderer (its own word), cpu (CPU time, by the kernel).",
		"time_from");
	json_decref(devices);
}

/* 0 or -errno. */
static int write_file(const char *path, const struct cli_all *all)
{
	_cleanup_free_ char *beside = NULL;
	FILE *f;
	int fd, r = 0;

	if (asprintf(&beside, "%s.XXXXXX", path) < 0) {
		beside = NULL;
		return -ENOMEM;
	}
	fd = mkstemp(beside);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		return -errno;
	}
	print_all(f, all);
	/* The exporter is another user. */
	if (fchmod(fd, 0644) < 0 || fflush(f) == EOF || ferror(f)) {
		r = -errno;
	}
	if (fclose(f) == EOF && r == 0) {
		r = -errno;
	}
	if (r == 0 && rename(beside, path) < 0) {
		r = -errno;
	}
	if (r < 0) {
		unlink(beside);
	}
	return r;
}

int cmd_metrics(struct cli *c)
{
	const char *path = cli_value(c, "output");
	struct cli_all all;
	int r;

	if (c->o.json) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage", "devbroker stats --json is for that.",
			"metrics are in Prometheus' format, not in JSON");
	}
	r = cli_everything(c, &all);
	if (r != 0) {
		return r;
	}
	if (path && strcmp(path, "-") != 0) {
		r = write_file(path, &all);
		if (r < 0) {
			r = cli_fail(c, CLI_EXIT_FAILED, "failed", "", "can't write %s: %s", path,
				strerror(-r));
		}
	} else {
		print_all(stdout, &all);
	}
	cli_all_finish(&all);
	return r;
}
