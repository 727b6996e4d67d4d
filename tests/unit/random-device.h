/* SPDX-License-Identifier: MIT
 * A random device behind the engine, and what it shares with the random guest of
 * test-engine-random.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "usb/engine.h"

struct fake {
	struct backend backend;
	struct list submitted; // transfer::backend
	enum { ASKED_NOTHING, ASKED_REQUEST, ASKED_RESET } asked;
	bool quiesce;
	uint8_t configuration;
	uint8_t identity; /* changes at some resets */
	bool any_data;    /* OUT transfers hold what they like, not only A5h */
	bool super;
	/* submits, by enum transfer_type and whether IN; and those in a bulk stream */
	uint64_t seen[4][2];
	uint64_t seen_streams;
};

/* One round: a device, the engine and a guest. */
struct world {
	uint32_t random;
	struct fake fake;
	struct engine *engine;
	sd_event *event;
	int peer;
	bool ids64, bulk32, ack;
	bool streams, receiving; /* negotiated */
	bool finished;
	uint32_t reason;
	bool reading;                   /* the guest reads */
	bool lazy;                      /* it doesn't, until it has sent everything */
	bool broken;                    /* it sent what no guest may send */
	bool told;                      /* it saw device_disconnect */
	uint64_t sent;                  /* data packets that want an answer */
	uint64_t buffered, isochronous; /* packets that came unasked */
	uint64_t answered;
	uint64_t next_id;
	uint64_t received;       /* bytes */
	size_t out_at, out_size; /* what the guest still has to write */
	size_t in_size;
	uint8_t *out, *in;
};

/* Below n; the same sequence for the same seed. */
uint32_t rnd(struct world *w, uint32_t n);

extern const struct backend_ops random_device_ops;

/* One thing that the device does by itself. */
void random_device_step(struct world *w);
