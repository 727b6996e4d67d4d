/* SPDX-License-Identifier: MIT
 * What a guest may see of a lent device and do to it, between the engine and the backend: only some
 * interfaces, storage that can't be written, firmware that stays.
 *
 * The engine shows it descriptors before it reads them itself, and the guest's transfers where
 * guard_watched says so; where it doesn't, nothing of this runs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "usb/backend.h"

struct descriptors;
struct guard;
struct transfer;

struct guard_options {
	uint32_t interfaces; /* numbers of those that the guest sees, a bit each */
	bool read_only;      /* mass storage can't be written */
	bool allow_firmware; /* requests of the DFU class that replace firmware may pass */
};

/* Implemented by the engine. Either may call the guard back from within. */
struct guard_ops {
	/* Gives t to the backend. */
	void (*submit)(void *userdata, struct transfer *t);
	/* t is done without the backend, with the status and actual that are set. */
	void (*complete)(void *userdata, struct transfer *t);
	/* t is refused: counted before it is completed. */
	void (*refused)(void *userdata);
};

/* 0 or -ENOMEM. ops and userdata are borrowed. */
int guard_create(const struct guard_options *options, const struct guard_ops *ops, void *userdata,
	struct guard **out) _must_check_;
/* Nothing is held any more. NULL is fine. */
void guard_destroy(struct guard *g);

/* Takes what the device says of itself, and gives what the guest shall see: descriptors without
 * what is hidden. 0; -EOPNOTSUPP if the guest can't be shown any of it (it has no storage that can
 * be write-protected, none of the interfaces, or no configuration yet); -EBADMSG if it is in
 * another configuration than the one whose interfaces were chosen. */
int guard_describe(struct guard *g, const struct usb_description *device,
	struct usb_description *view_out) _must_check_;
/* d is read from what guard_describe gave, or has other altsettings in use now. */
void guard_update(struct guard *g, const struct descriptors *d);
/* Endpoints whose transfers it wants to see: bits of descriptors_slot. */
uint32_t guard_watched(const struct guard *g);

/* Of them, those that may have streams. */
uint32_t guard_streamed(const struct guard *g);

/* Whether the guest may set this configuration. */
bool guard_may_configure(const struct guard *g, uint8_t value);

/* The guest sent t on a watched endpoint: it is submitted, completed or held (t->held), now or when
 * it is its turn. */
void guard_submit(struct guard *g, struct transfer *t);
/* The device is done with t, of which t->guard_unit is set: its data may be changed. */
void guard_completed(struct guard *g, struct transfer *t);
/* Goes on with what waited for that, after t was answered. */
void guard_continue(struct guard *g);
/* t is held: it is completed as cancelled. */
void guard_cancel(struct guard *g, struct transfer *t);
/* Another altsetting of an interface, or a reset or another configuration (-1): commands are
 * forgotten. What is held is cancelled by who calls. */
void guard_forget(struct guard *g, int interface);
