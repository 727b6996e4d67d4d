/* SPDX-License-Identifier: MIT
 *
 * What the stub's device says it is: a vendor device with every kind of endpoint, sparse
 * altsettings and, at SuperSpeed, bulk streams. Built for the speed that is asked for, as raw
 * descriptors, and parsed into libusb's structs.
 */
#include <stdlib.h>
#include <string.h>

#include "stub.h"

enum {
	DEVICE = 1,
	CONFIG = 2,
	INTERFACE = 4,
	ENDPOINT = 5,
	COMPANION = 0x30,
	CONFIG_SIZE = 9,
	INTERFACE_SIZE = 9,
	ENDPOINT_SIZE = 7
};
enum { CONTROL, ISO, BULK, INTERRUPT };

static void append(struct stub_device *d, const uint8_t *bytes)
{
	memcpy(d->config + d->config_size, bytes, bytes[0]);
	d->config_size += bytes[0];
}

static void interface(struct stub_device *d, uint8_t number, uint8_t alt, uint8_t n_endpoints)
{
	append(d, (const uint8_t[]){
			  INTERFACE_SIZE, INTERFACE, number, alt, n_endpoints, 0xff, number, 0, 0});
}

/* The packet size of an endpoint that isn't isochronous follows from the speed. */
static void endpoint(
	struct stub_device *d, uint8_t address, uint8_t type, uint16_t iso_size, uint8_t streams)
{
	static const uint16_t bulk_sizes[] = {64, 64, 64, 512, 1024};
	uint32_t speed = d->options.speed;
	uint16_t size = type == BULK ? bulk_sizes[speed] : type == ISO ? iso_size : 64;
	uint8_t interval = type == BULK ? 0 : speed >= LIBUSB_SPEED_HIGH ? 4 : 1;

	append(d, (const uint8_t[]){ENDPOINT_SIZE, ENDPOINT, address, type, (uint8_t)size,
			  (uint8_t)(size >> 8), interval});
	if (speed == LIBUSB_SPEED_SUPER) {
		uint16_t bytes = type == BULK ? 0 : size;

		append(d, (const uint8_t[]){
				  6, COMPANION, 0, streams, (uint8_t)bytes, (uint8_t)(bytes >> 8)});
	}
}

void stub_descriptors(struct stub_device *d)
{
	bool super = d->options.speed == LIBUSB_SPEED_SUPER;
	const uint8_t device[18] = {18, DEVICE, 0x00, super ? 3 : 2, 0xff, 0, 0, super ? 9 : 64,
		STUB_VENDOR & 0xff, STUB_VENDOR >> 8, STUB_PRODUCT & 0xff, STUB_PRODUCT >> 8, 0x00,
		0x01, 1, 2, 3, 1};

	memcpy(d->descriptor, device, sizeof(device));
	d->config_size = 0;
	append(d, (const uint8_t[]){
			  CONFIG_SIZE, CONFIG, 0, 0, STUB_INTERFACES, 1, 0, 0x80, super ? 12 : 50});
	interface(d, 0, 0, 4);
	if (d->options.storage) {
		memcpy(d->config + d->config_size - 4, "\x08\x06\x50", 3);
	}
	endpoint(d, STUB_BULK_IN, BULK, 0, 0);
	endpoint(d, STUB_BULK_OUT, BULK, 0, 0);
	endpoint(d, STUB_INTERRUPT_IN, INTERRUPT, 0, 0);
	endpoint(d, STUB_INTERRUPT_OUT, INTERRUPT, 0, 0);
	interface(d, 1, 0, 0);
	interface(d, 1, 1, 2);
	endpoint(d, STUB_ISO_IN, ISO, 192, 0);
	endpoint(d, STUB_ISO_OUT, ISO, 192, 0);
	interface(d, 1, 5, 2);
	endpoint(d, STUB_ISO_IN, ISO, 960, 0);
	endpoint(d, STUB_ISO_OUT, ISO, 960, 0);
	interface(d, 2, 0, 0);
	interface(d, 2, 1, 2);
	endpoint(d, STUB_STREAM_IN, BULK, 0, 4); /* 2 to the power of 4 streams */
	endpoint(d, STUB_STREAM_OUT, BULK, 0, 4);
	d->config[2] = (uint8_t)d->config_size;
	d->config[3] = (uint8_t)(d->config_size >> 8);
}

size_t stub_image(const char *options, uint8_t *out, size_t size)
{
	struct stub_device *d = calloc(1, sizeof(*d));
	size_t text = strlen(options) + 1, n = 0;

	if (d) {
		stub_device_init(d, options);
		n = sizeof(d->descriptor) + d->config_size + text;
	}
	if (d && n <= size) {
		memcpy(out, d->descriptor, sizeof(d->descriptor));
		memcpy(out + sizeof(d->descriptor), d->config, d->config_size);
		memcpy(out + n - text, options, text);
	}
	free(d);
	return n;
}

int stub_interface_of(const struct stub_device *d, uint8_t address)
{
	const uint8_t *p = d->config, *end = p + d->config_size;
	int here = -1;

	for (; p < end; p += p[0]) {
		if (p[1] == INTERFACE) {
			here = d->alt[p[2]] == p[3] ? p[2] : -1;
		} else if (p[1] == ENDPOINT && p[2] == address && here >= 0) {
			return here;
		}
	}
	return -1;
}

bool stub_has_alt(const struct stub_device *d, int number, int alt)
{
	const uint8_t *p = d->config, *end = p + d->config_size;

	for (; p < end; p += p[0]) {
		if (p[1] == INTERFACE && p[2] == number && p[3] == alt) {
			return true;
		}
	}
	return false;
}

/* libusb's structs are grown one by one: a handful, and each only once per call. */
static void *grow(const void *array, size_t n, size_t size)
{
	char *bigger = realloc((void *)(uintptr_t)array, (n + 1) * size);

	if (!bigger) {
		abort();
	}
	memset(bigger + n * size, 0, size);
	return bigger;
}

static struct libusb_interface_descriptor *add_alt(
	struct libusb_config_descriptor *c, const uint8_t *p)
{
	struct libusb_interface *i = (void *)(uintptr_t)&c->interface[p[2]];
	struct libusb_interface_descriptor *alt =
		grow(i->altsetting, (size_t)i->num_altsetting, sizeof(*alt));

	i->altsetting = alt;
	alt += i->num_altsetting++;
	memcpy(alt, p, INTERFACE_SIZE);
	alt->bNumEndpoints = 0; /* counted as they come */
	return alt;
}

static void add_endpoint(struct libusb_interface_descriptor *alt, const uint8_t *p)
{
	struct libusb_endpoint_descriptor *e = grow(alt->endpoint, alt->bNumEndpoints, sizeof(*e));

	alt->endpoint = e;
	e += alt->bNumEndpoints++;
	e->bLength = p[0];
	e->bDescriptorType = p[1];
	e->bEndpointAddress = p[2];
	e->bmAttributes = p[3];
	e->wMaxPacketSize = (uint16_t)(p[4] | p[5] << 8);
	e->bInterval = p[6];
}

/* What follows an endpoint's descriptor and is libusb's extra. */
static void add_extra(struct libusb_interface_descriptor *alt, const uint8_t *p)
{
	struct libusb_endpoint_descriptor *e =
		(void *)(uintptr_t)&alt->endpoint[alt->bNumEndpoints - 1];
	unsigned char *extra = grow(NULL, 0, p[0]);

	memcpy(extra, p, p[0]);
	e->extra = extra;
	e->extra_length = p[0];
}

struct libusb_config_descriptor *stub_parse_config(const uint8_t *raw, size_t size)
{
	struct libusb_config_descriptor *c = grow(NULL, 0, sizeof(*c));
	struct libusb_interface_descriptor *alt = NULL;
	const uint8_t *end = raw + size;

	c->bLength = raw[0];
	c->bDescriptorType = raw[1];
	c->wTotalLength = (uint16_t)size;
	c->bNumInterfaces = raw[4];
	c->bConfigurationValue = raw[5];
	c->iConfiguration = raw[6];
	c->bmAttributes = raw[7];
	c->MaxPower = raw[8];
	c->interface = calloc(raw[4], sizeof(*c->interface));
	for (const uint8_t *p = raw + raw[0]; p < end; p += p[0]) {
		if (p[1] == INTERFACE) {
			alt = add_alt(c, p);
		} else if (p[1] == ENDPOINT && alt) {
			add_endpoint(alt, p);
		} else if (alt && alt->bNumEndpoints > 0) {
			add_extra(alt, p);
		}
	}
	return c;
}

void libusb_free_config_descriptor(struct libusb_config_descriptor *c)
{
	if (!c) {
		return;
	}
	for (int i = 0; i < c->bNumInterfaces; i++) {
		const struct libusb_interface *interface = &c->interface[i];

		for (int a = 0; a < interface->num_altsetting; a++) {
			const struct libusb_interface_descriptor *alt = &interface->altsetting[a];

			for (int e = 0; e < alt->bNumEndpoints; e++) {
				free((void *)(uintptr_t)alt->endpoint[e].extra);
			}
			free((void *)(uintptr_t)alt->endpoint);
		}
		free((void *)(uintptr_t)interface->altsetting);
	}
	free((void *)(uintptr_t)c->interface);
	free(c);
}
