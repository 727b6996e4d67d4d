/* SPDX-License-Identifier: MIT
 *
 * Whose reply comes when. Guests keep several packets of a bulk endpoint in flight and take their
 * replies in that order; QEMU (hw/usb/core.c, usb_packet_complete_one) aborts, and the VM with it,
 * when one comes before its turn. Backends mostly complete in order, but not what is refused, what
 * is cancelled while it waits for usbfs's memory, or what the kernel no longer takes. So each
 * reply of a bulk endpoint has its place in a line, and what is complete before its turn waits
 * there, still charged. Streams have no such order, and other endpoints one packet at a time.
 *
 * A packet that the guest cancels is answered at once, whatever its place: until then, the guest
 * counts on nothing; from then on it may use the id again, and does (QEMU's ids are addresses),
 * so that a late answer would be taken for that of another.
 */
#include "usb/engine-internal.h"

void engine_order_init(struct engine *e)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		list_init(&e->lines[slot]);
	}
}

static bool has_line(uint8_t type, uint32_t stream_id)
{
	return type == TRANSFER_BULK && stream_id == 0;
}

static struct list *line_of(struct engine *e, uint8_t endpoint)
{
	return &e->lines[descriptors_slot(endpoint)];
}

void engine_order_enter(struct engine *e, struct transfer *t)
{
	if (has_line(t->type, t->stream_id)) {
		list_append(line_of(e, t->endpoint), &t->line);
	}
}

static void answer(struct engine *e, struct transfer *t)
{
	engine_data_settle(e, t);
	redir_send_transfer(e->redir, t);
}

/* Sending may find that the guest is gone, and then there is nothing left to be done. */
static void advance(struct engine *e, struct list *line)
{
	while (e->phase == ENGINE_RUNNING && !list_empty(line)) {
		struct transfer *t = list_first(line, struct transfer, line);

		if (!t->done) {
			return;
		}
		answer(e, t);
	}
}

void engine_order_completed(struct engine *e, struct transfer *t)
{
	if (!has_line(t->type, t->stream_id)) {
		answer(e, t);
		return;
	}
	t->done = true;
	advance(e, line_of(e, t->endpoint));
}

void engine_order_refuse(
	struct engine *e, const struct redir_request *r, enum transfer_status status)
{
	struct list *line = line_of(e, r->endpoint);
	struct transfer *t = NULL;

	/* More of them are nothing that a guest's stack would do: they have no memory here. */
	if (has_line(r->type, r->stream_id) && !list_empty(line) &&
		e->n_refused < ENGINE_TRANSFERS_MAX) {
		t = transfer_get(e->pool, 0);
	}
	if (!t) {
		redir_refuse(e->redir, r, status);
		return;
	}
	t->id = r->id;
	t->type = r->type;
	t->endpoint = r->endpoint;
	t->status = (uint8_t)status;
	t->done = true;
	t->refused = true;
	e->n_refused++;
	list_append(&e->in_flight, &t->link);
	list_append(line, &t->line);
}

void engine_order_cancel(struct engine *e, struct transfer *t)
{
	bool in_line = has_line(t->type, t->stream_id);
	struct list *line = line_of(e, t->endpoint);
	const struct redir_request request = {
		.type = t->type,
		.endpoint = t->endpoint,
		.id = t->id,
		.stream_id = t->stream_id,
		.setup = t->setup,
	};

	engine_data_forget_id(e, t);
	list_remove(&t->line);
	t->answered = true;
	if (t->done) {
		engine_data_settle(e, t);
		transfer_put(e->pool, t);
	} else {
		engine_data_cancel_one(e, t);
	}
	redir_refuse(e->redir, &request, TRANSFER_CANCELLED);
	if (in_line) {
		advance(e, line);
	}
}

void engine_order_drop(struct engine *e)
{
	struct transfer *t, *tmp;

	list_for_each_safe (t, tmp, &e->in_flight, link) {
		if (t->done) {
			engine_data_settle(e, t);
			transfer_put(e->pool, t);
		}
	}
}
