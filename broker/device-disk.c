/* SPDX-License-Identifier: MIT */
#include "broker/device-disk.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device-nbd.h"
#include "broker/lease-record.h"

#define CDROM_BLOCK 2048
#define SERIAL_MAX  60 /* characters of a USB string that every host copes with */

/* Bulk-only transport (4.1.1) wants at least 12 hexadecimal digits. The same name gives the same
 * number: guests remember their sticks by it. FNV-1a, 64 bits. */
static char *make_serial(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	char text[17];

	for (const char *p = name; *p; p++) {
		hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	}
	snprintf(text, sizeof(text), "%016" PRIX64, hash);
	return strdup(text);
}

static bool serial_ok(const char *serial)
{
	size_t n = strlen(serial);

	for (size_t i = 0; i < n; i++) {
		if (!isalnum((unsigned char)serial[i]) && !strchr("-_.", serial[i])) {
			return false;
		}
	}
	return n > 0 && n <= SERIAL_MAX;
}

static const struct device_ops disk_ops;

struct device_disk *device_disk(struct device *d)
{
	return d->ops == &disk_ops ? list_entry(d, struct device_disk, device) : NULL;
}

const struct device_disk *device_disk_of(const struct device *d)
{
	return list_entry(d, const struct device_disk, device);
}

static const char *shown(const struct device_disk *k)
{
	return k->path ? k->path : k->device.name;
}

/* The same image under two names would be written by two guests. */
static int check_unused(struct device_disk *k, struct refusal_text *text)
{
	struct device *each;

	list_for_each (each, &k->device.broker->devices, link) {
		struct device_disk *other = device_disk(each);

		if (other && other != k && other->image_fd >= 0 &&
			image_same(&other->info, &k->info)) {
			return refuse_with(text, REFUSAL_IMAGE_BUSY,
				"Use that disk, or remove it first: devbroker disk remove NAME",
				"%s is the image of %s already", shown(k), each->name);
		}
	}
	return 0;
}

/* Checks the image; its fd is closed again if it is refused. */
static int check_image(struct device_disk *k, bool held, struct refusal_text *text)
{
	int r = image_check(k->image_fd, k->read_only, shown(k), &k->info, text);

	if (r == 0 && k->cdrom && k->info.size < CDROM_BLOCK) {
		r = refuse_with(text, REFUSAL_IMAGE_INVALID, "Give an ISO 9660 image.",
			"%s is too small for a CD-ROM", shown(k));
	}
	if (r == 0) {
		r = check_unused(k, text);
	}
	if (r == 0 && !held) {
		r = image_probe(k->image_fd, k->read_only, shown(k), text);
	}
	if (r != 0) {
		k->image_fd = safe_close(k->image_fd);
	}
	return r;
}

/* Sees to it that the image is open: a file of configuration may have come since. */
static int open_image(struct device_disk *k, bool held, struct refusal_text *text)
{
	int r;

	if (k->image_fd >= 0) {
		return 0;
	}
	r = image_open(k->path, k->read_only, &k->image_fd, text);
	return r == 0 ? check_image(k, held, text) : r;
}

static int disk_check(
	struct device *d, const struct lease_options *options, struct refusal_text *text)
{
	struct device_disk *k = device_disk(d);
	int r;

	if (options->interfaces) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED, "Lend all of it.",
			"%s has one interface: there is nothing to choose", d->name);
	}
	r = open_image(k, false, text);
	return r == 0 ? image_probe(k->image_fd, k->read_only, shown(k), text) : r;
}

static void disk_take(struct device *d, struct lease *l)
{
	struct device_disk *k = device_disk(d);
	struct refusal_text text = {0};
	int r = open_image(k, false, &text);

	if (r == 0) {
		r = image_lock(k->image_fd, k->read_only, shown(k), &text);
	}
	lease_taken(l, r, &text);
}

bool device_disk_read_only(const struct device *d)
{
	return device_disk_of(d)->read_only || (d->lease && d->lease->options.read_only);
}

int device_disk_worker(struct device *d, struct worker_args *args)
{
	const struct device_disk *k = device_disk_of(d);

	worker_args_add(args, "--disk-fd=5");
	worker_args_add(args, "--speed=%s", k->speed);
	worker_args_add(args, "--serial=%s", d->serial);
	worker_args_add(args, "--product=%s", d->name + strlen("disk:"));
	if (k->export) {
		worker_args_add(args, "--export=%s", k->export);
	}
	if (k->cdrom) {
		worker_args_add(args, "--cdrom");
	} else if (device_disk_read_only(d)) {
		worker_args_add(args, "--read-only");
	}
	return k->image_fd;
}

static void disk_give_back(struct device *d, struct lease *l)
{
	image_unlock(device_disk(d)->image_fd);
	lease_given_back(l);
}

static void disk_note(const struct device *d, struct lease_record *r)
{
	const struct device_disk *k = device_disk_of(d);

	r->image_dev = k->info.dev;
	r->image_ino = k->info.ino;
	r->image_rdev = k->info.rdev;
	snprintf(r->serial, sizeof(r->serial), "%s", d->serial);
	snprintf(r->speed, sizeof(r->speed), "%s", k->speed);
	r->read_only = k->read_only;
	r->cdrom = k->cdrom;
	snprintf(r->path, sizeof(r->path), "%s", k->path ? k->path : "");
}

/* Whether fd is the image that the record is about. */
static int check_recorded(const struct lease_record *r, int fd, struct image_info *out)
{
	struct refusal_text text = {0};
	struct image_info info;

	if (fd < 0 || image_check(fd, r->read_only, r->device, &info, &text) != 0 ||
		info.dev != r->image_dev || info.ino != r->image_ino ||
		info.rdev != r->image_rdev) {
		return -ESTALE;
	}
	*out = info;
	return 0;
}

static int disk_adopt(struct device *d, struct lease *l, const struct lease_record *r, int fd)
{
	struct device_disk *k = device_disk(d);
	_cleanup_close_ int image = fd;
	struct image_info info;

	if (image < 0) {
		/* Made from it just now. */
		return d->from_config || k->image_fd < 0 ? -ESTALE : 0;
	}
	if (check_recorded(r, image, &info) < 0 || k->read_only != r->read_only ||
		k->cdrom != r->cdrom || (k->image_fd >= 0 && !image_same(&k->info, &info))) {
		return -ESTALE;
	}
	/* The locks are this one's. */
	safe_close(k->image_fd);
	k->image_fd = steal_fd(&image);
	k->info = info;
	return 0;
}

void device_disk_destroy(struct device *d)
{
	struct device_disk *k = list_entry(d, struct device_disk, device);

	safe_close(k->image_fd);
	safe_close(k->next_fd);
	free(k->path);
	free(k->speed);
	free(k->export);
	free(k);
}

static const char *disk_description(const struct device *d)
{
	if (device_disk_of(d)->cdrom) {
		return "CD-ROM drive from a disk image";
	}
	return device_disk_of(d)->read_only ? "read-only USB stick from a disk image"
					    : "USB stick from a disk image";
}

const char *device_disk_speed(const struct device *d)
{
	return device_disk_of(d)->speed;
}

const char *device_disk_path(const struct device *d)
{
	return device_disk_of(d)->path ? device_disk_of(d)->path : "";
}

static uint64_t disk_size(const struct device *d)
{
	return device_disk_of(d)->image_fd >= 0 ? device_disk_of(d)->info.size : 0;
}

static const struct device_ops disk_ops = {
	.kind = "disk",
	.program = SPAWNER_USB,
	.check = disk_check,
	.take = disk_take,
	.worker = device_disk_worker,
	.give_back = disk_give_back,
	.note = disk_note,
	.adopt = disk_adopt,
	.destroy = device_disk_destroy,
	.description = disk_description,
	.speed = device_disk_speed,
	.path = device_disk_path,
	.size = disk_size,
	.read_only = device_disk_read_only,
};

/* It is only shown, but as one line, and kept. */
static bool path_ok(const char *path)
{
	size_t n = strnlen(path, PATH_MAX);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f) {
			return false;
		}
	}
	return n < PATH_MAX;
}

static int check_options(const struct device_disk_options *o, struct refusal_text *text)
{
	if (!config_name_ok(o->name)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use letters, digits, '.', '_' and '-', at most 63, a letter or digit "
			"first.",
			"that is no name for a disk");
	}
	if (o->serial && !serial_ok(o->serial)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use at most 60 letters, digits, '.', '_' and '-'.",
			"disk:%s: that is no serial number", o->name);
	}
	if (o->path && !path_ok(o->path)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use a path without control characters, at most 4095 bytes long.",
			"disk:%s: that is no path that can be shown", o->name);
	}
	if (strcmp(o->speed, "high") != 0 && strcmp(o->speed, "super") != 0) {
		return refuse_with(text, REFUSAL_INVALID, "Use high or super.",
			"disk:%s: that is no speed", o->name);
	}
	return 0;
}

static int init(struct device_disk *k, struct broker *b, const struct device_disk_options *o)
{
	struct device *d = &k->device;
	char name[NAME_MAX_LENGTH + 8];

	k->image_fd = o->image_fd;
	k->next_fd = -1;
	k->cdrom = o->cdrom;
	k->read_only = o->read_only || o->cdrom;
	d->ops = o->export ? &device_nbd_ops : &disk_ops;
	d->broker = b;
	d->from_config = o->from_config;
	list_init(&d->link);
	snprintf(name, sizeof(name), "disk:%s", o->name);
	d->name = strdup(name);
	d->serial = o->serial ? strdup(o->serial) : make_serial(name);
	k->path = o->path ? strdup(o->path) : NULL;
	k->speed = strdup(o->speed);
	k->export = o->export ? strdup(o->export) : NULL;
	return d->name && d->serial && k->speed && (k->path || !o->path) &&
			       (k->export || !o->export)
		       ? 0
		       : -ENOMEM;
}

/* Of configuration: an image that is missing may come; the disk is shown with what is wrong with
 * it. */
static void open_configured(struct device_disk *k, bool held)
{
	struct device *d = &k->device;
	struct refusal_text problem = {0};

	if (open_image(k, held, &problem) > 0) {
		d->reason = LEASE_REASON_IMAGE_INVALID;
		snprintf(d->detail, sizeof(d->detail), "%.*s", (int)sizeof(d->detail) - 1,
			problem.sentence);
		log_warn("%s: %s", d->name, problem.sentence);
	}
}

int device_add_disk(struct broker *b, const struct device_disk_options *o, struct device **out,
	struct refusal_text *text)
{
	struct device_disk *k = calloc(1, sizeof(*k));
	int r;

	if (!k) {
		safe_close(o->image_fd);
		return -ENOMEM;
	}
	r = init(k, b, o);
	if (r == 0) {
		r = check_options(o, text);
	}
	if (r == 0) {
		r = device_check_new(b, k->device.name, text);
	}
	if (r == 0 && o->export) {
		r = device_nbd_check(k, o->held, text);
	} else if (r == 0 && k->image_fd >= 0) {
		r = check_image(k, o->held, text);
	} else if (r == 0) {
		open_configured(k, o->held);
	}
	if (r != 0) {
		device_destroy(&k->device);
		return r;
	}
	device_add(&k->device);
	*out = &k->device;
	return 0;
}

struct device *device_disk_recreate(struct broker *b, const struct lease_record *r, int image_fd)
{
	static const char prefix[] = "disk:";
	const struct device_disk_options o = {
		.name = r->device + sizeof(prefix) - 1,
		.image_fd = image_fd,
		.path = r->path[0] ? r->path : NULL,
		.speed = r->speed,
		.serial = r->serial,
		.read_only = r->read_only,
		.cdrom = r->cdrom,
		.export = r->nbd ? r->export : NULL,
		.held = true,
	};
	struct refusal_text text = {0};
	struct image_info info;
	struct device *d;
	int e;

	if (strncmp(r->device, prefix, sizeof(prefix) - 1) != 0 ||
		(!r->nbd && check_recorded(r, image_fd, &info) < 0)) {
		safe_close(image_fd);
		return NULL;
	}
	e = device_add_disk(b, &o, &d, &text);
	if (e != 0) {
		log_warn("%s: %s", r->device, e < 0 ? strerror(-e) : text.sentence);
		return NULL;
	}
	return d;
}
