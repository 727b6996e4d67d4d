/* SPDX-License-Identifier: MIT
 *
 * The calls that wait for the device or the kernel: claims, altsettings, reset, configuration,
 * descriptors, streams, halts. They run on the thread of usb/blocking while the loop leaves the
 * device alone: usbfs holds the device's lock during most of them, so that a submit or a reap on
 * the loop would wait for them, too.
 *
 * Descriptors are read from the device itself, not from libusb's or the kernel's memory of them:
 * after a reset it may be another device. Where transfers are waited for synchronously (they are
 * control transfers, and libusb handles events for them), nothing else is in flight, so that no
 * completion is called from here.
 */
#include "usb/libusb-internal.h"

#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/descriptors.h"

#define DESCRIPTOR_TIMEOUT_MS 1000
/* As many as the kernel and libusb look at. */
#define CONFIGS_MAX 8

enum {
	CONFIG_HEADER = 9,
	CONFIG_TOTAL_LENGTH = 2,
	CONFIG_VALUE = 5,
	DEVICE_CONFIGS = 17,
	INTERFACE_NUMBER = 2
};

static int get_descriptor(
	struct usb_host *h, uint8_t type, uint8_t index, uint8_t *out, uint16_t size)
{
	return libusb_control_transfer(h->handle, LIBUSB_ENDPOINT_IN, LIBUSB_REQUEST_GET_DESCRIPTOR,
		(uint16_t)(type << 8 | index), 0, out, size, DESCRIPTOR_TIMEOUT_MS);
}

/* The configuration with that value, of which only its index is asked for. */
static int read_config(struct usb_host *h, uint8_t value)
{
	struct usb_description *d = &h->description;
	int r = LIBUSB_ERROR_NOT_FOUND;

	for (uint8_t i = 0; i < d->device[DEVICE_CONFIGS] && i < CONFIGS_MAX; i++) {
		uint16_t size;

		r = get_descriptor(h, LIBUSB_DT_CONFIG, i, d->config, CONFIG_HEADER);
		if (r >= 0 && r < CONFIG_HEADER) {
			r = LIBUSB_ERROR_IO;
		}
		if (r < 0) {
			return r;
		}
		if (d->config[CONFIG_VALUE] != value) {
			r = LIBUSB_ERROR_NOT_FOUND;
			continue;
		}
		size = MIN(get_le16(d->config + CONFIG_TOTAL_LENGTH),
			(uint16_t)USB_CONFIG_DESCRIPTOR_MAX);
		r = get_descriptor(h, LIBUSB_DT_CONFIG, i, d->config, size);
		d->config_size = r < 0 ? 0 : MIN((size_t)r, (size_t)size);
		break;
	}
	return MIN(r, 0);
}

static int read_descriptors(struct usb_host *h)
{
	struct usb_description *d = &h->description;
	int value = 0, r;

	memset(d->device, 0, sizeof(d->device));
	memset(d->config, 0, sizeof(d->config));
	d->config_size = 0;
	h->active = 0;
	r = get_descriptor(h, LIBUSB_DT_DEVICE, 0, d->device, sizeof(d->device));
	if (r < (int)sizeof(d->device)) {
		return r < 0 ? r : LIBUSB_ERROR_IO;
	}
	/* As the device says; libusb's own notion is renewed with it. */
	r = libusb_get_configuration(h->handle, &value);
	if (r < 0 || value <= 0 || value > UINT8_MAX) {
		return r;
	}
	r = read_config(h, (uint8_t)value);
	if (r >= 0) {
		h->active = (uint8_t)value;
	}
	return r;
}

/* The interfaces of the configuration that may be claimed. */
static uint32_t find_interfaces(const struct usb_host *h)
{
	const struct usb_description *d = &h->description;
	uint32_t found = 0;

	for (size_t at = 0; at + 2 <= d->config_size && d->config[at] >= 2; at += d->config[at]) {
		const uint8_t *p = d->config + at;

		if (p[1] == LIBUSB_DT_INTERFACE && at + INTERFACE_NUMBER < d->config_size &&
			p[INTERFACE_NUMBER] < HOST_INTERFACES) {
			found |= UINT32_C(1) << p[INTERFACE_NUMBER];
		}
	}
	return found & h->interfaces;
}

static int claim_all(struct usb_host *h)
{
	uint32_t wanted = find_interfaces(h);

	memset(h->alts, 0, sizeof(h->alts));
	for (int i = 0; i < HOST_INTERFACES; i++) {
		int r;

		if (!(wanted & UINT32_C(1) << i)) {
			continue;
		}
		r = libusb_claim_interface(h->handle, i);
		if (r == 0) {
			h->claimed |= UINT32_C(1) << i;
		} else if (r == LIBUSB_ERROR_BUSY || r == LIBUSB_ERROR_OTHER) {
			/* A driver is bound. On an fd with dropped privileges that is EACCES, which
			 * libusb has no word for. */
			h->busy_interface = i;
			return LIBUSB_ERROR_BUSY;
		} else if (r != LIBUSB_ERROR_NOT_FOUND) {
			return r; /* not found: the device says that it has one, and hasn't */
		}
	}
	return 0;
}

static void release_all(struct usb_host *h)
{
	for (int i = 0; i < HOST_INTERFACES; i++) {
		if (h->claimed & UINT32_C(1) << i) {
			(void)libusb_release_interface(h->handle, i);
		}
	}
	h->claimed = 0;
}

/* Once more from the beginning, with whatever configuration there is now. */
static int read_and_claim(struct usb_host *h)
{
	int r = read_descriptors(h);

	return r < 0 ? r : claim_all(h);
}

static enum usb_speed speed_of(libusb_device *device)
{
	switch (libusb_get_device_speed(device)) {
	case LIBUSB_SPEED_LOW:
		return USB_SPEED_LOW;
	case LIBUSB_SPEED_FULL:
		return USB_SPEED_FULL;
	case LIBUSB_SPEED_SUPER:
	case LIBUSB_SPEED_SUPER_PLUS:
		return USB_SPEED_SUPER;
	default:
		return USB_SPEED_HIGH;
	}
}

void device_open(void *host)
{
	struct usb_host *h = host;

	h->result = libusb_wrap_sys_device(h->ctx, h->device_fd, &h->handle);
	if (h->result == 0) {
		h->description.speed = speed_of(libusb_get_device(h->handle));
		h->result = read_and_claim(h);
	}
}

void device_set_configuration(void *host)
{
	struct usb_host *h = host;
	int r, again;

	release_all(h);
	r = libusb_set_configuration(h->handle, h->request_value ? h->request_value : -1);
	/* When that failed, the old one is claimed again. */
	again = read_and_claim(h);
	h->result = again < 0 ? again : r;
}

void device_release(void *host)
{
	struct usb_host *h = host;

	release_all(h);
	h->result = 0;
}

void device_claim(void *host)
{
	struct usb_host *h = host;

	h->result = read_and_claim(h);
}

void device_default_alts(void *host)
{
	struct usb_host *h = host;

	h->result = 0;
	for (int i = 0; i < HOST_INTERFACES && h->result == 0; i++) {
		if (h->alts[i] != 0) {
			h->result = libusb_set_interface_alt_setting(h->handle, i, 0);
			h->alts[i] = h->result == 0 ? 0 : h->alts[i];
		}
	}
}

void device_set_interface(void *host)
{
	struct usb_host *h = host;
	uint8_t interface = h->request_value;

	h->result = libusb_set_interface_alt_setting(h->handle, interface, h->request_alternate);
	if (h->result == 0 && interface < HOST_INTERFACES) {
		h->alts[interface] = h->request_alternate;
	}
}

/* The interfaces are given back and claimed again here and not by libusb, which would not say
 * whether a host driver was quicker or the device is gone. */
void device_reset(void *host)
{
	struct usb_host *h = host;

	release_all(h);
	h->result = libusb_reset_device(h->handle);
	if (h->result == LIBUSB_ERROR_NOT_FOUND) {
		h->result = LIBUSB_ERROR_NO_DEVICE; /* it came back as another, in libusb's words */
	}
	if (h->result == 0) {
		h->result = read_and_claim(h);
	}
}

static int list_endpoints(uint32_t slots, uint8_t *out)
{
	int n = 0;

	for (unsigned int slot = 0; slot < HOST_SLOTS; slot++) {
		if (slots & UINT32_C(1) << slot) {
			out[n++] = (uint8_t)((slot & 0x0f) | (slot & 0x10) << 3);
		}
	}
	return n;
}

void device_alloc_streams(void *host)
{
	struct usb_host *h = host;
	uint8_t endpoints[HOST_SLOTS];
	int n = list_endpoints(h->request_endpoints, endpoints);
	int r = libusb_alloc_streams(h->handle, h->request_streams, endpoints, n);

	h->result = MIN(r, 0);
	if (r >= 0 && (uint32_t)r < h->request_streams) {
		/* Fewer than the guest was promised are of no use to it. */
		(void)libusb_free_streams(h->handle, endpoints, n);
		h->result = LIBUSB_ERROR_IO;
	}
}

void device_free_streams(void *host)
{
	struct usb_host *h = host;
	uint8_t endpoints[HOST_SLOTS];
	int n = list_endpoints(h->request_endpoints, endpoints);

	h->result = libusb_free_streams(h->handle, endpoints, n);
}

void device_clear_halt(void *host)
{
	struct usb_host *h = host;

	h->result = libusb_clear_halt(h->handle, (unsigned char)h->halt->setup.index);
}
