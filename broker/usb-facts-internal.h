/* SPDX-License-Identifier: MIT
 * The parts of reading the facts: nobody but usb-facts-*.c includes this.
 */
#pragma once

#include <systemd/sd-device.h>

#include "base/cleanup.h"
#include "broker/usb-facts.h"

/* Fills key, own_key, parent_key, controller and bus from where d is; syspath, sysname
 * and hub are set. 0; -ENODEV; -errno. */
int usb_facts_place(struct usb_facts *f, sd_device *d) _must_check_;

/* Calls each for each interface of the device at syspath: "1-2:1.0" has configuration 1 and number
 * 0. each returns 0 to go on. 0, what each returned, or -errno. */
typedef int (*usb_interface_fn)(
	void *userdata, const char *interface, unsigned int configuration, unsigned int number);
int usb_facts_each_interface(
	const char *syspath, usb_interface_fn each, void *userdata) _must_check_;

/* Fills properties. 0 or -errno. */
int usb_facts_read_properties(struct usb_facts *f, sd_device *d) _must_check_;

/* Fills descriptor_hash and descriptors_sha256; everything else is set. */
void usb_facts_hash(struct usb_facts *f);

/* The attribute's text, "" if there is none. Borrowed from d. */
const char *usb_facts_attr(sd_device *d, const char *name);
