/* SPDX-License-Identifier: MIT
 * What a device behind the engine is: an ops struct, and the calls that a backend makes back.
 *
 * Everything runs on the worker's one loop thread; a backend with threads of its own comes back to
 * the loop before it calls the sink.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "usb/transfer.h"

enum usb_speed { USB_SPEED_LOW, USB_SPEED_FULL, USB_SPEED_HIGH, USB_SPEED_SUPER };

#define USB_CONFIG_DESCRIPTOR_MAX 4096

/* Raw descriptors as the device gives them: hostile for a real device; the engine parses them with
 * its own bounds. */
struct usb_description {
	enum usb_speed speed;
	uint8_t device[18];
	/* The active configuration, with everything below it; size 0: not configured. */
	uint8_t config[USB_CONFIG_DESCRIPTOR_MAX];
	size_t config_size;
};

struct backend;

/* Called by a backend; implemented by the engine. */
struct backend_sink_ops {
	/* t is done: status and actual are set. Exactly once per submit. May be called from within
	 * submit. The backend forgets t. */
	void (*completed)(void *userdata, struct transfer *t);
	/* Answers set_configuration, set_interface, reset, alloc_streams and free_streams (exactly
	 * one outstanding). */
	void (*request_done)(void *userdata, enum transfer_status status);
	/* The guest ejected the medium and everything is on the disk. */
	void (*ejected)(void *userdata);
	/* The device is gone for good; what is submitted completes with IO_ERROR before or after.
	 */
	void (*lost)(void *userdata, int error);
	/* Answers quiesce: everything is on the disk (0), or -errno. */
	void (*quiesced)(void *userdata, int error);
};

struct backend_ops {
	const char *name;
	/* It takes TRANSFER_ISO. */
	bool isochronous;
	/* Its bulk IN endpoints may be read before the guest asks (buffered bulk receiving). */
	bool bulk_receiving;
	/* What it was told to cancel, and the answers to requests, may take as long as a disk
	 * takes. Otherwise what takes longer than some seconds means that the device is lost. */
	bool slow;
	/* Fills *out. 0 or -errno. Called at start and after each request_done of a configuration
	 * or reset. After a reset: what the device itself says now, for it may be another one. */
	int (*describe)(struct backend *b, struct usb_description *out);
	/* Takes t until completed. Never fails: what can't be done completes with a status. A
	 * control transfer that clears an endpoint's halt (CLEAR_FEATURE) is done as the host's
	 * stack does it.
	 */
	void (*submit)(struct backend *b, struct transfer *t);
	/* The end of a turn of the loop: completes what is done already, if that is cheaper than
	 * waiting to be told. NULL: nothing to do. */
	void (*turn)(struct backend *b);
	/* t was submitted: complete it soon, with CANCELLED if it had not been done. */
	void (*cancel)(struct backend *b, struct transfer *t);
	/* Each answered by request_done, maybe from within. value 0 unconfigures. */
	void (*set_configuration)(struct backend *b, uint8_t value);
	void (*set_interface)(struct backend *b, uint8_t interface, uint8_t alt);
	void (*reset)(struct backend *b);
	/* Bulk streams 1 to n_streams (fewer are a failure) on each endpoint of the mask (bit
	 * descriptors_slot(address)), or none any more. A reset, another configuration or
	 * altsetting end those of their endpoints, too. Answered by request_done, maybe from
	 * within. NULL: has none. */
	void (*alloc_streams)(struct backend *b, uint32_t endpoints, uint32_t n_streams);
	void (*free_streams)(struct backend *b, uint32_t endpoints);
	/* No more submits will come: put everything on the disk, then quiesced(). */
	void (*quiesce)(struct backend *b);
	/* Nothing is submitted any more. Accepts half-built. */
	void (*destroy)(struct backend *b);
};

struct backend {
	const struct backend_ops *ops;
	const struct backend_sink_ops *sink;
	void *sink_data;
};
