/* SPDX-License-Identifier: MIT
 * Which USB devices are there: everything present at start, and what changes afterwards.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct hotplug;
struct usb_facts;

/* Devices that are known at once; more are not there for us, and the log says so. */
#define HOTPLUG_DEVICES_MAX 1024

/* What is told. Hubs and root hubs are told like every device (usb_facts::hub). Facts are
 * hotplug's: those of appeared, and the new ones of changed, live until the changed or gone that
 * follows for the same device has returned. At one time no two devices have the same key, and the
 * key of a device never changes while it is there. Nothing is told from within hotplug_create or
 * hotplug_destroy, and no function below but hotplug_find may be called from within. */
struct hotplug_ops {
	void (*appeared)(void *userdata, const struct usb_facts *f);
	/* Something is different: a driver came or went, another configuration, a udev property.
	 * Another device in the same place is gone and appeared, never changed; but one that comes
	 * out of a reset with other descriptors is changed (see usb_facts_same_device). */
	void (*changed)(void *userdata, const struct usb_facts *old, const struct usb_facts *f);
	void (*gone)(void *userdata, const struct usb_facts *f);
};

/* Listens from now on; tells nothing yet. ops is borrowed for as long as hotplug lives. 0 or
 * -errno. */
int hotplug_create(sd_event *event, const struct hotplug_ops *ops, void *userdata,
	struct hotplug **out) _must_check_;
/* Tells everything that is there, from within; what changes afterwards is told from the loop.
 * 0 or -errno. */
int hotplug_start(struct hotplug *h) _must_check_;
/* Forgets all, telling nothing. NULL is fine. */
void hotplug_destroy(struct hotplug *h);

/* A sentence for `devbroker status` about what is missing (no udev), or NULL. Borrowed. */
const char *hotplug_warning(const struct hotplug *h);
/* The device with this key, or NULL. Borrowed like all facts. */
const struct usb_facts *hotplug_find(const struct hotplug *h, const char *key);
/* Reads the facts at this syspath again in the next turn of the loop, as an event would. */
void hotplug_poke(struct hotplug *h, const char *syspath);
