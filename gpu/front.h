/* SPDX-License-Identifier: MIT
 * The front of one VM's GPU: owns the vhost-user connection and every fd that came over it, the
 * display and the journal; the renderer does the rest and can be replaced.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct front_options {
	int control_fd;     /* taken; to whoever makes renderers (protocol/gpu-parent.h) */
	int vhost_fd;       /* taken; connected to the VMM */
	const char *name;   /* for the log */
	uint32_t stages;    /* enum sandbox_stage bits */
	uint64_t hang_usec; /* of drawing that does not end */
	bool virgl;         /* its renderers draw in 3D */
	bool dmabuf;        /* its VMM shows DMABUFs */
};

/* Closes the sandbox and serves until the VMM goes away. Returns the exit code: 0, or FRONT_EXIT_*.
 */
int front_run(const struct front_options *o) _must_check_;

#define FRONT_EXIT_FAILED   1
#define FRONT_EXIT_PEER_BAD 3 /* the VMM broke the protocol */
