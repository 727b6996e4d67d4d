/* SPDX-License-Identifier: MIT
 *
 * Transfers in flight. One is charged (by count and by bytes) when its packet's header is read, and
 * settled when the backend has completed it; until its reply is written its memory counts as unread
 * (usb/redir-write.c), so that the two bounds add up to the worker's memory. What is over a bound
 * is refused and never queued. When a reply goes out says usb/engine-order.c. Ids are found in a
 * table of fixed size, at most half full.
 */
#include "usb/engine-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"

/* USB 2.0, 9.4: standard requests that change what only set_configuration, set_alt_setting and the
 * host's own stack may change. */
enum { SET_ADDRESS = 5, SET_CONFIGURATION = 9, SET_INTERFACE = 11, REQUEST_TYPE_MASK = 0x60 };

static uint32_t hash(const struct engine *e, uint64_t id)
{
	return (uint32_t)((id * 0x9e3779b97f4a7c15u) >> 40) & e->by_id_mask;
}

/* The place of id, or the free place where it belongs. */
static uint32_t find_slot(const struct engine *e, uint64_t id)
{
	uint32_t i = hash(e, id);

	while (e->by_id[i] && e->by_id[i]->id != id) {
		i = (i + 1) & e->by_id_mask;
	}
	return i;
}

/* Linear probing needs no gaps: what stands behind moves up where it may. */
static void remove_id(struct engine *e, const struct transfer *t)
{
	uint32_t gap = find_slot(e, t->id);

	assert(e->by_id[gap] == t);
	e->by_id[gap] = NULL;
	for (uint32_t i = (gap + 1) & e->by_id_mask; e->by_id[i]; i = (i + 1) & e->by_id_mask) {
		uint32_t home = hash(e, e->by_id[i]->id);

		if (((i - home) & e->by_id_mask) >= ((i - gap) & e->by_id_mask)) {
			e->by_id[gap] = e->by_id[i];
			e->by_id[i] = NULL;
			gap = i;
		}
	}
}

void engine_data_forget_id(struct engine *e, struct transfer *t)
{
	if (t->listed) {
		t->listed = false;
		remove_id(e, t);
	}
}

int engine_data_start(struct engine *e)
{
	uint32_t size = 4;

	while (size < 2 * e->max_transfers) {
		size *= 2;
	}
	e->by_id = calloc(size, sizeof(*e->by_id));
	if (!e->by_id) {
		return -ENOMEM;
	}
	e->by_id_mask = size - 1;
	return transfer_pool_create(ENGINE_POOL_BYTES, &e->pool);
}

void engine_data_finish(struct engine *e)
{
	struct transfer *t, *tmp;

	list_for_each_safe (t, tmp, &e->in_flight, link) {
		engine_data_settle(e, t);
		transfer_put(e->pool, t);
	}
	transfer_pool_destroy(e->pool);
	free(e->by_id);
}

struct transfer *engine_data_get(struct engine *e, uint32_t length)
{
	struct transfer *t;

	if (e->count.in_flight >= e->max_transfers ||
		e->count.in_flight_bytes + (uint64_t)length > e->max_bytes) {
		return NULL;
	}
	t = transfer_get(e->pool, length);
	if (!t) {
		return NULL;
	}
	e->count.in_flight++;
	e->count.in_flight_bytes += length;
	e->count.in_flight_peak = MAX(e->count.in_flight_peak, e->count.in_flight);
	t->charge = length;
	list_append(&e->in_flight, &t->link);
	return t;
}

void engine_data_settle(struct engine *e, struct transfer *t)
{
	engine_data_forget_id(e, t);
	list_remove(&t->line);
	list_remove(&t->link);
	if (t->refused) {
		e->n_refused--;
		return;
	}
	e->count.in_flight--;
	e->count.in_flight_bytes -= t->charge;
}

/* TRANSFER_OK, or with what r is to be refused. */
static enum transfer_status check_request(const struct engine *e, const struct redir_request *r)
{
	const struct usb_endpoint *endpoint = descriptors_endpoint(&e->descriptors, r->endpoint);
	static const uint8_t wanted[] = {
		[TRANSFER_CONTROL] = USB_ENDPOINT_CONTROL,
		[TRANSFER_BULK] = USB_ENDPOINT_BULK,
		[TRANSFER_INTERRUPT] = USB_ENDPOINT_INTERRUPT,
	};

	if (!endpoint || endpoint->type != wanted[r->type] ||
		!streams_valid(e, r->endpoint, r->stream_id) || r->length > TRANSFER_BYTES_MAX) {
		return TRANSFER_INVALID;
	}
	if (r->type == TRANSFER_INTERRUPT && r->endpoint & 0x80) {
		return TRANSFER_INVALID; /* those are received, not asked for */
	}
	if (r->type == TRANSFER_CONTROL) {
		uint8_t request = r->setup.request;

		if ((r->endpoint ^ r->setup.request_type) & 0x80) {
			return TRANSFER_INVALID;
		}
		if ((r->setup.request_type & REQUEST_TYPE_MASK) == 0 &&
			(request == SET_ADDRESS || request == SET_CONFIGURATION ||
				request == SET_INTERFACE)) {
			return TRANSFER_STALL;
		}
	}
	return TRANSFER_OK;
}

struct transfer *engine_data_begin(
	void *userdata, const struct redir_request *r, uint8_t **payload_out)
{
	struct engine *e = userdata;
	enum transfer_status status;
	struct transfer *t = NULL;
	uint32_t slot;

	if (e->phase != ENGINE_RUNNING) {
		return NULL; /* the device is gone, and the guest is told so */
	}
	if (r->type == TRANSFER_ISO) {
		return iso_begin(e, r, payload_out);
	}
	status = check_request(e, r);
	slot = find_slot(e, r->id);
	if (status == TRANSFER_OK && e->by_id[slot]) {
		status = TRANSFER_INVALID; /* the id is in use */
	}
	if (status == TRANSFER_OK) {
		t = engine_data_get(e, r->length);
		status = t ? TRANSFER_OK : TRANSFER_IO_ERROR;
	}
	if (!t) {
		e->count.refused++;
		engine_order_refuse(e, r, status);
		return NULL;
	}
	t->id = r->id;
	t->listed = true;
	t->type = r->type;
	t->endpoint = r->endpoint;
	t->stream_id = r->stream_id;
	t->setup = r->setup;
	e->by_id[slot] = t;
	engine_order_enter(e, t);
	*payload_out = t->data;
	return t;
}

static_assert((int)TRANSFER_CONTROL == (int)WORKER_TRANSFERS_CONTROL &&
		      (int)TRANSFER_BULK == (int)WORKER_TRANSFERS_BULK &&
		      (int)TRANSFER_INTERRUPT == (int)WORKER_TRANSFERS_INTERRUPT &&
		      (int)TRANSFER_ISO == (int)WORKER_TRANSFERS_ISO,
	"the same order");

/* What nobody asked for waits until the device has something to say. */
static bool has_latency(const struct transfer *t)
{
	return t->owner == TRANSFER_OF_GUEST &&
	       (t->type == TRANSFER_BULK || t->type == TRANSFER_CONTROL);
}

void engine_data_submit(struct engine *e, struct transfer *t)
{
	if (e->capture && t->owner != TRANSFER_OF_GUEST) {
		capture_submitted(e->capture, t);
	}
	if (e->pace) {
		engine_pace_submit(e, t);
	} else {
		engine_data_give(e, t);
	}
}

void engine_data_give(struct engine *e, struct transfer *t)
{
	t->submitted = true;
	t->given_ns = has_latency(t) ? now_ns() : 0;
	e->backend->ops->submit(e->backend, t);
}

void engine_data_received(void *userdata, struct transfer *t)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_RUNNING) {
		engine_data_abandoned(e, t);
	} else if (t->owner == TRANSFER_OF_STREAM) {
		iso_received(e, t);
		return;
	}
	if (e->capture) {
		/* Also what the guard answers itself. */
		capture_submitted(e->capture, t);
	}
	if (engine_guarded(e, t->endpoint)) {
		guard_submit(e->guard, t);
	} else {
		engine_data_submit(e, t);
	}
}

void engine_data_abandoned(void *userdata, struct transfer *t)
{
	struct engine *e = userdata;

	if (t->owner == TRANSFER_OF_STREAM) {
		iso_let_go(e, t);
	} else {
		engine_data_settle(e, t);
		transfer_put(e->pool, t);
	}
}

void engine_data_sent(void *userdata, struct transfer *t)
{
	struct engine *e = userdata;

	if (t->owner == TRANSFER_OF_STREAM) {
		iso_let_go(e, t);
	} else {
		transfer_put(e->pool, t);
	}
}

void engine_data_cancel_one(struct engine *e, struct transfer *t)
{
	if (t->held) {
		t->cancelled = true;
		guard_cancel(e->guard, t);
	} else if (t->paced) {
		t->cancelled = true;
		engine_pace_forget(t);
		engine_data_completed(e, t);
	} else if (t->submitted && !t->cancelled) {
		t->cancelled = true;
		sd_event_now(e->event, CLOCK_MONOTONIC, &t->cancelled_us);
		engine_watch(e);
		e->backend->ops->cancel(e->backend, t);
	}
}

/* An id that isn't in flight was completed meanwhile, or never was: usbredir wants no answer. */
void engine_data_cancel(void *userdata, uint64_t id)
{
	struct engine *e = userdata;
	struct transfer *t = e->by_id[find_slot(e, id)];

	if (t) {
		engine_order_cancel(e, t);
	}
}

void engine_data_cancel_all(struct engine *e, int interface, int address)
{
	struct list todo;
	struct transfer *t;

	/* A completion from within cancel() takes its transfer out of whichever list it is in. */
	list_init(&todo);
	if (!list_empty(&e->in_flight)) {
		list_insert_after(&e->in_flight, &todo);
		list_remove(&e->in_flight);
	}
	for (t = list_first(&todo, struct transfer, link); t;
		t = list_first(&todo, struct transfer, link)) {
		const struct usb_endpoint *endpoint =
			descriptors_endpoint(&e->descriptors, t->endpoint);

		list_remove(&t->link);
		list_append(&e->in_flight, &t->link);
		if ((address < 0 || t->endpoint == address) &&
			(interface < 0 || (endpoint && endpoint->type != USB_ENDPOINT_CONTROL &&
						  endpoint->interface == interface))) {
			engine_data_cancel_one(e, t);
		}
	}
}

/* What the backend says is taken only as far as it can be true. */
static void check_completion(struct transfer *t)
{
	t->submitted = false;
	if (t->type == TRANSFER_ISO) {
		t->actual = 0;
		for (uint32_t i = 0; i < t->n_packets; i++) {
			struct iso_packet *p = &t->packets[i];

			p->actual = MIN(p->actual, p->length);
			t->actual += p->actual;
		}
	}
	t->actual = MIN(t->actual, t->length);
	if (t->cancelled) {
		t->status = TRANSFER_CANCELLED;
		t->actual = 0;
	}
}

static void count_latency(struct engine_counters *c, uint64_t ns)
{
	uint64_t usec = ns / 1000;
	unsigned int bucket = usec > 0 ? 64 - (unsigned int)__builtin_clzll(usec) : 0;

	c->latency_ns += ns;
	c->latency[MIN(bucket, WORKER_LATENCY_BUCKETS - 1u)]++;
}

static void complete(struct engine *e, struct transfer *t)
{
	if (e->capture) {
		capture_completed(e->capture, t);
	}
	e->count.transfers++;
	e->count.by_type[t->type]++;
	if (t->given_ns > 0) {
		count_latency(&e->count, now_ns() - t->given_ns);
	}
	if (t->status == TRANSFER_IO_ERROR) {
		e->count.errors++;
	} else if (t->status == TRANSFER_STALL) {
		e->count.stalls++;
	}
	if (transfer_is_in(t)) {
		e->count.bytes_in += t->actual;
	} else {
		e->count.bytes_out += t->actual;
	}
	if (t->owner == TRANSFER_OF_STREAM) {
		iso_completed(e, t); /* it stays in flight */
		return;
	}
	if (t->owner == TRANSFER_OF_GUEST && e->phase == ENGINE_RUNNING && !t->answered) {
		engine_order_completed(e, t);
		return;
	}
	engine_data_settle(e, t);
	if (e->phase != ENGINE_RUNNING || t->answered) {
		transfer_put(e->pool, t);
	} else if (t->owner == TRANSFER_OF_RECEIVING) {
		receiving_completed(e, t);
	} else {
		receiving_cleared(e, t);
	}
}

void engine_data_completed(void *userdata, struct transfer *t)
{
	struct engine *e = userdata;

	check_completion(t);
	if (e->pace) {
		engine_pace_completed(e, t);
	}
	if (t->guard_unit == 0) {
		complete(e, t);
		return;
	}
	guard_completed(e->guard, t);
	complete(e, t);
	guard_continue(e->guard);
}

static void submit_guarded(void *userdata, struct transfer *t)
{
	engine_data_submit(userdata, t);
}

static void count_refused(void *userdata)
{
	((struct engine *)userdata)->count.refused++;
}

const struct guard_ops engine_data_guard_ops = {
	.submit = submit_guarded,
	.complete = engine_data_completed,
	.refused = count_refused,
};
