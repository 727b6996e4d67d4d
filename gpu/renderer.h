/* SPDX-License-Identifier: MIT
 * devbroker-gpu --renderer: runs the rings of one VM's GPU.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct renderer_options {
	int link_fd;        /* taken */
	uint64_t bytes_max; /* of images and what describes their backing */
	uint32_t stages;    /* of the sandbox */
	const char *name;   /* of the VM, for the log */
	bool virgl;         /* 3D, too */
	uint32_t hang_ms;   /* a fence that is older is never reached */
	int drm_fd;         /* taken; a render node. -1: in software */
	/* What it may take of the GPU (protocol/allowance.h) and its two bells, eventfds; all
	 * taken. -1, and then all three: nothing is bounded but what is here. */
	int allowance_fd;
	int grant_fd;
	int want_fd;
};

enum {
	RENDERER_EXIT_FAILED = 3,   /* it could not start, or something that must not happen did */
	RENDERER_EXIT_HUNG = 5,     /* what it drew does not end */
	RENDERER_EXIT_LINK_BAD = 4, /* what the front sent can't be */
};

/* Returns the exit code when the front is gone (0), or one of the above. */
int renderer_run(const struct renderer_options *options);
