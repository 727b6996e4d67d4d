/* SPDX-License-Identifier: MIT
 * Which Match= lines a device has to be compared with at all: found by what a line names in full,
 * so that a decision does not cost more with every rule that is about other devices.
 */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"

struct policy;
struct policy_rule;
struct policy_index;
struct usb_facts;

/* A Match= line in the order of all; of a rule without one, match is 0 and there is none. */
struct policy_line {
	const struct policy_rule *rule;
	size_t match;
};

/* Of all rules of p, which must not change afterwards. 0 or -ENOMEM. */
int policy_index_create(const struct policy *p, struct policy_index **out) _must_check_;
/* NULL is fine. */
void policy_index_destroy(struct policy_index *index);

/* Lines that may hold for a device, in their order; every line that does hold is among them. */
#define POLICY_CHAINS 5
struct policy_candidates {
	const struct policy_index *index;
	size_t at[POLICY_CHAINS]; /* the next line of each chain */
};

void policy_candidates_init(
	struct policy_candidates *c, const struct policy_index *index, const struct usb_facts *f);
/* The next one, or NULL. */
const struct policy_line *policy_candidates_next(struct policy_candidates *c);
