/* SPDX-License-Identifier: MIT
 * org.devbroker.UsbDevice1: everything that is known of a USB device of the host.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/bus-internal.h"
#include "broker/device-usb.h"
#include "broker/usb-facts.h"

/* One that was unplugged while a VM had it is shown until that is over; nothing is known of it. */
static const struct usb_facts *facts_of(void *userdata)
{
	static const struct usb_facts none = {
		.parent_key = (char *)"",
		.controller = (char *)"",
		.syspath = (char *)"",
		.sysname = (char *)"",
		.bus = (char *)"",
		.manufacturer = (char *)"",
		.product_name = (char *)"",
		.removable = (char *)"",
	};
	const struct device_usb *u = device_usb(userdata);

	return u && u->facts ? u->facts : &none;
}

int bus_usb_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error)
{
	void *device;
	int r = bus_device_find(bus, path, interface, userdata, &device, error);

	if (r <= 0 || !device_usb(device)) {
		return r < 0 ? r : 0;
	}
	*found_out = device;
	return 1;
}

static const char *class_text(const struct usb_class *c, char out[7])
{
	snprintf(out, 7, "%02x%02x%02x", c->base, c->sub, c->protocol);
	return out;
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	const struct {
		const char *name, *text;
	} texts[] = {
		{"Manufacturer", f->manufacturer},
		{"Product", f->product_name},
		{"DescriptorHash", f->descriptor_hash},
		{"Removable", f->removable},
		{"Controller", f->controller},
		{"Hub", f->parent_key},
		{"RootHub", f->bus},
		{"Sysname", f->sysname},
		{"Syspath", f->syspath},
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (strcmp(texts[i].name, property) == 0) {
			return sd_bus_message_append(reply, "s", texts[i].text);
		}
	}
	return -ENOENT;
}

/* Numbers that people write in hexadecimal. */
static int get_hex(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	char text[8];

	if (strcmp(property, "DeviceClass") == 0) {
		return sd_bus_message_append(reply, "s", class_text(&f->class, text));
	}
	snprintf(text, sizeof(text), "%04x",
		strcmp(property, "VendorId") == 0    ? f->vendor
		: strcmp(property, "ProductId") == 0 ? f->product
						     : f->bcd_device);
	return sd_bus_message_append(reply, "s", text);
}

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	const struct {
		const char *name;
		uint32_t number;
	} numbers[] = {
		{"BusNumber", f->busnum},
		{"DeviceNumber", f->devnum},
		{"Configurations", f->n_configurations},
		{"Configuration", f->configuration},
	};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (strcmp(numbers[i].name, property) == 0) {
			return sd_bus_message_append(reply, "u", numbers[i].number);
		}
	}
	return -ENOENT;
}

static int get_flag(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);

	return sd_bus_message_append(reply, "b",
		strcmp(property, "Authorized") == 0 ? f->authorized : f->classes_complete);
}

static int get_classes(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	int r = sd_bus_message_open_container(reply, 'a', "s");
	char text[7];

	for (size_t i = 0; r >= 0 && i < f->n_classes; i++) {
		r = sd_bus_message_append(reply, "s", class_text(&f->classes[i], text));
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_interfaces(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	int r = sd_bus_message_open_container(reply, 'a', "(uusbs)");
	char text[7];

	for (size_t i = 0; r >= 0 && i < f->n_interfaces; i++) {
		const struct usb_interface *n = &f->interfaces[i];

		r = sd_bus_message_append(reply, "(uusbs)", (uint32_t)n->number,
			(uint32_t)n->altsetting, class_text(&n->class, text), n->authorized,
			n->driver);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_properties(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	int r = sd_bus_message_open_container(reply, 'a', "s");

	for (size_t i = 0; r >= 0 && i < f->n_properties; i++) {
		r = sd_bus_message_append(reply, "s", f->properties[i]);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bus_get_drivers(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct usb_facts *f = facts_of(userdata);
	int r = sd_bus_message_open_container(reply, 'a', "s");

	for (size_t i = 0; r >= 0 && i < f->n_interfaces; i++) {
		const char *driver = f->interfaces[i].driver;
		bool again = !driver[0];

		for (size_t k = 0; k < i; k++) {
			again = again || strcmp(f->interfaces[k].driver, driver) == 0;
		}
		if (!again) {
			r = sd_bus_message_append(reply, "s", driver);
		}
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bus_usb_emit_changed(sd_bus *bus, const char *path)
{
	int r = sd_bus_emit_properties_changed(
		bus, path, BUS_IFACE_DEV, "Drivers", "Description", "Speed", "Path", NULL);

	return r < 0 ? r
		     : sd_bus_emit_properties_changed(bus, path, BUS_IFACE_USB, "VendorId",
			       "ProductId", "Release", "Manufacturer", "Product", "DescriptorHash",
			       "DeviceClass", "InterfaceClasses", "InterfaceClassesComplete",
			       "Configurations", "Configuration", "Authorized", "Interfaces",
			       "Removable", "Hub", "DeviceNumber", "UdevProperties", NULL);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define CONST   SD_BUS_VTABLE_PROPERTY_CONST

const sd_bus_vtable bus_usb_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("VendorId", "s", get_hex, 0, CHANGES),
	SD_BUS_PROPERTY("ProductId", "s", get_hex, 0, CHANGES),
	SD_BUS_PROPERTY("Release", "s", get_hex, 0, CHANGES),
	SD_BUS_PROPERTY("Manufacturer", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("Product", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("DescriptorHash", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("DeviceClass", "s", get_hex, 0, CHANGES),
	SD_BUS_PROPERTY("InterfaceClasses", "as", get_classes, 0, CHANGES),
	SD_BUS_PROPERTY("InterfaceClassesComplete", "b", get_flag, 0, CHANGES),
	SD_BUS_PROPERTY("Configurations", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Configuration", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Authorized", "b", get_flag, 0, CHANGES),
	SD_BUS_PROPERTY("Interfaces", "a(uusbs)", get_interfaces, 0, CHANGES),
	SD_BUS_PROPERTY("Removable", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("Controller", "s", get_text, 0, CONST),
	SD_BUS_PROPERTY("Hub", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("RootHub", "s", get_text, 0, CONST),
	SD_BUS_PROPERTY("Sysname", "s", get_text, 0, CONST),
	SD_BUS_PROPERTY("Syspath", "s", get_text, 0, CONST),
	SD_BUS_PROPERTY("BusNumber", "u", get_number, 0, CONST),
	SD_BUS_PROPERTY("DeviceNumber", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("UdevProperties", "as", get_properties, 0, CHANGES),
	SD_BUS_VTABLE_END,
};
