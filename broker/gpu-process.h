/* SPDX-License-Identifier: MIT
 * One process of a GPU as the broker sees it: asked of the spawner, watched by its pidfd, reaped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct broker;
struct gpu_process;

/* It has ended (or could not be started: -errno), and is forgotten. status: exit status, or 128 +
 * signal. From the loop. */
typedef void (*gpu_process_ended)(void *userdata, int status);

/* Starts devbroker-gpu with these arguments; fds follow as 3, 4, … (borrowed). 0 or -errno. */
int gpu_process_start(struct broker *b, const char *name, const char *const *args, size_t n_args,
	const int *fds, size_t n_fds, gpu_process_ended ended, void *userdata,
	struct gpu_process **out) _must_check_;
/* SIGKILL, now or as soon as it is there; ended follows. NULL is fine. */
void gpu_process_kill(struct gpu_process *p);
/* Kills it; nobody is told of its end. NULL is fine. */
void gpu_process_forget(struct gpu_process *p);
