/* SPDX-License-Identifier: MIT
 * A listening unix socket at a path.
 */
#pragma once

#include <sys/types.h>

#include "base/cleanup.h"

/* As the process has them. */
#define LISTENER_NO_GROUP ((gid_t)-1)
#define LISTENER_UMASK    ((mode_t)-1)

/* Binds and listens; of no more than mode from its first moment, and of group. A socket there on
 * which nobody listens any more is replaced, anything else is not. The fd, blocking and CLOEXEC; or
 * -errno, with nothing left there. */
int listener_open(const char *path, mode_t mode, gid_t group, int backlog) _must_check_;
