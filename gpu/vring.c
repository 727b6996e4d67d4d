/* SPDX-License-Identifier: MIT
 *
 * Everything here is in memory that the guest may change while it is read. So: every field is read
 * once, into a local, and only the local is checked and used; no number from the guest becomes an
 * index or an address before it was compared with a bound; and a chain is walked at most as many
 * steps as it may have descriptors, whatever it says of its next one. What a driver can only do by
 * mistake or malice (virtio 1.2, 2.7) breaks its ring: nothing is taken from it until the driver
 * has reset it.
 */
#include "gpu/vring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "gpu/memory.h"

/* virtio 1.2, 2.7.5 and 2.7.8; the kernel's header for these has a struct vring of its own. */
struct ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
static_assert(sizeof(struct ring_desc) == 16, "wire size");

struct ring_used {
	uint32_t id;
	uint32_t len;
};
static_assert(sizeof(struct ring_used) == 8, "wire size");

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { USED_NO_NOTIFY = 1 };
enum { AVAIL_NO_INTERRUPT = 1 };

/* Bytes of each part (virtio 1.2, 2.7.5 to 2.7.8); the event index follows flags, idx and ring. */
#define DESC_BYTES(n)  (16 * (uint64_t)(n))
#define AVAIL_BYTES(n) (6 + 2 * (uint64_t)(n))
#define USED_BYTES(n)  (6 + 8 * (uint64_t)(n))

static uint16_t load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store16(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
}

/* The whole machine is little-endian, as virtio 1 is. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio structures are read as they are");

static const uint16_t *avail_flags(const struct vring *q)
{
	return q->avail;
}

static const uint16_t *avail_idx(const struct vring *q)
{
	return avail_flags(q) + 1;
}

static const uint16_t *avail_entry(const struct vring *q, uint16_t n)
{
	return avail_flags(q) + 2 + (n & (q->setup.size - 1));
}

/* Where the driver says after which used entry it wants to be notified. */
static const uint16_t *used_event(const struct vring *q)
{
	return avail_flags(q) + 2 + q->setup.size;
}

static uint16_t *used_flags(const struct vring *q)
{
	return q->used;
}

static uint16_t *used_idx(const struct vring *q)
{
	return used_flags(q) + 1;
}

static struct ring_used *used_entry(const struct vring *q, uint16_t n)
{
	return (struct ring_used *)(void *)(used_flags(q) + 2) + (n & (q->setup.size - 1));
}

/* Where we say after which available entry we want to be notified. */
static uint16_t *avail_event(const struct vring *q)
{
	return (uint16_t *)(void *)((struct ring_used *)(void *)(used_flags(q) + 2) +
				    q->setup.size);
}

int vring_break(struct vring *q, const char *why)
{
	q->broken = why;
	return -EPROTO;
}

static uint8_t *find_part(struct memory *m, uint64_t user, uint64_t bytes, uint64_t alignment)
{
	uint64_t guest;

	if (!memory_from_user(m, user, &guest)) {
		return NULL;
	}
	uint8_t *p = memory_whole(m, guest, bytes);

	return (uintptr_t)p % alignment == 0 ? p : NULL;
}

int vring_attach(struct vring *q, struct memory *m)
{
	const struct vring_setup *s = &q->setup;

	q->desc = find_part(m, s->desc, DESC_BYTES(s->size), 16);
	q->avail = find_part(m, s->avail, AVAIL_BYTES(s->size), 2);
	q->used = find_part(m, s->used, USED_BYTES(s->size), 4);
	if (q->desc && q->avail && q->used) {
		return 0;
	}
	return vring_break(q, !q->desc    ? "descriptor table outside memory or misaligned"
			      : !q->avail ? "available ring outside memory or misaligned"
					  : "used ring outside memory or misaligned");
}

int vring_start(struct vring *q, struct memory *m, const struct vring_setup *setup)
{
	memset(q, 0, sizeof(*q));
	if (setup->size == 0 || setup->size > VRING_SIZE_MAX ||
		(setup->size & (setup->size - 1)) != 0) {
		return vring_break(q, "bad number of descriptors");
	}
	q->setup = *setup;
	q->next_avail = setup->next_avail;
	q->next_used = setup->next_used;
	q->published = setup->next_used;
	return vring_attach(q, m);
}

void vring_stop(struct vring *q)
{
	memset(q, 0, sizeof(*q));
	q->broken = "not started";
}

int vring_peek(struct vring *q, uint16_t *head_out)
{
	uint16_t idx, head, waiting;

	if (q->broken) {
		return -EPROTO;
	}
	idx = load16(avail_idx(q));
	waiting = (uint16_t)(idx - q->next_avail);
	if (waiting == 0) {
		return 0;
	}
	if (waiting > q->setup.size) {
		return vring_break(q, "available index out of range");
	}
	/* The entry was written before the index. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	head = load16(avail_entry(q, q->next_avail));
	if (head >= q->setup.size) {
		return vring_break(q, "head out of range");
	}
	*head_out = head;
	return 1;
}

void vring_take(struct vring *q)
{
	q->next_avail++;
}

/* Where a chain is being read from: the ring's own table, or an indirect one. */
struct table {
	struct memory *m;
	const struct ring_desc *direct; // may be NULL: indirect
	uint64_t guest;                 /* of an indirect one */
	uint32_t entries;
};

static bool table_read(const struct table *t, uint32_t n, struct ring_desc *out)
{
	const struct ring_desc *d = t->direct ? t->direct + n : NULL;

	if (!d) {
		d = (const void *)memory_whole(t->m, t->guest + n * sizeof(*d), sizeof(*d));
	}
	if (!d) {
		return false;
	}
	/* An indirect table may lie anywhere, aligned or not. */
	memcpy(out, d, sizeof(*out));
	/* Read once: from here on *out is what there was. */
	__asm__ volatile("" ::"r"(out) : "memory");
	return true;
}

static const char *add_buffer(struct memory *m, const struct ring_desc *d, struct vring_chain *c)
{
	uint64_t at = d->addr, left = d->len, end;
	bool in = d->flags & DESC_WRITE;

	if (left == 0) {
		return "descriptor of no bytes";
	}
	if (!in && c->n_in > 0) {
		return "readable descriptor behind a writable one";
	}
	if (!u64_add(at, left, &end)) {
		return "descriptor's address wraps";
	}
	while (left > 0) {
		uint64_t n;
		uint8_t *p = memory_piece(m, at, left, &n);

		if (!p) {
			return "descriptor outside memory";
		}
		if (c->n_out + c->n_in == VRING_PIECES_MAX) {
			return "chain in too many pieces";
		}
		c->pieces[c->n_out + c->n_in] = (struct iovec){p, n};
		if (in) {
			c->n_in++;
			c->in_bytes += n;
		} else {
			c->n_out++;
			c->out_bytes += n;
		}
		at += n;
		left -= n;
	}
	return NULL;
}

/* Makes t the indirect table of d. */
static const char *open_indirect(const struct vring *q, const struct ring_desc *d, struct table *t)
{
	uint64_t end;

	if (!q->setup.indirect) {
		return "indirect descriptor that was not negotiated";
	}
	if (!t->direct) {
		return "indirect table in an indirect table";
	}
	if (d->flags & DESC_NEXT) {
		return "indirect descriptor with a next one";
	}
	if (d->len == 0 || d->len % sizeof(struct ring_desc) != 0) {
		return "bad size of an indirect table";
	}
	if (!u64_add(d->addr, d->len, &end)) {
		return "indirect table's address wraps";
	}
	t->direct = NULL;
	t->guest = d->addr;
	t->entries = d->len / sizeof(struct ring_desc);
	return NULL;
}

static const char *walk(struct vring *q, struct table *t, uint16_t head, struct vring_chain *out)
{
	uint32_t at = head, steps = 0;
	struct ring_desc d;
	const char *why;

	for (;;) {
		if (!table_read(t, at, &d)) {
			return "indirect table outside memory";
		}
		if (d.flags & DESC_INDIRECT) {
			/* Descriptors of the ring may come before it (virtio 1.2, 2.7.5.3.2). */
			why = open_indirect(q, &d, t);
			if (why) {
				return why;
			}
			at = steps = 0;
			continue;
		}
		why = add_buffer(t->m, &d, out);
		if (why) {
			return why;
		}
		if (!(d.flags & DESC_NEXT)) {
			return NULL;
		}
		if (++steps >= MIN(t->entries, (uint32_t)VRING_CHAIN_MAX)) {
			return "chain longer than it may be, or a loop";
		}
		if (d.next >= t->entries) {
			return "next descriptor out of range";
		}
		at = d.next;
	}
}

int vring_read(struct vring *q, struct memory *m, uint16_t head, struct vring_chain *out)
{
	struct table t = {.m = m, .direct = q->desc, .entries = q->setup.size};
	const char *why;

	assert(!q->broken && head < q->setup.size);
	out->head = head;
	out->n_out = out->n_in = 0;
	out->out_bytes = out->in_bytes = 0;
	why = walk(q, &t, head, out);
	return why ? vring_break(q, why) : 0;
}

bool vring_listen(struct vring *q)
{
	if (q->broken) {
		return false;
	}
	if (q->setup.event_idx) {
		store16(avail_event(q), q->next_avail);
	} else {
		store16(used_flags(q), 0);
	}
	/* Either the guest sees this, or we see what it added before it looked. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(avail_idx(q)) != q->next_avail;
}

void vring_ignore(struct vring *q)
{
	/* With an event index the guest notifies once, when it passes the index: by now it has. */
	if (!q->broken && !q->setup.event_idx) {
		store16(used_flags(q), USED_NO_NOTIFY);
	}
}

void vring_add(struct vring *q, uint16_t head, uint32_t written)
{
	struct ring_used *e;

	if (!q->used) {
		return;
	}
	e = used_entry(q, q->next_used);
	__atomic_store_n(&e->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, written, __ATOMIC_RELAXED);
	q->next_used++;
}

void vring_publish(struct vring *q)
{
	if (!q->used) {
		return;
	}
	__atomic_store_n(used_idx(q), q->next_used, __ATOMIC_RELEASE);
	q->published = q->next_used;
}

bool vring_wants_call(struct vring *q)
{
	uint16_t before = q->signalled, now = q->published;
	bool first = !q->signalled_any;

	if (q->broken) {
		return true;
	}
	/* What was published is seen before the guest's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->setup.event_idx) {
		return !(load16(avail_flags(q)) & AVAIL_NO_INTERRUPT);
	}
	q->signalled = now;
	q->signalled_any = true;
	/* 2.7.10.1: whether the wanted index is among those published since. */
	return first || (uint16_t)(now - load16(used_event(q)) - 1) < (uint16_t)(now - before);
}

uint16_t vring_used_index(const struct vring *q)
{
	return load16(used_idx(q));
}

size_t vring_copy_out(const struct vring_chain *c, uint64_t skip, void *to, size_t size)
{
	size_t done = 0;

	for (size_t i = 0; i < c->n_out && done < size; i++) {
		const struct iovec *v = &c->pieces[i];
		size_t n;

		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		n = MIN(v->iov_len - skip, size - done);
		memcpy((uint8_t *)to + done, (const uint8_t *)v->iov_base + skip, n);
		done += n;
		skip = 0;
	}
	return done;
}

size_t vring_copy_in(const struct vring_chain *c, const void *from, size_t size)
{
	size_t done = 0;

	for (size_t i = 0; i < c->n_in && done < size; i++) {
		const struct iovec *v = &c->pieces[c->n_out + i];
		size_t n = MIN(v->iov_len, size - done);

		memcpy(v->iov_base, (const uint8_t *)from + done, n);
		done += n;
	}
	return done;
}
