/* SPDX-License-Identifier: MIT
 *
 * The text is the kernel's, but many drivers write it, each in its own way, and a guest's work is
 * what they count: so nothing of one that is not as documented is believed.
 *
 * xe counts cycles instead of time, and says how many there were in all; others count cycles beside
 * time, and do not say that.
 */
#include "broker/drm-usage.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

#define ITEMS_MAX 128 /* amdgpu and xe have some 30 */

enum kind {
	KIND_CAPACITY,
	KIND_TIME,
	KIND_CYCLES,
	KIND_ALL_CYCLES,
	KIND_RESIDENT,
	KIND_MEMORY,
	KIND_TOTAL,
	KIND_OTHER,
};

/* The first that fits; any other line is KIND_OTHER. */
static const struct {
	const char *prefix;
	enum kind kind;
} kinds[] = {
	{"drm-engine-capacity-", KIND_CAPACITY},
	{"drm-engine-", KIND_TIME},
	{"drm-resident-", KIND_RESIDENT},
	{"drm-memory-", KIND_MEMORY},
	{"drm-cycles-", KIND_CYCLES},
	{"drm-total-cycles-", KIND_ALL_CYCLES},
	{"drm-total-", KIND_TOTAL},
};

struct item {
	enum kind kind;
	const char *name; /* of the engine or the region, not terminated */
	size_t length;
	uint64_t value; /* ns, cycles, bytes, or how many */
};

struct items {
	struct item of[ITEMS_MAX];
	size_t n;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool same_name(const struct item *a, const struct item *b)
{
	return a->length == b->length && memcmp(a->name, b->name, a->length) == 0;
}

static const struct item *find(const struct items *items, enum kind kind, const struct item *named)
{
	for (size_t i = 0; i < items->n; i++) {
		if (items->of[i].kind == kind && same_name(&items->of[i], named)) {
			return &items->of[i];
		}
	}
	return NULL;
}

static bool is_unit(const char *at, const char *end, const char *unit)
{
	return (size_t)(end - at) == strlen(unit) && memcmp(at, unit, strlen(unit)) == 0;
}

/* What follows the number, on what it is of. 0 or -errno. */
static int apply_unit(enum kind kind, const char *at, const char *end, uint64_t *value)
{
	uint64_t factor = 1;

	if (kind == KIND_TIME) {
		return is_unit(at, end, "ns") ? 0 : -EBADMSG;
	}
	if (kind == KIND_CAPACITY || kind == KIND_CYCLES || kind == KIND_ALL_CYCLES) {
		return at == end && (*value > 0 || kind != KIND_CAPACITY) ? 0 : -EBADMSG;
	}
	if (is_unit(at, end, "KiB")) {
		factor = 1U << 10;
	} else if (is_unit(at, end, "MiB")) {
		factor = 1U << 20;
	} else if (at != end) {
		return -EBADMSG;
	}
	return u64_mul(*value, factor, value) ? 0 : -ERANGE;
}

/* A decimal number, spaces around it, and its unit. 0 or -errno. */
static int read_value(enum kind kind, const char *at, const char *end, uint64_t *out)
{
	uint64_t value = 0;
	const char *digits;

	while (at < end && is_space(*at)) {
		at++;
	}
	while (end > at && is_space(end[-1])) {
		end--;
	}
	for (digits = at; at < end && *at >= '0' && *at <= '9'; at++) {
		if (!u64_mul(value, 10, &value) || !u64_add(value, (uint64_t)(*at - '0'), &value)) {
			return -ERANGE;
		}
	}
	if (at == digits || (at < end && !is_space(*at))) {
		return -EBADMSG;
	}
	while (at < end && is_space(*at)) {
		at++;
	}
	*out = value;
	return apply_unit(kind, at, end, out);
}

static enum kind kind_of(const char *key, size_t length, struct item *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i].prefix);

		if (length >= n && memcmp(key, kinds[i].prefix, n) == 0) {
			*out = (struct item){
				.kind = kinds[i].kind, .name = key + n, .length = length - n};
			return kinds[i].kind;
		}
	}
	return KIND_OTHER;
}

static int read_line(struct items *items, const char *at, const char *end)
{
	const char *colon = memchr(at, ':', (size_t)(end - at));
	struct item item;
	int r;

	if (!colon || kind_of(at, (size_t)(colon - at), &item) == KIND_OTHER) {
		return 0;
	}
	if (item.length == 0 || memchr(item.name, ' ', item.length) ||
		memchr(item.name, '\t', item.length) || find(items, item.kind, &item)) {
		return -EBADMSG;
	}
	if (items->n == ITEMS_MAX) {
		return -E2BIG;
	}
	r = read_value(item.kind, colon + 1, end, &item.value);
	if (r == 0) {
		items->of[items->n++] = item;
	}
	return r;
}

/* Whether there is anything of this kind, and its sum. 0 or -errno. */
static int add_up(const struct items *items, enum kind kind, bool *any_out, uint64_t *sum_out)
{
	const struct item *item, *capacity;
	uint64_t sum = 0;
	bool any = false;

	for (size_t i = 0; i < items->n; i++) {
		item = &items->of[i];
		if (item->kind != kind) {
			continue;
		}
		capacity = kind == KIND_TIME || kind == KIND_CYCLES
				   ? find(items, KIND_CAPACITY, item)
				   : NULL;
		if (!u64_add(sum, item->value / (capacity ? capacity->value : 1), &sum)) {
			return -ERANGE;
		}
		any = true;
	}
	*any_out = any;
	*sum_out = sum;
	return 0;
}

/* Cycles say something only beside all that there were, which are the same for all engines: of a
 * GPU that has more than one clock it is not known how to add them. */
static int add_cycles(const struct items *items, struct drm_usage *u)
{
	const struct item *item, *all;
	bool known = true;
	int r;

	for (size_t i = 0; i < items->n; i++) {
		item = &items->of[i];
		if (item->kind == KIND_CYCLES) {
			all = find(items, KIND_ALL_CYCLES, item);
			known = known && all && (!u->cycles_all || u->cycles_all == all->value);
			u->cycles_all = known ? all->value : 0;
		}
	}
	r = add_up(items, KIND_CYCLES, &u->counts_cycles, &u->cycles);
	if (!known) {
		u->counts_cycles = false;
		u->cycles = u->cycles_all = 0;
	}
	return r;
}

/* What is in RAM or VRAM, or else what the driver calls in use, or else what there is: the same
 * memory is in each of them, if they are there. */
static int add_memory(const struct items *items, struct drm_usage *u)
{
	static const enum kind families[] = {KIND_RESIDENT, KIND_MEMORY, KIND_TOTAL};
	int r = 0;

	for (size_t i = 0; r == 0 && !u->counts_memory && i < ARRAY_SIZE(families); i++) {
		r = add_up(items, families[i], &u->counts_memory, &u->memory);
	}
	return r;
}

int drm_usage_parse(const char *text, size_t size, struct drm_usage *out)
{
	const char *at = text, *const end = text + size, *newline;
	struct items items;
	struct drm_usage u = {0};
	int r = 0;

	for (items.n = 0; r == 0 && at < end; at = newline + 1) {
		newline = memchr(at, '\n', (size_t)(end - at));
		if (!newline) {
			return -EBADMSG;
		}
		r = read_line(&items, at, newline);
	}
	if (r == 0) {
		r = add_up(&items, KIND_TIME, &u.counts_time, &u.engine_ns);
	}
	if (r == 0) {
		r = add_cycles(&items, &u);
	}
	if (r == 0) {
		r = add_memory(&items, &u);
	}
	if (r == 0) {
		*out = u;
	}
	return r;
}
