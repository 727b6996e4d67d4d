/* SPDX-License-Identifier: MIT
 * Ways to a VM without QMP: connections that speak usbredir, one for each device that it can have
 * at once. Slots are sockets under RUN-DIR/vm/NAME; streams are what configuration says.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/config.h"
#include "broker/stream-address.h"

struct lease;
struct vm;
struct way;
struct ways;

enum way_state {
	WAY_CLOSED,    /* it can't be connected any more */
	WAY_WAITING,   /* for somebody who connects, or who listens */
	WAY_CONNECTED, /* and free */
	WAY_LENT,
	WAY_STATE_COUNT_,
};

struct ways_options {
	const struct config_ways *ways;
	/* Of the only stream, instead of its address: borrowed; -1: that is not there any more. */
	const int *listen_fd; // may be NULL
	bool lasting;         /* who is waited for again when the other end has gone */
};

/* Listens, and begins to connect. 0 or -errno; where_out says what failed. */
int ways_create(struct vm *vm, const struct ways_options *options, struct ways **out,
	char where_out[STREAM_ADDRESS_TEXT]) _must_check_;
/* No lease has any of them. NULL is fine. */
void ways_destroy(struct ways *w);

/* How many devices it can have at once. */
uint32_t ways_count(const struct ways *w);
/* Whether somebody is at the other end of any of them, or was until we hung up a moment ago. */
bool ways_connected(const struct ways *w);
/* Whether a device could be lent now. */
bool ways_free(const struct ways *w);
/* Whether another connection can come when one has gone. */
bool ways_lasting(const struct ways *w);

/* One that is free becomes l's. NULL: there is none. */
struct way *ways_reserve(struct ways *w, struct lease *l);
/* The same for the one with this number, whose connection a worker has already. NULL: there is none
 * with that number, or another lease has it. */
struct way *ways_adopt(struct ways *w, struct lease *l, uint32_t number);
/* Its connection, for the worker; the caller's. -1: it was closed meanwhile. */
int way_take(struct way *w);
/* Its lease is over, and so is the connection; hung_up: by the other end. NULL is fine. */
void way_return(struct way *w, bool hung_up);
/* From 0. */
uint32_t way_number(const struct way *w);

/* What is shown of way i. */
enum way_state ways_show(
	const struct ways *w, uint32_t i, const char **address_out, const struct lease **lease_out);
const char *way_state_name(enum way_state state);
