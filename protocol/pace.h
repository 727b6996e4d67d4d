/* SPDX-License-Identifier: MIT
 * How fast one VM may use its USB devices: a page that the broker and that VM's workers share.
 *
 * Each rate is a virtual clock (GCRA): `at` is when all that was spent will have been earned. While
 * it lies in the future nothing more is begun; what is begun moves it on by its cost, as far as the
 * cost may be. So nothing is ever refused or lost, and several workers share one limit without a
 * message. The broker writes limits and reads nothing: a worker that lies in the page, or doesn't
 * look at it, changes how fast its own VM is, and nothing else.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct pace_rate {
	_Atomic uint64_t limit; /* per second; 0: none */
	_Atomic uint64_t at;    /* CLOCK_MONOTONIC, ns */
};

struct pace_page {
	struct pace_rate bytes; /* in both directions together */
	struct pace_rate transfers;
};

/* Nobody is made to wait longer than that for one limit, whatever the page says. */
#define PACE_WAIT_MAX_NS (60 * UINT64_C(1000000000))

/* Limits from now on; what was spent under others is forgotten. */
void pace_set(struct pace_page *p, uint64_t bytes, uint64_t transfers);
/* ns until something may be begun; 0: now. */
uint64_t pace_wait(const struct pace_page *p, uint64_t now_ns);
/* A transfer of so many bytes is begun. */
void pace_spend(struct pace_page *p, uint64_t now_ns, uint32_t bytes);
/* So many of the bytes that were spent did not come. */
void pace_refund(struct pace_page *p, uint32_t bytes);
