/* SPDX-License-Identifier: MIT */
#include "usb/descriptors.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

/* USB 2.0, 9.6; USB 3.2, 9.6 */
enum {
	DESCRIPTOR_DEVICE = 1,
	DESCRIPTOR_CONFIG = 2,
	DESCRIPTOR_INTERFACE = 4,
	DESCRIPTOR_ENDPOINT = 5,
	DESCRIPTOR_COMPANION = 0x30,
	DEVICE_SIZE = 18,
	CONFIG_SIZE = 9,
	INTERFACE_SIZE = 9,
	ENDPOINT_SIZE = 7,
	COMPANION_SIZE = 6,
};

static uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static const struct usb_alt *find_alt(
	const struct descriptors *d, uint8_t interface, uint8_t alt, uint16_t *index_out)
{
	for (size_t i = 0; i < d->n_alts; i++) {
		if (d->alts[i].interface == interface && d->alts[i].alt == alt) {
			*index_out = (uint16_t)i;
			return &d->alts[i];
		}
	}
	return NULL;
}

static struct usb_interface *find_interface(struct descriptors *d, uint8_t number)
{
	for (size_t i = 0; i < d->n_interfaces; i++) {
		if (d->interfaces[i].number == number) {
			return &d->interfaces[i];
		}
	}
	return NULL;
}

/* Returns the altsetting that endpoint descriptors go to, NULL if they are to be ignored: a
 * repeated pair, or an interface beyond what usbredir can tell the guest. */
static struct usb_alt *add_interface(struct descriptors *d, const uint8_t *p)
{
	uint16_t index;
	struct usb_interface *interface;
	struct usb_alt *alt;

	if (find_alt(d, p[2], p[3], &index)) {
		return NULL;
	}
	interface = find_interface(d, p[2]);
	if (!interface && d->n_interfaces == USB_INTERFACES_MAX) {
		return NULL;
	}
	index = (uint16_t)d->n_alts++;
	if (!interface) {
		interface = &d->interfaces[d->n_interfaces++];
		*interface = (struct usb_interface){.number = p[2], .active = index};
	} else if (p[3] == 0) {
		interface->active = index;
	}
	alt = &d->alts[index];
	*alt = (struct usb_alt){
		.interface = p[2],
		.alt = p[3],
		.class = p[5],
		.subclass = p[6],
		.protocol = p[7],
		.first_endpoint = (uint16_t)d->n_endpoints,
	};
	return alt;
}

/* Returns the endpoint that a companion descriptor goes to, or NULL. */
static struct usb_endpoint *add_endpoint(
	struct descriptors *d, struct usb_alt *alt, const uint8_t *p)
{
	uint16_t w = get_u16(p + 4);
	struct usb_endpoint e = {
		.address = p[2] & 0x8f,
		.type = p[3] & 3,
		.interval = p[6],
		.interface = alt->interface,
	};

	if ((e.address & 0x0f) == 0) {
		return NULL; /* endpoint 0 has no descriptor */
	}
	/* USB 2.0, 9.6.6: bits 12..11 count additional packets per microframe. */
	e.max_packet_size = (uint16_t)((w & 0x7ff) * (1 + (w >> 11 & 3)));
	e.interval_bytes = e.max_packet_size;
	/* QEMU rejects the whole device for a period of 0. */
	if (e.interval == 0 && (e.type == USB_ENDPOINT_ISO || e.type == USB_ENDPOINT_INTERRUPT)) {
		e.interval = 1;
	}
	d->endpoints[d->n_endpoints] = e;
	alt->n_endpoints++;
	return &d->endpoints[d->n_endpoints++];
}

/* USB 3.2, 9.6.7 */
static void add_companion(struct usb_endpoint *e, const uint8_t *p)
{
	unsigned int streams = p[3] & 0x1f;

	if (e->type == USB_ENDPOINT_BULK && streams > 0) {
		e->max_streams = streams < 8 ? (uint16_t)(1u << streams) : USB_STREAMS_MAX;
	}
	if (e->type == USB_ENDPOINT_ISO || e->type == USB_ENDPOINT_INTERRUPT) {
		e->interval_bytes = MAX(e->max_packet_size, get_u16(p + 4));
	}
}

static void parse_config(struct descriptors *d, const uint8_t *p, size_t size)
{
	struct usb_alt *alt = NULL;
	struct usb_endpoint *endpoint = NULL;

	if (size < CONFIG_SIZE || p[0] < CONFIG_SIZE || p[1] != DESCRIPTOR_CONFIG) {
		return;
	}
	d->configuration = p[5];
	for (size_t at = p[0]; size > at && size - at >= 2;) {
		const uint8_t *q = p + at;

		if (q[0] < 2 || q[0] > size - at) {
			return;
		}
		if (q[1] == DESCRIPTOR_INTERFACE && q[0] >= INTERFACE_SIZE) {
			alt = add_interface(d, q);
			endpoint = NULL;
		} else if (q[1] == DESCRIPTOR_ENDPOINT && q[0] >= ENDPOINT_SIZE && alt) {
			endpoint = add_endpoint(d, alt, q);
		} else if (q[1] == DESCRIPTOR_COMPANION && q[0] >= COMPANION_SIZE && endpoint &&
			   d->speed == USB_SPEED_SUPER) {
			add_companion(endpoint, q);
		}
		at += q[0];
	}
}

/* USB 2.0, 9.6.1 gives bytes; USB 3.2, 9.6.1 gives the exponent at SuperSpeed. */
static uint16_t control_packet_size(const struct usb_description *d)
{
	if (d->speed == USB_SPEED_SUPER) {
		return 512;
	}
	return d->device[7] ? d->device[7] : 8;
}

/* Where two altsettings in use name the same endpoint, the first one has it. */
static void update_active(struct descriptors *d)
{
	for (unsigned int i = 0; i < USB_ENDPOINTS_MAX; i++) {
		if ((i & 0x0f) != 0) {
			d->active[i] = (struct usb_endpoint){.type = USB_ENDPOINT_NONE};
		}
	}
	for (size_t i = 0; i < d->n_interfaces; i++) {
		const struct usb_alt *alt = &d->alts[d->interfaces[i].active];

		for (size_t n = 0; n < alt->n_endpoints; n++) {
			const struct usb_endpoint *e = &d->endpoints[alt->first_endpoint + n];
			struct usb_endpoint *slot = &d->active[descriptors_slot(e->address)];

			if (slot->type == USB_ENDPOINT_NONE) {
				*slot = *e;
			}
		}
	}
}

int descriptors_parse(const struct usb_description *d, struct descriptors *out)
{
	const uint8_t *p = d->device;
	uint16_t control_size = control_packet_size(d);

	if (p[0] != DEVICE_SIZE || p[1] != DESCRIPTOR_DEVICE ||
		d->config_size > sizeof(d->config)) {
		return -EBADMSG;
	}
	memset(out, 0, sizeof(*out));
	out->speed = (uint8_t)d->speed;
	out->class = p[4];
	out->subclass = p[5];
	out->protocol = p[6];
	out->vendor = get_u16(p + 8);
	out->product = get_u16(p + 10);
	out->version = get_u16(p + 12);
	parse_config(out, d->config, d->config_size);
	out->active[descriptors_slot(0x00)] = (struct usb_endpoint){
		.type = USB_ENDPOINT_CONTROL, .address = 0x00, .max_packet_size = control_size};
	out->active[descriptors_slot(0x80)] = (struct usb_endpoint){
		.type = USB_ENDPOINT_CONTROL, .address = 0x80, .max_packet_size = control_size};
	update_active(out);
	return 0;
}

int descriptors_set_alt(struct descriptors *d, uint8_t interface, uint8_t alt)
{
	uint16_t index;

	if (!find_alt(d, interface, alt, &index)) {
		return -ENOENT;
	}
	find_interface(d, interface)->active = index;
	update_active(d);
	return 0;
}

int descriptors_has_alt(const struct descriptors *d, uint8_t interface, uint8_t alt)
{
	uint16_t index;

	return find_alt(d, interface, alt, &index) ? 0 : -ENOENT;
}

int descriptors_get_alt(const struct descriptors *d, uint8_t interface, uint8_t *out)
{
	for (size_t i = 0; i < d->n_interfaces; i++) {
		if (d->interfaces[i].number == interface) {
			*out = d->alts[d->interfaces[i].active].alt;
			return 0;
		}
	}
	return -ENOENT;
}

const struct usb_endpoint *descriptors_endpoint(const struct descriptors *d, uint8_t address)
{
	const struct usb_endpoint *e = &d->active[descriptors_slot(address)];

	return (address & 0x70) == 0 && e->type != USB_ENDPOINT_NONE ? e : NULL;
}
