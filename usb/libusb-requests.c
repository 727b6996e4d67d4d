/* SPDX-License-Identifier: MIT
 *
 * What is asked of the device as a whole, one thing at a time, in this order of precedence: halts
 * that the guest clears, then the engine's request. While one of them waits or runs nothing is
 * submitted (usb/libusb-transfers keeps it), so that it finds the device as its sender did.
 *
 * Another configuration is the broker's to set, because setting it needs privileges that the fd has
 * lost: the interfaces are given back, the broker is asked, and those of the new configuration are
 * claimed. Meanwhile no interface is claimed and a host driver could take one; the broker sees to
 * it that none does.
 */
#include "usb/libusb-internal.h"

enum { ENDPOINT_OUT_REQUEST = 0x02, CLEAR_FEATURE = 1, ENDPOINT_HALT = 0 };

/* What runs on the thread for a request, and whether transfers that are cancelled must have come
 * back before: those that read descriptors handle libusb's events there. */
static const struct {
	void (*call)(void *host);
	bool drained;
} calls[] = {
	[HOST_REQUEST_CONFIGURATION] = {device_set_configuration, true},
	[HOST_REQUEST_RELEASE] = {device_release, true},
	[HOST_REQUEST_CLAIM] = {device_claim, true},
	[HOST_REQUEST_DEFAULTS] = {device_default_alts, false},
	[HOST_REQUEST_INTERFACE] = {device_set_interface, false},
	[HOST_REQUEST_RESET] = {device_reset, true},
	[HOST_REQUEST_ALLOC_STREAMS] = {device_alloc_streams, false},
	[HOST_REQUEST_FREE_STREAMS] = {device_free_streams, false},
};

void requests_init(struct usb_host *h)
{
	list_init(&h->halts);
}

bool requests_hold(const struct usb_host *h)
{
	return h->request != HOST_REQUEST_NONE || h->halt || !list_empty(&h->halts);
}

static enum transfer_status status_of(int result)
{
	switch (result) {
	case 0:
		return TRANSFER_OK;
	case LIBUSB_ERROR_INVALID_PARAM:
	case LIBUSB_ERROR_NOT_FOUND:
	case LIBUSB_ERROR_NOT_SUPPORTED:
		return TRANSFER_INVALID;
	case LIBUSB_ERROR_PIPE:
		return TRANSFER_STALL;
	case LIBUSB_ERROR_TIMEOUT:
		return TRANSFER_TIMEOUT;
	default:
		return TRANSFER_IO_ERROR;
	}
}

static void answer(struct usb_host *h, enum transfer_status status)
{
	h->request = HOST_REQUEST_NONE;
	h->request_running = false;
	h->backend.sink->request_done(h->backend.sink_data, status);
}

static void begin(struct usb_host *h, enum host_request request)
{
	h->request = request;
	h->request_running = false;
	requests_advance(h);
}

void requests_set_configuration(struct backend *b, uint8_t value)
{
	struct usb_host *h = host_of(b);

	h->request_value = value;
	if (value == h->active) {
		/* As the host's own stack would: what drivers changed is what it was. */
		begin(h, HOST_REQUEST_DEFAULTS);
	} else if (h->listener && h->listener->set_configuration) {
		begin(h, HOST_REQUEST_RELEASE);
	} else if (h->may_configure) {
		begin(h, HOST_REQUEST_CONFIGURATION);
	} else {
		answer(h, TRANSFER_INVALID);
	}
}

void requests_set_interface(struct backend *b, uint8_t interface, uint8_t alt)
{
	struct usb_host *h = host_of(b);

	h->request_value = interface;
	h->request_alternate = alt;
	begin(h, HOST_REQUEST_INTERFACE);
}

void requests_reset(struct backend *b)
{
	begin(host_of(b), HOST_REQUEST_RESET);
}

void requests_alloc_streams(struct backend *b, uint32_t endpoints, uint32_t n_streams)
{
	struct usb_host *h = host_of(b);

	h->request_endpoints = endpoints;
	h->request_streams = n_streams;
	begin(h, HOST_REQUEST_ALLOC_STREAMS);
}

void requests_free_streams(struct backend *b, uint32_t endpoints)
{
	struct usb_host *h = host_of(b);

	h->request_endpoints = endpoints;
	begin(h, HOST_REQUEST_FREE_STREAMS);
}

bool requests_is_clear_halt(const struct transfer *t)
{
	return t->type == TRANSFER_CONTROL && t->setup.request_type == ENDPOINT_OUT_REQUEST &&
	       t->setup.request == CLEAR_FEATURE && t->setup.value == ENDPOINT_HALT &&
	       (t->setup.index & 0x0f) != 0;
}

void requests_clear_halt(struct usb_host *h, struct transfer *t)
{
	list_append(&h->halts, &t->backend);
	requests_advance(h);
}

bool requests_cancel_halt(struct usb_host *h, struct transfer *t)
{
	if (t == h->halt) {
		return true; /* comes back soon */
	}
	if (!requests_is_clear_halt(t)) {
		return false;
	}
	list_remove(&t->backend);
	transfers_complete(h, t, TRANSFER_CANCELLED, 0);
	requests_advance(h);
	return true;
}

static void run(struct usb_host *h, void (*call)(void *host))
{
	host_watch(h, false);
	blocking_run(h->blocking, call, h);
}

static void start_request(struct usb_host *h)
{
	if (h->request_running || (calls[h->request].drained && !list_empty(&h->in_flight))) {
		return;
	}
	h->request_running = true;
	run(h, calls[h->request].call);
}

void requests_advance(struct usb_host *h)
{
	if (blocking_busy(h->blocking)) {
		return;
	}
	h->halt = list_first(&h->halts, struct transfer, backend);
	if (h->halt) {
		list_remove(&h->halt->backend);
		run(h, device_clear_halt);
	} else if (h->request != HOST_REQUEST_NONE) {
		start_request(h);
	} else {
		transfers_pump(h);
	}
}

static void halt_done(struct usb_host *h)
{
	struct transfer *t = h->halt;
	enum transfer_status status = status_of(h->result);

	h->halt = NULL;
	/* The device answers one that it doesn't have so. */
	transfers_complete(h, t, status == TRANSFER_INVALID ? TRANSFER_STALL : status, 0);
}

static void request_done(struct usb_host *h)
{
	enum host_request request = h->request;
	int result = h->result;

	if (request == HOST_REQUEST_RELEASE) {
		/* Runs until backend_libusb_configured. */
		h->broker_asked = true;
		h->listener->set_configuration(h->userdata, h->request_value);
		return;
	}
	if (result == LIBUSB_ERROR_BUSY && calls[request].drained && h->listener) {
		h->listener->busy(h->userdata, h->busy_interface);
	}
	if (request == HOST_REQUEST_CLAIM && result == 0 && h->broker_error != 0) {
		result = LIBUSB_ERROR_PIPE; /* all is as it was before */
	}
	answer(h, status_of(result));
}

void requests_done(void *host)
{
	struct usb_host *h = host;

	host_watch(h, true);
	if (h->result == LIBUSB_ERROR_NO_DEVICE) {
		host_gone(h);
	}
	transfers_cancel_late(h);
	if (h->halt) {
		halt_done(h);
	} else {
		request_done(h);
	}
	requests_advance(h);
}

void backend_libusb_configured(struct backend *b, int error)
{
	struct usb_host *h = host_of(b);

	/* The thread may be busy with a halt. */
	if (h->broker_asked) {
		h->broker_asked = false;
		h->broker_error = error;
		begin(h, HOST_REQUEST_CLAIM);
	}
}
