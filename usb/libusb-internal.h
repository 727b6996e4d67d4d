/* SPDX-License-Identifier: MIT
 * What the files of backend-libusb share: backend-libusb.c (life and loop), libusb-device.c (what
 * may block), libusb-requests.c (one after the other on the thread), libusb-transfers.c.
 */
#pragma once

#include <libusb-1.0/libusb.h>
#include <stdatomic.h>

#include "base/list.h"
#include "usb/backend-libusb.h"
#include "usb/blocking.h"
#include "usb/usbfs-budget.h"

/* What libusb takes in one control transfer: a page, as usbfs does. */
#define CONTROL_BYTES_MAX 4096
#define HOST_INTERFACES   32
#define HOST_SLOTS        32
#define HOST_POLLFDS_MAX  8

enum urb_kind { URB_DATA, URB_CONTROL, URB_ISO, URB_KIND_COUNT_ };

/* A libusb transfer, allocated once and used again and again. */
struct urb {
	struct list link; // usb_host::free_urbs or usb_host::in_flight
	struct usb_host *host;
	struct libusb_transfer *usb;
	struct transfer *t; /* in flight: what it carries */
	uint32_t charge;    /* of the budget */
	uint8_t kind;       /* enum urb_kind */
	uint8_t share;      /* enum usbfs_share */
	bool cancel;        /* as soon as the thread is done with the device */
	uint8_t *control;   /* URB_CONTROL: setup and data; NULL otherwise */
};

enum host_request {
	HOST_REQUEST_NONE,
	HOST_REQUEST_CONFIGURATION, /* by libusb itself */
	HOST_REQUEST_RELEASE,       /* the broker's way: give the interfaces back, ask, ... */
	HOST_REQUEST_CLAIM,         /* ... and claim those of the new configuration */
	HOST_REQUEST_DEFAULTS,      /* the same configuration again: every altsetting 0 */
	HOST_REQUEST_INTERFACE,
	HOST_REQUEST_RESET,
	HOST_REQUEST_ALLOC_STREAMS,
	HOST_REQUEST_FREE_STREAMS,
};

struct usb_host {
	struct backend backend;
	const struct backend_libusb_listener *listener;
	void *userdata;
	sd_event *event;
	libusb_context *ctx;
	libusb_device_handle *handle;
	int device_fd;
	uint32_t interfaces; /* allowed */
	bool may_configure;

	/* backend-libusb.c */
	sd_event_source *sources[HOST_POLLFDS_MAX];
	atomic_bool pollfds_changed; /* said by libusb, on whichever thread */
	bool sources_on;
	uint32_t looks_missed;  /* in a row, see host_turn */
	uint32_t looks_off;     /* turns without a look */
	sd_event_source *defer; /* says lost from the loop, not from within a call */
	bool gone;
	bool lost_told;

	/* libusb-transfers.c */
	struct list free_urbs[URB_KIND_COUNT_];
	struct list in_flight;                               // urb::link
	struct list waiting[USBFS_SHARE_COUNT_][HOST_SLOTS]; // transfer::backend, per endpoint
	uint32_t waiting_slots[USBFS_SHARE_COUNT_];          /* bits: who waits */
	uint32_t turn[USBFS_SHARE_COUNT_];                   /* the slot that is served next */
	bool submitted;                                      /* in this turn */
	uint64_t completed;                                  /* transfers */
	struct usbfs_budget budget;
	sd_event_source *retry;
	bool starved;           /* the kernel has no memory; until a completion or the timer */
	uint64_t starved_since; /* CLOCK_MONOTONIC us; 0: the last submit went well */

	/* libusb-requests.c */
	struct blocking *blocking;
	struct list halts;          // transfer::backend: endpoints whose halt is to be cleared
	struct transfer *halt;      /* on the thread */
	enum host_request request;  /* asked by the engine and not answered */
	bool request_running;       /* on the thread, or with the broker */
	uint8_t request_value;      /* configuration or interface */
	uint8_t request_alternate;  /* altsetting */
	uint32_t request_endpoints; /* bits of descriptors_slot */
	uint32_t request_streams;
	bool broker_asked; /* and it has not answered */
	int broker_error;

	/* libusb-device.c; the thread's while it runs */
	struct usb_description description;
	uint8_t active; /* configuration */
	uint32_t claimed;
	uint8_t alts[HOST_INTERFACES];
	int result;         /* of the call: enum libusb_error */
	int busy_interface; /* with LIBUSB_ERROR_BUSY */
};

/* backend-libusb.c */
/* The device is gone; the sink is told soon. */
void host_gone(struct usb_host *h);
/* Whether libusb's fds are watched: not while the thread has the device. */
void host_watch(struct usb_host *h, bool on);

/* libusb-device.c: these block, and are called on the thread or before the loop. Each leaves an
 * enum libusb_error in result. */
void device_open(void *host);
void device_set_configuration(void *host);
void device_release(void *host);
void device_claim(void *host);
void device_default_alts(void *host);
void device_set_interface(void *host);
void device_reset(void *host);
void device_alloc_streams(void *host);
void device_free_streams(void *host);
void device_clear_halt(void *host);

/* libusb-requests.c */
void requests_init(struct usb_host *h);
/* Ops of the backend. */
void requests_set_configuration(struct backend *b, uint8_t value);
void requests_set_interface(struct backend *b, uint8_t interface, uint8_t alt);
void requests_reset(struct backend *b);
void requests_alloc_streams(struct backend *b, uint32_t endpoints, uint32_t n_streams);
void requests_free_streams(struct backend *b, uint32_t endpoints);
/* blocking's done. */
void requests_done(void *host);
/* True if t is one for requests_clear_halt. */
bool requests_is_clear_halt(const struct transfer *t);
void requests_clear_halt(struct usb_host *h, struct transfer *t);
/* False if t is not here. */
bool requests_cancel_halt(struct usb_host *h, struct transfer *t);
/* Goes on with what waits for the thread or for transfers to come back. */
void requests_advance(struct usb_host *h);
/* Nothing may be submitted now. */
bool requests_hold(const struct usb_host *h);

/* libusb-transfers.c */
int transfers_init(struct usb_host *h) _must_check_;
void transfers_finish(struct usb_host *h);
void transfers_submit(struct backend *b, struct transfer *t);
void transfers_cancel(struct backend *b, struct transfer *t);
/* Submits what waited, as far as there is room. */
void transfers_pump(struct usb_host *h);
/* Cancels what could not be cancelled while the thread had the device. */
void transfers_cancel_late(struct usb_host *h);
void transfers_complete(
	struct usb_host *h, struct transfer *t, enum transfer_status status, uint32_t actual);

static inline struct usb_host *host_of(struct backend *b)
{
	return (struct usb_host *)(void *)b;
}
