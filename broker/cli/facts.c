/* SPDX-License-Identifier: MIT */
#include "broker/cli/facts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "broker/usb-facts.h"

/* Texts are borrowed from the document, and nobody changes facts. */
static char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return (char *)(uintptr_t)text;
}

/* Fields that rules ask for. */
static const struct {
	bool usb; /* of "usb" rather than "device" */
	const char *key;
	size_t offset;
} texts[] = {
	{false, "name", offsetof(struct usb_facts, key)},
	{false, "serial", offsetof(struct usb_facts, serial)},
	{false, "speed", offsetof(struct usb_facts, speed)},
	{true, "manufacturer", offsetof(struct usb_facts, manufacturer)},
	{true, "product", offsetof(struct usb_facts, product_name)},
	{true, "removable", offsetof(struct usb_facts, removable)},
};

static bool read_hex(const json_t *object, const char *key, uint16_t *out)
{
	const char *text = text_of(object, key);
	char *end;
	unsigned long n;

	if (!text || strlen(text) != 4) {
		return false;
	}
	n = strtoul(text, &end, 16);
	*out = (uint16_t)n;
	return *end == '\0';
}

/* "080650" */
static bool read_class(const char *text, struct usb_class *out)
{
	unsigned int base, sub, protocol;

	if (!text || strlen(text) != 6 || sscanf(text, "%2x%2x%2x", &base, &sub, &protocol) != 3) {
		return false;
	}
	*out = (struct usb_class){(uint8_t)base, (uint8_t)sub, (uint8_t)protocol};
	return true;
}

static bool read_classes(const json_t *usb, struct usb_facts *f)
{
	const json_t *list = json_object_get(usb, "interface_classes"), *item;
	size_t i;

	if (!json_is_array(list)) {
		return false;
	}
	json_array_foreach(list, i, item)
	{
		if (i == USB_FACTS_CLASSES_MAX ||
			!read_class(json_string_value(item), &f->classes[i])) {
			return false;
		}
		f->n_classes = i + 1;
	}
	return true;
}

static int read_properties(const json_t *usb, struct usb_facts *f)
{
	const json_t *list = json_object_get(usb, "udev_properties"), *item;
	size_t i, n = json_array_size(list);

	f->properties = calloc(n + 1, sizeof(*f->properties));
	if (!f->properties) {
		return -ENOMEM;
	}
	json_array_foreach(list, i, item)
	{
		f->properties[i] = (char *)(uintptr_t)json_string_value(item);
		if (!f->properties[i]) {
			return -EINVAL;
		}
		f->n_properties = i + 1;
	}
	return 0;
}

static const char *read_fields(const json_t *device, const json_t *usb, struct usb_facts *f)
{
	const char *hash = text_of(usb, "descriptor_hash");

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char **field = (char **)(void *)((char *)f + texts[i].offset);

		*field = text_of(texts[i].usb ? usb : device, texts[i].key);
		if (!*field) {
			return texts[i].key;
		}
	}
	if (!read_hex(usb, "vendor_id", &f->vendor)) {
		return "vendor_id";
	}
	if (!read_hex(usb, "product_id", &f->product)) {
		return "product_id";
	}
	if (!read_class(text_of(usb, "device_class"), &f->class)) {
		return "device_class";
	}
	if (!read_classes(usb, f)) {
		return "interface_classes";
	}
	f->classes_complete = json_is_true(json_object_get(usb, "interface_classes_complete"));
	if (!hash || strlen(hash) >= sizeof(f->descriptor_hash)) {
		return "descriptor_hash";
	}
	memcpy(f->descriptor_hash, hash, strlen(hash) + 1);
	return NULL;
}

int cli_facts_read(const json_t *doc, struct usb_facts *out, const char **missing_out)
{
	const json_t *device = json_object_get(doc, "device"), *usb = json_object_get(doc, "usb");
	const char *missing = !device ? "device" : !usb ? "usb" : NULL;
	struct usb_facts f = {0};
	int r;

	if (!missing) {
		missing = read_fields(device, usb, &f);
	}
	if (missing) {
		*missing_out = missing;
		return -EINVAL;
	}
	r = read_properties(usb, &f);
	if (r < 0) {
		*missing_out = "udev_properties";
		cli_facts_finish(&f);
		return r;
	}
	*out = f;
	return 0;
}

void cli_facts_finish(struct usb_facts *f)
{
	free(f->properties);
	f->properties = NULL;
}
