/* SPDX-License-Identifier: MIT */
#include "broker/device.h"

#include <assert.h>
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
#include "broker/bus.h"
#include "broker/vm.h"

#define SERIAL_MAX 60 /* characters of a USB string that every host copes with */

enum lease_state device_state(const struct device *d)
{
	return d->lease ? d->lease->state : LEASE_PRESENT;
}

const char *device_reason(const struct device *d)
{
	return lease_reason_code(d->lease ? d->lease->reason : d->reason);
}

const char *device_detail(const struct device *d)
{
	return d->lease ? d->lease->detail : d->detail;
}

void device_changed(struct device *d)
{
	bus_device_changed(d->broker, d);
}

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

/* The same image under two names would be written by two guests. */
static int check_unused(struct device *d, struct refusal_text *text)
{
	struct device *other;

	list_for_each (other, &d->broker->devices, link) {
		if (other != d && other->disk.image_fd >= 0 &&
			image_same(&other->disk.info, &d->disk.info)) {
			return refuse_with(text, REFUSAL_IMAGE_BUSY,
				"Use that disk, or remove it first: devbroker disk remove NAME",
				"%s is the image of %s already",
				d->disk.path ? d->disk.path : d->name, other->name);
		}
	}
	return 0;
}

/* Checks the image of d; its fd is closed again if it is refused. */
static int check_image(struct device *d, struct refusal_text *text)
{
	const char *shown = d->disk.path ? d->disk.path : d->name;
	int r = image_check(d->disk.image_fd, d->disk.read_only, shown, &d->disk.info, text);

	if (r == 0) {
		r = check_unused(d, text);
	}
	if (r == 0) {
		r = image_probe(d->disk.image_fd, d->disk.read_only, shown, text);
	}
	if (r != 0) {
		d->disk.image_fd = safe_close(d->disk.image_fd);
	}
	return r;
}

int device_open(struct device *d, struct refusal_text *text)
{
	int r;

	if (d->disk.image_fd >= 0) {
		return 0;
	}
	r = image_open(d->disk.path, d->disk.read_only, &d->disk.image_fd, text);
	return r == 0 ? check_image(d, text) : r;
}

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

static int check_options(
	struct broker *b, const struct device_disk_options *o, struct refusal_text *text)
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
	if (b->n_devices >= BROKER_DEVICES_MAX) {
		return refuse(text, REFUSAL_QUOTA, "there are %u devices, and more are not allowed",
			b->n_devices);
	}
	return 0;
}

static int check_name(struct device *d, struct refusal_text *text)
{
	struct device *other;

	list_for_each (other, &d->broker->devices, link) {
		if (strcmp(other->name, d->name) == 0) {
			return refuse(text, REFUSAL_EXISTS, "there is a %s already", d->name);
		}
	}
	return 0;
}

static int init(struct device *d, const struct device_disk_options *o)
{
	char name[NAME_MAX_LENGTH + 8];

	snprintf(name, sizeof(name), "disk:%s", o->name);
	d->name = strdup(name);
	d->serial = o->serial ? strdup(o->serial) : make_serial(name);
	d->disk.path = o->path ? strdup(o->path) : NULL;
	d->disk.speed = strdup(o->speed);
	return d->name && d->serial && d->disk.speed && (d->disk.path || !o->path) ? 0 : -ENOMEM;
}

int device_add_disk(struct broker *b, const struct device_disk_options *o, struct device **out,
	struct refusal_text *text)
{
	struct device *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		safe_close(o->image_fd);
		return -ENOMEM;
	}
	d->broker = b;
	d->from_config = o->from_config;
	d->disk.image_fd = o->image_fd;
	d->disk.read_only = o->read_only;
	d->since = wall_usec();
	list_init(&d->link);
	r = check_options(b, o, text);
	if (r == 0) {
		r = init(d, o);
	}
	if (r == 0) {
		r = check_name(d, text);
	}
	if (r == 0 && d->disk.image_fd >= 0) {
		r = check_image(d, text);
	} else if (r == 0) {
		/* Of configuration: an image that is missing may come; the disk is shown with what
		 * is wrong with it. */
		struct refusal_text problem = {0};

		if (device_open(d, &problem) > 0) {
			d->reason = LEASE_REASON_IMAGE_INVALID;
			snprintf(d->detail, sizeof(d->detail), "%.*s", (int)sizeof(d->detail) - 1,
				problem.sentence);
			log_warn("%s: %s", d->name, problem.sentence);
		}
	}
	if (r != 0) {
		device_destroy(d);
		return r;
	}
	list_append(&b->devices, &d->link);
	b->n_devices++;
	log_info("%s: present", d->name);
	bus_device_added(b, d);
	*out = d;
	return 0;
}

int device_remove(struct device *d, struct refusal_text *text)
{
	if (d->lease) {
		return refuse(text, REFUSAL_BUSY, "%s is %s, vm %s", d->name,
			lease_state_name(d->lease->state), d->lease->vm->name);
	}
	bus_device_removed(d->broker, d);
	log_info("%s: removed", d->name);
	device_destroy(d);
	return 0;
}

void device_destroy(struct device *d)
{
	if (!d) {
		return;
	}
	assert(!d->lease);
	if (!list_empty(&d->link)) {
		list_remove(&d->link);
		d->broker->n_devices--;
	}
	safe_close(d->disk.image_fd);
	free(d->disk.path);
	free(d->disk.speed);
	free(d->serial);
	free(d->name);
	free(d);
}
