/* SPDX-License-Identifier: MIT
 *
 * The client's bytes are copied once, by the kernel, into an arena of ours, and used where they lie
 * there: nothing that the client does afterwards changes a command that was checked. What it may
 * make us keep is bounded: the arenas have a usual size, and what a single message needs beyond
 * that is charged and given back behind it. No request is looked at while an answer waits to be
 * sent, so that a client that never reads stops itself.
 *
 * A fence is made where somebody asks whether the renderer is done, and where the client has
 * nothing more to do for the moment: drawing begins then, and may be done when it asks.
 */
#include "gpu/vtest-session.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/virgl.h"
#include "gpu/vtest-internal.h"

/* Answers of requests that came together are sent together, up to about this. */
#define OUT_MARK (64U << 10)
/* That nobody asked for yet. */
#define EARLY_FENCES_MAX 64

int vtest_refuse(struct vtest_session *s, int error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, args);
	va_end(args);
	return error;
}

/* Moves what is used to the front, where it is aligned. */
static void arena_compact(struct vtest_arena *a)
{
	if (a->start > 0) {
		memmove(a->base, a->base + a->start, a->end - a->start);
		a->end -= a->start;
		a->start = 0;
	}
}

static int arena_resize(struct vtest_session *s, struct vtest_arena *a, size_t size)
{
	uint8_t *base;

	if (size > a->size && !budget_charge(&s->table.budget, size - a->size)) {
		return vtest_refuse(s, -EDQUOT,
			"over its budget: %zu bytes more for a message, %llu of %llu in use",
			size - a->size, (unsigned long long)budget_taken(&s->table.budget),
			(unsigned long long)s->table.budget.limit);
	}
	base = realloc(a->base, size);
	if (!base) {
		if (size > a->size) {
			budget_give_back(&s->table.budget, size - a->size);
		}
		return vtest_refuse(s, -ENOMEM, "no memory for a message of %zu bytes", size);
	}
	if (size < a->size) {
		budget_give_back(&s->table.budget, a->size - size);
	}
	a->base = base;
	a->size = size;
	return 0;
}

int vtest_arena_reserve(struct vtest_session *s, struct vtest_arena *a, uint64_t n)
{
	if (n <= a->size - a->end) {
		return 0;
	}
	arena_compact(a);
	if (n <= a->size - a->end) {
		return 0;
	}
	if (n > SIZE_MAX - a->end) {
		return vtest_refuse(s, -EDQUOT, "a message of too many bytes");
	}
	return arena_resize(s, a, a->end + (size_t)n);
}

/* Nothing is in it any more. */
static void arena_reset(struct vtest_session *s, struct vtest_arena *a)
{
	a->start = a->end = 0;
	if (a->size > VTEST_ARENA_SIZE) {
		/* To make it smaller can't fail in a way that matters. */
		_unused_ int r = arena_resize(s, a, VTEST_ARENA_SIZE);
	}
}

int vtest_session_init(struct vtest_session *s, const struct virgl_ops *ops, uint64_t bytes_max)
{
	*s = (struct vtest_session){
		.ops = ops, .out_fd = -1, .table = {.budget = {.limit = bytes_max}}};
	s->in.base = malloc(VTEST_ARENA_SIZE);
	s->out.base = malloc(VTEST_ARENA_SIZE);
	s->in.size = s->out.size = VTEST_ARENA_SIZE;
	if (!s->in.base || !s->out.base || objects_init(&s->objects) < 0) {
		free(s->in.base);
		free(s->out.base);
		return -ENOMEM;
	}
	return 0;
}

void vtest_session_measure(struct vtest_session *s, const struct drift_meter *meter)
{
	drift_init(&s->drift, &s->table.budget, meter);
}

void vtest_session_finish(struct vtest_session *s)
{
	for (size_t i = 0; i < VTEST_BUCKETS; i++) {
		struct vtest_entry *e;

		while ((e = s->table.buckets[i])) {
			if (e->shared.iov_base) {
				s->ops->resource_detach(e->virgl.id);
			}
			s->ops->context_detach(VTEST_CONTEXT, e->virgl.id);
			s->ops->resource_unref(e->virgl.id);
			vtest_table_remove(&s->table, e);
		}
	}
	if (s->created) {
		s->ops->context_destroy(VTEST_CONTEXT);
	}
	submit_forget(&s->streams, &s->objects, &s->table.budget);
	objects_finish(&s->objects);
	arena_reset(s, &s->in);
	arena_reset(s, &s->out);
	assert(s->table.budget.used == 0);
	free(s->in.base);
	free(s->out.base);
	s->out_fd = safe_close(s->out_fd);
}

void *vtest_session_room(struct vtest_session *s, size_t *room_out)
{
	if (s->in.end == s->in.size) {
		arena_compact(&s->in);
	}
	assert(s->in.end < s->in.size);
	*room_out = s->in.size - s->in.end;
	return s->in.base + s->in.end;
}

void vtest_session_received(struct vtest_session *s, size_t n)
{
	assert(n <= s->in.size - s->in.end);
	s->in.end += n;
}

void vtest_session_sent(struct vtest_session *s)
{
	s->out_fd = safe_close(s->out_fd);
	arena_reset(s, &s->out);
}

void vtest_session_fence(void *userdata, uint32_t fence)
{
	struct vtest_session *s = userdata;

	/* They may come in one for all, in any order of what is before them. */
	if ((int32_t)(fence - s->fence_reached) > 0 && (int32_t)(s->fence_made - fence) >= 0) {
		s->fence_reached = fence;
	}
}

/* 1: n bytes of a message are there. 0: not yet, and there is room for them. */
static int have(struct vtest_session *s, uint64_t n)
{
	struct vtest_arena *a = &s->in;

	if (n <= a->end - a->start) {
		return 1;
	}
	return vtest_arena_reserve(s, a, n - (a->end - a->start));
}

static int check_header(struct vtest_session *s, const struct vtest_header *h)
{
	if (s->created == (h->id == VTEST_CREATE_RENDERER)) {
		return vtest_refuse(s, -EPROTO, "%s %s", vtest_name(h->id),
			s->created ? "for a second time" : "before CREATE_RENDERER");
	}
	if (h->id == VTEST_SUBMIT && h->body > SUBMIT_BYTES_MAX) {
		return vtest_refuse(s, -EMSGSIZE, "SUBMIT of %u bytes; %u are the most", h->body,
			SUBMIT_BYTES_MAX);
	}
	return 0;
}

/* One request. 1: done. 0: bytes of it are missing. */
static int run_one(struct vtest_session *s)
{
	struct vtest_arena *a = &s->in;
	struct vtest_header h;
	uint32_t data = 0;
	uint8_t *body;
	int r;

	/* Behind a name, or data, of any length. */
	if (a->start % 4 != 0) {
		arena_compact(a);
	}
	r = have(s, VTEST_HEADER_SIZE);
	if (r <= 0) {
		return r;
	}
	r = vtest_header_decode(a->base + a->start, s->version, &h);
	if (r < 0) {
		return vtest_refuse(s, r,
			"sent a request %u of length %u, which there is not in version %u",
			vtest_word(a->base + a->start, 1), vtest_word(a->base + a->start, 0),
			s->version);
	}
	r = check_header(s, &h);
	if (r == 0) {
		r = have(s, (uint64_t)VTEST_HEADER_SIZE + h.body);
	}
	if (r <= 0) {
		return r;
	}
	r = vtest_data_size(s, &h, a->base + a->start + VTEST_HEADER_SIZE, &data);
	if (r == 0) {
		r = have(s, (uint64_t)VTEST_HEADER_SIZE + h.body + data);
	}
	if (r <= 0) {
		return r;
	}
	body = a->base + a->start + VTEST_HEADER_SIZE;
	a->start += VTEST_HEADER_SIZE + h.body + data;
	r = vtest_do(s, &h, body, data);
	if (a->start == a->end) {
		arena_reset(s, a);
	}
	return r < 0 ? r : 1;
}

static size_t to_send(const struct vtest_session *s)
{
	return s->out.end - s->out.start;
}

/* Whether what is waited for has come; its answer is written then. */
static int check_fence(struct vtest_session *s)
{
	int r;

	s->ops->poll();
	if (s->fence_reached != s->fence_made) {
		return 0;
	}
	s->waiting = false;
	r = vtest_answer_busy(s, false);
	return r < 0 ? r : 1;
}

/* The client is about to be waited for. */
static int fence_early(struct vtest_session *s)
{
	uint32_t out = s->fence_made - s->fence_reached;

	if (!s->unfenced || out >= EARLY_FENCES_MAX) {
		return 0;
	}
	if (out >= EARLY_FENCES_MAX / 2) {
		s->ops->poll();
	}
	return vtest_fence(s);
}

int vtest_session_run(struct vtest_session *s)
{
	int r = 1;

	while (r > 0) {
		if (s->out_fd >= 0 || to_send(s) >= OUT_MARK) {
			return VTEST_NEED_SEND;
		}
		r = s->waiting ? check_fence(s) : run_one(s);
	}
	if (r < 0) {
		return r;
	}
	if (to_send(s) > 0) {
		return VTEST_NEED_SEND;
	}
	if (s->waiting) {
		return VTEST_NEED_FENCE;
	}
	r = fence_early(s);
	return r < 0 ? r : VTEST_NEED_BYTES;
}
