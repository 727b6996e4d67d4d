/* SPDX-License-Identifier: MIT
 * Limits that the kernel keeps, whatever a process thinks of itself: a cgroup of its own, which
 * systemd makes (a transient scope; org.freedesktop.systemd1(5), systemd.scope(5)).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct broker;

struct scope_limits {
	uint64_t memory;     /* bytes, memory.max; swap is 0. 0: nothing is limited at all */
	uint64_t tasks;      /* pids.max */
	uint64_t cpu_weight; /* cpu.weight, 1 to 10000; 100 is everybody's */
};

/* What became of it. */
struct scope_counts {
	uint64_t placed;
	uint64_t failed;  /* the process had no systemd, or was refused by it */
	char reason[128]; /* of the last failure; "" */
};

/* Puts a process of ours into a scope named devbroker-KIND-NAME-PID.scope below devbroker.slice,
 * without waiting. It fails where no systemd is on the system bus; the log says so once, and the
 * rlimits and the accounting of the process itself remain. */
void bus_scope_place(struct broker *b, const char *kind, const char *name, pid_t pid,
	const struct scope_limits *limits);
