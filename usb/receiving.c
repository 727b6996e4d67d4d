/* SPDX-License-Identifier: MIT
 *
 * Receiving: the guest starts it once per interrupt IN endpoint, or (buffered bulk receiving, which
 * QEMU uses for serial adapters) bulk IN endpoint, and from then on what the device sends goes to
 * it unasked. A fixed number of transfers is kept submitted. While the guest doesn't read they are
 * not submitted again, so that a chatty device can't fill our memory; the device holds its data
 * back then, as it would for a slow host.
 *
 * An end that the guest didn't ask for is always told as a stall: only then does QEMU know that it
 * has ended, and start it again.
 *
 * A stall of an interrupt endpoint ends it, and the guest's driver sees the stall and clears the
 * halt. A guest's driver can't see one of buffered bulk receiving, so the halt is cleared here; but
 * not as often as a device may like: a second one within STALL_GAP_US ends it.
 */
#include "usb/engine-internal.h"

/* One is being delivered while the next waits at the device. */
#define INTERRUPT_DEPTH 2
/* As libusbredirhost's, which guests know; QEMU asks for 5 of 512 bytes. */
#define BULK_DEPTH_MAX 16
#define STALL_GAP_US   (100 * 1000)

/* USB 2.0, 9.4.1 */
enum { CLEAR_FEATURE = 1, ENDPOINT_RECIPIENT = 2 };

static uint8_t address(unsigned int slot)
{
	return (uint8_t)(0x80 | (slot & 0x0f));
}

static void tell(struct engine *e, unsigned int slot, uint64_t id, enum transfer_status status)
{
	const struct receiving *r = &e->receiving[slot];

	if (r->type == TRANSFER_INTERRUPT) {
		redir_send_interrupt_status(e->redir, id, status, address(slot));
	} else {
		redir_send_bulk_status(e->redir, id, status, address(slot), r->stream_id);
	}
}

/* Ends it unasked. */
static void end(struct engine *e, unsigned int slot)
{
	e->receiving[slot].started = false;
	engine_data_cancel_all(e, -1, address(slot));
	tell(e, slot, 0, TRANSFER_STALL);
}

/* Fills endpoint slot up. False if a bound forbids even one. */
static bool fill(struct engine *e, unsigned int slot)
{
	struct receiving *r = &e->receiving[slot];

	if (r->filling || r->clearing) {
		return true; /* completed from within submit: the loop further up goes on */
	}
	r->filling = true;
	while (r->started && !r->clearing && r->n_submitted < r->depth &&
		!redir_congested(e->redir)) {
		struct transfer *t = engine_data_get(e, r->bytes);

		if (!t) {
			break;
		}
		t->owner = TRANSFER_OF_RECEIVING;
		t->type = r->type;
		t->endpoint = address(slot);
		t->stream_id = r->stream_id;
		r->n_submitted++;
		engine_data_submit(e, t);
	}
	r->filling = false;
	return !r->started || r->clearing || r->n_submitted > 0 || redir_congested(e->redir);
}

static void refill(struct engine *e, unsigned int slot)
{
	if (!fill(e, slot)) {
		e->count.refused++;
		end(e, slot);
	}
}

/* r is what is wanted; only its choices are set. */
static void start(struct engine *e, uint64_t id, unsigned int slot, const struct receiving *wanted)
{
	struct receiving *r = &e->receiving[slot];

	r->started = true;
	r->type = wanted->type;
	r->depth = wanted->depth;
	r->bytes = wanted->bytes;
	r->stream_id = wanted->stream_id;
	r->next_id = 0;
	/* Before the first data. */
	tell(e, slot, id, TRANSFER_OK);
	refill(e, slot);
}

static void stop(struct engine *e, uint64_t id, unsigned int slot)
{
	e->receiving[slot].started = false;
	engine_data_cancel_all(e, -1, address(slot));
	tell(e, slot, id, TRANSFER_OK);
}

void receiving_start_interrupt(void *userdata, uint64_t id, uint8_t endpoint)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	unsigned int slot = descriptors_slot(endpoint);

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_INTERRUPT || e->receiving[slot].started) {
		e->count.refused++;
		redir_send_interrupt_status(e->redir, id, TRANSFER_INVALID, endpoint);
		return;
	}
	start(e, id, slot,
		&(struct receiving){
			.type = TRANSFER_INTERRUPT,
			.depth = INTERRUPT_DEPTH,
			.bytes = ep->interval_bytes,
		});
}

void receiving_stop_interrupt(void *userdata, uint64_t id, uint8_t endpoint)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_INTERRUPT) {
		e->count.refused++;
		redir_send_interrupt_status(e->redir, id, TRANSFER_INVALID, endpoint);
		return;
	}
	e->receiving[descriptors_slot(endpoint)].type = TRANSFER_INTERRUPT;
	stop(e, id, descriptors_slot(endpoint));
}

/* A transfer that isn't whole packets would babble. */
static bool bulk_fits(const struct engine *e, uint8_t endpoint, uint32_t stream_id, uint32_t bytes,
	uint8_t transfers)
{
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);

	return ep && ep->type == USB_ENDPOINT_BULK && e->backend->ops->bulk_receiving &&
	       !engine_guarded(e, endpoint) && !e->receiving[descriptors_slot(endpoint)].started &&
	       streams_valid(e, endpoint, stream_id) && ep->max_packet_size > 0 && bytes > 0 &&
	       bytes <= TRANSFER_BYTES_MAX && bytes % ep->max_packet_size == 0 && transfers > 0 &&
	       transfers <= BULK_DEPTH_MAX;
}

void receiving_start_bulk(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id,
	uint32_t bytes_per_transfer, uint8_t transfers)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!bulk_fits(e, endpoint, stream_id, bytes_per_transfer, transfers)) {
		e->count.refused++;
		redir_send_bulk_status(e->redir, id, TRANSFER_INVALID, endpoint, stream_id);
		return;
	}
	start(e, id, descriptors_slot(endpoint),
		&(struct receiving){
			.type = TRANSFER_BULK,
			.depth = transfers,
			.bytes = bytes_per_transfer,
			.stream_id = stream_id,
		});
}

void receiving_stop_bulk(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	struct receiving *r = &e->receiving[descriptors_slot(endpoint)];

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_BULK || !(endpoint & 0x80) ||
		(r->started && r->stream_id != stream_id)) {
		e->count.refused++;
		redir_send_bulk_status(e->redir, id, TRANSFER_INVALID, endpoint, stream_id);
		return;
	}
	r->type = TRANSFER_BULK;
	r->stream_id = stream_id;
	if (r->started) {
		stop(e, id, descriptors_slot(endpoint));
	} else {
		tell(e, descriptors_slot(endpoint), id, TRANSFER_OK); /* ended meanwhile */
	}
}

/* Of buffered bulk receiving: the backend does it as the host's stack does. */
static void clear_halt(struct engine *e, unsigned int slot)
{
	struct receiving *r = &e->receiving[slot];
	uint64_t now;
	struct transfer *t;

	sd_event_now(e->event, CLOCK_MONOTONIC, &now);
	t = r->cleared_us == 0 || now - r->cleared_us >= STALL_GAP_US ? engine_data_get(e, 0)
								      : NULL;
	if (!t) {
		end(e, slot);
		return;
	}
	r->cleared_us = now;
	r->clearing = true;
	/* They would stall, too. */
	t->owner = TRANSFER_OF_CLEARING;
	t->id = slot;
	t->type = TRANSFER_CONTROL;
	t->setup = (struct usb_setup){
		.request_type = ENDPOINT_RECIPIENT,
		.request = CLEAR_FEATURE,
		.index = address(slot),
	};
	engine_data_cancel_all(e, -1, address(slot));
	engine_data_submit(e, t);
}

void receiving_cleared(struct engine *e, struct transfer *t)
{
	unsigned int slot = (unsigned int)t->id;
	struct receiving *r = &e->receiving[slot];
	bool done = t->status == TRANSFER_OK;

	transfer_put(e->pool, t);
	r->clearing = false;
	if (!r->started) {
		return;
	}
	if (done) {
		refill(e, slot);
	} else {
		end(e, slot);
	}
}

void receiving_completed(struct engine *e, struct transfer *t)
{
	unsigned int slot = descriptors_slot(t->endpoint);
	struct receiving *r = &e->receiving[slot];
	enum transfer_status status = t->status;

	r->n_submitted--;
	if (!r->started || t->cancelled) {
		transfer_put(e->pool, t);
		refill(e, slot); /* it was started again meanwhile */
		return;
	}
	if (status == TRANSFER_OK || status == TRANSFER_BABBLE || status == TRANSFER_TIMEOUT) {
		t->id = r->next_id++;
		redir_send_transfer(e->redir, t);
		refill(e, slot);
		return;
	}
	transfer_put(e->pool, t);
	if (status == TRANSFER_STALL && r->type == TRANSFER_BULK) {
		if (!r->clearing) {
			clear_halt(e, slot);
		}
	} else {
		end(e, slot);
	}
}

void receiving_resume(struct engine *e)
{
	for (unsigned int slot = 16; slot < USB_ENDPOINTS_MAX; slot++) {
		refill(e, slot);
	}
}

void receiving_forget(struct engine *e, int interface)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (interface < 0 || e->descriptors.active[slot].interface == interface) {
			e->receiving[slot].started = false;
		}
	}
}
