/* SPDX-License-Identifier: MIT
 * A virtual stick and a host that drives it, for the tests: transfers are made, submitted to the
 * backend's ops, and the loop is turned until they are back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "usb/backend.h"
#include "usb/transfer.h"

#define STICK_SERIAL "0123456789ABCDEF"

struct stick {
	sd_event *event;
	struct backend *backend;
	int image; /* a second fd of the image, for looking behind the scenes */
	unsigned completed;
	unsigned requests_done;
	unsigned quiesced;
	unsigned ejected;
	int last_request_status;
	int quiesce_error;
	uint32_t tag;
	unsigned in_flight;
	/* Called on each completion, before submit returns even; may submit. May be NULL. */
	void (*on_complete)(struct stick *s, struct transfer *t);
	void *userdata;
};

/* A transfer and its data, with poison behind it. */
struct piece {
	struct transfer t;
	bool done;
	unsigned order; /* of completion, from 1 */
	uint8_t *data;
};

struct csw {
	uint32_t tag;
	uint32_t residue;
	uint8_t status;
};

/* image is duplicated. Asserts that it works. */
void stick_open(struct stick *s, int image, bool read_only, enum usb_speed speed);
void stick_close(struct stick *s);
/* An unlinked image of size bytes, each 512-byte block filled with its number. */
int stick_image(uint64_t size);

void piece_init(struct piece *p, uint8_t endpoint, uint32_t length);
void piece_free(struct piece *p);
void stick_submit(struct stick *s, struct piece *p);
/* Turns the loop until p is done; fails the test after 5 seconds. */
void stick_wait(struct stick *s, struct piece *p);
/* Turns the loop until *counter is at least n. */
void stick_wait_count(struct stick *s, const unsigned *counter, unsigned n);
/* Turns the loop while something happens within ms. */
void stick_settle(struct stick *s, unsigned ms);

/* Submits and waits. Returns the status; length_in_out: bytes wanted, then done. */
int stick_bulk_out(struct stick *s, const void *data, uint32_t length, uint32_t *actual_out);
int stick_bulk_in(struct stick *s, void *data, uint32_t length, uint32_t *actual_out);
int stick_control(struct stick *s, uint8_t type, uint8_t request, uint16_t value, uint16_t index,
	void *data, uint16_t length, uint32_t *actual_out);
void stick_clear_halt(struct stick *s, uint8_t endpoint);

/* Makes a CBW (31 bytes) with the next tag. */
void stick_cbw(struct stick *s, uint8_t *cbw, uint32_t length, bool in, const uint8_t *cdb,
	uint8_t cdb_size);
/* Reads a CSW; clears a halt of bulk-in and tries once more, as a host does (6.7.2). */
struct csw stick_csw(struct stick *s);
/* A whole command as Linux's usb-storage does it: CBW, data in one transfer (stalls are cleared),
 * CSW with the right tag. Returns the CSW status; *actual_out (may be NULL) bytes of data. */
int stick_command(struct stick *s, const uint8_t *cdb, uint8_t cdb_size, bool in, void *data,
	uint32_t length, uint32_t *actual_out);
/* REQUEST SENSE, as one number (usb/scsi.h). */
uint32_t stick_sense(struct stick *s);
/* TEST UNIT READY until the unit attention is gone. */
void stick_ready(struct stick *s);
