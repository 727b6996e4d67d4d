/* SPDX-License-Identifier: MIT */
#include "protocol/pace.h"

#include "base/checked.h"

#define NS_PER_SEC UINT64_C(1000000000)
/* What a device that was idle may do at once: wakes that come late cost nothing then. */
#define BURST_NS (NS_PER_SEC / 10)

static void set_rate(struct pace_rate *r, uint64_t limit)
{
	if (atomic_load(&r->limit) != limit) {
		atomic_store(&r->at, 0);
		atomic_store(&r->limit, limit);
	}
}

void pace_set(struct pace_page *p, uint64_t bytes, uint64_t transfers)
{
	set_rate(&p->bytes, bytes);
	set_rate(&p->transfers, transfers);
}

static uint64_t wait_for(const struct pace_rate *r, uint64_t now)
{
	uint64_t at;

	if (atomic_load_explicit(&r->limit, memory_order_relaxed) == 0) {
		return 0;
	}
	at = atomic_load_explicit(&r->at, memory_order_relaxed);
	return at > now && at - now <= PACE_WAIT_MAX_NS ? at - now : 0;
}

uint64_t pace_wait(const struct pace_page *p, uint64_t now)
{
	uint64_t bytes = wait_for(&p->bytes, now), transfers = wait_for(&p->transfers, now);

	return MAX(bytes, transfers);
}

static void spend(struct pace_rate *r, uint64_t now, uint64_t amount)
{
	uint64_t limit = atomic_load_explicit(&r->limit, memory_order_relaxed);
	uint64_t floor = now > BURST_NS ? now - BURST_NS : 0, at, from;

	if (limit == 0) {
		return;
	}
	at = atomic_load(&r->at);
	do {
		from = at < floor || at > now + PACE_WAIT_MAX_NS ? floor : at;
	} while (!atomic_compare_exchange_weak(&r->at, &at, from + amount * NS_PER_SEC / limit));
}

void pace_spend(struct pace_page *p, uint64_t now, uint32_t bytes)
{
	spend(&p->bytes, now, bytes);
	spend(&p->transfers, now, 1);
}

void pace_refund(struct pace_page *p, uint32_t bytes)
{
	uint64_t limit = atomic_load_explicit(&p->bytes.limit, memory_order_relaxed);
	uint64_t at, back;

	if (limit == 0 || bytes == 0) {
		return;
	}
	back = bytes * NS_PER_SEC / limit;
	at = atomic_load(&p->bytes.at);
	while (!atomic_compare_exchange_weak(&p->bytes.at, &at, at > back ? at - back : 0)) {
	}
}
