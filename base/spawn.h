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
};

/* 0, with the pid (as the caller sees it) and a pidfd that the caller owns. -errno otherwise, with
 * nothing left running. exec failures in the child show as exit status 127. */
int spawn_process(const struct spawn_spec *spec, pid_t *pid_out, int *pidfd_out) _must_check_;
