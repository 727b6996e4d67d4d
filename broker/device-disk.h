/* SPDX-License-Identifier: MIT
 * A disk image that a VM sees as a USB stick or CD-ROM drive; an NBD server's export is one, too
 * (broker/device-nbd).
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"
#include "broker/device.h"
#include "broker/image.h"

struct device_disk {
	struct device device;
	/* -1: an image of configuration that could not be opened yet, or a connection that is used
	 * up. */
	int image_fd;
	struct image_info info;
	char *path;     /* as its owner called it; opened only if it is configuration's */
	char *speed;    /* "high" or "super" */
	bool read_only; /* a CD-ROM always is */
	bool cdrom;
	char *export; /* of the server that image_fd is connected to; NULL: it is an image */
	bool handed;  /* a worker has that connection */
	int next_fd;  /* the connection after it; -1: there is none */
};

struct device_disk_options {
	const char *name;   /* without "disk:" */
	int image_fd;       /* taken even on error; -1: open path at the first use */
	const char *path;   /* borrowed; may be NULL */
	const char *speed;  /* "high" or "super" */
	const char *serial; /* may be NULL: made from the name */
	bool read_only;
	bool cdrom;
	const char *export; /* NULL, or image_fd is a connection to an NBD server */
	bool from_config;
	bool held; /* by the worker of an earlier broker: its locks are no surprise */
};

/* 0 with the device, which is announced; -errno; REFUSAL_INVALID, REFUSAL_EXISTS,
 * REFUSAL_IMAGE_INVALID, REFUSAL_IMAGE_BUSY, REFUSAL_QUOTA with text. */
int device_add_disk(struct broker *b, const struct device_disk_options *options,
	struct device **out, struct refusal_text *text) _must_check_;

/* The disk of an earlier broker's client, from its lease's record and the image that its worker
 * sent (an NBD export's sends none: -1). Takes image_fd even on error. NULL: it can't be had. */
struct device *device_disk_recreate(struct broker *b, const struct lease_record *r, int image_fd);

/* d as a disk, or NULL if it is something else. */
struct device_disk *device_disk(struct device *d);

/* What both kinds of disks do alike (struct device_ops). */
const struct device_disk *device_disk_of(const struct device *d);
int device_disk_worker(struct device *d, struct worker_args *args);
void device_disk_destroy(struct device *d);
const char *device_disk_speed(const struct device *d);
const char *device_disk_path(const struct device *d);
bool device_disk_read_only(const struct device *d);
