/* SPDX-License-Identifier: MIT
 * How often somebody who is looked at in a rhythm has not answered.
 *
 * A look that comes late says that this host is so busy that it does not run us in time. It will
 * not have run the other one either, so such a look counts for a while only.
 */
#pragma once

#include <stdint.h>

#define PATIENCE_LATE_MAX 10 /* late looks one after the other that do not count */

/* All zero: it has answered. */
struct patience {
	unsigned int misses;
	unsigned int late; /* looks that did not count as such */
};

/* It has not answered at the look that was due then and is now (µs, CLOCK_MONOTONIC), one of those
 * each period µs: late is what comes a quarter of that too late. */
static inline void patience_missed(struct patience *p, uint64_t due, uint64_t now, uint64_t period)
{
	if (now - due >= period / 4 && p->late < PATIENCE_LATE_MAX) {
		p->late++;
	} else {
		p->misses++;
	}
}
