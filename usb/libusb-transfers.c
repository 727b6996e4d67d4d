/* SPDX-License-Identifier: MIT
 *
 * Transfers on their way through libusb. The data of all but control transfers is the engine's
 * buffer itself; a control transfer's has its setup packet in front, and goes through a small
 * buffer of its own.
 *
 * What doesn't fit the budget waits in order, one queue per endpoint. Endpoints of one share take
 * turns, one transfer each; the one whose transfer doesn't fit is the next, and nobody passes it,
 * so that large transfers aren't starved by small ones. When the kernel has no memory (usbfs's is
 * the whole host's), submitting goes on after the next completion, or after RETRY_US, and what
 * could not be submitted for REFUSED_US is an I/O error.
 */
#include "usb/libusb-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/descriptors.h"

#define RETRY_US   (10 * 1000)
#define REFUSED_US (2 * 1000 * 1000)

static enum usbfs_share share_of(const struct transfer *t)
{
	if (t->type == TRANSFER_CONTROL) {
		return USBFS_SHARE_CONTROL;
	}
	if (t->type == TRANSFER_INTERRUPT) {
		return USBFS_SHARE_INTERRUPT;
	}
	return transfer_is_in(t) ? USBFS_SHARE_IN : USBFS_SHARE_OUT;
}

/* Control transfers in both directions are one line, whatever their endpoint is. */
static unsigned int slot_of(const struct transfer *t)
{
	return t->type == TRANSFER_CONTROL ? 0 : descriptors_slot(t->endpoint);
}

static struct urb *urb_of(const struct transfer *t)
{
	return (struct urb *)(uintptr_t)t->backend_value;
}

void transfers_complete(
	struct usb_host *h, struct transfer *t, enum transfer_status status, uint32_t actual)
{
	t->status = (uint8_t)status;
	t->actual = actual;
	t->backend_value = 0;
	h->backend.sink->completed(h->backend.sink_data, t);
}

/* ---- libusb transfers, kept for the next ---- */

static void urb_free(struct urb *u)
{
	libusb_free_transfer(u->usb);
	free(u->control);
	free(u);
}

static struct urb *urb_new(struct usb_host *h, enum urb_kind kind)
{
	struct urb *u = calloc(1, sizeof(*u));

	if (!u) {
		return NULL;
	}
	u->host = h;
	u->kind = (uint8_t)kind;
	list_init(&u->link);
	u->usb = libusb_alloc_transfer(kind == URB_ISO ? ISO_PACKETS_MAX : 0);
	if (kind == URB_CONTROL) {
		u->control = malloc(LIBUSB_CONTROL_SETUP_SIZE + CONTROL_BYTES_MAX);
	}
	if (!u->usb || (kind == URB_CONTROL && !u->control)) {
		urb_free(u);
		return NULL;
	}
	return u;
}

static struct urb *urb_get(struct usb_host *h, const struct transfer *t)
{
	enum urb_kind kind = t->type == TRANSFER_CONTROL ? URB_CONTROL
			     : t->type == TRANSFER_ISO   ? URB_ISO
							 : URB_DATA;
	struct urb *u = list_first(&h->free_urbs[kind], struct urb, link);

	if (u) {
		list_remove(&u->link);
		return u;
	}
	return urb_new(h, kind);
}

static void urb_put(struct urb *u)
{
	u->t = NULL;
	u->cancel = false;
	list_prepend(&u->host->free_urbs[u->kind], &u->link);
}

/* ---- Back from the device ---- */

static enum transfer_status status_of(enum libusb_transfer_status status)
{
	switch (status) {
	case LIBUSB_TRANSFER_COMPLETED:
		return TRANSFER_OK;
	case LIBUSB_TRANSFER_TIMED_OUT:
		return TRANSFER_TIMEOUT;
	case LIBUSB_TRANSFER_CANCELLED:
		return TRANSFER_CANCELLED;
	case LIBUSB_TRANSFER_STALL:
		return TRANSFER_STALL;
	case LIBUSB_TRANSFER_OVERFLOW:
		return TRANSFER_BABBLE;
	default: /* ERROR, NO_DEVICE */
		return TRANSFER_IO_ERROR;
	}
}

static void read_packets(const struct libusb_transfer *usb, struct transfer *t)
{
	for (uint32_t i = 0; i < t->n_packets; i++) {
		const struct libusb_iso_packet_descriptor *d = &usb->iso_packet_desc[i];
		struct iso_packet *p = &t->packets[i];

		p->status = (uint8_t)status_of(d->status);
		p->actual = MIN(d->actual_length, p->length);
	}
}

static void LIBUSB_CALL on_completed(struct libusb_transfer *usb)
{
	struct urb *u = usb->user_data;
	struct usb_host *h = u->host;
	struct transfer *t = u->t;
	uint32_t actual = MIN((uint32_t)usb->actual_length, t->length);

	if (u->kind == URB_CONTROL && transfer_is_in(t) && actual > 0) {
		memcpy(t->data, u->control + LIBUSB_CONTROL_SETUP_SIZE, actual);
	} else if (u->kind == URB_ISO) {
		read_packets(usb, t);
	}
	if (usb->status == LIBUSB_TRANSFER_NO_DEVICE) {
		host_gone(h);
	}
	h->starved = false;
	h->completed++;
	usbfs_budget_give(&h->budget, u->share, u->charge);
	list_remove(&u->link);
	urb_put(u);
	transfers_complete(h, t, status_of(usb->status), actual);
}

/* ---- To the device ---- */

static void fill_control(struct urb *u, const struct transfer *t)
{
	uint8_t *p = u->control;

	p[0] = t->setup.request_type;
	p[1] = t->setup.request;
	put_le16(p + 2, t->setup.value);
	put_le16(p + 4, t->setup.index);
	put_le16(p + 6, (uint16_t)t->length);
	if (!transfer_is_in(t) && t->length > 0) {
		memcpy(p + LIBUSB_CONTROL_SETUP_SIZE, t->data, t->length);
	}
	u->usb->type = LIBUSB_TRANSFER_TYPE_CONTROL;
	u->usb->buffer = p;
	u->usb->length = (int)(LIBUSB_CONTROL_SETUP_SIZE + t->length);
}

static void fill_packets(struct libusb_transfer *usb, const struct transfer *t)
{
	usb->type = LIBUSB_TRANSFER_TYPE_ISOCHRONOUS;
	usb->num_iso_packets = (int)t->n_packets;
	for (uint32_t i = 0; i < t->n_packets; i++) {
		usb->iso_packet_desc[i].length = t->packets[i].length;
	}
}

static void fill(struct urb *u, struct transfer *t)
{
	struct libusb_transfer *usb = u->usb;

	usb->dev_handle = u->host->handle;
	usb->endpoint = t->endpoint;
	usb->callback = on_completed;
	usb->user_data = u;
	usb->buffer = t->data;
	usb->length = (int)t->length;
	if (t->type == TRANSFER_CONTROL) {
		fill_control(u, t);
	} else if (t->type == TRANSFER_ISO) {
		fill_packets(usb, t);
	} else if (t->type == TRANSFER_INTERRUPT) {
		usb->type = LIBUSB_TRANSFER_TYPE_INTERRUPT;
	} else if (t->stream_id != 0) {
		usb->type = LIBUSB_TRANSFER_TYPE_BULK_STREAM;
		libusb_transfer_set_stream_id(usb, t->stream_id);
	} else {
		usb->type = LIBUSB_TRANSFER_TYPE_BULK;
	}
}

static void wait_in_line(struct usb_host *h, struct transfer *t, bool first)
{
	enum usbfs_share share = share_of(t);
	unsigned int slot = slot_of(t);

	if (first) {
		list_prepend(&h->waiting[share][slot], &t->backend);
	} else {
		list_append(&h->waiting[share][slot], &t->backend);
	}
	h->waiting_slots[share] |= UINT32_C(1) << slot;
}

static void leave_line(struct usb_host *h, struct transfer *t)
{
	enum usbfs_share share = share_of(t);
	unsigned int slot = slot_of(t);

	list_remove(&t->backend);
	if (list_empty(&h->waiting[share][slot])) {
		h->waiting_slots[share] &= ~(UINT32_C(1) << slot);
	}
}

/* Whether the kernel's refusal may pass; t waits at the head of its line then. */
static bool try_later(struct usb_host *h, struct transfer *t)
{
	uint64_t now = 0;

	(void)sd_event_now(h->event, CLOCK_MONOTONIC, &now);
	if (h->starved_since == 0) {
		h->starved_since = now;
	}
	if (now - h->starved_since >= REFUSED_US ||
		sd_event_source_set_time_relative(h->retry, RETRY_US) < 0 ||
		sd_event_source_set_enabled(h->retry, SD_EVENT_ONESHOT) < 0) {
		return false;
	}
	h->starved = true;
	wait_in_line(h, t, true);
	return true;
}

static enum transfer_status refusal_of(int error)
{
	return error == LIBUSB_ERROR_INVALID_PARAM || error == LIBUSB_ERROR_NOT_FOUND
		       ? TRANSFER_INVALID
		       : TRANSFER_IO_ERROR;
}

/* It is charged already. */
static void start(struct usb_host *h, struct transfer *t, uint32_t charge)
{
	struct urb *u = urb_get(h, t);
	int r = LIBUSB_ERROR_IO;
	bool no_memory = false;

	if (u) {
		u->t = t;
		u->charge = charge;
		u->share = (uint8_t)share_of(t);
		fill(u, t);
		errno = 0;
		r = libusb_submit_transfer(u->usb);
		/* libusb has a word for it for bulk and interrupt only. */
		no_memory = r == LIBUSB_ERROR_NO_MEM || (r == LIBUSB_ERROR_IO && errno == ENOMEM);
	}
	if (r == 0) {
		h->starved_since = 0;
		h->submitted = true;
		t->backend_value = (uintptr_t)u;
		list_append(&h->in_flight, &u->link);
		return;
	}
	usbfs_budget_give(&h->budget, share_of(t), charge);
	if (u) {
		urb_put(u);
	}
	if (no_memory && try_later(h, t)) {
		return;
	}
	if (r == LIBUSB_ERROR_NO_DEVICE) {
		host_gone(h);
	}
	transfers_complete(h, t, refusal_of(r), 0);
}

static uint32_t charge_of(const struct transfer *t)
{
	return t->length + USBFS_URB_OVERHEAD;
}

/* The next slot of slots in turn; slots is not empty. */
static unsigned int next_slot(uint32_t slots, uint32_t turn)
{
	uint32_t behind = turn < HOST_SLOTS ? slots & (UINT32_MAX << turn) : 0;

	return (unsigned int)__builtin_ctz(behind ? behind : slots);
}

static void pump_share(struct usb_host *h, enum usbfs_share share)
{
	while (h->waiting_slots[share] && !h->starved && !requests_hold(h)) {
		unsigned int slot = next_slot(h->waiting_slots[share], h->turn[share]);
		struct transfer *t = list_first(&h->waiting[share][slot], struct transfer, backend);

		if (!usbfs_budget_take(&h->budget, share, charge_of(t))) {
			h->turn[share] = slot;
			return;
		}
		h->turn[share] = slot + 1;
		leave_line(h, t);
		start(h, t, charge_of(t));
	}
}

void transfers_pump(struct usb_host *h)
{
	for (int share = 0; share < USBFS_SHARE_COUNT_; share++) {
		pump_share(h, (enum usbfs_share)share);
	}
}

void transfers_submit(struct backend *b, struct transfer *t)
{
	struct usb_host *h = host_of(b);
	enum usbfs_share share = share_of(t);

	list_init(&t->backend);
	t->backend_value = 0;
	if (h->gone) {
		transfers_complete(h, t, TRANSFER_IO_ERROR, 0);
	} else if (requests_is_clear_halt(t)) {
		requests_clear_halt(h, t);
	} else if (t->type == TRANSFER_CONTROL && t->length > CONTROL_BYTES_MAX) {
		transfers_complete(h, t, TRANSFER_INVALID, 0);
	} else if (h->waiting_slots[share] || h->starved || requests_hold(h) ||
		   !usbfs_budget_take(&h->budget, share, charge_of(t))) {
		wait_in_line(h, t, false);
	} else {
		start(h, t, charge_of(t));
	}
}

static void cancel_urb(struct usb_host *h, struct urb *u)
{
	/* NOT_FOUND: it is done already and comes. */
	if (libusb_cancel_transfer(u->usb) == LIBUSB_ERROR_NO_DEVICE) {
		host_gone(h);
	}
}

void transfers_cancel(struct backend *b, struct transfer *t)
{
	struct usb_host *h = host_of(b);
	struct urb *u = urb_of(t);

	if (requests_cancel_halt(h, t)) {
		return;
	}
	if (!u) {
		leave_line(h, t);
		transfers_complete(h, t, TRANSFER_CANCELLED, 0);
	} else if (blocking_busy(h->blocking)) {
		u->cancel = true;
	} else {
		cancel_urb(h, u);
	}
}

void transfers_cancel_late(struct usb_host *h)
{
	struct urb *u;

	list_for_each (u, &h->in_flight, link) {
		if (u->cancel) {
			u->cancel = false;
			cancel_urb(h, u);
		}
	}
}

static int handle_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct usb_host *h = userdata;

	h->starved = false;
	requests_advance(h);
	return 0;
}

int transfers_init(struct usb_host *h)
{
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(h->free_urbs); i++) {
		list_init(&h->free_urbs[i]);
	}
	for (size_t i = 0; i < USBFS_SHARE_COUNT_; i++) {
		for (size_t k = 0; k < HOST_SLOTS; k++) {
			list_init(&h->waiting[i][k]);
		}
	}
	list_init(&h->in_flight);
	r = sd_event_add_time_relative(h->event, &h->retry, CLOCK_MONOTONIC, 0, 0, handle_retry, h);
	return r < 0 ? r : sd_event_source_set_enabled(h->retry, SD_EVENT_OFF);
}

void transfers_finish(struct usb_host *h)
{
	struct urb *u, *tmp;

	assert(list_empty(&h->in_flight));
	for (size_t i = 0; i < ARRAY_SIZE(h->budget.used); i++) {
		assert(h->budget.used[i] == 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(h->free_urbs); i++) {
		list_for_each_safe (u, tmp, &h->free_urbs[i], link) {
			urb_free(u);
		}
	}
	sd_event_source_disable_unref(h->retry);
}
