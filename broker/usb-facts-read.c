/* SPDX-License-Identifier: MIT
 *
 * Reads struct usb_facts from sysfs and udev's database. Everything the device chose (names, class
 * triples, udev's copies of them) is hostile: bounded and escaped here, once.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "broker/usb-facts-internal.h"

const char *usb_facts_attr(sd_device *d, const char *name)
{
	const char *value;

	return sd_device_get_sysattr_value(d, name, &value) < 0 ? "" : value;
}

/* Leading blanks are allowed: some attributes are "%2d". */
static int read_number(sd_device *d, const char *attr, int base, unsigned long max, uint32_t *out)
{
	const char *text = usb_facts_attr(d, attr);
	unsigned long n;
	char *end;

	text += strspn(text, " ");
	if (!isxdigit((unsigned char)*text)) {
		return -ENODEV;
	}
	errno = 0;
	n = strtoul(text, &end, base);
	if (errno || *end || n > max) {
		return -ENODEV;
	}
	*out = (uint32_t)n;
	return 0;
}

static int set_text(char **out, const char *text)
{
	*out = utf8_escape(text, USB_FACTS_TEXT_MAX);
	return *out ? 0 : -ENOMEM;
}

static int read_text(sd_device *d, const char *attr, char **out)
{
	return set_text(out, usb_facts_attr(d, attr));
}

static int read_class(sd_device *d, const char *const attrs[3], struct usb_class *out)
{
	uint32_t n[3];

	for (size_t i = 0; i < 3; i++) {
		int r = read_number(d, attrs[i], 16, UINT8_MAX, &n[i]);

		if (r < 0) {
			return r;
		}
	}
	*out = (struct usb_class){(uint8_t)n[0], (uint8_t)n[1], (uint8_t)n[2]};
	return 0;
}

/* What is in a device directory from its first moment to its last. */
static int read_numbers(struct usb_facts *f, sd_device *d)
{
	static const char *const class_attrs[] = {
		"bDeviceClass", "bDeviceSubClass", "bDeviceProtocol"};
	uint32_t vendor, product, release, bus, number, configurations, authorized = 1;
	int r = read_number(d, "idVendor", 16, UINT16_MAX, &vendor);

	r = r < 0 ? r : read_number(d, "idProduct", 16, UINT16_MAX, &product);
	r = r < 0 ? r : read_number(d, "bcdDevice", 16, UINT16_MAX, &release);
	r = r < 0 ? r : read_number(d, "busnum", 10, UINT16_MAX, &bus);
	r = r < 0 ? r : read_number(d, "devnum", 10, UINT16_MAX, &number);
	r = r < 0 ? r : read_number(d, "bNumConfigurations", 10, UINT8_MAX, &configurations);
	r = r < 0 ? r : read_class(d, class_attrs, &f->class);
	if (r < 0) {
		return r;
	}
	if (read_number(d, "authorized", 10, 255, &authorized) < 0) {
		authorized = 1;
	}
	f->vendor = (uint16_t)vendor;
	f->product = (uint16_t)product;
	f->bcd_device = (uint16_t)release;
	f->busnum = (uint16_t)bus;
	f->devnum = (uint16_t)number;
	f->n_configurations = (uint8_t)configurations;
	f->authorized = authorized != 0;
	return 0;
}

/* Strings that the device sent: the only attributes that wait for the device's lock. */
static int read_strings(struct usb_facts *f, sd_device *d, const struct usb_facts *before)
{
	int r;

	if (before && before->instance == f->instance) {
		f->serial = strdup(before->serial);
		f->manufacturer = strdup(before->manufacturer);
		f->product_name = strdup(before->product_name);
		return f->serial && f->manufacturer && f->product_name ? 0 : -ENOMEM;
	}
	r = read_text(d, "serial", &f->serial);
	r = r < 0 ? r : read_text(d, "manufacturer", &f->manufacturer);
	return r < 0 ? r : read_text(d, "product", &f->product_name);
}

static int read_interface(
	void *userdata, const char *name, unsigned int configuration, unsigned int number)
{
	static const char *const class_attrs[] = {
		"bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol"};
	_cleanup_(sd_device_unrefp) sd_device *d = NULL;
	struct usb_facts *f = userdata;
	struct usb_interface i = {0};
	uint32_t altsetting, authorized;
	const char *driver;
	char path[PATH_MAX];

	if (f->n_interfaces == USB_FACTS_INTERFACES_MAX || number > UINT8_MAX ||
		configuration > UINT8_MAX) {
		return 0;
	}
	if (snprintf(path, sizeof(path), "%s/%s", f->syspath, name) >= (int)sizeof(path)) {
		return -ENAMETOOLONG;
	}
	/* One that is on its way out, or not yet in, is not there. */
	if (sd_device_new_from_syspath(&d, path) < 0 || read_class(d, class_attrs, &i.class) < 0 ||
		read_number(d, "bAlternateSetting", 10, UINT8_MAX, &altsetting) < 0) {
		return 0;
	}
	i.number = (uint8_t)number;
	i.altsetting = (uint8_t)altsetting;
	/* Kernels before 4.4 have no such attribute: nothing is kept off there. */
	i.authorized = read_number(d, "authorized", 10, 1, &authorized) < 0 || authorized;
	if (sd_device_get_driver(d, &driver) >= 0) {
		snprintf(i.driver, sizeof(i.driver), "%s", driver);
	}
	f->configuration = (uint8_t)configuration;
	f->interfaces[f->n_interfaces++] = i;
	return 0;
}

static int compare_interfaces(const void *a, const void *b)
{
	return ((const struct usb_interface *)a)->number -
	       ((const struct usb_interface *)b)->number;
}

static int compare_classes(const void *a, const void *b)
{
	const struct usb_class *x = a, *y = b;
	int base = x->base - y->base, sub = x->sub - y->sub;

	return base ? base : sub ? sub : x->protocol - y->protocol;
}

/* udev's list, ":080650:030101:". false, with nothing added, if it is no such list. */
static bool parse_classes(struct usb_facts *f, const char *text)
{
	size_t n = 0;

	while (*text == ':' && text[1] && n < USB_FACTS_CLASSES_MAX) {
		unsigned int base, sub, protocol;

		if (strspn(text + 1, "0123456789abcdefABCDEF") != 6 ||
			sscanf(text + 1, "%2x%2x%2x", &base, &sub, &protocol) != 3) {
			return false;
		}
		f->classes[n++] =
			(struct usb_class){(uint8_t)base, (uint8_t)sub, (uint8_t)protocol};
		text += 7;
	}
	if (strcmp(text, ":") != 0) {
		return false;
	}
	f->n_classes = n;
	return n > 0;
}

static void collect_classes(struct usb_facts *f)
{
	const char *list = usb_facts_property(f, "ID_USB_INTERFACES");
	size_t n = 0;

	f->classes_complete = list && parse_classes(f, list);
	for (size_t i = 0; !f->classes_complete && i < f->n_interfaces; i++) {
		f->classes[f->n_classes++] = f->interfaces[i].class;
	}
	qsort(f->classes, f->n_classes, sizeof(f->classes[0]), compare_classes);
	for (size_t i = 0; i < f->n_classes; i++) {
		if (n == 0 || compare_classes(&f->classes[n - 1], &f->classes[i]) != 0) {
			f->classes[n++] = f->classes[i];
		}
	}
	f->n_classes = n;
}

/* What the kernel's hub driver takes, by device or by interface. */
static bool is_hub(const struct usb_facts *f)
{
	bool hub = f->class.base == 9;

	for (size_t i = 0; i < f->n_interfaces; i++) {
		hub = hub || f->interfaces[i].class.base == 9;
	}
	for (size_t i = 0; i < f->n_classes; i++) {
		hub = hub || f->classes[i].base == 9;
	}
	return hub;
}

static int read_descriptors(struct usb_facts *f)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX];
	ssize_t n;

	if (snprintf(path, sizeof(path), "%s/descriptors", f->syspath) >= (int)sizeof(path)) {
		return -ENAMETOOLONG;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return errno == ENOENT ? -ENODEV : -errno;
	}
	f->descriptors = malloc(USB_FACTS_DESCRIPTORS_MAX);
	if (!f->descriptors) {
		return -ENOMEM;
	}
	while ((n = read(fd, f->descriptors + f->descriptors_size,
			USB_FACTS_DESCRIPTORS_MAX - f->descriptors_size)) > 0) {
		f->descriptors_size += (size_t)n;
	}
	if (n < 0) {
		return -errno;
	}
	/* Nearly all have less than 1 KiB. */
	if (f->descriptors_size > 0) {
		uint8_t *fitting = realloc(f->descriptors, f->descriptors_size);

		f->descriptors = fitting ? fitting : f->descriptors;
	}
	return 0;
}

static int read_all(struct usb_facts *f, sd_device *d, const struct usb_facts *before)
{
	const char *sysname, *devnode;
	int r = read_numbers(f, d);

	r = r < 0 ? r : sd_device_get_sysname(d, &sysname);
	r = r < 0 ? r : set_text(&f->sysname, sysname);
	if (r >= 0) {
		r = sd_device_get_devname(d, &devnode) < 0 ? -ENODEV
							   : set_text(&f->devnode, devnode);
	}
	r = r < 0 ? r : read_text(d, "speed", &f->speed);
	r = r < 0 ? r : read_text(d, "removable", &f->removable);
	r = r < 0 ? r : read_strings(f, d, before);
	r = r < 0 ? r : usb_facts_read_properties(f, d);
	r = r < 0 ? r : read_descriptors(f);
	r = r < 0 ? r : usb_facts_each_interface(f->syspath, read_interface, f);
	if (r < 0) {
		return r;
	}
	qsort(f->interfaces, f->n_interfaces, sizeof(f->interfaces[0]), compare_interfaces);
	collect_classes(f);
	f->hub = is_hub(f);
	r = usb_facts_place(f, d);
	if (r >= 0) {
		usb_facts_hash(f);
	}
	return r;
}

int usb_facts_read(
	const char *syspath, bool need_udev, const struct usb_facts *before, struct usb_facts **out)
{
	_cleanup_(usb_facts_destroyp) struct usb_facts *f = calloc(1, sizeof(*f));
	_cleanup_(sd_device_unrefp) sd_device *d = NULL;
	uint64_t instance;
	int r;

	if (!f) {
		return -ENOMEM;
	}
	f->syspath = strdup(syspath);
	if (!f->syspath) {
		return -ENOMEM;
	}
	if (usb_facts_instance(syspath, &f->instance) < 0 ||
		sd_device_new_from_syspath(&d, syspath) < 0) {
		return -ENODEV;
	}
	if (need_udev) {
		r = sd_device_get_is_initialized(d);
		if (r <= 0) {
			return r < 0 ? r : -EAGAIN;
		}
	}
	r = read_all(f, d, before);
	if (r < 0) {
		return r == -ENOENT ? -ENODEV : r;
	}
	/* All of that was of one device, that still is there. */
	if (usb_facts_instance(syspath, &instance) < 0 || instance != f->instance) {
		return -ENODEV;
	}
	*out = steal_ptr(f);
	return 0;
}
