/* SPDX-License-Identifier: MIT
 * How often a scanout may get a frame: a virtual clock for each (protocol/pace.h says how that
 * works). So frames come at their rate on average although each is woken for up to a millisecond,
 * or on a busy machine much, too late.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

#define CADENCE_SCANOUTS 16

struct cadence {
	uint64_t period;               /* ns; 0: there is no limit */
	uint64_t at[CADENCE_SCANOUTS]; /* when the next one may come */
};

/* Frames a second from now on; 0: no limit. What was under another is forgotten. */
void cadence_set(struct cadence *c, uint32_t per_second);
/* ns until a frame of all these scanouts (bits) may come; 0: now. Never more than a second. */
uint64_t cadence_wait(const struct cadence *c, uint32_t scanouts, uint64_t now);
/* It came. */
void cadence_spend(struct cadence *c, uint32_t scanouts, uint64_t now);
/* ns until anything may come: 0, but for somebody whose frames came nevertheless. */
uint64_t cadence_debt(const struct cadence *c, uint64_t now);
