/* SPDX-License-Identifier: MIT
 * Where something happened to a USB device: udev's events, or the kernel's own where no udev runs.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct usb_monitor;

struct usb_monitor_ops {
	/* Something happened to the device at syspath, or to one of its interfaces. */
	void (*event)(void *userdata, const char *syspath);
	/* Events were lost: anything may have happened. */
	void (*lost)(void *userdata);
};

/* Listens from now on. ops is borrowed for as long as the monitor lives. 0 or -errno. */
int usb_monitor_create(sd_event *event, const struct usb_monitor_ops *ops, void *userdata,
	struct usb_monitor **out) _must_check_;
/* NULL is fine. */
void usb_monitor_destroy(struct usb_monitor *m);
/* Whether udev ran when the monitor was made. */
bool usb_monitor_has_udev(const struct usb_monitor *m);
