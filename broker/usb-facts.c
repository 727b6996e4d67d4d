/* SPDX-License-Identifier: MIT */
#include "broker/usb-facts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What is text in it, for comparing and freeing. */
static const size_t texts[] = {
	offsetof(struct usb_facts, key),
	offsetof(struct usb_facts, own_key),
	offsetof(struct usb_facts, parent_key),
	offsetof(struct usb_facts, controller),
	offsetof(struct usb_facts, syspath),
	offsetof(struct usb_facts, sysname),
	offsetof(struct usb_facts, bus),
	offsetof(struct usb_facts, devnode),
	offsetof(struct usb_facts, serial),
	offsetof(struct usb_facts, manufacturer),
	offsetof(struct usb_facts, product_name),
	offsetof(struct usb_facts, speed),
	offsetof(struct usb_facts, removable),
};

static char *const *text_at(const struct usb_facts *f, size_t i)
{
	return (char *const *)(const void *)((const char *)f + texts[i]);
}

void usb_facts_destroy(struct usb_facts *f)
{
	if (!f) {
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		free(*text_at(f, i));
	}
	for (size_t i = 0; i < f->n_properties; i++) {
		free(f->properties[i]);
	}
	free(f->properties);
	free(f->descriptors);
	free(f);
}

const char *usb_facts_property(const struct usb_facts *f, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < f->n_properties; i++) {
		if (strncmp(f->properties[i], name, n) == 0 && f->properties[i][n] == '=') {
			return f->properties[i] + n + 1;
		}
	}
	return NULL;
}

const struct usb_interface *usb_facts_interface(const struct usb_facts *f, uint8_t number)
{
	for (size_t i = 0; i < f->n_interfaces; i++) {
		if (f->interfaces[i].number == number) {
			return &f->interfaces[i];
		}
	}
	return NULL;
}

static bool same_class(const struct usb_class *a, const struct usb_class *b)
{
	return a->base == b->base && a->sub == b->sub && a->protocol == b->protocol;
}

bool usb_facts_same_device(const struct usb_facts *a, const struct usb_facts *b)
{
	return a->instance == b->instance && a->vendor == b->vendor && a->product == b->product &&
	       a->bcd_device == b->bcd_device && same_class(&a->class, &b->class) &&
	       strcmp(a->serial, b->serial) == 0 && strcmp(a->manufacturer, b->manufacturer) == 0 &&
	       strcmp(a->product_name, b->product_name) == 0 &&
	       a->descriptors_size == b->descriptors_size &&
	       memcmp(a->descriptors_sha256, b->descriptors_sha256, USB_FACTS_SHA256_SIZE) == 0;
}

static bool same_interfaces(const struct usb_facts *a, const struct usb_facts *b)
{
	if (a->n_interfaces != b->n_interfaces) {
		return false;
	}
	for (size_t i = 0; i < a->n_interfaces; i++) {
		const struct usb_interface *x = &a->interfaces[i], *y = &b->interfaces[i];

		if (x->number != y->number || x->altsetting != y->altsetting ||
			!same_class(&x->class, &y->class) || x->authorized != y->authorized ||
			strcmp(x->driver, y->driver) != 0) {
			return false;
		}
	}
	return true;
}

static bool same_classes(const struct usb_facts *a, const struct usb_facts *b)
{
	if (a->n_classes != b->n_classes || a->classes_complete != b->classes_complete) {
		return false;
	}
	for (size_t i = 0; i < a->n_classes; i++) {
		if (!same_class(&a->classes[i], &b->classes[i])) {
			return false;
		}
	}
	return true;
}

static bool same_properties(const struct usb_facts *a, const struct usb_facts *b)
{
	if (a->n_properties != b->n_properties) {
		return false;
	}
	for (size_t i = 0; i < a->n_properties; i++) {
		if (strcmp(a->properties[i], b->properties[i]) != 0) {
			return false;
		}
	}
	return true;
}

bool usb_facts_equal(const struct usb_facts *a, const struct usb_facts *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (strcmp(*text_at(a, i), *text_at(b, i)) != 0) {
			return false;
		}
	}
	/* The hash is made of what is compared. */
	return usb_facts_same_device(a, b) && a->busnum == b->busnum && a->devnum == b->devnum &&
	       a->hub == b->hub && a->authorized == b->authorized &&
	       a->n_configurations == b->n_configurations && a->configuration == b->configuration &&
	       same_interfaces(a, b) && same_classes(a, b) && same_properties(a, b);
}

int usb_facts_instance(const char *syspath, uint64_t *out)
{
	struct stat st;

	/* sysfs counts its inodes up. */
	if (stat(syspath, &st) < 0) {
		return -errno;
	}
	*out = st.st_ino;
	return 0;
}
