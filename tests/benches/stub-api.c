/* SPDX-License-Identifier: MIT
 *
 * The stub libusb's device and its handle: finding, wrapping, descriptors, claims, and the calls
 * that the real one does synchronously. Only one device per context, the same for everybody who
 * asks.
 */
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "stub.h"

static struct libusb_device *get_device(struct libusb_context *ctx, const char *options)
{
	if (!ctx->device) {
		ctx->device = calloc(1, sizeof(*ctx->device));
		if (!ctx->device) {
			abort();
		}
		stub_device_init(&ctx->device->device, options);
		ctx->device->ctx = ctx;
	}
	return ctx->device;
}

static const char *environment_options(void)
{
	const char *text = getenv("STUB_LIBUSB");

	return text ? text : "";
}

static int open_handle(struct libusb_device *dev, libusb_device_handle **out)
{
	struct libusb_device_handle *h = calloc(1, sizeof(*h));

	if (!h) {
		return LIBUSB_ERROR_NO_MEM;
	}
	h->dev = dev;
	*out = h;
	return 0;
}

/* A file with stub_image's bytes brings its own options, for where there is no environment. */
int libusb_wrap_sys_device(libusb_context *ctx, intptr_t fd, libusb_device_handle **out)
{
	char image[1024];
	/* As the real one does, for sandboxes that let nothing else. */
	ssize_t n = lseek((int)fd, 0, SEEK_SET) < 0 ? -1 : read((int)fd, image, sizeof(image) - 1);
	const char *options = environment_options();
	size_t head = 18;

	ctx = stub_context(ctx);
	if (n > 22 && image[0] == 18) {
		head += (uint8_t)image[20] | (size_t)(uint8_t)image[21] << 8;
	}
	if (n > (ssize_t)head && head > 18) {
		image[n] = '\0';
		options = image + head;
	}
	return open_handle(get_device(ctx, options), out);
}

libusb_device_handle *libusb_open_device_with_vid_pid(
	libusb_context *ctx, uint16_t vendor, uint16_t product)
{
	struct libusb_device_handle *h = NULL;

	if (vendor == STUB_VENDOR && product == STUB_PRODUCT) {
		open_handle(get_device(stub_context(ctx), environment_options()), &h);
	}
	return h;
}

int libusb_open(libusb_device *dev, libusb_device_handle **out)
{
	return open_handle(dev, out);
}

void libusb_close(libusb_device_handle *h)
{
	if (h) {
		libusb_interrupt_event_handler(h->dev->ctx);
		free(h);
	}
}

ssize_t libusb_get_device_list(libusb_context *ctx, libusb_device ***out)
{
	*out = calloc(2, sizeof(**out));
	if (!*out) {
		return LIBUSB_ERROR_NO_MEM;
	}
	(*out)[0] = get_device(stub_context(ctx), environment_options());
	return 1;
}

void libusb_free_device_list(libusb_device **list, int unref)
{
	free(list);
}

libusb_device *libusb_ref_device(libusb_device *dev)
{
	return dev;
}

void libusb_unref_device(libusb_device *dev)
{
}

libusb_device *libusb_get_device(libusb_device_handle *h)
{
	return h->dev;
}

uint8_t libusb_get_bus_number(libusb_device *dev)
{
	return 1;
}

uint8_t libusb_get_device_address(libusb_device *dev)
{
	return 2;
}

int libusb_get_device_speed(libusb_device *dev)
{
	return (int)dev->device.options.speed;
}

int libusb_get_device_descriptor(libusb_device *dev, struct libusb_device_descriptor *out)
{
	const uint8_t *p = dev->device.descriptor;

	memcpy(out, p, sizeof(*out));
	out->bcdUSB = (uint16_t)(p[2] | p[3] << 8);
	out->idVendor = (uint16_t)(p[8] | p[9] << 8);
	out->idProduct = (uint16_t)(p[10] | p[11] << 8);
	out->bcdDevice = (uint16_t)(p[12] | p[13] << 8);
	return 0;
}

int libusb_get_config_descriptor(
	libusb_device *dev, uint8_t index, struct libusb_config_descriptor **out)
{
	if (index != 0) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	*out = stub_parse_config(dev->device.config, dev->device.config_size);
	return 0;
}

int libusb_get_active_config_descriptor(libusb_device *dev, struct libusb_config_descriptor **out)
{
	return dev->device.configuration ? libusb_get_config_descriptor(dev, 0, out)
					 : LIBUSB_ERROR_NOT_FOUND;
}

int libusb_get_config_descriptor_by_value(
	libusb_device *dev, uint8_t value, struct libusb_config_descriptor **out)
{
	return value == 1 ? libusb_get_config_descriptor(dev, 0, out) : LIBUSB_ERROR_NOT_FOUND;
}

int libusb_get_ss_endpoint_companion_descriptor(libusb_context *ctx,
	const struct libusb_endpoint_descriptor *e,
	struct libusb_ss_endpoint_companion_descriptor **out)
{
	struct libusb_ss_endpoint_companion_descriptor *c;

	if (e->extra_length < LIBUSB_DT_SS_ENDPOINT_COMPANION_SIZE) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		return LIBUSB_ERROR_NO_MEM;
	}
	c->bLength = e->extra[0];
	c->bDescriptorType = e->extra[1];
	c->bMaxBurst = e->extra[2];
	c->bmAttributes = e->extra[3];
	c->wBytesPerInterval = (uint16_t)(e->extra[4] | e->extra[5] << 8);
	*out = c;
	return 0;
}

void libusb_free_ss_endpoint_companion_descriptor(struct libusb_ss_endpoint_companion_descriptor *c)
{
	free(c);
}

int libusb_get_configuration(libusb_device_handle *h, int *out)
{
	*out = h->dev->device.configuration;
	return h->dev->device.gone ? LIBUSB_ERROR_NO_DEVICE : 0;
}

static void forget_endpoints(struct stub_device *d)
{
	memset(d->endpoints, 0, sizeof(d->endpoints));
}

/* The calls that block; not a sleep, which a sandbox may not let. */
static void take_time(const struct stub_device *d)
{
	if (d->options.slow) {
		poll(NULL, 0, (int)d->options.slow);
	}
}

/* -1 unconfigures, as the real one has it. */
int libusb_set_configuration(libusb_device_handle *h, int value)
{
	struct stub_device *d = &h->dev->device;

	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	if (h->claimed) {
		return LIBUSB_ERROR_BUSY;
	}
	if (value > 1) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	d->configuration = value == 1;
	memset(d->alt, 0, sizeof(d->alt));
	forget_endpoints(d);
	return 0;
}

int libusb_claim_interface(libusb_device_handle *h, int interface)
{
	struct stub_device *d = &h->dev->device;

	take_time(d);
	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	if (interface < 0 || interface >= STUB_INTERFACES || !d->configuration) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	if (d->options.busy || (d->options.busy_after && d->claims >= d->options.busy_after)) {
		return LIBUSB_ERROR_BUSY;
	}
	d->claims++;
	h->claimed |= 1u << interface;
	return 0;
}

int libusb_release_interface(libusb_device_handle *h, int interface)
{
	uint32_t bit = interface >= 0 && interface < STUB_INTERFACES ? 1u << interface : 0;

	if (!(h->claimed & bit)) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	h->claimed &= ~bit;
	return 0;
}

int libusb_set_interface_alt_setting(libusb_device_handle *h, int interface, int alt)
{
	struct stub_device *d = &h->dev->device;

	take_time(d);
	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	if (interface < 0 || interface >= STUB_INTERFACES || !(h->claimed & 1u << interface) ||
		!stub_has_alt(d, interface, alt)) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	d->alt[interface] = (uint8_t)alt;
	for (size_t i = 0; i < ARRAY_SIZE(d->endpoints); i++) {
		uint8_t address = (uint8_t)((i & 0x0f) | (i & 0x10) << 3);

		if (stub_interface_of(d, address) == interface) {
			d->endpoints[i] = (struct stub_endpoint){0};
		}
	}
	return 0;
}

int libusb_clear_halt(libusb_device_handle *h, unsigned char endpoint)
{
	struct stub_device *d = &h->dev->device;

	take_time(d);
	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	if (stub_interface_of(d, endpoint) < 0) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	stub_endpoint(d, endpoint)->halted = false;
	d->counters.clear_halts++;
	return 0;
}

int libusb_reset_device(libusb_device_handle *h)
{
	struct stub_device *d = &h->dev->device;

	take_time(d);
	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	forget_endpoints(d); /* the kernel restores the altsettings */
	d->counters.resets++;
	if (d->options.identity) {
		d->descriptor[10] ^= 1;
	}
	return 0;
}

int libusb_alloc_streams(
	libusb_device_handle *h, uint32_t n, unsigned char *endpoints, int n_endpoints)
{
	struct stub_device *d = &h->dev->device;

	n = MIN(n, STUB_STREAMS_MAX);
	for (int i = 0; i < n_endpoints; i++) {
		if ((endpoints[i] & 0x7f) != STUB_STREAM_OUT || d->options.speed < 4 ||
			stub_interface_of(d, endpoints[i]) < 0) {
			return LIBUSB_ERROR_INVALID_PARAM;
		}
	}
	for (int i = 0; i < n_endpoints; i++) {
		stub_endpoint(d, endpoints[i])->streams = n;
	}
	return (int)n;
}

int libusb_free_streams(libusb_device_handle *h, unsigned char *endpoints, int n_endpoints)
{
	for (int i = 0; i < n_endpoints; i++) {
		struct stub_endpoint *e = stub_endpoint(&h->dev->device, endpoints[i]);

		if (e->streams == 0) {
			return LIBUSB_ERROR_INVALID_PARAM;
		}
		e->streams = 0;
	}
	return 0;
}

/* Synchronous: done here and now, whatever the latency. */
int libusb_control_transfer(libusb_device_handle *h, uint8_t request_type, uint8_t request,
	uint16_t value, uint16_t index, unsigned char *data, uint16_t length, unsigned int timeout)
{
	struct libusb_transfer *t = libusb_alloc_transfer(0);
	unsigned char *buffer = calloc(1, LIBUSB_CONTROL_SETUP_SIZE + (size_t)length);
	int r = LIBUSB_ERROR_NO_MEM;

	if (t && buffer) {
		libusb_fill_control_setup(buffer, request_type, request, value, index, length);
		if (!(request_type & 0x80)) {
			memcpy(buffer + LIBUSB_CONTROL_SETUP_SIZE, data, length);
		}
		libusb_fill_control_transfer(t, h, buffer, NULL, NULL, timeout);
		pthread_mutex_lock(&h->dev->ctx->lock);
		stub_complete(&h->dev->device, t, 0);
		pthread_mutex_unlock(&h->dev->ctx->lock);
		r = t->status == LIBUSB_TRANSFER_COMPLETED   ? t->actual_length
		    : t->status == LIBUSB_TRANSFER_NO_DEVICE ? LIBUSB_ERROR_NO_DEVICE
							     : LIBUSB_ERROR_PIPE;
		if (r > 0 && request_type & 0x80) {
			memcpy(data, buffer + LIBUSB_CONTROL_SETUP_SIZE, (size_t)r);
		}
	}
	libusb_free_transfer(t);
	free(buffer);
	return r;
}

int libusb_kernel_driver_active(libusb_device_handle *h, int interface)
{
	return (int)h->dev->device.options.busy;
}

int libusb_detach_kernel_driver(libusb_device_handle *h, int interface)
{
	return LIBUSB_ERROR_NOT_FOUND;
}

int libusb_attach_kernel_driver(libusb_device_handle *h, int interface)
{
	return LIBUSB_ERROR_NOT_FOUND;
}

int libusb_set_auto_detach_kernel_driver(libusb_device_handle *h, int enable)
{
	return 0;
}

int libusb_set_option(libusb_context *ctx, enum libusb_option option, ...)
{
	return 0;
}

void libusb_set_log_cb(libusb_context *ctx, libusb_log_cb cb, int mode)
{
}

const char *libusb_error_name(int code)
{
	return code == 0 ? "LIBUSB_SUCCESS" : "LIBUSB_ERROR";
}

const char *libusb_strerror(int code)
{
	return code == 0 ? "Success" : "an error of the stub libusb";
}

int libusb_has_capability(uint32_t capability)
{
	return capability == LIBUSB_CAP_HAS_CAPABILITY;
}
