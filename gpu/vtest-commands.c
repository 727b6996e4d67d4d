/* SPDX-License-Identifier: MIT
 *
 * The requests of vtest. The protocol has no errors: whoever asks for what can't be is dropped,
 * with a line that says why, as virgl_test_server does it. What the renderer refuses of a transfer
 * is the client's own affair: it gets zeros.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "gpu/capset.h"
#include "gpu/submit-run.h"
#include "gpu/virgl.h"
#include "gpu/vtest-internal.h"
#include "gpu/vtest-session.h"

/* Room for n bytes of output; NULL, with why said. */
static uint8_t *add_output(struct vtest_session *s, uint64_t n)
{
	uint8_t *p;

	if (vtest_arena_reserve(s, &s->out, n) < 0) {
		return NULL;
	}
	p = s->out.base + s->out.end;
	s->out.end += (size_t)n;
	return p;
}

static void put_word(uint8_t *p, uint32_t n, uint32_t value)
{
	p += (size_t)n * 4;
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
	p[2] = (uint8_t)(value >> 16);
	p[3] = (uint8_t)(value >> 24);
}

static int answer(struct vtest_session *s, uint32_t id, const uint32_t *words, uint32_t n)
{
	uint8_t *p = add_output(s, VTEST_HEADER_SIZE + n * 4U);

	if (!p) {
		return -ENOMEM;
	}
	put_word(p, 0, n);
	put_word(p, 1, id);
	for (uint32_t i = 0; i < n; i++) {
		put_word(p, 2 + i, words[i]);
	}
	return 0;
}

int vtest_answer_busy(struct vtest_session *s, bool busy)
{
	return answer(s, VTEST_BUSY_WAIT, (const uint32_t[]){busy}, 1);
}

static int do_create_renderer(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	char name[64];

	(void)data;
	/* The renderer writes it into its messages. */
	log_escape((const char *)body, h->body, name, sizeof(name));
	if (s->ops->context_create(VTEST_CONTEXT, 0, name, (uint32_t)strlen(name)) < 0) {
		return vtest_refuse(s, -EIO, "the renderer has no context for it");
	}
	virgl_limits_of(s->ops, &s->table.limits);
	s->created = true;
	return 0;
}

static int do_ping(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	(void)body;
	(void)data;
	return answer(s, h->id, NULL, 0);
}

static int do_version(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	uint32_t wanted = vtest_word(body, 0);

	(void)data;
	s->version = wanted >= VTEST_VERSION_MAX ? VTEST_VERSION_MAX : 0;
	return answer(s, h->id, &s->version, 1);
}

/* The answer's number is that of the capset, and its length one more than the bytes. */
static int do_caps(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	uint32_t capset = h->id == VTEST_GET_CAPS2 ? 2 : 1, version = 0, size = 0;
	uint8_t *p;

	(void)body;
	(void)data;
	s->ops->capset_info(capset, &version, &size);
	if (size == 0) {
		/* Mesa asks for both, and takes the older one where the newer is none. */
		return capset == 2 ? 0 : vtest_refuse(s, -EIO, "the renderer has no capabilities");
	}
	p = add_output(s, VTEST_HEADER_SIZE + (uint64_t)size);
	if (!p) {
		return -ENOMEM;
	}
	put_word(p, 0, size + 1);
	put_word(p, 1, capset);
	s->ops->capset_fill(capset, MIN(version, 1U), p + VTEST_HEADER_SIZE, size);
	if (capset == 2) {
		capset_tell_budget(p + VTEST_HEADER_SIZE, size, s->table.budget.limit);
	}
	return 0;
}

static int refuse_resource(struct vtest_session *s, const struct vtest_resource *r, int error)
{
	if (error == -EDQUOT) {
		return vtest_refuse(s, error,
			"over its budget: resource %u of %ux%ux%u, format %u, %u samples and %u "
			"shared "
			"bytes; %llu of %llu in use",
			r->id, r->width, r->height, r->depth, r->format, r->nr_samples, r->shared,
			(unsigned long long)budget_taken(&s->table.budget),
			(unsigned long long)s->table.budget.limit);
	}
	return vtest_refuse(s, error, "resource %u, target %u, format %u, %ux%ux%u: %s", r->id,
		r->target, r->format, r->width, r->height, r->depth,
		error == -EEXIST   ? "there is one of this id"
		: error == -EINVAL ? "there can't be such a one"
		: error == -ENOSPC ? "it has too many"
				   : strerror(-error));
}

static int attach(struct vtest_session *s, const struct vtest_entry *e)
{
	if (e->shared.iov_base && s->ops->resource_attach(e->virgl.id, &e->shared, 1) < 0) {
		return -EIO;
	}
	s->ops->context_attach(VTEST_CONTEXT, e->virgl.id);
	return 0;
}

static int do_resource_create(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	struct vtest_resource r;
	struct virgl_resource v;
	struct vtest_entry *e;
	int err;

	(void)data;
	vtest_resource_decode(h, body, &r);
	v = (struct virgl_resource){
		.id = r.id,
		.target = r.target,
		.format = r.format,
		.bind = r.bind,
		.width = r.width,
		.height = r.height,
		.depth = r.depth,
		.array_size = r.array_size,
		.last_level = r.last_level,
		.nr_samples = r.nr_samples,
	};
	err = vtest_table_add(&s->table, &v, r.shared, &e, &s->out_fd);
	if (err < 0) {
		return refuse_resource(s, &r, err);
	}
	err = s->ops->resource_create(&v);
	if (err < 0) {
		vtest_table_remove(&s->table, e);
		return refuse_resource(s, &r, err);
	}
	err = attach(s, e);
	return err < 0 ? refuse_resource(s, &r, err) : 0;
}

static struct vtest_entry *find(struct vtest_session *s, const char *what, uint32_t id)
{
	struct vtest_entry *e = vtest_table_find(&s->table, id);

	if (!e) {
		_unused_ int r = vtest_refuse(s, -ENOENT, "%s: there is no resource %u", what, id);
	}
	return e;
}

static int do_resource_unref(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	struct vtest_entry *e = find(s, vtest_name(h->id), vtest_word(body, 0));

	(void)data;
	if (!e) {
		return -ENOENT;
	}
	if (e->shared.iov_base) {
		s->ops->resource_detach(e->virgl.id);
	}
	s->ops->context_detach(VTEST_CONTEXT, e->virgl.id);
	s->ops->resource_unref(e->virgl.id);
	vtest_table_remove(&s->table, e);
	return 0;
}

/* What is asked for lies within the resource, and its bytes in room bytes behind an offset. 0 or
 * -errno with why said. */
static int check_transfer(struct vtest_session *s, const char *what, const struct vtest_transfer *t,
	struct vtest_entry **entry_out, struct virgl_transfer *out)
{
	struct vtest_entry *e = find(s, what, t->id);
	bool inline_data = t->data > 0;
	uint64_t bytes, room;

	if (!e) {
		return -ENOENT;
	}
	*out = (struct virgl_transfer){
		.id = t->id,
		.context = VTEST_CONTEXT,
		.level = t->level,
		.stride = t->stride,
		.layer_stride = t->layer_stride,
		.area = {t->x, t->y, t->z, t->width, t->height, t->depth},
		.offset = t->offset,
	};
	bytes = virgl_transfer_bytes(&e->virgl, out);
	room = inline_data ? t->data : e->shared.iov_len;
	if (bytes == 0 || t->offset > room || bytes > room - t->offset) {
		return vtest_refuse(s, -ERANGE,
			"%s: level %u, %u,%u,%u %ux%ux%u, strides %u and %u at %u is not in "
			"resource %u "
			"(%ux%ux%u) or in its %llu bytes",
			what, t->level, t->x, t->y, t->z, t->width, t->height, t->depth, t->stride,
			t->layer_stride, t->offset, t->id, e->virgl.width, e->virgl.height,
			e->virgl.depth, (unsigned long long)room);
	}
	*entry_out = e;
	return 0;
}

int vtest_data_size(
	struct vtest_session *s, const struct vtest_header *h, const uint8_t *body, uint32_t *out)
{
	struct vtest_transfer t;
	struct vtest_entry *e;
	struct virgl_transfer v;

	*out = 0;
	if (h->id != VTEST_TRANSFER_PUT) {
		return 0;
	}
	vtest_transfer_decode(h, body, &t);
	*out = t.data;
	return check_transfer(s, vtest_name(h->id), &t, &e, &v);
}

static int do_put(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	const struct iovec iov = {body + h->body, data};
	struct vtest_transfer t;
	struct vtest_entry *e;
	struct virgl_transfer v;
	int r;

	vtest_transfer_decode(h, body, &t);
	r = check_transfer(s, vtest_name(h->id), &t, &e, &v);
	if (r == 0) {
		_unused_ int refused =
			s->ops->transfer_write(&v, data > 0 ? &iov : NULL, data > 0 ? 1 : 0);
	}
	return r;
}

static int do_get(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	struct vtest_transfer t;
	struct vtest_entry *e;
	struct virgl_transfer v;
	struct iovec iov;
	uint8_t *p;
	int r;

	(void)data;
	vtest_transfer_decode(h, body, &t);
	r = check_transfer(s, vtest_name(h->id), &t, &e, &v);
	if (r < 0) {
		return r;
	}
	if (t.data == 0) {
		_unused_ int refused = s->ops->transfer_read(&v, NULL, 0);
		return 0;
	}
	p = add_output(s, t.data);
	if (!p) {
		return -EDQUOT;
	}
	/* What the renderer doesn't write is nobody's memory. */
	memset(p, 0, t.data);
	iov = (struct iovec){p, t.data};
	_unused_ int refused = s->ops->transfer_read(&v, &iov, 1);
	return 0;
}

/* What a stream would make is charged before the renderer sees it. */
static int check_stream(
	struct vtest_session *s, const uint32_t *dwords, uint32_t n, struct submit_demand *demand)
{
	const char *why;

	if (submit_check(dwords, n, demand, &why) < 0) {
		return vtest_refuse(s, -EPROTO, "SUBMIT: %s", why);
	}
	if (demand->objects > OBJECTS_MAX - s->objects.n ||
		demand->subs > SUB_CONTEXTS_MAX - s->streams.n_subs ||
		!budget_charge(&s->table.budget, demand->bytes)) {
		return vtest_refuse(s, -EDQUOT,
			"over its budget: SUBMIT makes up to %llu KiB, %u objects and %u "
			"sub-contexts; "
			"%llu of %llu KiB, %u objects and %u sub-contexts in use",
			(unsigned long long)demand->bytes >> 10, demand->objects, demand->subs,
			(unsigned long long)budget_taken(&s->table.budget) >> 10,
			(unsigned long long)s->table.budget.limit >> 10, s->objects.n,
			s->streams.n_subs);
	}
	submit_apply(&s->streams, &s->objects, dwords, n, demand, &s->table.budget);
	return 0;
}

static int do_submit(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	uint32_t *dwords = (uint32_t *)(void *)body;
	const struct budget *b = &s->table.budget;
	struct submit_demand demand;
	int r;

	(void)data;
	if (h->length == 0) {
		return 0;
	}
	r = check_stream(s, dwords, h->length, &demand);
	if (r < 0) {
		return r;
	}
	s->unfenced = true;
	r = submit_run(s->ops, VTEST_CONTEXT, dwords, h->length, &demand, &s->drift, &s->over);
	if (r == -ENOMEM) {
		return vtest_refuse(s, -EDQUOT,
			"over its budget: %llu KiB beyond what is charged; %llu of %llu KiB in use",
			(unsigned long long)b->uncharged >> 10,
			(unsigned long long)budget_taken(b) >> 10,
			(unsigned long long)b->limit >> 10);
	}
	return r < 0 ? vtest_refuse(s, -EPROTO, "the renderer refused its commands") : 0;
}

int vtest_fence(struct vtest_session *s)
{
	int r;

	if (!s->unfenced) {
		return 0;
	}
	/* Before the call: some renderers are done within it. */
	s->fence_made++;
	r = s->ops->fence(s->fence_made, VTEST_CONTEXT);
	if (r < 0) {
		return vtest_refuse(s, r, "the renderer makes no fence: %s", strerror(-r));
	}
	s->unfenced = false;
	return 0;
}

static int do_busy_wait(
	struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	bool wait = vtest_word(body, 1) & 1;
	int r = vtest_fence(s);

	(void)h;
	(void)data;
	if (r < 0) {
		return r;
	}
	if (s->fence_reached != s->fence_made) {
		s->ops->poll();
	}
	if (wait && s->fence_reached != s->fence_made) {
		s->waiting = true;
		return 0;
	}
	return vtest_answer_busy(s, s->fence_reached != s->fence_made);
}

int vtest_do(struct vtest_session *s, const struct vtest_header *h, uint8_t *body, uint32_t data)
{
	static int (*const handlers[])(
		struct vtest_session *, const struct vtest_header *, uint8_t *, uint32_t) = {
		[VTEST_GET_CAPS] = do_caps,
		[VTEST_RESOURCE_CREATE] = do_resource_create,
		[VTEST_RESOURCE_UNREF] = do_resource_unref,
		[VTEST_TRANSFER_GET] = do_get,
		[VTEST_TRANSFER_PUT] = do_put,
		[VTEST_SUBMIT] = do_submit,
		[VTEST_BUSY_WAIT] = do_busy_wait,
		[VTEST_CREATE_RENDERER] = do_create_renderer,
		[VTEST_GET_CAPS2] = do_caps,
		[VTEST_PING_VERSION] = do_ping,
		[VTEST_VERSION] = do_version,
		[VTEST_RESOURCE_CREATE2] = do_resource_create,
		[VTEST_TRANSFER_GET2] = do_get,
		[VTEST_TRANSFER_PUT2] = do_put,
	};
	_Static_assert(ARRAY_SIZE(handlers) == VTEST_ID_COUNT_, "one per request");

	return handlers[h->id](s, h, body, data);
}
