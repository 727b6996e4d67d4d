/* SPDX-License-Identifier: MIT */
#include "gpu/fence.h"

#include <assert.h>
#include <string.h>

void fences_clear(struct fences *f)
{
	f->n = f->n_reached = 0;
}

void fences_add(struct fences *f, uint16_t head, uint32_t written, const struct fence_point *point,
	uint32_t context, uint64_t since)
{
	assert(f->n < VRING_SIZE_MAX);
	f->waits[f->n++] = (struct fence_wait){*point, since, context, written, head, false};
}

static void reach(struct fences *f, uint32_t i)
{
	f->n_reached += !f->waits[i].reached;
	f->waits[i].reached = true;
}

void fences_reach(struct fences *f, const struct fence_point *point)
{
	for (uint32_t i = 0; i < f->n; i++) {
		const struct fence_point *p = &f->waits[i].point;

		if (p->context == point->context && p->ring == point->ring &&
			p->number <= point->number) {
			reach(f, i);
		}
	}
}

void fences_reach_context(struct fences *f, uint32_t context)
{
	for (uint32_t i = 0; i < f->n; i++) {
		if (f->waits[i].point.context == context) {
			reach(f, i);
		}
	}
}

void fences_reach_all(struct fences *f)
{
	for (uint32_t i = 0; i < f->n; i++) {
		reach(f, i);
	}
}

const struct fence_wait *fences_oldest(const struct fences *f)
{
	uint32_t i = 0;

	if (f->n == f->n_reached) {
		return NULL;
	}
	while (f->waits[i].reached) {
		i++;
	}
	return &f->waits[i];
}

bool fences_take(struct fences *f, uint16_t *head_out, uint32_t *written_out)
{
	uint32_t i = 0;

	if (f->n_reached == 0) {
		return false;
	}
	while (!f->waits[i].reached) {
		i++;
	}
	*head_out = f->waits[i].head;
	*written_out = f->waits[i].written;
	f->n--;
	f->n_reached--;
	memmove(&f->waits[i], &f->waits[i + 1], (f->n - i) * sizeof(f->waits[0]));
	return true;
}
