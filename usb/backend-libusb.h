/* SPDX-License-Identifier: MIT
 * A device of the host, through libusb, on a usbfs fd that somebody else opened.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "usb/backend.h"

struct backend_libusb_listener {
	/* Makes value the device's configuration (0: none), then backend_libusb_configured. NULL:
	 * the backend does it itself. */
	void (*set_configuration)(void *userdata, uint8_t value);
	/* After the start: an interface can't be claimed any more, a host driver has it. */
	void (*busy)(void *userdata, int interface);
};

struct backend_libusb_options {
	int device_fd;       /* taken even on error; of /dev/bus/usb, open for writing */
	uint32_t interfaces; /* bit N: interface N may be claimed */
	size_t usbfs_memory; /* bytes that may be submitted of bulk and isochronous transfers */
	/* Whether libusb may change the configuration: the fd has its privileges, and the sandbox
	 * lets it. */
	bool may_configure;
	const struct backend_libusb_listener *listener; /* borrowed */
	void *userdata;
	sd_event *event; /* borrowed */
};

/* Makes everything that needs a thread or a new fd; nothing of the device is read. Between
 * sandbox_enter and sandbox_lock. 0 or -errno. */
int backend_libusb_create(
	const struct backend_libusb_options *options, struct backend **out) _must_check_;

/* Wraps the fd, reads the descriptors and claims the interfaces; may take some seconds when the
 * device doesn't answer. Behind sandbox_lock, for libusb parses the device's bytes. 0; -EBUSY with
 * *interface_out if a host driver has one; -ENODEV; -EIO. */
int backend_libusb_open(struct backend *b, int *interface_out) _must_check_;

/* The device is gone: somebody who knows says so, for an idle one is not noticed. */
void backend_libusb_unplugged(struct backend *b);
/* Answers the listener's set_configuration: 0 or -errno. Ignored when nothing was asked. */
void backend_libusb_configured(struct backend *b, int error);
