/* SPDX-License-Identifier: MIT
 * What the engine is for backend-libusb, over the stub libusb's device: gives it transfers, and
 * notes what comes back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/list.h"
#include "tests/benches/stub.h"
#include "usb/backend-libusb.h"

struct fake_transfer {
	struct transfer t;
	struct list link; // fake_engine::out
	unsigned int number;
	bool cancelled; /* somebody asked for it */
	struct iso_packet packets[ISO_PACKETS_MAX];
};

#define FAKE_DONE_MAX 4096

struct fake_engine {
	sd_event *event;
	struct backend *backend;
	struct backend_libusb_listener listener;
	struct list out; // fake_transfer::link: submitted and not completed
	unsigned int n_out;
	unsigned int next_number;
	/* In order. */
	unsigned int n_done;
	unsigned int done[FAKE_DONE_MAX]; /* numbers */
	uint8_t status[FAKE_DONE_MAX];
	uint32_t actual[FAKE_DONE_MAX];
	unsigned int n_answers;
	enum transfer_status answer; /* the last one */
	unsigned int n_lost;
	unsigned int n_busy;
	int asked_configuration; /* -1: no */
	/* May be NULL; sees a transfer before it is freed. */
	void (*look)(struct fake_engine *e, struct fake_transfer *f);
};

/* Wraps the stub's device with those options (tests/benches/stub.h) and opens it. What
 * backend_libusb_open gives. with_broker: set_configuration is asked for. */
int fake_engine_start(
	struct fake_engine *e, const char *stub, size_t usbfs_memory, bool with_broker);
/* Destroys the backend; fails the test if something was still out. */
void fake_engine_stop(struct fake_engine *e);

/* A transfer with a buffer of length bytes, not submitted. */
struct fake_transfer *fake_transfer_new(
	struct fake_engine *e, enum transfer_type type, uint8_t endpoint, uint32_t length);
void fake_engine_submit(struct fake_engine *e, struct fake_transfer *f);
void fake_engine_cancel(struct fake_engine *e, struct fake_transfer *f);
void fake_engine_cancel_all(struct fake_engine *e);

/* Runs the loop until nothing is out and n answers have come, at most 10 s. */
void fake_engine_settle(struct fake_engine *e, unsigned int n_answers);
/* Runs the loop for a while. */
void fake_engine_run(struct fake_engine *e, unsigned int ms);
/* Sets an altsetting and waits for it. */
void fake_engine_set_alt(struct fake_engine *e, uint8_t interface, uint8_t alt);
