/* SPDX-License-Identifier: MIT
 * What the kernel says a DRM client has used: the text of /proc/PID/fdinfo/N of a render node, as
 * the kernel's Documentation/gpu/drm-usage-stats.rst has it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct drm_usage {
	bool counts_time;   /* the driver says how long engines were busy */
	bool counts_cycles; /* or for how many of their cycles */
	bool counts_memory; /* and how much memory is in use */
	/* Of all kinds of engines; of N equal ones, the Nth part of their sum. */
	uint64_t engine_ns;
	uint64_t cycles;
	uint64_t cycles_all; /* that one engine has had so far; where it began is not known */
	uint64_t memory;     /* bytes, of all regions */
};

/* Reads size bytes. 0; -EBADMSG: it is cut off, says something twice, or a key that is known here
 * has a value as it must not be; -E2BIG: more keys than there is room for; -ERANGE: numbers that do
 * not fit. Whatever else is in it is passed over: drivers have lines of their own. */
int drm_usage_parse(const char *text, size_t size, struct drm_usage *out) _must_check_;
