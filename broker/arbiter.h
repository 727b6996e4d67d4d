/* SPDX-License-Identifier: MIT
 * Shares of one pool of GPU time: the CPUs that draw in software, or one render node.
 *
 * Pure: it knows no clock, process or page. Its caller says what each member has used, at times of
 * its choosing (ticks), and hands on what each may use.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "broker/config.h"

/* How often it wants to be called while somebody draws, and how often for one that was let go on
 * although it has overdrawn. */
#define ARBITER_TICK_NS       UINT64_C(10000000)
#define ARBITER_SHORT_TICK_NS UINT64_C(3000000)

struct arbiter_member {
	struct list link; // arbiter::members
	enum gpu_share share;
	uint32_t percent; /* of fair and fixed */
	bool can_be_stopped;
	/* Measured, in all; what was there when it joined doesn't count. */
	uint64_t used_ns;
	int64_t free_ns;     /* that is not held against it: what it takes to start */
	uint64_t delayed_ns; /* while it was ready to run and another one did; asked for by ask */

	/* What it may use, in all: to be compared with used_ns. UINT64_MAX: there is no bound. */
	uint64_t granted_ns;
	bool stopped; /* it is to be stopped from outside until this is false again */
	bool ask;     /* delayed_ns is wanted at the next tick */

	/* The arbiter's own, ns. */
	uint64_t seen_used, seen_delayed;
	bool asked, delayed;
	int64_t credit;
	int64_t window, ready, late; /* summed up over some ticks, fading */
	unsigned int idle;           /* ticks */
	int64_t spent, due;          /* in this tick */
	int64_t credit_before;       /* after the last tick */
	int64_t behind, lag_max;     /* what it was given and did not use; above that it lags */
	uint64_t since;              /* it is stopped, or goes on */
};

struct arbiter {
	struct list members; // arbiter_member::link
	uint32_t capacity;   /* ns of use in a ns; CPUs */
	uint64_t last_ns;
	unsigned int quiet; /* ticks without anything */
	bool bounded;       /* somebody is guaranteed something */
};

void arbiter_init(struct arbiter *a, uint32_t capacity, uint64_t now_ns);
/* m->share, percent, can_be_stopped and used_ns are filled. It may use something at once. */
void arbiter_add(struct arbiter *a, struct arbiter_member *m);
/* Not one that is stopped: it is its caller's to let it go on first. */
void arbiter_remove(struct arbiter *a, struct arbiter_member *m);
/* Reckons with what was used since the last tick. Returns after how many ns it wants the next one;
 * 0: when somebody uses something again. */
uint64_t arbiter_tick(struct arbiter *a, uint64_t now_ns);
