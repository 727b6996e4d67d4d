/* SPDX-License-Identifier: MIT
 * Quotas and the charges against them: a charge is taken before the thing that it pays for exists.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

struct quota {
	const char *name; /* as the control API shows it: "devices" */
	uint64_t used;
	uint64_t limit;
};

/* Lives inside the object it pays for. Zeroed: nothing charged. */
struct charge {
	struct quota *quota; // may be NULL
	uint64_t amount;
};

/* Takes amount from q for c, which holds nothing yet. 0, or REFUSAL_QUOTA with nothing changed;
 * owner is the one whose quota it is, for the sentence. */
int charge_take(struct charge *c, struct quota *q, uint64_t amount, const char *owner,
	struct refusal_text *text) _must_check_;
/* What is charged, c, becomes amount, even where that is over the limit. */
void charge_resize(struct charge *c, uint64_t amount);
/* Gives it back; nothing happens if nothing is charged. */
void charge_return(struct charge *c);

struct quota_limits;

/* Whether limits that a request asks for are within what configuration could say. 0 or
 * REFUSAL_INVALID. */
int quota_limits_check(const struct quota_limits *l, struct refusal_text *text) _must_check_;
