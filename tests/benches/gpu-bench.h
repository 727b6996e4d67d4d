/* SPDX-License-Identifier: MIT
 * What the parts of gpu-bench share. All of it runs on one CPU, what is measured on another.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "tests/gpu/sim.h"

#define BENCH_CPU_VMM     0
#define BENCH_CPU_BACKEND 1

struct bench_size {
	uint32_t width, height;
};

extern const struct bench_size bench_sizes[4];

/* This process, on one CPU. */
void bench_pin(int cpu);
/* Ends the program. */
_Noreturn void bench_fail(const char *what);

struct bench_samples {
	uint64_t *ns;
	size_t n, max;
};

void bench_add(struct bench_samples *s, uint64_t ns);
/* In µs; sorts them. */
double bench_percentile(struct bench_samples *s, double p);
void bench_forget(struct bench_samples *s);

/* gpu-bench-2d.c: one member of a JSON object each, with its comma before it. */
void bench_commands(struct sim *s);
void bench_info(struct sim *s);
/* blobs: those in guest memory, too. */
void bench_frames(struct sim *s, uint64_t for_ns, bool blobs);
void bench_cursor(struct sim *s, uint64_t for_ns);
/* gpu-bench-limit.c: what the machine can do, with no backend. */
void bench_limits(uint64_t for_ns);
