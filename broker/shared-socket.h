/* SPDX-License-Identifier: MIT
 * Sockets that VMMs connect to: under RUN-DIR/vm/NAME, or where configuration says.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/stream-address.h"

/* Makes RUN-DIR/vm/NAME. 0 or -errno. */
int shared_socket_directory(const char *run_dir, const char *vm) _must_check_;
/* Listens at address, non-blocking; members of group (NULL: only our user) may connect to a unix
 * socket. A socket that nobody listens on any more is replaced. 0 with the fd; -errno (-EADDRINUSE:
 * somebody listens, or what is at the path is no socket; -ESRCH: there is no such group). */
int shared_socket_listen(
	const struct stream_address *address, const char *group, int *fd_out) _must_check_;
