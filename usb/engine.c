/* SPDX-License-Identifier: MIT
 *
 * The life of one lent device.
 *
 * HELLO: our hello goes out at once; nothing but the guest's is accepted. RUNNING: when both are
 * there, the endpoints, the interfaces and device_connect are sent (in this order: QEMU rejects a
 * device whose interfaces it doesn't know), and the guest's requests are served. STOPPING, whatever
 * the reason: three things go on side by side and FINISHED comes when all are done.
 *   1. The guest is told: replies that aren't on their way yet are dropped, device_disconnect goes
 * to the head of the queue. That is done when it is written (and acknowledged, where both sides
 * can) or when a second has passed: a guest that doesn't read can't keep us.
 *   2. What is in flight is cancelled and comes back. What doesn't in time (usb/engine-watch.c) is
 * left where it is: the process ends with it.
 *   3. The backend puts everything on the disk. That may take as long as the disk takes.
 * The end is only ever worked on in engine_turn, never from within a backend's call, so that
 * backends needn't be reentrant for it.
 *
 * Trust: the guest's bytes have passed usb/redir's checks; numbers in them (endpoints, interfaces,
 * ids) are looked up here and refused if unknown. Descriptors come from a device and are as
 * hostile; only usb/descriptors reads them.
 */
#include "usb/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "usb/engine-internal.h"

void engine_set_state(struct engine *e, uint32_t state)
{
	/* A guest that ejected goes on using the device for a moment; that isn't news. */
	if (e->count.state == WORKER_STATE_EJECTED && state < WORKER_STATE_FLUSHING) {
		return;
	}
	if (e->count.state != state) {
		e->count.state = state;
		e->listener->state(e->userdata, state, e->connect_ns);
	}
}

static void handle_hello(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase != ENGINE_HELLO) {
		return;
	}
	e->phase = ENGINE_RUNNING;
	engine_control_announce(e);
	redir_send_device_connect(e->redir, &e->descriptors);
}

static void handle_written(void *userdata, enum redir_mark mark)
{
	struct engine *e = userdata;

	if (mark == REDIR_MARK_CONNECT) {
		e->connect_ns = now_ns();
		if (e->count.state == WORKER_STATE_CONNECTING && e->phase == ENGINE_RUNNING) {
			engine_set_state(e, WORKER_STATE_ATTACHED);
		}
	} else if (mark == REDIR_MARK_DISCONNECT && !redir_has_disconnect_ack(e->redir)) {
		e->told = true;
	}
}

static void handle_drained(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase == ENGINE_RUNNING) {
		receiving_resume(e);
	}
}

static void handle_rejected(void *userdata)
{
	struct engine *e = userdata;

	engine_stop(e, WORKER_DONE_PEER_CLOSED, 0, "the guest's usb-redir filter rejects it");
}

static void handle_disconnect_ack(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase == ENGINE_STOPPING) {
		e->told = true;
	}
}

static void handle_closed(void *userdata, int error)
{
	struct engine *e = userdata;

	e->told = true;
	engine_stop(e, WORKER_DONE_PEER_CLOSED, error, "");
}

static void handle_violated(void *userdata, const char *detail)
{
	struct engine *e = userdata;

	e->told = true;
	engine_stop(e, WORKER_DONE_PEER_BAD, 0, detail);
}

static const struct redir_ops redir_ops = {
	.hello = handle_hello,
	.begin = engine_data_begin,
	.received = engine_data_received,
	.abandoned = engine_data_abandoned,
	.sent = engine_data_sent,
	.written = handle_written,
	.drained = handle_drained,
	.cancel = engine_data_cancel,
	.reset = engine_control_reset,
	.set_configuration = engine_control_set_configuration,
	.get_configuration = engine_control_get_configuration,
	.set_alt = engine_control_set_alt,
	.get_alt = engine_control_get_alt,
	.start_interrupt = receiving_start_interrupt,
	.stop_interrupt = receiving_stop_interrupt,
	.start_iso = iso_start,
	.stop_iso = iso_stop,
	.alloc_streams = streams_alloc,
	.free_streams = streams_free,
	.start_bulk = receiving_start_bulk,
	.stop_bulk = receiving_stop_bulk,
	.rejected = handle_rejected,
	.disconnect_ack = handle_disconnect_ack,
	.closed = handle_closed,
	.violated = handle_violated,
};

static void handle_ejected(void *userdata)
{
	struct engine *e = userdata;

	if (e->phase == ENGINE_RUNNING) {
		engine_set_state(e, WORKER_STATE_EJECTED);
	}
}

static void handle_lost(void *userdata, int error)
{
	struct engine *e = userdata;

	engine_stop(e, WORKER_DONE_DEVICE_LOST, error, "");
}

static void handle_quiesced(void *userdata, int error)
{
	struct engine *e = userdata;

	e->quiesced = true;
	if (error != 0) {
		/* Whatever the reason was: what the guest wrote is not on the disk. */
		e->reason = WORKER_DONE_DEVICE_LOST;
		e->error = error < 0 ? -error : error;
		worker_msg_text(e->detail, sizeof(e->detail), "flush failed");
	}
}

static const struct backend_sink_ops sink_ops = {
	.completed = engine_data_completed,
	.request_done = engine_control_done,
	.ejected = handle_ejected,
	.lost = handle_lost,
	.quiesced = handle_quiesced,
};

static int handle_disconnect_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct engine *e = userdata;

	e->told = true;
	return 0;
}

static unsigned int what_to_offer(const struct backend_ops *ops)
{
	return (ops->alloc_streams ? REDIR_OFFER_STREAMS : 0u) |
	       (ops->bulk_receiving ? REDIR_OFFER_RECEIVING : 0u);
}

static int start(struct engine *e, int stream_fd)
{
	const struct backend_ops *ops = e->backend->ops;
	struct usb_description d = {0};
	int r = ops->describe(e->backend, &d);

	if (r >= 0) {
		r = engine_control_describe(e, &d);
	}
	if (r >= 0) {
		r = engine_data_start(e);
	}
	if (r >= 0) {
		r = sd_event_add_time_relative(e->event, &e->disconnect_timer, CLOCK_MONOTONIC, 0,
			0, handle_disconnect_timer, e);
	}
	if (r >= 0) {
		r = sd_event_source_set_enabled(e->disconnect_timer, SD_EVENT_OFF);
	}
	if (r >= 0) {
		r = engine_watch_create(e);
	}
	if (r >= 0) {
		r = iso_create(e);
	}
	if (r >= 0) {
		r = engine_pace_create(e);
	}
	if (r < 0) {
		safe_close(stream_fd);
		return r;
	}
	return redir_create(e->event, stream_fd, what_to_offer(ops), &redir_ops, e, &e->redir);
}

int engine_create(const struct engine_options *o, struct engine **out)
{
	struct engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e) {
		safe_close(o->stream_fd);
		return -ENOMEM;
	}
	list_init(&e->in_flight);
	list_init(&e->paced);
	engine_order_init(e);
	e->event = sd_event_ref(o->event);
	e->backend = o->backend;
	e->listener = o->listener;
	e->userdata = o->userdata;
	e->max_transfers = o->max_transfers;
	e->max_bytes = o->max_bytes;
	e->backend->sink = &sink_ops;
	e->backend->sink_data = e;
	r = o->guard ? guard_create(o->guard, &engine_data_guard_ops, e, &e->guard) : 0;
	if (r < 0) {
		safe_close(o->stream_fd);
	} else {
		r = start(e, o->stream_fd);
	}
	if (r < 0) {
		engine_destroy(e);
		return r;
	}
	*out = e;
	return 0;
}

void engine_destroy(struct engine *e)
{
	if (!e) {
		return;
	}
	redir_destroy(e->redir);
	sd_event_source_disable_unref(e->disconnect_timer);
	engine_watch_destroy(e);
	iso_destroy(e);
	engine_pace_destroy(e);
	engine_data_finish(e);
	guard_destroy(e->guard);
	capture_destroy(e->capture);
	sd_event_unref(e->event);
	free(e);
}

static void tell_guest(struct engine *e, enum engine_phase was)
{
	int r;

	if (e->told || was == ENGINE_HELLO) {
		e->told = true;
		redir_close(e->redir);
		return;
	}
	redir_drop(e->redir);
	redir_send_device_disconnect(e->redir);
	redir_hold(e->redir, false); /* its acknowledgement is awaited */
	r = sd_event_source_set_time_relative(e->disconnect_timer, DISCONNECT_WAIT_US);
	if (r >= 0) {
		r = sd_event_source_set_enabled(e->disconnect_timer, SD_EVENT_ONESHOT);
	}
	if (r < 0) {
		e->told = true;
	}
}

void engine_stop(struct engine *e, enum worker_done_reason reason, int error, const char *detail)
{
	enum engine_phase was = e->phase;

	if (was >= ENGINE_STOPPING) {
		return;
	}
	e->phase = ENGINE_STOPPING;
	e->reason = reason;
	e->error = error;
	worker_msg_text(e->detail, sizeof(e->detail), detail);
	receiving_forget(e, -1);
	iso_forget(e, -1);
	tell_guest(e, was);
	engine_order_drop(e);
	engine_data_cancel_all(e, -1, -1);
}

static void work_on_end(struct engine *e)
{
	if (!e->quiescing && e->stuck) {
		/* The backend still has transfers, and nothing to put on a disk. */
		e->quiescing = true;
		e->quiesced = true;
	}
	if (!e->quiescing && e->count.in_flight == 0) {
		e->quiescing = true;
		engine_set_state(e, WORKER_STATE_FLUSHING);
		e->backend->ops->quiesce(e->backend);
	}
	if (e->quiesced && e->told) {
		e->phase = ENGINE_FINISHED;
		e->disconnect_timer = sd_event_source_disable_unref(e->disconnect_timer);
		engine_watch_destroy(e);
		redir_close(e->redir);
		e->listener->finished(e->userdata, e->reason, e->error, e->detail);
	}
}

int engine_capture(struct engine *e, const struct capture_options *options)
{
	struct capture *c;
	int r = capture_create(e->event, options, &c);

	if (r < 0) {
		return r;
	}
	capture_destroy(e->capture);
	e->capture = c;
	return 0;
}

void engine_turn(struct engine *e)
{
	if (e->backend->ops->turn) {
		e->backend->ops->turn(e->backend);
	}
	redir_flush(e->redir);
	if (e->capture && !capture_turn(e->capture)) {
		capture_destroy(e->capture);
		e->capture = NULL;
	}
	if (e->phase == ENGINE_STOPPING) {
		work_on_end(e);
	}
}

void engine_count(const struct engine *e, struct engine_counters *out)
{
	*out = e->count;
	out->connect_ns = e->connect_ns;
}
