/* SPDX-License-Identifier: MIT
 * The engine between a fake backend and a guest that speaks usbredir in raw bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "tests/unit/test.h"
#include "usb/engine.h"

enum {
	HELLO = 0,
	DEVICE_CONNECT = 1,
	DEVICE_DISCONNECT = 2,
	RESET = 3,
	INTERFACE_INFO = 4,
	EP_INFO = 5,
	SET_CONFIGURATION = 6,
	CONFIGURATION_STATUS = 8,
	SET_ALT = 9,
	ALT_STATUS = 11,
	START_ISO = 12,
	STOP_ISO = 13,
	ISO_STATUS = 14,
	START_INTERRUPT = 15,
	STOP_INTERRUPT = 16,
	INTERRUPT_STATUS = 17,
	ALLOC_STREAMS = 18,
	FREE_STREAMS = 19,
	STREAMS_STATUS = 20,
	CANCEL = 21,
	DISCONNECT_ACK = 24,
	START_BULK = 25,
	STOP_BULK = 26,
	BULK_STATUS = 27,
	CONTROL = 100,
	BULK = 101,
	ISO = 102,
	INTERRUPT = 103,
	BUFFERED_BULK = 104,
};

#define FIXTURE_QUEUED_MAX 64
/* The engine's own bound. */
#define FIXTURE_TRANSFERS 8

struct fixture {
	sd_event *event;
	struct engine *engine;
	int guest;
	uint8_t in[1 << 16];
	size_t n_in;
	/* the fake device */
	struct backend backend;
	struct backend_ops ops; /* a copy that a test may change */
	struct usb_description description;
	struct transfer *queued[FIXTURE_QUEUED_MAX];
	size_t n_queued;
	unsigned int requests;
	bool requests_wait;
	bool cancel_waits;
	uint32_t stream_endpoints; /* of the last request */
	uint32_t n_streams;
	/* what the listener heard */
	uint32_t state;
	bool finished;
	uint32_t reason;
	char detail[64];
};

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Runs engine and guest until nothing is left to do. */
void turn(struct fixture *f);
/* Completes the transfer that was queued at place i. data is a string, or NULL. */
void complete(struct fixture *f, size_t i, enum transfer_status status, const char *data);
/* The guest sends one packet. */
void say(struct fixture *f, uint32_t type, uint32_t id, const void *body, size_t size);
/* The next packet that the guest gets must be of that type and id. Returns its body, in a buffer of
 * the function's own; size_out may be NULL. */
const uint8_t *expect(struct fixture *f, int type, uint32_t id, size_t *size_out);
void expect_nothing(struct fixture *f);

/* Hellos, device_connect. */
void greet(struct fixture *f);
void configure(struct fixture *f);
void set_alt(struct fixture *f, uint8_t interface, uint8_t alt);
/* All of it, with the endpoints of interface 5. */
void bring_up(struct fixture *f);
