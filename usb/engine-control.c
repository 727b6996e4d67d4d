/* SPDX-License-Identifier: MIT
 *
 * Requests to the device as a whole: configuration, altsettings, reset. At most one is with the
 * backend; the guest's packets wait until it is answered, so that what follows sees its result and
 * nothing has to be queued. The transfers that a request makes meaningless are cancelled first.
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

static void begin_request(struct engine *e, enum engine_request request, uint64_t id, uint8_t value,
	uint8_t alternate)
{
	e->request = request;
	e->request_id = id;
	e->request_value = value;
	e->request_alternate = alternate;
	redir_hold(e->redir, true);
}

void engine_control_reset(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	begin_request(e, ENGINE_REQUEST_RESET, 0, 0, 0);
	interrupt_forget(e, -1);
	engine_data_cancel_all(e, -1, -1);
	e->backend->ops->reset(e->backend);
}

void engine_control_set_configuration(void *userdata, uint64_t id, uint8_t value)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	begin_request(e, ENGINE_REQUEST_CONFIGURATION, id, value, 0);
	interrupt_forget(e, -1);
	engine_data_cancel_all(e, -1, -1);
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
	begin_request(e, ENGINE_REQUEST_ALT, id, interface, alt);
	interrupt_forget(e, interface);
	engine_data_cancel_all(e, interface, -1);
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

/* Reads the descriptors again. Tells whether they are others than before. 0 or -errno. */
static int describe(struct engine *e, bool *changed_out)
{
	struct usb_description d = {0};
	int r = e->backend->ops->describe(e->backend, &d);

	if (r >= 0) {
		r = descriptors_parse(&d, &e->descriptors);
	}
	if (r < 0) {
		return r;
	}
	*changed_out = d.config_size != e->description.config_size ||
		       memcmp(d.config, e->description.config, d.config_size) != 0 ||
		       memcmp(d.device, e->description.device, sizeof(d.device)) != 0;
	e->description = d;
	return 0;
}

static void configuration_done(struct engine *e, enum transfer_status status)
{
	bool changed;

	if (status == TRANSFER_OK) {
		int r = describe(e, &changed);

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
	bool changed = false;
	int r = status == TRANSFER_OK ? describe(e, &changed) : -EIO;

	if (r < 0) {
		engine_stop(e, WORKER_DONE_DEVICE_LOST, -r, "reset failed");
	} else if (changed) {
		engine_control_announce(e);
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
	}
	redir_hold(e->redir, false);
}
