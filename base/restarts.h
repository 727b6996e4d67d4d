/* SPDX-License-Identifier: MIT
 * Whether what is started again whenever it ends does so faster than is good for anybody.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Of processes that end. */
#define RESTARTS_MAX  20
#define RESTARTS_USEC UINT64_C(10000000)

/* All zero: none yet. */
struct restarts {
	uint64_t ended[RESTARTS_MAX]; // µs, the last ones
	unsigned int n;
};

/* Notes an end at now (µs, CLOCK_MONOTONIC). True: it is the one after max (up to RESTARTS_MAX,
 * always the same for one r) within usec. */
static inline bool restarts_too_often(
	struct restarts *r, unsigned int max, uint64_t usec, uint64_t now)
{
	uint64_t *oldest = &r->ended[r->n++ % max];
	bool often = r->n > max && now - *oldest < usec;

	*oldest = now;
	return often;
}
