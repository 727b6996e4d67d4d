/* SPDX-License-Identifier: MIT */
#include "gpu/cadence.h"

#include <string.h>

#include "base/checked.h"

#define NS_PER_SEC UINT64_C(1000000000)
/* As late as a frame may be without being lost for the rate. */
#define BURST_MIN_NS (NS_PER_SEC / 50)

void cadence_set(struct cadence *c, uint32_t per_second)
{
	uint64_t period = per_second ? NS_PER_SEC / per_second : 0;

	if (period != c->period) {
		memset(c->at, 0, sizeof(c->at));
		c->period = period;
	}
}

static uint64_t latest(const struct cadence *c, uint32_t scanouts)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < CADENCE_SCANOUTS; i++) {
		if (scanouts & 1U << i) {
			at = MAX(at, c->at[i]);
		}
	}
	return at;
}

uint64_t cadence_wait(const struct cadence *c, uint32_t scanouts, uint64_t now)
{
	uint64_t at = c->period ? latest(c, scanouts) : 0;

	return at > now ? MIN(at - now, NS_PER_SEC) : 0;
}

void cadence_spend(struct cadence *c, uint32_t scanouts, uint64_t now)
{
	uint64_t burst = MAX(2 * c->period, BURST_MIN_NS), floor = now - MIN(now, burst);

	for (uint32_t i = 0; c->period && i < CADENCE_SCANOUTS; i++) {
		if (scanouts & 1U << i) {
			c->at[i] = MAX(c->at[i], floor) + c->period;
		}
	}
}

uint64_t cadence_debt(const struct cadence *c, uint64_t now)
{
	/* Who waited for each is never further ahead than one. */
	return cadence_wait(c, UINT32_MAX, now + 2 * c->period);
}
