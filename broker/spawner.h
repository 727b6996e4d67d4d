/* SPDX-License-Identifier: MIT
 * The small process that starts workers: forked before devbrokerd reads any input.
 *
 * The broker itself never forks after that, so a worker inherits nothing of what the broker has
 * read since. Workers are made with CLONE_PARENT: they are the broker's own children, and it reaps
 * them through their pidfd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/spawn.h"

enum spawner_program {
	SPAWNER_USB,
	SPAWNER_QMP,
	SPAWNER_CLAIM,
	SPAWNER_GPU,     /* may be missing: then there are no GPUs */
	SPAWNER_USB_NBD, /* may be missing: then there are no NBD exports */
	SPAWNER_PROGRAM_COUNT_,
};

/* What configuration says; told to the spawner once it has been read. */
struct spawner_settings {
	/* Each worker runs as a host uid and gid of its own from [uid_base, uid_base + uid_count);
	 * uid_count 0: as the broker's own (an unprivileged broker has no other choice). */
	uint32_t uid_base;
	uint32_t uid_count;
	uint32_t namespaces; /* 0: none (sandbox=reduced:namespaces) */
	uint32_t pad;        /* zero */
};

#define SPAWNER_ARGV_MAX  24
#define SPAWNER_ARGS_SIZE 2048

struct spawner;

/* The file name of a program, also its argv[0]; NULL if out of range. */
const char *spawner_program_name(uint32_t program);

/* Opens the programs of libexec_dir (O_PATH) and forks the spawner. Only the first thread may
 * exist. 0; -errno, with *missing_out the name of the program that could not be opened, or NULL. */
int spawner_create(
	const char *libexec_dir, struct spawner **out, const char **missing_out) _must_check_;
/* Tells it the settings: once, before the first spawner_spawn. 0 or -errno. */
int spawner_configure(struct spawner *s, const struct spawner_settings *settings) _must_check_;
/* Its answers arrive on event's loop from now on. 0 or -errno. */
int spawner_attach(struct spawner *s, sd_event *event) _must_check_;
/* False once it has died: nothing can be started any more. */
bool spawner_alive(const struct spawner *s);
/* Ends the spawner and reaps it; workers go on, done is called no more. Not from within done. NULL
 * is fine. */
void spawner_destroy(struct spawner *s);

/* result 0: the worker exec'd or is about to (if it can't, it exits with SPAWN_EXIT_FAILED); pidfd
 * is the callee's, which kills and reaps through it. Otherwise -errno, pidfd -1; -EPIPE: the
 * spawner is gone and will not come back. */
typedef void (*spawner_done)(void *userdata, int result, pid_t pid, int pidfd);

/* Asks for program with argv[1…n_args] = args (each argument NULL-terminated; argv[0] is the
 * program's name) and fds as 3, 4, …; fds are borrowed: they are in flight when it returns. uid
 * slot: the worker's host id is uid_base + slot; the caller keeps slots of living workers distinct
 * (< uid_count, ignored if that is 0). 0 with *id_out, then done is called exactly once unless
 * spawner_forget is called before. -errno: done is not called; -EAGAIN: a burst, try again later;
 * -E2BIG: more than SPAWNER_ARGV_MAX - 2 arguments or SPAWNER_ARGS_SIZE bytes. */
int spawner_spawn(struct spawner *s, enum spawner_program program, const char *const *args,
	size_t n_args, const int *fds, size_t n_fds, uint32_t uid_slot, spawner_done done,
	void *userdata, uint64_t *id_out) _must_check_;

/* The requester is going away: when the answer to id comes, that worker is killed and reaped. */
void spawner_forget(struct spawner *s, uint64_t id);
