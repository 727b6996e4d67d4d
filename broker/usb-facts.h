/* SPDX-License-Identifier: MIT
 * What the kernel and udev say about one USB device: read from sysfs and udev's database, compared,
 * never made from descriptors.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* Upper bounds; what is beyond them is left out (lists) or cut with "..." (texts). A string
 * descriptor has at most 126 UTF-16 units: no text of a real device is cut. */
#define USB_FACTS_TEXT_MAX        1536
#define USB_FACTS_INTERFACES_MAX  32 /* the kernel's own (USB_MAXINTERFACES) */
#define USB_FACTS_CLASSES_MAX     128
#define USB_FACTS_PROPERTIES_MAX  128
#define USB_FACTS_DESCRIPTORS_MAX (64 * 1024)
#define USB_FACTS_SHA256_SIZE     32

struct usb_class {
	uint8_t base;
	uint8_t sub;
	uint8_t protocol;
};

/* An interface of the active configuration, as it is now. */
struct usb_interface {
	uint8_t number;
	uint8_t altsetting;
	struct usb_class class;
	bool authorized;
	char driver[64]; /* "" if none holds it; "usbfs" if a program does */
};

/* Texts are UTF-8 whatever the device said: bytes that aren't, and characters that would move a
 * terminal's cursor, stand there as \xNN. No pointer is NULL; what is absent is "". */
struct usb_facts {
	/* Where it is: "usb:CONTROLLER-PORTS", for example "usb:0000:00:14.0-2.4". CONTROLLER is
	 * the host controller's PCI address, or the name of its platform device ("dummy_hcd.0").
	 * PORTS is the chain of ports from there, as the USB 2 half of the connector counts them;
	 * "ssN…" where a SuperSpeed port has no USB 2 half that the kernel knows, and for
	 * SuperSpeed hubs (a USB 3 hub is two devices at one place); "0" and "ss0" for root hubs.
	 * No bus numbers. */
	char *key;
	/* The same as its own half of the connector counts ("usb:0000:00:14.0-hs2.4", "…-ss3.4"):
	 * for a device that finds its place taken (broker/hotplug.c). */
	char *own_key;
	char *parent_key; /* of the hub it is plugged into; "" for a root hub */
	char *controller; /* CONTROLLER, for configuration */
	char *syspath;    /* "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.4" */
	char *sysname;    /* "1-2.4"; "usb1" for a root hub */
	char *bus;        /* sysname of its root hub, "usb1" */
	char *devnode;    /* "/dev/bus/usb/001/007" */
	/* Another device at the same syspath, however soon after, has another one. */
	uint64_t instance;
	uint16_t busnum;
	uint16_t devnum;

	uint16_t vendor;
	uint16_t product;
	uint16_t bcd_device;
	char *serial;
	char *manufacturer;
	char *product_name;
	char *speed;     /* Mbit/s, as sysfs has it: "1.5", "12", "480", "5000", … */
	char *removable; /* "removable", "fixed" or "unknown" */
	struct usb_class class;
	/* Hubs and root hubs are known, and never lent. */
	bool hub;
	bool authorized;
	uint8_t n_configurations;
	/* bConfigurationValue of the active one; 0: none is, or it has no interface. */
	uint8_t configuration;

	struct usb_interface interfaces[USB_FACTS_INTERFACES_MAX]; /* by number */
	size_t n_interfaces;
	/* Of all interfaces of all configurations and altsettings, sorted, each once. Only those of
	 * the interfaces above if udev did not say (then classes_complete is false). */
	struct usb_class classes[USB_FACTS_CLASSES_MAX];
	size_t n_classes;
	bool classes_complete;

	/* What kind of device it is, for rules and memory: "1:" and 32 hexadecimal digits, the same
	 * at every speed and for identical twins; "0:…" (never equal to a "1:…") if
	 * classes_complete is false. What goes in: usb-facts-hash.c. */
	char descriptor_hash[36];
	/* Device and configuration descriptors as the kernel read them: the same bytes as read() on
	 * the device node gives. Opaque here; for comparing at the time of claiming. */
	uint8_t *descriptors;
	size_t descriptors_size;
	uint8_t descriptors_sha256[USB_FACTS_SHA256_SIZE];

	char **properties; /* udev's, "KEY=value", sorted; NULL-terminated */
	size_t n_properties;
};

/* Reads the facts of the USB device (not interface) at syspath. before: what was read of that
 * syspath last (borrowed), or NULL. 0 with the facts, to be destroyed; -ENODEV if there is no such
 * device any more, or half of one; -EAGAIN if need_udev and udev has not seen to it yet (its event
 * will come); or another -errno.
 * The kernel holds a device's lock while it resets it or looks for its drivers, seconds long if
 * the device wants it so, and the strings are behind that lock. They are the only thing here that
 * is, and they don't change in the life of an instance: with before, they are taken from there. */
int usb_facts_read(const char *syspath, bool need_udev, const struct usb_facts *before,
	struct usb_facts **out) _must_check_;
/* NULL is fine. */
void usb_facts_destroy(struct usb_facts *f);
DEFINE_CLEANUP(struct usb_facts *, usb_facts_destroy)

/* The value of a udev property ("DEVBROKER_VM"), NULL if it has none. Borrowed. */
const char *usb_facts_property(const struct usb_facts *f, const char *name);
/* The interface with this number, or NULL. */
const struct usb_interface *usb_facts_interface(const struct usb_facts *f, uint8_t number);

/* Whether nothing at all is different. */
bool usb_facts_equal(const struct usb_facts *a, const struct usb_facts *b);
/* Whether b is what a was, as far as a device can be told from another: instance, ids, serial,
 * names, descriptors. Drivers, configuration and authorization may differ. */
bool usb_facts_same_device(const struct usb_facts *a, const struct usb_facts *b);

/* Which device at a syspath this is (usb_facts::instance). 0 or -errno (-ENOENT: none). */
int usb_facts_instance(const char *syspath, uint64_t *out) _must_check_;
