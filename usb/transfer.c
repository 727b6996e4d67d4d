/* SPDX-License-Identifier: MIT
 *
 * Transfers and their buffers stay together: a transfer of a size class waits on that class's list
 * for the next one, so that in the steady state nothing is allocated. Memory that no transfer has
 * used is never touched; what is kept is bounded, and is given up first when the limit is reached.
 */
#include "usb/transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096

/* Class 0 has no buffer. From 64 KiB on each is twice the one before, because there the part of a
 * buffer that is not used would cost real memory. */
static const uint32_t class_bytes[] = {
	0,
	1024,
	4 * 1024,
	16 * 1024,
	64 * 1024,
	128 * 1024,
	256 * 1024,
	512 * 1024,
	TRANSFER_BYTES_MAX,
};

/* Bytes of buffers that are kept when nobody uses them. */
#define KEPT_BYTES_MAX (8u * 1024 * 1024)
/* Kept transfers without a buffer. */
#define KEPT_BARE_MAX 1024

struct transfer_pool {
	size_t limit;
	size_t bytes; /* of all buffers */
	size_t kept;  /* of the buffers in free */
	size_t n_bare;
	size_t used;
	struct list free[ARRAY_SIZE(class_bytes)];
};

static size_t class_of(size_t length)
{
	size_t c = 0;

	while (class_bytes[c] < length) {
		c++;
	}
	return c;
}

static void transfer_free(struct transfer_pool *pool, struct transfer *t)
{
	pool->bytes -= t->capacity;
	free(t->data);
	free(t);
}

/* Takes one that is kept; NULL if there is none of this class. */
static struct transfer *take_kept(struct transfer_pool *pool, size_t c)
{
	struct transfer *t = list_first(&pool->free[c], struct transfer, link);

	if (t) {
		list_remove(&t->link);
		pool->kept -= t->capacity;
		pool->n_bare -= c == 0;
	}
	return t;
}

/* Each buffer given up here was put back by a transfer before: the cost is that transfer's. */
static bool make_room(struct transfer_pool *pool, size_t bytes)
{
	for (size_t c = ARRAY_SIZE(class_bytes) - 1; c > 0; c--) {
		while (pool->bytes + bytes > pool->limit) {
			struct transfer *t = take_kept(pool, c);

			if (!t) {
				break;
			}
			transfer_free(pool, t);
		}
	}
	return pool->bytes + bytes <= pool->limit;
}

static struct transfer *transfer_new(struct transfer_pool *pool, size_t c)
{
	struct transfer *t;

	if (!make_room(pool, class_bytes[c])) {
		return NULL;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		return NULL;
	}
	if (class_bytes[c] >= PAGE) {
		t->data = aligned_alloc(PAGE, class_bytes[c]);
	} else if (class_bytes[c] > 0) {
		t->data = malloc(class_bytes[c]);
	}
	if (class_bytes[c] > 0 && !t->data) {
		free(t);
		return NULL;
	}
	t->capacity = class_bytes[c];
	pool->bytes += t->capacity;
	return t;
}

int transfer_pool_create(size_t limit, struct transfer_pool **out)
{
	struct transfer_pool *pool = calloc(1, sizeof(*pool));

	if (!pool) {
		return -ENOMEM;
	}
	pool->limit = limit;
	for (size_t c = 0; c < ARRAY_SIZE(class_bytes); c++) {
		list_init(&pool->free[c]);
	}
	*out = pool;
	return 0;
}

void transfer_pool_destroy(struct transfer_pool *pool)
{
	if (!pool) {
		return;
	}
	assert(pool->used == 0);
	for (size_t c = 0; c < ARRAY_SIZE(class_bytes); c++) {
		for (struct transfer *t = take_kept(pool, c); t; t = take_kept(pool, c)) {
			transfer_free(pool, t);
		}
	}
	assert(pool->bytes == 0);
	free(pool);
}

struct transfer *transfer_get(struct transfer_pool *pool, size_t length)
{
	struct transfer *t;
	uint32_t capacity;
	uint8_t *data;
	size_t c;

	if (length > TRANSFER_BYTES_MAX) {
		return NULL;
	}
	c = class_of(length);
	t = take_kept(pool, c);
	if (!t) {
		t = transfer_new(pool, c);
	}
	if (!t) {
		return NULL;
	}
	capacity = t->capacity;
	data = t->data;
	memset(t, 0, sizeof(*t));
	t->capacity = capacity;
	t->data = data;
	t->length = (uint32_t)length;
	list_init(&t->link);
	list_init(&t->backend);
	list_init(&t->line);
	pool->used++;
	return t;
}

void transfer_put(struct transfer_pool *pool, struct transfer *t)
{
	pool->used--;
	if (pool->kept + t->capacity > KEPT_BYTES_MAX ||
		(t->capacity == 0 && pool->n_bare >= KEPT_BARE_MAX)) {
		transfer_free(pool, t);
		return;
	}
	pool->kept += t->capacity;
	pool->n_bare += t->capacity == 0;
	list_prepend(&pool->free[class_of(t->capacity)], &t->link);
}

size_t transfer_pool_bytes(const struct transfer_pool *pool)
{
	return pool->bytes;
}

size_t transfer_pool_used(const struct transfer_pool *pool)
{
	return pool->used;
}
