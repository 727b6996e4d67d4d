/* SPDX-License-Identifier: MIT
 * What this renderer uses of the GPU, and whether it may go on: its side of protocol/allowance.h.
 *
 * Drawing in software, what is used is the process's CPU time, that of the driver's threads
 * included; on a render node, the time in which it has work that was not reported done. That clock
 * is read seldom (it costs as much as a small command), and what it advanced is shared among the
 * contexts by how long the commands of each ran, or the oldest fence that was waited for was one of
 * theirs.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "protocol/allowance.h"

#define SPEND_SHARES 16 /* contexts that take turns between two readings of the clock */
#define SPEND_NOBODY UINT32_MAX

/* ns; all but cpu only go on. */
struct spend_clocks {
	uint64_t (*now)(void);
	uint64_t (*coarse)(void); /* cheap, as now was up to coarse_step ago */
	uint64_t (*cpu)(void);    /* of the process, all threads */
	uint64_t coarse_step;
};

struct spend_share {
	uint32_t slot;
	uint64_t ns;
};

struct spend {
	struct allowance_page *page; /* borrowed */
	struct spend_clocks clocks;
	bool by_work;   /* not by CPU time */
	uint64_t speed; /* ns of use in one of time, at most */

	uint64_t used;    /* ours; what is on the page may be anything by now */
	uint64_t spent;   /* by our clock, when it was read last */
	uint64_t sampled; /* when that was */
	uint64_t sampled_coarse;
	uint64_t work_done;  /* by_work: until the last time that there was none */
	uint64_t work_since; /* by_work: since when there is; 0: there is none */

	uint32_t who;   /* the slot of a context, 0: none in particular; SPEND_NOBODY: all wait */
	uint64_t since; /* when it began to be at work, or the clock was read */
	bool mixed;     /* more than one was at work since the clock was read */
	struct spend_share shares[SPEND_SHARES];
	uint32_t n_shares;
	uint64_t contexts[ALLOWANCE_CONTEXTS]; /* by slot, less 1: what each has used */

	/* What one fenced command takes, with what is drawn behind it: what it took lately, or less
	 * than that by an eighth at each reading. */
	uint64_t fenced_ns;
	uint64_t fenced_used; /* used, when that was found out last */
	uint32_t reached;     /* since then */

	bool waiting;
	uint64_t waiting_since;
};

/* The real clocks. */
void spend_clocks_init(struct spend_clocks *out);
/* Goes on counting where the last renderer of this page ended, or where the page's owner put it.
 * cpus: how many this process can use at once. */
void spend_init(struct spend *s, struct allowance_page *page, const struct spend_clocks *clocks,
	bool by_work, uint32_t cpus);

/* Reads the clock now; writes what was used, and by whom, to the page. */
void spend_sample(struct spend *s);
/* Out of line parts of what is below. */
void spend_change(struct spend *s, uint32_t slot);
bool spend_has(struct spend *s) _must_check_;

/* Commands of the context in this slot (0: of none) run from now on, or it is waited for. */
static inline void spend_on(struct spend *s, uint32_t slot)
{
	if (slot != s->who) {
		spend_change(s, slot);
	}
}

/* Whether something more may be begun. */
static inline _must_check_ bool spend_may(struct spend *s)
{
	return atomic_load_explicit(&s->page->granted_ns, memory_order_relaxed) ==
		       ALLOWANCE_UNBOUNDED ||
	       spend_has(s);
}

/* So many fences were reached. */
void spend_reached(struct spend *s, uint32_t n);
/* Whether what is out takes all that is left: a driver takes commands faster than it draws them,
 * and a queue of them would draw on for long after the time is up. Two may always be out. */
bool spend_crowded(const struct spend *s, uint32_t fences_out) _must_check_;

/* There is nothing more to do for now. waited_for: the slot that the oldest fence is of (0: of no
 * context); SPEND_NOBODY: none is out. */
void spend_rest(struct spend *s, uint32_t waited_for);
/* by_work: there is work that was not reported done, or none. */
void spend_work(struct spend *s, bool there_is);

/* Commands wait. True: there is no time for them, and (*ring_out) the owner of the page is to be
 * told so. False: there is after all. */
bool spend_wait(struct spend *s, bool *ring_out) _must_check_;
/* None wait any more. */
void spend_go_on(struct spend *s);

/* A context is there, or (id 0) gone. */
void spend_context(struct spend *s, uint32_t slot, uint32_t id, const char *name);
/* All are gone. */
void spend_forget_contexts(struct spend *s);
