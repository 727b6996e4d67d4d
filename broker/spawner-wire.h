/* SPDX-License-Identifier: MIT
 * Between the broker and its spawner: fixed-size messages on a socketpair, fds by SCM_RIGHTS. Both
 * ends are one program; nobody else includes this.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#include "broker/spawner.h"

static_assert(sizeof(struct spawner_settings) == 16, "wire size");

struct spawner_request {
	uint64_t id;
	uint32_t program;  /* enum spawner_program */
	uint32_t uid_slot; /* the worker's host id is uid_base + uid_slot */
	uint32_t n_args;
	uint32_t args_size;           /* bytes of args in use: n_args NUL-terminated texts */
	uint32_t n_fds;               /* that came with the message */
	uint32_t pad;                 /* zero */
	char args[SPAWNER_ARGS_SIZE]; /* zero behind args_size */
};
static_assert(sizeof(struct spawner_request) == 32 + SPAWNER_ARGS_SIZE, "wire size");

/* Comes with a pidfd when result is 0; also when a child has to be reaped after a failure. */
struct spawner_answer {
	uint64_t id;
	int32_t result; /* 0 or -errno */
	int32_t pid;    /* of the pidfd; 0 without */
};
static_assert(sizeof(struct spawner_answer) == 16, "wire size");

/* What the spawner works with; the fds are its own. */
struct spawner_process {
	int sock;
	int programs[SPAWNER_PROGRAM_COUNT_]; /* O_PATH */
	struct spawner_settings settings;     /* the first message */
};

/* Unpacks the arguments of a request into argv, which then ends with NULL. -EBADMSG if anything is
 * wrong with the request; argv points into it. */
int spawner_request_check(const struct spawner_request *request, size_t size, size_t n_fds,
	uint32_t uid_count, const char *argv[SPAWNER_ARGV_MAX]) _must_check_;

/* The life of the spawner, from the fork to the broker's end. */
_Noreturn void spawner_process_run(struct spawner_process *p);
