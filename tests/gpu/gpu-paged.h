/* SPDX-License-Identifier: MIT
 * A simulated VM whose renderer has a page to keep to (protocol/allowance.h): the broker's part of
 * it is the test's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol/allowance.h"
#include "tests/gpu/sim.h"

#define PAGED_WIDTH  320u
#define PAGED_HEIGHT 200u

struct paged {
	struct sim sim;
	struct allowance_page *page;
	int page_fd, grant, want;
};

/* 0 or -errno. On one CPU, or (-1) any. */
int paged_start(struct paged *p, bool virgl, int cpu) _must_check_;
/* Ends it all, in whatever state it is; that the backend was content. */
bool paged_stop(struct paged *p) _must_check_;
/* Writes the grant and rings. */
void paged_grant(struct paged *p, uint64_t ns);
void paged_ring(struct paged *p);
/* How often the renderer has rung since the last look. */
uint64_t paged_wanted(struct paged *p);
/* The renderer that there is; another one than not. -1. */
pid_t paged_renderer(struct paged *p, pid_t not );
/* CPU time of a process, ns. */
uint64_t paged_cpu_ns(pid_t pid);
