/* SPDX-License-Identifier: MIT
 * A spawner whose programs are functions of the test, each in a forked process of its own.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "broker/spawner.h"
#include "protocol/worker.h"

/* What a program does; fds[0] is its control socket, the others follow. It returns its exit code.
 */
typedef int (*fake_program)(int argc, char **argv, const int *fds, size_t n_fds);

struct fake_spawner_request {
	enum spawner_program program;
	char args[SPAWNER_ARGV_MAX][160];
	size_t n_args;
	size_t n_fds;
	uint32_t uid_slot;
};

struct spawner {
	sd_event *event;
	fake_program programs[SPAWNER_PROGRAM_COUNT_];
	int result; /* -errno: every request fails with it, later */
	unsigned int n_requests;
	unsigned int n_forked;
	struct fake_spawner_request last;
};

/* For the programs. Sends one message; for READY, STATE, DONE and QMP the second number matters:
 * stages, state, reason, status. */
void fake_say(int control, enum worker_msg_type type, uint32_t number);
/* Answers pings until DETACH comes (0) or the broker closes (-1). */
int fake_serve(int control);
/* Whether args of the last request hold this one. */
int fake_spawner_has_arg(const struct spawner *s, const char *arg);
