/* SPDX-License-Identifier: MIT
 * Hands out GPU time: measures renderers, asks the arbiter, writes their pages, stops those that do
 * not keep to them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/arbiter.h"
#include "broker/gpu-clock.h"
#include "protocol/refusal.h"

struct broker;
struct gpu;
struct gpu_limits;
struct gpu_pool;

#define GPU_POOL_NAME_SIZE 64

/* Lives in its GPU; zeroed: it takes part in nothing. */
struct gpu_part {
	struct gpu_pool *pool; // may be NULL: it has no renderer yet
	struct arbiter_member member;
	uint64_t before_ns;     /* CPU time of renderers that have ended */
	struct gpu_clock clock; /* of a render node */
	bool signalled;         /* it is stopped */
	uint64_t started_ns;    /* its renderer, CLOCK_MONOTONIC */
	uint64_t looked_ns;     /* the last look at it, CLOCK_MONOTONIC */
	uint64_t looked_used;
	uint32_t permille;      /* of the pool, between the last two looks */
	uint64_t rss;           /* bytes, at the last look; 0: no renderer */
	uint64_t device_memory; /* bytes, by the kernel's count of a render node; 0: it has none */
};

/* Whether a VM whose GPU draws on pool (a render node's path; "": in software) may have l beside
 * the VMs that there are; without (may be NULL) is left out. 0 or REFUSAL_QUOTA with text. */
int gpu_arbiter_check(struct broker *b, const struct gpu *without, const char *pool,
	const struct gpu_limits *l, struct refusal_text *text) _must_check_;
/* A renderer is about to start that draws on pool; free: what it takes to start is not held against
 * its VM. 0 or -errno. */
int gpu_arbiter_join(struct gpu *g, const char *pool, bool free) _must_check_;
/* It has started: from now on all is. */
void gpu_arbiter_renderer_started(struct gpu *g);
/* What it uses is counted by whom. */
enum gpu_time_source gpu_arbiter_source(const struct gpu *g);
/* There are no more renderers. */
void gpu_arbiter_leave(struct gpu *g);
/* Its renderer has ended; it may get another one. */
void gpu_arbiter_renderer_ended(struct gpu *g);
/* It has a new share. */
void gpu_arbiter_changed(struct gpu *g);
/* Somebody uses something, or wants to. */
void gpu_arbiter_wake(struct gpu *g);
/* Twice a second: how much it takes. One that uses what it was not granted, without a word, is
 * noticed here. */
void gpu_arbiter_look(struct gpu *g);
