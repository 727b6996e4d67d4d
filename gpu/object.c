/* SPDX-License-Identifier: MIT
 *
 * One pool with one hash over all contexts, and a list per context: no allocation after the start.
 */
#include "gpu/object.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define BUCKETS 65536U

static uint32_t bucket_of(const struct object_key *k)
{
	uint64_t h = ((uint64_t)k->handle << 32 | k->sub) * 0x9e3779b97f4a7c15U;

	h ^= (uint64_t)(k->owner << 2 | k->kind) * 0xc2b2ae3d27d4eb4fU;
	return (uint32_t)(h >> 40) % BUCKETS;
}

static bool same(const struct object_key *a, const struct object_key *b)
{
	return a->handle == b->handle && a->sub == b->sub && a->owner == b->owner &&
	       a->kind == b->kind;
}

int objects_init(struct objects *o)
{
	*o = (struct objects){0};
	o->all = calloc(OBJECTS_MAX + 1, sizeof(*o->all));
	o->buckets = calloc(BUCKETS, sizeof(*o->buckets));
	if (!o->all || !o->buckets) {
		objects_finish(o);
		return -ENOMEM;
	}
	return 0;
}

void objects_finish(struct objects *o)
{
	assert(o->n == 0);
	free(o->all);
	free(o->buckets);
	*o = (struct objects){0};
}

static uint32_t find(const struct objects *o, const struct object_key *key)
{
	uint32_t i = o->buckets[bucket_of(key)];

	while (i && !same(&o->all[i].key, key)) {
		i = o->all[i].next;
	}
	return i;
}

bool objects_have(const struct objects *o, const struct object_key *key)
{
	return find(o, key) != 0;
}

static uint32_t take_free(struct objects *o)
{
	uint32_t i = o->first_free;

	if (i) {
		o->first_free = o->all[i].next;
	} else {
		assert(o->opened < OBJECTS_MAX);
		i = ++o->opened;
	}
	o->n++;
	return i;
}

void objects_put(struct objects *o, uint32_t *first, const struct object_key *key, uint64_t cost,
	bool more, struct budget *budget)
{
	uint32_t i = find(o, key), *bucket = &o->buckets[bucket_of(key)];

	if (i && more) {
		o->all[i].cost += cost;
		return;
	}
	if (i) {
		budget_give_back(budget, o->all[i].cost);
		o->all[i].cost = cost;
		return;
	}
	i = take_free(o);
	o->all[i] = (struct object){.key = *key, .cost = cost, .next = *bucket, .after = *first};
	*bucket = i;
	if (*first) {
		o->all[*first].before = i;
	}
	*first = i;
}

static void drop(struct objects *o, uint32_t *first, uint32_t i, struct budget *budget)
{
	struct object *x = &o->all[i];
	uint32_t *from = &o->buckets[bucket_of(&x->key)];

	while (*from != i) {
		from = &o->all[*from].next;
	}
	*from = x->next;
	if (x->after) {
		o->all[x->after].before = x->before;
	}
	if (x->before) {
		o->all[x->before].after = x->after;
	} else {
		assert(*first == i);
		*first = x->after;
	}
	budget_give_back(budget, x->cost);
	*x = (struct object){.next = o->first_free};
	o->first_free = i;
	o->n--;
}

uint32_t objects_drop(
	struct objects *o, uint32_t *first, const struct object_key *key, struct budget *budget)
{
	uint32_t i = find(o, key);

	if (i == 0) {
		return 0;
	}
	drop(o, first, i, budget);
	return 1;
}

void objects_drop_all(struct objects *o, uint32_t *first, struct budget *budget)
{
	while (*first) {
		drop(o, first, *first, budget);
	}
}

void objects_drop_sub(struct objects *o, uint32_t *first, uint32_t sub, struct budget *budget)
{
	for (uint32_t i = *first, after; i; i = after) {
		after = o->all[i].after;
		if (o->all[i].key.kind == OBJECT_PLAIN && o->all[i].key.sub == sub) {
			drop(o, first, i, budget);
		}
	}
}
