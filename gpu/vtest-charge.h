/* SPDX-License-Identifier: MIT
 * What a VM is charged in devbrokerd for a client of its vtest socket.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

#define VTEST_WHY_SIZE 256

/* Reserves bytes of vm's GPU memory at the devbrokerd that serves the socket path; waits two
 * seconds at most. 0 with *fd_out: it is charged until that is closed, and it closes from the other
 * end when the VM or devbrokerd goes. Else -errno with why, printable: -ENOENT or -ECONNREFUSED
 * when nobody serves path, -EDQUOT when the VM has no more, -ESRCH when there is no such VM, or it
 * has no GPU. */
int vtest_charge(const char *path, const char *vm, uint64_t bytes, int *fd_out,
	char why[VTEST_WHY_SIZE]) _must_check_;
