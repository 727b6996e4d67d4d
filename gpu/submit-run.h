/* SPDX-License-Identifier: MIT
 * Has a command stream executed, and looks in between what it takes.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

struct drift;
struct submit_demand;
struct virgl_ops;

/* A buffer that was checked, with what it demands; *over is its context's (drift_exceeds). 0;
 * -EINVAL: what draws refused some of it; -ENOMEM: what it made takes more than there is, and the
 * rest of it was not executed. */
int submit_run(const struct virgl_ops *ops, uint32_t context, uint32_t *dwords, uint32_t n,
	const struct submit_demand *demand, struct drift *drift, uint64_t *over) _must_check_;
