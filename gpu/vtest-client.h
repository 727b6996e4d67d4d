/* SPDX-License-Identifier: MIT
 * devbroker-gpu --vtest-client: the renderer of one client of the vtest socket.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

struct vtest_client_options {
	int client_fd;      /* taken: the client's connection */
	int drm_fd;         /* taken: a render node; -1: software */
	uint64_t bytes_max; /* of what the client makes */
	uint32_t stages;    /* of the sandbox */
	const char *name;   /* of the VM, for the log */
};

enum {
	VTEST_EXIT_FAILED = 3,  /* it could not start */
	VTEST_EXIT_DROPPED = 5, /* the client did what can't be done; the log says what */
};

/* Serves until the client leaves (0), or ends with one of the above. */
int vtest_client_run(const struct vtest_client_options *o) _must_check_;
