/* SPDX-License-Identifier: MIT
 * A vhost-user-gpu backend that a simulated VMM has started: ours or any other with the
 * conventional options, with everything that it starts in turn.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#define SIM_PROCESSES_MAX 16

struct sim_backend {
	pid_t pid; /* -1: none */
	int pidfd;
	int vhost; /* the VMM's end of the connection; -1 when it was given away */
};

/* Starts argv (NULL-terminated, argv[0] a path) with one more option, --fd=N, on a CPU (-1: on
 * any). Its stderr is ours, or nowhere if quiet. 0 or -errno. */
int sim_backend_start(
	const char *const *argv, int cpu, bool quiet, struct sim_backend *out) _must_check_;
/* Connects to one that listens at path and is somebody else's: no process is known of it. 0 or
 * -errno. */
int sim_backend_connect(const char *path, struct sim_backend *out) _must_check_;
/* Waits ms for its end; the status as of waitpid, or -1 if it lives. */
int sim_backend_wait(struct sim_backend *b, int ms);
/* Ends it and what it started, and reaps it. */
void sim_backend_stop(struct sim_backend *b);

/* It and its descendants, itself first; how many. */
size_t sim_backend_processes(const struct sim_backend *b, pid_t pids[SIM_PROCESSES_MAX]);
/* The descendant with this option on its command line; -1. */
pid_t sim_backend_find(const struct sim_backend *b, const char *option);

/* Sums over all of its processes. */
uint64_t sim_backend_cpu_ns(const struct sim_backend *b);
uint64_t sim_backend_rss(const struct sim_backend *b); /* bytes */
unsigned int sim_backend_fds(const struct sim_backend *b);
