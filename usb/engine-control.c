/* SPDX-License-Identifier: MIT
 *
 * Requests to the device as a whole: configuration, altsettings, reset (and usb/streams.c's). At
 * most one is with the backend; the guest's packets wait until it is answered, so that what follows
 * sees its result and nothing has to be queued. The transfers that a request makes meaningless are
 * cancelled first.
 */
#include "usb/engine-internal.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

/* ep_info before interface_info before device_connect or the status: a guest uses the endpoints as
 * soon as it has the latter. */
void engine_control_announce(struct engine *e)
{
	redir_send_ep_info(e->redir, &e->descriptors);
	redir_send_interface_info(e->redir, &e->descriptors);
}

void engine_control_begin(struct engine *e, enum engine_request request, uint64_t id)
{
	e->request = request;
	e->request_id = id;
	sd_event_now(e->event, CLOCK_MONOTONIC, &e->request_us);
	engine_watch(e);
	redir_hold(e->redir, true);
}

/* Ends what goes on on one interface, or on all (-1). */
static void interrupt_traffic(struct engine *e, int interface)
{
	receiving_forget(e, interface);
	iso_forget(e, interface);
	streams_forget(e, interface);
	if (e->guard) {
		guard_forget(e->guard, interface);
	}
	engine_data_cancel_all(e, interface, -1);
}

void engine_control_reset(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	engine_control_begin(e, ENGINE_REQUEST_RESET, 0);
	interrupt_traffic(e, -1);
	e->backend->ops->reset(e->backend);
}

void engine_control_set_configuration(void *userdata, uint64_t id, uint8_t value)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (e->guard && !guard_may_configure(e->guard, value)) {
		e->count.refused++;
		redir_send_configuration_status(
			e->redir, id, TRANSFER_STALL, e->descriptors.configuration);
		return;
	}
	engine_control_begin(e, ENGINE_REQUEST_CONFIGURATION, id);
	interrupt_traffic(e, -1);
	e->backend->ops->set_configuration(e->backend, value);
}

void engine_control_get_configuration(void *userdata, uint64_t id)
{
	struct engine *e = userdata;

	if (e->phase == ENGINE_RUNNING) {
		redir_send_configuration_status(
			e->redir, id, TRANSFER_OK, e->descriptors.configuration);
	}
}

void engine_control_set_alt(void *userdata, uint64_t id, uint8_t interface, uint8_t alt)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (descriptors_has_alt(&e->descriptors, interface, alt) < 0) {
		e->count.refused++;
		redir_send_alt_status(e->redir, id, TRANSFER_INVALID, interface, alt);
		return;
	}
	engine_control_begin(e, ENGINE_REQUEST_ALT, id);
	e->request_value = interface;
	e->request_alternate = alt;
	interrupt_traffic(e, interface);
	e->backend->ops->set_interface(e->backend, interface, alt);
}

void engine_control_get_alt(void *userdata, uint64_t id, uint8_t interface)
{
	struct engine *e = userdata;
	uint8_t alt = 0;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (descriptors_get_alt(&e->descriptors, interface, &alt) < 0) {
		e->count.refused++;
		redir_send_alt_status(e->redir, id, TRANSFER_INVALID, interface, 0);
		return;
	}
	redir_send_alt_status(e->redir, id, TRANSFER_OK, interface, alt);
}

/* What a device that was reset has to have kept to be the same one: class, subclass and protocol;
 * vendor, product and version; the serial number's index; the active configuration, which stands
 * for all that the guest and the policy know of it beyond that. */
static bool same_device(const struct usb_description *a, const struct usb_description *b)
{
	return memcmp(a->device + 4, b->device + 4, 3) == 0 &&
	       memcmp(a->device + 8, b->device + 8, 6) == 0 && a->device[16] == b->device[16] &&
	       a->config_size == b->config_size &&
	       memcmp(a->config, b->config, a->config_size) == 0;
}

/* Reads the descriptors again. 0 or -errno. */
static int describe(struct engine *e, struct usb_description *out)
{
	int r = e->backend->ops->describe(e->backend, out);

	if (r >= 0 && out->config_size > sizeof(out->config)) {
		r = -EBADMSG;
	}
	return r;
}

static void update_guard(struct engine *e)
{
	if (e->guard) {
		guard_update(e->guard, &e->descriptors);
		e->guarded = guard_watched(e->guard);
	}
}

int engine_control_describe(struct engine *e, const struct usb_description *d)
{
	struct usb_description view;
	int r;

	if (e->guard) {
		r = guard_describe(e->guard, d, &view);
		r = r < 0 ? r : descriptors_parse(&view, &e->descriptors);
	} else {
		r = descriptors_parse(d, &e->descriptors);
	}
	if (r >= 0) {
		e->description = *d;
		update_guard(e);
	}
	return r;
}

static void configuration_done(struct engine *e, enum transfer_status status)
{
	if (status == TRANSFER_OK) {
		struct usb_description d = {0};
		int r = describe(e, &d);

		if (r >= 0) {
			r = engine_control_describe(e, &d);
		}

		if (r < 0) {
			engine_stop(e, WORKER_DONE_DEVICE_LOST, -r, "descriptors unreadable");
			return;
		}
		engine_control_announce(e);
	}
	redir_send_configuration_status(
		e->redir, e->request_id, status, e->descriptors.configuration);
	if (status == TRANSFER_OK) {
		engine_set_state(e, e->descriptors.configuration ? WORKER_STATE_CONFIGURED
								 : WORKER_STATE_ATTACHED);
	}
}

static void alt_done(struct engine *e, enum transfer_status status)
{
	uint8_t alt = 0;

	if (status == TRANSFER_OK &&
		descriptors_set_alt(&e->descriptors, e->request_value, e->request_alternate) >= 0) {
		update_guard(e);
		engine_control_announce(e);
	}
	/* The status names what is now, not what was wished. */
	if (descriptors_get_alt(&e->descriptors, e->request_value, &alt) < 0) {
		status = TRANSFER_INVALID;
	}
	redir_send_alt_status(e->redir, e->request_id, status, e->request_value, alt);
}

static void reset_done(struct engine *e, enum transfer_status status)
{
	struct usb_description d = {0};
	struct usb_endpoint active[USB_ENDPOINTS_MAX];
	int r = status == TRANSFER_OK ? describe(e, &d) : -EIO;

	if (r >= 0 && !same_device(&d, &e->description)) {
		engine_stop(e, WORKER_DONE_DEVICE_LOST, ENODEV, "another device after the reset");
		return;
	}
	memcpy(active, e->descriptors.active, sizeof(active));
	if (r >= 0) {
		r = engine_control_describe(e, &d);
	}
	if (r < 0) {
		engine_stop(e, WORKER_DONE_DEVICE_LOST, -r, "reset failed");
	} else if (memcmp(active, e->descriptors.active, sizeof(active)) != 0) {
		engine_control_announce(e); /* the altsettings are back at 0 */
	}
}

void engine_control_done(void *userdata, enum transfer_status status)
{
	struct engine *e = userdata;
	enum engine_request request = e->request;

	e->request = ENGINE_REQUEST_NONE;
	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (request == ENGINE_REQUEST_CONFIGURATION) {
		configuration_done(e, status);
	} else if (request == ENGINE_REQUEST_ALT) {
		alt_done(e, status);
	} else if (request == ENGINE_REQUEST_RESET) {
		reset_done(e, status);
	} else if (request != ENGINE_REQUEST_NONE) {
		streams_done(e, request, status);
	}
	redir_hold(e->redir, false);
}
