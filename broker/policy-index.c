/* SPDX-License-Identifier: MIT
 *
 * A hash table of lines. Each line stands in one chain: that of the serial number, the port, the
 * ids or the vendor that it names without a pattern (the first of these that it has), or that of
 * all others. A device is in at most one chain of each kind. Lines that share a slot by chance only
 * are compared for nothing; nothing is ever left out, and the chains are walked together in the
 * order of the lines, so that the first that holds is the same as without an index.
 */
#include "broker/policy-index.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "broker/policy.h"
#include "broker/usb-facts.h"

#define NONE SIZE_MAX

struct policy_index {
	size_t n_lines;
	struct policy_line *lines;
	size_t *next;  /* of each line in its chain; NONE at the end */
	size_t *slots; /* the first line of each chain; a power of two of them */
	size_t n_slots;
	size_t others; /* the first line of those that name nothing in full */
};

/* FNV-1a; the kinds have keys of their own. */
static size_t slot_of(const struct policy_index *index, enum policy_selects kind, uint32_t number,
	const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	h = (h ^ (uint64_t)kind) * 0x100000001b3;
	for (size_t i = 0; i < 32; i += 8) {
		h = (h ^ (number >> i & 0xff)) * 0x100000001b3;
	}
	for (const char *c = text; *c; c++) {
		h = (h ^ (unsigned char)*c) * 0x100000001b3;
	}
	return (size_t)(h ^ h >> 32) & (index->n_slots - 1);
}

static size_t count_lines(const struct policy *p)
{
	const struct policy_rule *rule;
	size_t n = 0;

	list_for_each (rule, &p->rules, link) {
		n += rule->n_matches ? rule->n_matches : 1;
	}
	return n;
}

static void fill_lines(struct policy_index *index, const struct policy *p)
{
	const struct policy_rule *rule;
	size_t n = 0;

	list_for_each (rule, &p->rules, link) {
		size_t m = rule->n_matches ? rule->n_matches : 1;

		for (size_t i = 0; i < m; i++) {
			index->lines[n++] = (struct policy_line){.rule = rule, .match = i};
		}
	}
}

/* From the last to the first, each before what its chain has: so chains are in order. */
static void fill_chains(struct policy_index *index)
{
	for (size_t i = index->n_lines; i-- > 0;) {
		const struct policy_line *line = &index->lines[i];
		struct policy_selector s = {.kind = POLICY_SELECTS_NOTHING, .text = ""};
		size_t *first = &index->others;

		if (line->rule->n_matches > 0) {
			policy_match_selector(&line->rule->matches[line->match], &s);
		}
		if (s.kind != POLICY_SELECTS_NOTHING) {
			first = &index->slots[slot_of(index, s.kind, s.number, s.text)];
		}
		index->next[i] = *first;
		*first = i;
	}
}

int policy_index_create(const struct policy *p, struct policy_index **out)
{
	struct policy_index *index = calloc(1, sizeof(*index));

	if (!index) {
		return -ENOMEM;
	}
	index->n_lines = count_lines(p);
	index->n_slots = 64;
	while (index->n_slots < index->n_lines) {
		index->n_slots *= 2;
	}
	/* One more than needed: an empty policy has arrays too. */
	index->lines = calloc(index->n_lines + 1, sizeof(*index->lines));
	index->next = calloc(index->n_lines + 1, sizeof(*index->next));
	index->slots = calloc(index->n_slots, sizeof(*index->slots));
	if (!index->lines || !index->next || !index->slots) {
		policy_index_destroy(index);
		return -ENOMEM;
	}
	index->others = NONE;
	for (size_t i = 0; i < index->n_slots; i++) {
		index->slots[i] = NONE;
	}
	fill_lines(index, p);
	fill_chains(index);
	*out = index;
	return 0;
}

void policy_index_destroy(struct policy_index *index)
{
	if (!index) {
		return;
	}
	free(index->lines);
	free(index->next);
	free(index->slots);
	free(index);
}

void policy_candidates_init(
	struct policy_candidates *c, const struct policy_index *index, const struct usb_facts *f)
{
	struct policy_selector all[POLICY_SELECTS_COUNT_];

	static_assert(POLICY_CHAINS == POLICY_SELECTS_COUNT_, "one per kind, one for all others");
	policy_selectors_of(f, all);
	c->index = index;
	for (size_t i = 0; i < POLICY_SELECTS_COUNT_; i++) {
		c->at[i] = all[i].kind == POLICY_SELECTS_NOTHING
				   ? index->others
				   : index->slots[slot_of(
					     index, all[i].kind, all[i].number, all[i].text)];
	}
}

const struct policy_line *policy_candidates_next(struct policy_candidates *c)
{
	size_t first = NONE;

	for (size_t i = 0; i < POLICY_CHAINS; i++) {
		first = c->at[i] < first ? c->at[i] : first;
	}
	if (first == NONE) {
		return NULL;
	}
	for (size_t i = 0; i < POLICY_CHAINS; i++) {
		if (c->at[i] == first) {
			c->at[i] = c->index->next[first];
		}
	}
	return &c->index->lines[first];
}
