/* SPDX-License-Identifier: MIT
 * How much of a render node a VM has used, and who says so: the kernel where it counts, and else
 * the VM's renderer. A pure library.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Whose figure it is. */
enum gpu_time_source {
	GPU_TIME_NOBODY,   /* there is no renderer */
	GPU_TIME_CPU,      /* the kernel's, of CPU time */
	GPU_TIME_RENDERER, /* its own word */
	GPU_TIME_KERNEL,   /* the kernel's, of the GPU's engines */
	GPU_TIME_SOURCE_COUNT_,
};

/* All zero, nothing was used. The renderer's own clock, which what it is granted is compared with,
 * is another: it counts what it waits for, the GPU's work for others included. */
struct gpu_clock {
	uint64_t used_ns; /* in all; only grows */
	enum gpu_time_source from;
	uint64_t page_ns;    /* as the renderer said last */
	uint64_t kernel_ns;  /* of this renderer, the most that the kernel said */
	uint64_t by_page_ns; /* counted by its word since the kernel was asked last */
};

/* Of a driver that counts cycles; all zero at the beginning. */
struct gpu_cycles {
	uint64_t own, all; /* as they were last */
	uint64_t at_ns;    /* when that was, CLOCK_MONOTONIC; 0: never */
	uint64_t busy_ns;
};

/* How long its engines were busy since the first call, ns, if of all cycles that an engine has had
 * own ones are its own at now_ns. It only grows. */
uint64_t gpu_cycles_ns(struct gpu_cycles *c, uint64_t own, uint64_t all, uint64_t now_ns);

/* Another renderer begins, of which the kernel has counted nothing; page_ns: its own clock. */
void gpu_clock_begin(struct gpu_clock *c, uint64_t page_ns);
/* The kernel says that this renderer's work has taken engine_ns; counts: that it counts at all. A
 * driver that counts, but counts nothing (0), is one that does not. Ask it before the page. */
void gpu_clock_kernel(struct gpu_clock *c, bool counts, uint64_t engine_ns);
/* The renderer says that page_ns were used; that is believed if nobody else says it, and not if it
 * goes back or leaps. */
void gpu_clock_page(struct gpu_clock *c, uint64_t page_ns);
/* What is to be on the page, in terms of the renderer's clock, if granted_ns (UINT64_MAX: there is
 * no bound) is granted of what is counted here. */
uint64_t gpu_clock_grant(const struct gpu_clock *c, uint64_t granted_ns);
