/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim-ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"

/* In the ring's area. */
#define AVAIL_AT 0x4000
#define USED_AT  0x8000

int sim_ring_init(struct sim_ring *r, const struct sim_memory *m, uint64_t at, uint32_t size)
{
	*r = (struct sim_ring){.vmm = {.size = size, .kick = -1, .call = -1}};
	r->desc = sim_memory_at(m, at);
	r->avail = sim_memory_at(m, at + AVAIL_AT);
	r->used = sim_memory_at(m, at + USED_AT);
	if (size > SIM_RING_MAX || !r->desc || !r->avail || !r->used) {
		return -EINVAL;
	}
	r->vmm.desc = at;
	r->vmm.avail = at + AVAIL_AT;
	r->vmm.used = at + USED_AT;
	r->vmm.kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->vmm.call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sim_ring_reset(r);
	return r->vmm.kick < 0 || r->vmm.call < 0 ? -EMFILE : 0;
}

void sim_ring_finish(struct sim_ring *r)
{
	r->vmm.kick = safe_close(r->vmm.kick);
	r->vmm.call = safe_close(r->vmm.call);
}

void sim_ring_reset(struct sim_ring *r)
{
	memset(r->desc, 0, SIM_RING_AREA);
	memset(r->count, 0, sizeof(r->count));
	for (uint16_t i = 0; i < r->vmm.size; i++) {
		r->next[i] = (uint16_t)(i + 1);
	}
	r->free_head = 0;
	r->n_free = (uint16_t)r->vmm.size;
	r->last_used = r->last_kicked = 0;
	r->vmm.base = 0;
}

static void fill(struct vring_desc *d, const struct sim_segment *s, bool more, uint16_t next)
{
	d->addr = s->addr;
	d->len = s->size;
	d->flags = (uint16_t)((s->in ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
	d->next = more ? next : 0;
}

void sim_ring_publish(struct sim_ring *r, uint16_t head)
{
	uint16_t idx = r->avail->idx;

	r->avail->ring[idx & (r->vmm.size - 1)] = head;
	__atomic_store_n(&r->avail->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

int sim_ring_offer(struct sim_ring *r, const struct sim_segment *segments, size_t n)
{
	uint16_t head = r->free_head, at = head;

	if (n == 0 || r->n_free < n) {
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		fill(&r->desc[at], &segments[i], i + 1 < n, r->next[at]);
		at = r->next[at];
	}
	r->free_head = at;
	r->n_free = (uint16_t)(r->n_free - n);
	r->count[head] = (uint16_t)n;
	sim_ring_publish(r, head);
	return head;
}

int sim_ring_offer_indirect(struct sim_ring *r, const struct sim_memory *m, uint64_t table,
	const struct sim_segment *segments, size_t n)
{
	const struct sim_segment whole = {table, (uint32_t)(n * sizeof(struct vring_desc)), false};
	struct vring_desc *d = sim_memory_at(m, table);
	uint16_t head = r->free_head;

	if (n == 0 || r->n_free == 0) {
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		fill(&d[i], &segments[i], i + 1 < n, (uint16_t)(i + 1));
	}
	fill(&r->desc[head], &whole, false, 0);
	r->desc[head].flags = VRING_DESC_F_INDIRECT;
	r->free_head = r->next[head];
	r->n_free--;
	r->count[head] = 1;
	sim_ring_publish(r, head);
	return head;
}

void sim_ring_kick_always(struct sim_ring *r)
{
	uint64_t one = 1;

	r->last_kicked = r->avail->idx;
	r->n_kicks++;
	if (write(r->vmm.kick, &one, sizeof(one)) != sizeof(one)) {
		/* It is full: the device has been told often enough. */
		return;
	}
}

void sim_ring_kick(struct sim_ring *r)
{
	const uint16_t *event = (const uint16_t *)&r->used->ring[r->vmm.size];
	uint16_t idx = r->avail->idx;
	bool wanted;

	atomic_thread_fence(memory_order_seq_cst);
	wanted = r->event_idx ? vring_need_event(__atomic_load_n(event, __ATOMIC_RELAXED), idx,
					r->last_kicked)
			      : !(__atomic_load_n(&r->used->flags, __ATOMIC_RELAXED) &
					VRING_USED_F_NO_NOTIFY);
	if (wanted) {
		sim_ring_kick_always(r);
	}
	r->last_kicked = idx;
}

static void give_back(struct sim_ring *r, uint16_t head)
{
	uint16_t last = head;

	for (uint16_t i = 1; i < r->count[head]; i++) {
		last = r->next[last];
	}
	r->next[last] = r->free_head;
	r->free_head = head;
	r->n_free = (uint16_t)(r->n_free + r->count[head]);
	r->count[head] = 0;
}

int sim_ring_take(struct sim_ring *r, uint32_t *written_out)
{
	const struct vring_used_elem *e;
	uint32_t head;

	if (__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE) == r->last_used) {
		return -1;
	}
	e = &r->used->ring[r->last_used++ & (r->vmm.size - 1)];
	head = e->id;
	if (head >= r->vmm.size || r->count[head] == 0) {
		return -2;
	}
	*written_out = e->len;
	give_back(r, (uint16_t)head);
	return (int)head;
}

void sim_ring_arm(struct sim_ring *r)
{
	uint16_t *event = &r->avail->ring[r->vmm.size];

	__atomic_store_n(event, r->last_used, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
}
