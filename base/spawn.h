/* SPDX-License-Identifier: MIT
 * Starts a program in new namespaces with exactly the fds it is given (clone3, execveat).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#define SPAWN_FDS_MAX 8

/* Exit status of a child that could not become the program; its stderr has a line with the step
 * and the errno. */
#define SPAWN_EXIT_FAILED 127

struct spawn_spec {
	int program_fd;          /* borrowed; O_PATH of the executable */
	const char *const *argv; /* NULL-terminated; environment is empty */
	const int *fds;          /* borrowed; fds[i] becomes 3 + i in the program */
	size_t n_fds;            /* <= SPAWN_FDS_MAX */
	int stderr_fd;           /* borrowed; becomes 2; stdin and stdout become /dev/null */
	/* Host uid and gid that are uid 0 and gid 0 inside. 0 means the caller's own effective ids
	 * (the only choice without CAP_SETUID). */
	uid_t host_id;
	bool namespaces; /* false: none at all (sandbox=reduced:namespaces or off) */
	bool sibling;    /* CLONE_PARENT: the caller's parent becomes the parent and reaps */
	/* SIGKILL to the program when the calling thread ends. Only with the caller's own ids: the
	 * kernel forgets it when ids change. */
	bool die_with_caller;
};

/* 0, with the pid (as the caller sees it) and a pidfd that the caller owns. -errno otherwise, with
 * nothing left running. Exec failures in the child show as exit status SPAWN_EXIT_FAILED. The
 * program leads a session of its own, with every signal unblocked and at its default, in "/".
 * It is pid 1 of its namespace: signals without a handler are ignored there, SIGKILL and SIGSTOP
 * from outside excepted.
 * With sibling, a child that had to be killed can't be reaped here: *pidfd_out (set it to -1
 * before) then is its pidfd even on failure, for the caller's parent to reap. */
int spawn_process(const struct spawn_spec *spec, pid_t *pid_out, int *pidfd_out) _must_check_;

/* Runs this very program again (/proc/self/exe) in new namespaces with argv and fds as 3, 4, …
 * (borrowed), forwards SIGTERM, SIGINT and SIGHUP to it, and waits: the small parent of a worker
 * that a person starts by hand. 0 with its exit status (128 + signal when a signal ended it), or
 * -errno when it could not be started. It ends with the caller. Stderr is shared; stdout is not. */
int spawn_self(const char *const *argv, const int *fds, size_t n_fds, int *status_out) _must_check_;
