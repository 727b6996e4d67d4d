/* SPDX-License-Identifier: MIT
 * devbroker-gpu without devbrokerd: the small parent that starts a front and its renderer for one
 * VMM, and another renderer when one ends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct standalone_options {
	int vhost_fd; /* taken; connected to the VMM */
	uint64_t memory;
	uint32_t stages;
	const char *sandbox; /* as it was written */
	const char *name;
	const char *log_level; /* may be NULL */
	bool virgl;            /* 3D, too */
	bool dmabuf;           /* the VMM shows DMABUFs */
	uint32_t hang_seconds;
	const char *render_node; /* may be NULL: in software */
};

/* Serves one VMM until it goes away. Returns the exit code. */
int standalone_run(const struct standalone_options *o) _must_check_;

/* Waits for one VMM on a new socket at path, which is removed when it came; so is one there on
 * which nobody listens any more. The fd, or -errno. */
int standalone_accept(const char *path) _must_check_;
