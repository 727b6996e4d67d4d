/* SPDX-License-Identifier: MIT */
#include "broker/quota.h"

#include <assert.h>
#include <inttypes.h>

#include "broker/config.h"

int charge_take(struct charge *c, struct quota *q, uint64_t amount, const char *owner,
	struct refusal_text *text)
{
	assert(!c->quota);
	if (amount > q->limit || q->used > q->limit - amount) {
		return refuse(text, REFUSAL_QUOTA,
			"%s: quota %s is used up: %" PRIu64 " of %" PRIu64 " in use, %" PRIu64
			" more wanted",
			owner, q->name, q->used, q->limit, amount);
	}
	q->used += amount;
	c->quota = q;
	c->amount = amount;
	return 0;
}

void charge_resize(struct charge *c, uint64_t amount)
{
	assert(c->quota && c->quota->used >= c->amount);
	c->quota->used += amount - c->amount;
	c->amount = amount;
}

void charge_return(struct charge *c)
{
	if (!c->quota) {
		return;
	}
	assert(c->quota->used >= c->amount);
	c->quota->used -= c->amount;
	c->quota = NULL;
	c->amount = 0;
}

int quota_limits_check(const struct quota_limits *l, struct refusal_text *text)
{
	if (l->devices > QUOTA_DEVICES_MAX) {
		return refuse(
			text, REFUSAL_INVALID, "devices-max can be at most %d", QUOTA_DEVICES_MAX);
	}
	if (l->bytes_in_flight < QUOTA_BYTES_MIN || l->bytes_in_flight > QUOTA_BYTES_MAX) {
		return refuse(text, REFUSAL_INVALID,
			"bytes-in-flight-max has to be between %d and %d MiB",
			QUOTA_BYTES_MIN >> 20, QUOTA_BYTES_MAX >> 20);
	}
	if (l->transfers_in_flight < 1 || l->transfers_in_flight > QUOTA_TRANSFERS_MAX) {
		return refuse(text, REFUSAL_INVALID,
			"transfers-in-flight-max has to be between 1 and %d", QUOTA_TRANSFERS_MAX);
	}
	if (l->bandwidth != 0 &&
		(l->bandwidth < QUOTA_BANDWIDTH_MIN || l->bandwidth > QUOTA_BANDWIDTH_MAX)) {
		return refuse(text, REFUSAL_INVALID,
			"bandwidth has to be none or between 1 MiB and 1 TiB per second");
	}
	if (l->transfer_rate != 0 &&
		(l->transfer_rate < QUOTA_RATE_MIN || l->transfer_rate > QUOTA_RATE_MAX)) {
		return refuse(text, REFUSAL_INVALID,
			"transfers-per-second has to be none or between %d and %d", QUOTA_RATE_MIN,
			QUOTA_RATE_MAX);
	}
	return 0;
}
