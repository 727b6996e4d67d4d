/* SPDX-License-Identifier: MIT
 * A disk image as a USB mass-storage stick or CD-ROM drive: bulk-only transport (usb/bot) over SCSI
 * (usb/scsi), the image read and written by usb/disk-io.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "usb/backend.h"

struct backend_disk_options {
	int image_fd;       /* taken even on error; as disk_io_options::fd */
	const char *export; /* borrowed; may be NULL: "" */
	bool read_only;
	bool cdrom;           /* a CD-ROM; then read_only means nothing */
	enum usb_speed speed; /* HIGH or SUPER */
	const char *serial;  /* borrowed, copied; USB and SCSI serial number; at least 12 hex digits
			      * by the bulk-only specification: the broker generates one */
	const char *product; /* borrowed, copied; may be NULL for the default name */
	sd_event *event;     /* borrowed */
};

/* 0 and the backend, whose sink the caller sets before the loop runs; -errno otherwise. Starts the
 * I/O thread, so it comes after sandbox_enter and before sandbox_lock. */
int backend_disk_create(
	const struct backend_disk_options *options, struct backend **out) _must_check_;
/* Before anything else is asked of it; may come after sandbox_lock. 0; or -errno, with a text in
 * why. */
int backend_disk_open(struct backend *b, char *why, size_t why_size) _must_check_;
