/* SPDX-License-Identifier: MIT
 * A device that can be lent: for now, a disk image that a VM sees as a USB stick.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/config.h"
#include "broker/image.h"
#include "broker/lease.h"
#include "protocol/refusal.h"

struct broker;

struct device_disk {
	int image_fd; /* -1: an image of configuration that could not be opened yet */
	struct image_info info;
	char *path;  /* as its owner called it; opened only if it is configuration's */
	char *speed; /* "high" or "super" */
	bool read_only;
};

struct device {
	struct list link; // broker::devices
	struct broker *broker;
	char *name; /* "disk:stick" */
	char *serial;
	bool from_config;
	struct device_disk disk;
	struct lease *lease; // may be NULL: present
	/* How the last lease ended, or why the image can't be used; shown until the next lease. */
	enum lease_reason reason;
	char detail[256];
	uint64_t since; /* CLOCK_REALTIME µs of the last change of state */
};

struct device_disk_options {
	const char *name;   /* without "disk:" */
	int image_fd;       /* taken even on error; -1: open path at the first use */
	const char *path;   /* borrowed; may be NULL */
	const char *speed;  /* "high" or "super" */
	const char *serial; /* may be NULL: made from the name */
	bool read_only;
	bool from_config;
};

/* 0 with the device, which is announced; -errno; REFUSAL_INVALID, REFUSAL_EXISTS,
 * REFUSAL_IMAGE_INVALID, REFUSAL_IMAGE_BUSY, REFUSAL_QUOTA with text. */
int device_add_disk(struct broker *b, const struct device_disk_options *options,
	struct device **out, struct refusal_text *text) _must_check_;
/* REFUSAL_BUSY while it is lent. 0 and it is gone. */
int device_remove(struct device *d, struct refusal_text *text) _must_check_;
/* At the end of the broker; there is no lease. NULL is fine. */
void device_destroy(struct device *d);

/* Sees to it that the image is open (a file of configuration may have come since). 0, -errno or
 * a refusal. */
int device_open(struct device *d, struct refusal_text *text) _must_check_;

enum lease_state device_state(const struct device *d);
/* Its reason and sentence: of the lease if there is one. */
const char *device_reason(const struct device *d);
const char *device_detail(const struct device *d);
void device_changed(struct device *d);
