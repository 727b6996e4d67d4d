/* SPDX-License-Identifier: MIT
 * What a USB device says of itself: speed, device descriptor, configuration; read by the engine,
 * and first rewritten by the guard.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"
#include "usb/descriptors.h"
#include "usb/guard.h"

#define HEAD (2 + 18)

static void check_endpoint(const struct descriptors *d, const struct usb_endpoint *e)
{
	bool known = e->type == USB_ENDPOINT_CONTROL;

	assert(e->max_streams <= USB_STREAMS_MAX);
	for (size_t i = 0; i < d->n_interfaces; i++) {
		known = known || d->interfaces[i].number == e->interface;
	}
	assert(known);
}

static void check(struct descriptors *d)
{
	assert(d->n_interfaces <= USB_INTERFACES_MAX && d->n_alts <= USB_ALTS_MAX);
	assert(d->n_endpoints <= USB_ALT_ENDPOINTS_MAX);
	for (size_t i = 0; i < d->n_alts; i++) {
		const struct usb_alt *a = &d->alts[i];
		uint8_t now;

		assert(a->first_endpoint <= d->n_endpoints &&
			a->n_endpoints <= d->n_endpoints - a->first_endpoint);
		must(descriptors_has_alt(d, a->interface, a->alt) == 0);
		must(descriptors_set_alt(d, a->interface, a->alt) == 0);
		must(descriptors_get_alt(d, a->interface, &now) == 0 && now == a->alt);
		for (int address = 0; address < 256; address++) {
			const struct usb_endpoint *e = descriptors_endpoint(d, (uint8_t)address);

			assert(!e || !(address & 0x70));
			if (e) {
				check_endpoint(d, e);
			}
		}
	}
}

static void submit(void *userdata, struct transfer *t)
{
}

static void refused(void *userdata)
{
}

static void guard(const struct usb_description *device, uint8_t how)
{
	static const struct guard_ops ops = {
		.submit = submit, .complete = submit, .refused = refused};
	const struct guard_options options = {
		.interfaces = how & 2 ? 0x5 : UINT32_MAX,
		.read_only = how & 4,
	};
	struct usb_description *view = calloc(1, sizeof(*view));
	struct descriptors *d = malloc(sizeof(*d));
	struct guard *g = NULL;

	must(view && d && guard_create(&options, &ops, NULL, &g) == 0);
	if (guard_describe(g, device, view) == 0) {
		assert(view->config_size <= sizeof(view->config));
		if (descriptors_parse(view, d) == 0) {
			for (size_t i = 0; i < d->n_alts; i++) {
				assert(!(how & 2) || d->alts[i].interface == 0 ||
					d->alts[i].interface == 2);
			}
			guard_update(g, d);
			check(d);
		}
	}
	guard_destroy(g);
	free(d);
	free(view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct usb_description *device;
	struct descriptors *d;

	if (size < HEAD) {
		return 0;
	}
	device = calloc(1, sizeof(*device));
	d = malloc(sizeof(*d));
	must(device && d);
	device->speed = data[0] % 4;
	memcpy(device->device, data + 2, sizeof(device->device));
	device->config_size = MIN(size - HEAD, sizeof(device->config));
	memcpy(device->config, data + HEAD, device->config_size);
	if (descriptors_parse(device, d) == 0) {
		check(d);
	}
	guard(device, data[1]);
	free(d);
	free(device);
	return 0;
}
