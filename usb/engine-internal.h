/* SPDX-License-Identifier: MIT
 * What the engine's files share: engine.c (life), engine-data.c (transfers), engine-order.c (whose
 * reply comes when), engine-control.c (requests to the device), engine-watch.c (what never comes
 * back), receiving.c (interrupt and buffered bulk receiving), iso.c (isochronous streams),
 * streams.c (bulk streams), engine-pace.c (the VM's rates).
 */
#pragma once

#include "base/list.h"
#include "protocol/pace.h"
#include "usb/capture.h"
#include "usb/descriptors.h"
#include "usb/engine.h"
#include "usb/redir.h"
#include "usb/transfer.h"

/* Buffers of all transfers, in flight, unread or kept; the worker as a whole stays under 64 MiB. */
#define ENGINE_POOL_BYTES (40u * 1024 * 1024)
/* Of one isochronous stream. */
#define ISO_URBS_MAX 16
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
	ENGINE_REQUEST_ALLOC_STREAMS,
	ENGINE_REQUEST_FREE_STREAMS,
};

struct receiving {
	bool started;
	bool filling;
	bool clearing; /* its halt is being cleared */
	uint8_t type;  /* enum transfer_type */
	uint8_t depth; /* transfers kept submitted */
	uint8_t n_submitted;
	uint32_t bytes; /* of each */
	uint32_t stream_id;
	uint64_t next_id; /* ids are the sender's own, per usbredir */
	uint64_t cleared_us;
};

struct iso_stream {
	bool started;
	bool ended;    /* by us: what the guest sends before it knows is dropped */
	bool running;  /* OUT: what is full is submitted */
	bool dropping; /* OUT: the guest is too fast */
	uint8_t n_urbs;
	uint8_t n_submitted;
	uint8_t n_packets; /* per URB */
	uint8_t filling;   /* OUT: in urbs */
	uint8_t n_full;    /* OUT: waiting to be submitted, before urbs[filling] */
	uint16_t packet_bytes;
	uint64_t next_id; /* IN */
	uint64_t dropped;
	struct transfer *urbs[ISO_URBS_MAX];
};

struct engine {
	enum engine_phase phase;
	sd_event *event;
	struct redir *redir;
	struct backend *backend;
	const struct engine_listener *listener;
	void *userdata;
	struct usb_description description; /* as the device gives them */
	struct descriptors descriptors;     /* as the guest sees them */
	struct guard *guard;                // may be NULL
	uint32_t guarded;                   /* endpoints whose transfers it sees; 0 without one */
	uint64_t connect_ns;
	struct engine_counters count; /* in_flight* and state are kept here, too */

	struct capture *capture; // may be NULL

	/* engine-pace.c */
	struct pace_page *pace; // may be NULL: no limits
	struct list paced;      // transfer::backend: what waits for its turn
	sd_event_source *pace_timer;

	/* engine-data.c */
	uint32_t max_transfers;
	uint64_t max_bytes;
	struct transfer_pool *pool;
	struct list in_flight; // transfer::link
	struct transfer **by_id;
	uint32_t by_id_mask;

	/* engine-order.c */
	struct list lines[USB_ENDPOINTS_MAX]; // transfer::line, at descriptors_slot(address)
	uint32_t n_refused;

	/* engine-control.c */
	enum engine_request request;
	uint64_t request_id;
	uint8_t request_value;     /* configuration or interface */
	uint8_t request_alternate; /* altsetting */
	uint32_t request_endpoints;
	uint32_t request_streams;

	/* engine-watch.c */
	sd_event_source *watch_timer;
	bool watching;
	uint64_t request_us; /* when the request was made, CLOCK_MONOTONIC */
	bool stuck;          /* what is with the backend won't come back */

	/* at descriptors_slot(address) */
	struct receiving receiving[USB_ENDPOINTS_MAX]; /* receiving.c */
	struct iso_stream iso[USB_ENDPOINTS_MAX];      /* iso.c */
	uint16_t streams[USB_ENDPOINTS_MAX];           /* streams.c: 1 to that; 0: none */
	sd_event_source *iso_ready;                    /* on: URBs of IN streams are free */

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

/* Whether the guest has an endpoint only as far as the guard lets it. */
static inline bool engine_guarded(const struct engine *e, uint8_t endpoint)
{
	return e->guarded >> descriptors_slot(endpoint) & 1;
}

/* engine-data.c */
extern const struct guard_ops engine_data_guard_ops;
int engine_data_start(struct engine *e) _must_check_;
void engine_data_finish(struct engine *e);
struct transfer *engine_data_begin(
	void *userdata, const struct redir_request *r, uint8_t **payload_out);
void engine_data_received(void *userdata, struct transfer *t);
void engine_data_abandoned(void *userdata, struct transfer *t);
void engine_data_sent(void *userdata, struct transfer *t);
void engine_data_cancel(void *userdata, uint64_t id);
void engine_data_completed(void *userdata, struct transfer *t);
/* Charges, takes and lists a transfer. NULL if a bound forbids it: nothing is charged then. */
struct transfer *engine_data_get(struct engine *e, uint32_t length);
/* t's id may be used again. */
void engine_data_forget_id(struct engine *e, struct transfer *t);
/* Takes t out of flight: lists, id and charges. */
void engine_data_settle(struct engine *e, struct transfer *t);
/* Gives it to the backend, as soon as the VM's rates allow it. */
void engine_data_submit(struct engine *e, struct transfer *t);
/* Now. */
void engine_data_give(struct engine *e, struct transfer *t);
/* Cancels what is submitted: everything, or only endpoints of one interface (>= 0) or one endpoint
 * address (>= 0). */
void engine_data_cancel_all(struct engine *e, int interface, int address);

/* Cancels t if it is submitted and wasn't yet; may complete it. */
void engine_data_cancel_one(struct engine *e, struct transfer *t);

/* engine-order.c */
void engine_order_init(struct engine *e);
/* t is to be answered: it gets its place among the replies of its endpoint. */
void engine_order_enter(struct engine *e, struct transfer *t);
/* t is complete: answers it, and what waited for it, as soon as it is its turn. */
void engine_order_completed(struct engine *e, struct transfer *t);
/* Answers a packet that gets no transfer, at its turn. */
void engine_order_refuse(
	struct engine *e, const struct redir_request *r, enum transfer_status status);
/* Answers t now, as cancelled by the guest, whatever becomes of it. */
void engine_order_cancel(struct engine *e, struct transfer *t);
/* Lets the replies go that wait for their turn: nobody wants them any more. */
void engine_order_drop(struct engine *e);

/* engine-pace.c */
int engine_pace_create(struct engine *e) _must_check_;
void engine_pace_destroy(struct engine *e);
/* There are rates: gives t to the backend, or lets it wait. */
void engine_pace_submit(struct engine *e, struct transfer *t);
/* t waits no more. */
void engine_pace_forget(struct transfer *t);
/* The backend is done with t: what it didn't move is given back. */
void engine_pace_completed(struct engine *e, struct transfer *t);

/* engine-watch.c */
int engine_watch_create(struct engine *e) _must_check_;
void engine_watch_destroy(struct engine *e);
/* Sees to it that what was cancelled or asked for now comes back in time. */
void engine_watch(struct engine *e);

/* engine-control.c */
/* d is what the backend says of the device now. 0 or -errno: nothing has changed. */
int engine_control_describe(struct engine *e, const struct usb_description *d) _must_check_;
/* From now on the guest's packets wait, until engine_control_done. */
void engine_control_begin(struct engine *e, enum engine_request request, uint64_t id);
void engine_control_announce(struct engine *e);
void engine_control_reset(void *userdata);
void engine_control_set_configuration(void *userdata, uint64_t id, uint8_t value);
void engine_control_get_configuration(void *userdata, uint64_t id);
void engine_control_set_alt(void *userdata, uint64_t id, uint8_t interface, uint8_t alt);
void engine_control_get_alt(void *userdata, uint64_t id, uint8_t interface);
void engine_control_done(void *userdata, enum transfer_status status);

/* receiving.c */
void receiving_start_interrupt(void *userdata, uint64_t id, uint8_t endpoint);
void receiving_stop_interrupt(void *userdata, uint64_t id, uint8_t endpoint);
void receiving_start_bulk(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id,
	uint32_t bytes_per_transfer, uint8_t transfers);
void receiving_stop_bulk(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id);
void receiving_completed(struct engine *e, struct transfer *t);
/* A transfer of TRANSFER_OF_CLEARING is done. */
void receiving_cleared(struct engine *e, struct transfer *t);
/* Submits again what waited for the guest to read. */
void receiving_resume(struct engine *e);
/* Forgets what was started on one interface, or on all (-1); the transfers are cancelled by who
 * calls. */
void receiving_forget(struct engine *e, int interface);

/* iso.c */
int iso_create(struct engine *e) _must_check_;
void iso_destroy(struct engine *e);
void iso_start(void *userdata, uint64_t id, uint8_t endpoint, uint8_t n_packets, uint8_t n_urbs);
void iso_stop(void *userdata, uint64_t id, uint8_t endpoint);
/* As redir_ops::begin, for a packet of TRANSFER_ISO. */
struct transfer *iso_begin(struct engine *e, const struct redir_request *r, uint8_t **payload_out);
void iso_received(struct engine *e, struct transfer *t);
/* The connection is done with one packet of t, whether it read or wrote it. */
void iso_let_go(struct engine *e, struct transfer *t);
void iso_completed(struct engine *e, struct transfer *t);
/* Ends the streams of one interface, or all (-1), unasked: their transfers are cancelled. */
void iso_forget(struct engine *e, int interface);

/* streams.c */
void streams_alloc(void *userdata, uint64_t id, uint32_t endpoints, uint32_t n_streams);
void streams_free(void *userdata, uint64_t id, uint32_t endpoints);
void streams_done(struct engine *e, enum engine_request request, enum transfer_status status);
/* Whether stream_id (0: none) may be used on the endpoint now. */
bool streams_valid(const struct engine *e, uint8_t endpoint, uint32_t stream_id);
/* The device has none any more, on one interface or on all (-1). */
void streams_forget(struct engine *e, int interface);
