/* SPDX-License-Identifier: MIT
 * What the engine's files share: engine.c (life), engine-data.c (transfers), engine-control.c
 * (requests to the device), interrupt.c (interrupt receiving).
 */
#pragma once

#include "base/list.h"
#include "usb/descriptors.h"
#include "usb/engine.h"
#include "usb/redir.h"
#include "usb/transfer.h"

/* Buffers of all transfers, in flight, unread or kept; the worker as a whole stays under 64 MiB. */
#define ENGINE_POOL_BYTES (40u * 1024 * 1024)
/* Transfers kept submitted per endpoint that the guest receives from: one is being delivered while
 * the next waits at the device. */
#define INTERRUPT_DEPTH 2
/* How long the guest may take to read and acknowledge device_disconnect. */
#define DISCONNECT_WAIT_US (1000 * 1000)

enum engine_phase {
	ENGINE_HELLO,    /* no hello from the guest yet */
	ENGINE_RUNNING,  /* device_connect is queued */
	ENGINE_STOPPING, /* see engine_stop */
	ENGINE_FINISHED, /* finished() was called */
};

/* What the backend was asked and has not answered; the guest's packets wait meanwhile. */
enum engine_request {
	ENGINE_REQUEST_NONE,
	ENGINE_REQUEST_CONFIGURATION,
	ENGINE_REQUEST_ALT,
	ENGINE_REQUEST_RESET,
};

struct interrupt {
	bool started;
	bool filling;
	uint8_t n_submitted;
	uint64_t next_id; /* ids are the sender's own, per usbredir */
};

struct engine {
	enum engine_phase phase;
	sd_event *event;
	struct redir *redir;
	struct backend *backend;
	const struct engine_listener *listener;
	void *userdata;
	struct usb_description description;
	struct descriptors descriptors;
	uint64_t connect_ns;
	struct engine_counters count; /* in_flight* and state are kept here, too */

	/* engine-data.c */
	uint32_t max_transfers;
	uint64_t max_bytes;
	struct transfer_pool *pool;
	struct list in_flight; // transfer::link
	struct transfer **by_id;
	uint32_t by_id_mask;

	/* engine-control.c */
	enum engine_request request;
	uint64_t request_id;
	uint8_t request_value;     /* configuration or interface */
	uint8_t request_alternate; /* altsetting */

	/* interrupt.c, at descriptors_slot(address) */
	struct interrupt interrupts[USB_ENDPOINTS_MAX];

	/* the end */
	enum worker_done_reason reason;
	int error;
	char detail[64];
	sd_event_source *disconnect_timer;
	bool told;      /* the guest knows, or can't be told */
	bool quiescing; /* the backend was asked */
	bool quiesced;
};

/* engine.c */
void engine_set_state(struct engine *e, uint32_t state);

/* engine-data.c */
int engine_data_start(struct engine *e) _must_check_;
void engine_data_finish(struct engine *e);
struct transfer *engine_data_begin(void *userdata, const struct redir_request *r);
void engine_data_received(void *userdata, struct transfer *t);
void engine_data_abandoned(void *userdata, struct transfer *t);
void engine_data_sent(void *userdata, struct transfer *t);
void engine_data_cancel(void *userdata, uint64_t id);
void engine_data_completed(void *userdata, struct transfer *t);
/* Charges, takes and lists a transfer. NULL if a bound forbids it: nothing is charged then. */
struct transfer *engine_data_get(struct engine *e, uint32_t length);
/* Takes t out of flight: list, ids and charges. */
void engine_data_settle(struct engine *e, struct transfer *t);
/* Gives it to the backend. */
void engine_data_submit(struct engine *e, struct transfer *t);
/* Cancels what is submitted: everything, or only endpoints of one interface (>= 0) or one endpoint
 * address (>= 0). */
void engine_data_cancel_all(struct engine *e, int interface, int address);

/* engine-control.c */
void engine_control_announce(struct engine *e);
void engine_control_reset(void *userdata);
void engine_control_set_configuration(void *userdata, uint64_t id, uint8_t value);
void engine_control_get_configuration(void *userdata, uint64_t id);
void engine_control_set_alt(void *userdata, uint64_t id, uint8_t interface, uint8_t alt);
void engine_control_get_alt(void *userdata, uint64_t id, uint8_t interface);
void engine_control_done(void *userdata, enum transfer_status status);

/* interrupt.c */
void interrupt_start(void *userdata, uint64_t id, uint8_t endpoint);
void interrupt_stop(void *userdata, uint64_t id, uint8_t endpoint);
void interrupt_completed(struct engine *e, struct transfer *t);
/* Submits again what waited for the guest to read. */
void interrupt_resume(struct engine *e);
/* Forgets what was started on one interface, or on all (-1); the transfers are cancelled by who
 * calls. */
void interrupt_forget(struct engine *e, int interface);
