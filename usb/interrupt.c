/* SPDX-License-Identifier: MIT
 *
 * Interrupt receiving: the guest starts it once per IN endpoint, and from then on every report of
 * the device goes to it unasked. INTERRUPT_DEPTH transfers are kept submitted. While the guest
 * doesn't read they are not submitted again, so that a chatty device can't fill our memory; the
 * device holds its reports back then, as it would for a slow host.
 */
#include "usb/engine-internal.h"

static uint32_t report_bytes(const struct engine *e, unsigned int slot)
{
	return e->descriptors.active[slot].max_packet_size;
}

/* Fills endpoint slot up. False if a bound forbids even one. */
static bool fill(struct engine *e, unsigned int slot)
{
	struct interrupt *i = &e->interrupts[slot];

	if (i->filling) {
		return true; /* completed from within submit: the loop further up goes on */
	}
	i->filling = true;
	while (i->started && i->n_submitted < INTERRUPT_DEPTH && !redir_congested(e->redir)) {
		struct transfer *t = engine_data_get(e, report_bytes(e, slot));

		if (!t) {
			break;
		}
		t->receiving = true;
		t->type = TRANSFER_INTERRUPT;
		t->endpoint = (uint8_t)(0x80 | (slot & 0x0f));
		i->n_submitted++;
		engine_data_submit(e, t);
	}
	i->filling = false;
	return !i->started || i->n_submitted > 0 || redir_congested(e->redir);
}

static void refill(struct engine *e, unsigned int slot)
{
	if (!fill(e, slot)) {
		e->interrupts[slot].started = false;
		e->count.refused++;
		redir_send_interrupt_status(
			e->redir, 0, TRANSFER_IO_ERROR, (uint8_t)(0x80 | (slot & 0x0f)));
	}
}

void interrupt_start(void *userdata, uint64_t id, uint8_t endpoint)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	struct interrupt *i = &e->interrupts[descriptors_slot(endpoint)];

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_INTERRUPT || i->started) {
		e->count.refused++;
		redir_send_interrupt_status(e->redir, id, TRANSFER_INVALID, endpoint);
		return;
	}
	i->started = true;
	i->next_id = 0;
	/* Before the first report. */
	redir_send_interrupt_status(e->redir, id, TRANSFER_OK, endpoint);
	refill(e, descriptors_slot(endpoint));
}

void interrupt_stop(void *userdata, uint64_t id, uint8_t endpoint)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	enum transfer_status status = TRANSFER_OK;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_INTERRUPT) {
		status = TRANSFER_INVALID;
		e->count.refused++;
	} else {
		e->interrupts[descriptors_slot(endpoint)].started = false;
		engine_data_cancel_all(e, -1, endpoint);
	}
	redir_send_interrupt_status(e->redir, id, status, endpoint);
}

void interrupt_completed(struct engine *e, struct transfer *t)
{
	unsigned int slot = descriptors_slot(t->endpoint);
	struct interrupt *i = &e->interrupts[slot];
	enum transfer_status status = t->status;
	uint8_t endpoint = t->endpoint;

	i->n_submitted--;
	if (!i->started || status == TRANSFER_CANCELLED) {
		transfer_put(e->pool, t);
		refill(e, slot); /* it was started again meanwhile */
		return;
	}
	if (status == TRANSFER_OK || status == TRANSFER_BABBLE || status == TRANSFER_TIMEOUT) {
		t->id = i->next_id++;
		redir_send_transfer(e->redir, t);
		refill(e, slot);
		return;
	}
	/* A stall or an error ends it, and the guest decides whether to start again. */
	transfer_put(e->pool, t);
	i->started = false;
	engine_data_cancel_all(e, -1, endpoint);
	redir_send_interrupt_status(e->redir, 0, status, endpoint);
}

void interrupt_resume(struct engine *e)
{
	for (unsigned int slot = 16; slot < USB_ENDPOINTS_MAX; slot++) {
		refill(e, slot);
	}
}

void interrupt_forget(struct engine *e, int interface)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (interface < 0 || e->descriptors.active[slot].interface == interface) {
			e->interrupts[slot].started = false;
		}
	}
}
