/* SPDX-License-Identifier: MIT
 * What the kernel says of the open file that a renderer draws on: the broker has opened it and
 * keeps a duplicate, of whose fdinfo it reads; Mesa's are duplicates as well. So it is neither the
 * renderer's word nor is anything of another process looked into.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/drm-usage.h"
#include "broker/gpu-clock.h"

struct gpu_fdinfo {
	int node;         /* a duplicate; -1: nothing is open */
	int text;         /* /proc/self/fdinfo of it */
	uint64_t next_ns; /* when it may be read again, CLOCK_MONOTONIC */
	struct gpu_cycles cycles;
};

void gpu_fdinfo_init(struct gpu_fdinfo *f);
/* Nothing may be open; node is borrowed. While it is open, what the renderer has in the GPU's
 * memory stays there after its end: close it then. 0 or -errno. */
int gpu_fdinfo_open(struct gpu_fdinfo *f, int node) _must_check_;
void gpu_fdinfo_close(struct gpu_fdinfo *f);
/* Cycles become time, as of the first reading. 0; -EAGAIN: what was read last took long, and it is
 * too early to read again, unless it is demanded; -EBADF: nothing is open; -errno, also as
 * drm_usage_parse. */
int gpu_fdinfo_read(struct gpu_fdinfo *f, bool demanded, struct drm_usage *out) _must_check_;
