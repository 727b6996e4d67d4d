/* SPDX-License-Identifier: MIT
 *
 * Configuration decides who gets which device, so it is trusted input: files and directories that
 * others could have written are refused (broker/config-file). Everything is read once, in the order
 * of file names, and the first error stops the start: half a configuration is none.
 */
#include "broker/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/sandbox.h"
#include "broker/config-internal.h"

#define VMS_MAX   256
#define DISKS_MAX 1024

#define SERIAL_MAX 60 /* characters of a USB string that every host copes with */

#define MIB (UINT64_C(1) << 20)

/* nobody as the kernel maps unknown ids, and the "no change" of chown in 16 bits. */
#define UID_NOBODY 65534
#define UID_NONE16 65535
#define UID_LAST   (UINT32_MAX - 1)

int quota_parse_bandwidth(const char *text, uint64_t *out)
{
	if (strcmp(text, "none") == 0) {
		*out = 0;
		return 0;
	}
	return parse_bytes(text, QUOTA_BANDWIDTH_MIN, QUOTA_BANDWIDTH_MAX, out);
}

int quota_parse_rate(const char *text, uint64_t *out)
{
	if (strcmp(text, "none") == 0) {
		*out = 0;
		return 0;
	}
	return parse_u64(text, QUOTA_RATE_MIN, QUOTA_RATE_MAX, out);
}

void quota_limits_default(struct quota_limits *out)
{
	*out = (struct quota_limits){
		.devices = 16,
		.bytes_in_flight = 8 * MIB,
		.transfers_in_flight = 64,
	};
}

/* An escaped copy of a value for sentences. */
struct shown {
	char text[200];
};

static const char *show(const char *value, struct shown *s)
{
	return log_escape(value, strlen(value), s->text, sizeof(s->text));
}

int config_set_string(char **field, const char *value)
{
	*field = strdup(value);
	return *field ? 0 : -ENOMEM;
}

static int set_where(char **field, const struct config_place *place)
{
	return asprintf(field, "%s:%u", place->shown, place->line) < 0 ? -ENOMEM : 0;
}

int config_set_path(char **field, const char *value, const char *key, size_t max,
	const struct config_place *place)
{
	struct shown s;

	if (value[0] == '"' || value[0] == '\'') {
		return config_refuse(
			place, "%s=%s: write the path without quotes", key, show(value, &s));
	}
	if (value[0] != '/') {
		return config_refuse(place, "%s=%s is not an absolute path", key, show(value, &s));
	}
	if (strlen(value) > max) {
		return config_refuse(place,
			"the path of %s= has %zu bytes; at most %zu are allowed", key,
			strlen(value), max);
	}
	return config_set_string(field, value);
}

static int quota_number(const char *key, const char *value, uint32_t min, uint32_t max,
	uint32_t *field, const struct config_place *place)
{
	struct shown s;
	uint64_t n;

	if (parse_u64(value, min, max, &n) < 0) {
		return config_refuse(place, "%s=%s is not a number from %u to %u", key,
			show(value, &s), min, max);
	}
	*field = (uint32_t)n;
	return 0;
}

static int set_devices(void *target, const char *value, const struct config_place *place)
{
	struct quota_limits *q = ((struct config_target *)target)->quota;

	return quota_number("devices", value, 0, QUOTA_DEVICES_MAX, &q->devices, place);
}

static int set_transfers(void *target, const char *value, const struct config_place *place)
{
	struct quota_limits *q = ((struct config_target *)target)->quota;

	return quota_number("transfers-in-flight", value, 1, QUOTA_TRANSFERS_MAX,
		&q->transfers_in_flight, place);
}

static int set_bytes(void *target, const char *value, const struct config_place *place)
{
	struct quota_limits *q = ((struct config_target *)target)->quota;
	struct shown s;

	if (parse_bytes(value, QUOTA_BYTES_MIN, QUOTA_BYTES_MAX, &q->bytes_in_flight) < 0) {
		return config_refuse(place, "bytes-in-flight=%s is not a size from %dM to %dM",
			show(value, &s), QUOTA_BYTES_MIN >> 20, QUOTA_BYTES_MAX >> 20);
	}
	return 0;
}

/* "none" is 0. */
static int set_bandwidth(void *target, const char *value, const struct config_place *place)
{
	struct quota_limits *q = ((struct config_target *)target)->quota;
	struct shown s;

	if (quota_parse_bandwidth(value, &q->bandwidth) < 0) {
		return config_refuse(place, "bandwidth=%s is neither none nor from 1M to 1024G",
			show(value, &s));
	}
	return 0;
}

static int set_rate(void *target, const char *value, const struct config_place *place)
{
	struct quota_limits *q = ((struct config_target *)target)->quota;
	struct shown s;

	if (quota_parse_rate(value, &q->transfer_rate) < 0) {
		return config_refuse(place,
			"transfers-per-second=%s is neither none nor a number from %d to %d",
			show(value, &s), QUOTA_RATE_MIN, QUOTA_RATE_MAX);
	}
	return 0;
}

#define QUOTA_KEYS                                                             \
	{"quota", "devices", set_devices, CONFIG_OPTIONAL},                    \
		{"quota", "bytes-in-flight", set_bytes, CONFIG_OPTIONAL},      \
		{"quota", "bandwidth", set_bandwidth, CONFIG_OPTIONAL},        \
		{"quota", "transfers-per-second", set_rate, CONFIG_OPTIONAL},  \
	{                                                                      \
		"quota", "transfers-in-flight", set_transfers, CONFIG_OPTIONAL \
	}

static int set_sandbox(void *target, const char *value, const struct config_place *place)
{
	struct config *c = ((struct config_target *)target)->config;
	struct shown s;

	if (sandbox_parse(value, false, &c->sandbox_stages) < 0) {
		return config_refuse(place,
			"sandbox=%s is neither full nor reduced:STAGE,… of namespaces, root, "
			"privileges, landlock, seccomp",
			show(value, &s));
	}
	free(c->sandbox);
	return config_set_string(&c->sandbox, value);
}

/* BASE:COUNT, without root, nobody and the ids that mean "none". */
static int set_worker_uids(void *target, const char *value, const struct config_place *place)
{
	struct config *c = ((struct config_target *)target)->config;
	const char *colon = strchr(value, ':');
	uint64_t base, count, last;
	char first[16];
	struct shown s;

	c->worker_uids_set = true;
	if (strcmp(value, "none") == 0) {
		c->worker_uid_base = c->worker_uid_count = 0;
		return 0;
	}
	snprintf(first, sizeof(first), "%.*s", colon ? (int)MIN(colon - value, 15) : 0, value);
	if (!colon || parse_u64(first, 1, UID_LAST, &base) < 0 ||
		parse_u64(colon + 1, 1, 65536, &count) < 0 || base + count - 1 > UID_LAST) {
		return config_refuse(place,
			"worker-uids=%s is neither none nor BASE:COUNT (as in 1879048192:1024)",
			show(value, &s));
	}
	last = base + count - 1;
	if (base <= UID_NONE16 && last >= UID_NOBODY) {
		return config_refuse(place, "worker-uids=%s holds the uid of nobody (%d)",
			show(value, &s), UID_NOBODY);
	}
	c->worker_uid_base = (uint32_t)base;
	c->worker_uid_count = (uint32_t)count;
	return 0;
}

static int set_log_level(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (log_level_parse(value, &((struct config_target *)target)->config->log_level) < 0) {
		return config_refuse(
			place, "log-level=%s is none of error, warn, info, debug", show(value, &s));
	}
	return 0;
}

static int set_orphan_time(void *target, const char *value, const struct config_place *place)
{
	struct shown s;
	uint64_t n;

	if (parse_u64(value, 0, ORPHAN_SECONDS_MAX, &n) < 0) {
		return config_refuse(place,
			"worker-orphan-time=%s is not a number of seconds from 0 to %d",
			show(value, &s), ORPHAN_SECONDS_MAX);
	}
	((struct config_target *)target)->config->worker_orphan_seconds = (uint32_t)n;
	return 0;
}

static const struct config_key broker_keys[] = {
	{"broker", "sandbox", set_sandbox, CONFIG_OPTIONAL},
	{"broker", "worker-uids", set_worker_uids, CONFIG_OPTIONAL},
	{"broker", "log-level", set_log_level, CONFIG_OPTIONAL},
	{"broker", "worker-orphan-time", set_orphan_time, CONFIG_OPTIONAL},
	{"usb", "quarantine", config_usb_set_quarantine, CONFIG_OPTIONAL},
	{"usb", "host-drivers", config_usb_set_host_drivers, CONFIG_OPTIONAL},
	{"usb", "usbfs-memory", config_usb_set_memory, CONFIG_OPTIONAL},
	{"usb", "usbfs-memory-all", config_usb_set_memory_all, CONFIG_OPTIONAL},
	{"usb", "allow-remote", config_usb_set_remote, CONFIG_OPTIONAL},
	{"gpu", "software-cpus", config_gpu_set_cpus, CONFIG_OPTIONAL},
	QUOTA_KEYS,
};

static int set_qmp(void *target, const char *value, const struct config_place *place)
{
	return config_set_path(&((struct config_target *)target)->vm->qmp, value, "qmp",
		sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1, place);
}

static int set_bus(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (!config_bus_ok(value)) {
		return config_refuse(place, "bus=%s is no name of a bus in QEMU (as in xhci.0)",
			show(value, &s));
	}
	return config_set_string(&((struct config_target *)target)->vm->bus, value);
}

static const struct config_key vm_keys[] = {
	{"gpu", "virgl", config_gpu_set_virgl, CONFIG_OPTIONAL},
	{"gpu", "render-node", config_gpu_set_node, CONFIG_OPTIONAL},
	{"gpu", "dmabuf", config_gpu_set_dmabuf, CONFIG_OPTIONAL},
	{"gpu", "memory", config_gpu_set_memory, CONFIG_OPTIONAL},
	{"gpu", "socket-group", config_gpu_set_group, CONFIG_OPTIONAL},
	{"gpu", "share", config_gpu_set_share, CONFIG_OPTIONAL},
	{"gpu", "frame-rate", config_gpu_set_frame_rate, CONFIG_OPTIONAL},
	{"gpu", "hang-timeout", config_gpu_set_hang, CONFIG_OPTIONAL},
	{"gpu", "contexts", config_gpu_set_contexts, CONFIG_OPTIONAL},
	{"gpu", "resources", config_gpu_set_resources, CONFIG_OPTIONAL},
	{"usb", "slots", config_ways_set_slots, CONFIG_OPTIONAL},
	{"usb", "socket-group", config_ways_set_group, CONFIG_OPTIONAL},
	{"usb", "stream", config_ways_set_stream, CONFIG_OPTIONAL | CONFIG_REPEATS},
	{"usb", "listen", config_ways_set_listen, CONFIG_OPTIONAL | CONFIG_REPEATS},
	{"vm", "qmp", set_qmp, CONFIG_OPTIONAL},
	{"vm", "bus", set_bus, CONFIG_OPTIONAL},
	{"vm", "owner", config_set_owner, CONFIG_OPTIONAL | CONFIG_REPEATS},
	QUOTA_KEYS,
};

static int set_image(void *target, const char *value, const struct config_place *place)
{
	struct config_disk *d = ((struct config_target *)target)->disk;
	int r = config_set_path(&d->image, value, "image", PATH_MAX - 1, place);

	return r == 0 ? set_where(&d->where_image, place) : r;
}

static int set_read_only(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (parse_bool(value, &((struct config_target *)target)->disk->read_only) < 0) {
		return config_refuse(place, "read-only=%s is neither yes nor no", show(value, &s));
	}
	return 0;
}

static int set_cdrom(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (parse_bool(value, &((struct config_target *)target)->disk->cdrom) < 0) {
		return config_refuse(place, "cdrom=%s is neither yes nor no", show(value, &s));
	}
	return 0;
}

static int set_speed(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (strcmp(value, "high") != 0 && strcmp(value, "super") != 0) {
		return config_refuse(place, "speed=%s is neither high nor super", show(value, &s));
	}
	return config_set_string(&((struct config_target *)target)->disk->speed, value);
}

static int set_serial(void *target, const char *value, const struct config_place *place)
{
	struct shown s;

	if (!config_word_ok(value, "._-", SERIAL_MAX)) {
		return config_refuse(place,
			"serial=%s: at most %d letters, digits, '.', '_' and '-', a letter or "
			"digit first",
			show(value, &s), SERIAL_MAX);
	}
	return config_set_string(&((struct config_target *)target)->disk->serial, value);
}

static int set_vm(void *target, const char *value, const struct config_place *place)
{
	struct config_disk *d = ((struct config_target *)target)->disk;
	struct shown s;
	int r;

	if (!config_name_ok(value)) {
		return config_refuse(place, "vm=%s is no name of a VM", show(value, &s));
	}
	r = config_set_string(&d->vm, value);
	return r == 0 ? set_where(&d->where_vm, place) : r;
}

static const struct config_key disk_keys[] = {
	{"disk", "image", set_image, CONFIG_REQUIRED},
	{"disk", "read-only", set_read_only, CONFIG_OPTIONAL},
	{"disk", "cdrom", set_cdrom, CONFIG_OPTIONAL},
	{"disk", "speed", set_speed, CONFIG_OPTIONAL},
	{"disk", "serial", set_serial, CONFIG_OPTIONAL},
	{"disk", "vm", set_vm, CONFIG_OPTIONAL},
};

static void vm_free(struct config_vm *vm)
{
	list_remove(&vm->link);
	free(vm->name);
	free(vm->qmp);
	free(vm->bus);
	free(vm->gpu_group);
	free(vm->render_node);
	free(vm->ways.group);
	free(vm);
}

static void disk_free(struct config_disk *d)
{
	list_remove(&d->link);
	free(d->name);
	free(d->image);
	free(d->speed);
	free(d->serial);
	free(d->vm);
	free(d->where_image);
	free(d->where_vm);
	free(d);
}

static int load_vm(void *userdata, int dir_fd, const char *file, const char *shown,
	const char *name, struct refusal_text *text)
{
	struct config *c = userdata;
	struct config_vm *vm = calloc(1, sizeof(*vm));
	/* Not to be changed: what it says of all VMs. */
	struct config_target target = {.vm = vm, .config = c};
	const struct config_place place = {.shown = shown, .text = text};
	int r;

	if (!vm) {
		return -ENOMEM;
	}
	list_append(&c->vms, &vm->link);
	vm->quota = c->quota;
	target.quota = &vm->quota;
	r = config_set_string(&vm->name, name);
	if (r == 0) {
		r = config_file_read(
			dir_fd, file, shown, vm_keys, ARRAY_SIZE(vm_keys), &target, text);
	}
	if (r == 0) {
		r = config_ways_check(vm, &place);
	}
	return r == 0 && !vm->bus ? config_set_string(&vm->bus, "xhci.0") : r;
}

static int load_disk(void *userdata, int dir_fd, const char *file, const char *shown,
	const char *name, struct refusal_text *text)
{
	struct config *c = userdata;
	struct config_disk *d = calloc(1, sizeof(*d));
	struct config_target target = {.disk = d};
	int r;

	if (!d) {
		return -ENOMEM;
	}
	list_append(&c->disks, &d->link);
	r = config_set_string(&d->name, name);
	if (r == 0) {
		r = config_file_read(
			dir_fd, file, shown, disk_keys, ARRAY_SIZE(disk_keys), &target, text);
	}
	return r == 0 && !d->speed ? config_set_string(&d->speed, "super") : r;
}

/* A folder of NAME.conf files. */
struct folder {
	const char *name;
	config_folder_load load;
	unsigned int max;
};

static const struct folder folders[] = {
	{"vms.d", load_vm, VMS_MAX},
	{"disks.d", load_disk, DISKS_MAX},
};

static int load_all(struct config *c, const char *dir, struct refusal_text *text)
{
	const struct config_place place = {.shown = dir, .text = text};
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct config_target target = {.config = c, .quota = &c->quota};
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT) {
		return 0;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		return config_refuse(&place, "it can't be read: %s", strerror(errno));
	}
	r = config_check_trust(&st, &place);
	if (r != 0) {
		return r;
	}
	r = config_file_read(fd, "devbroker.conf", "devbroker.conf", broker_keys,
		ARRAY_SIZE(broker_keys), &target, text);
	if (r == -ENOENT) {
		r = 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders) && r == 0; i++) {
		r = config_folder_read(
			fd, folders[i].name, folders[i].max, folders[i].load, c, text);
	}
	return r;
}

int config_load(const char *dir, struct config *out, struct refusal_text *text)
{
	int r;

	*out = (struct config){
		.sandbox_stages = SANDBOX_ALL,
		.log_level = LOG_LEVEL_INFO,
		.worker_orphan_seconds = ORPHAN_SECONDS_DEFAULT,
	};
	list_init(&out->vms);
	list_init(&out->disks);
	quota_limits_default(&out->quota);
	config_usb_default(&out->usb);
	r = config_set_string(&out->sandbox, "full");
	if (r == 0) {
		r = load_all(out, dir, text);
	}
	if (r != 0) {
		config_finish(out);
	}
	return r;
}

void config_finish(struct config *c)
{
	struct config_vm *vm, *next_vm;
	struct config_disk *disk, *next_disk;

	list_for_each_safe (vm, next_vm, &c->vms, link) {
		vm_free(vm);
	}
	list_for_each_safe (disk, next_disk, &c->disks, link) {
		disk_free(disk);
	}
	config_usb_finish(&c->usb);
	free(c->sandbox);
	c->sandbox = NULL;
}
