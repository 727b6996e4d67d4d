/* SPDX-License-Identifier: MIT
 * devbroker-gpu --vtest: serves Mesa's vtest protocol on a socket, with a renderer for each client.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#define VTEST_CLIENTS_MAX     256
#define VTEST_CLIENTS_DEFAULT 16

struct vtest_options {
	const char *path;
	const char *group;       /* whose members may connect; may be NULL */
	const char *render_node; /* may be NULL: software */
	uint32_t clients_max;
	uint64_t memory; /* bytes for each client */
	uint32_t stages;
	const char *sandbox;   /* as it was written */
	const char *name;      /* for the log */
	const char *vm;        /* that devbrokerd charges; may be NULL */
	const char *bus;       /* devbrokerd's socket */
	const char *log_level; /* may be NULL */
};

/* Serves until SIGTERM or SIGINT; its clients' renderers end with it. Returns the exit code. */
int vtest_run(const struct vtest_options *o) _must_check_;
