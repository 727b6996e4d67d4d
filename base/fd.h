/* SPDX-License-Identifier: MIT
 * File descriptors: ownership in locals, and messages with descriptors over SOCK_SEQPACKET.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/* Closes fd if it is >= 0, keeps errno, returns -1, so that x = safe_close(x) forgets it. */
int safe_close(int fd);

static inline _unused_ void closep(int *fd)
{
	*fd = safe_close(*fd);
}

#define _cleanup_close_ _cleanup_(closep)

static inline _must_check_ int steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/* Closes every fd >= first except the n in keep (each >= first, any order). 0 or -errno. */
int close_all_except(int first, const int *keep, size_t n);

/* O_NONBLOCK on or off. 0 or -errno. */
int fd_set_nonblock(int fd, bool nonblock) _must_check_;
/* FD_CLOEXEC on or off. 0 or -errno. */
int fd_set_cloexec(int fd, bool cloexec) _must_check_;

/* Gives an empty file this size (not 0), as ftruncate would, where that is forbidden because it
 * could also make a file smaller that somebody else has mapped. 0 or -errno. */
int fd_extend(int fd, uint64_t size) _must_check_;

/* A memfd of size bytes (not 0), all zero, of a size that nobody can change any more, and mapped.
 * *fd_out and the mapping are the caller's. 0 or -errno. */
int fd_create_sealed(const char *name, uint64_t size, int *fd_out, void **mapping_out) _must_check_;

/* Removes the unix socket at path (shorter than sun_path) if nobody listens there any more. Whoever
 * does hears nothing of it. 0, also if there is nothing; -EADDRINUSE: somebody listens, or it is no
 * socket; -errno. */
int fd_remove_dead_socket(const char *path) _must_check_;

/* A signalfd of SIGTERM and SIGINT, which are blocked from then on; the caller's. -1 with errno. */
int fd_stop_signals(void) _must_check_;

/* Sends one message of size bytes with n_fds (<= FD_MSG_MAX) borrowed fds, without blocking when
 * the socket is O_NONBLOCK and never raising SIGPIPE. 0, or -errno (-EAGAIN: not sent at all). */
int fd_send(int sock, const void *msg, size_t size, const int *fds, size_t n_fds) _must_check_;

#define FD_MSG_MAX 8

/* Receives one message. At most size bytes and max_fds fds are accepted; a longer message or more
 * fds closes everything received and fails with -EMSGSIZE. Returns the byte count (0: the peer
 * closed), or -errno. *n_fds_out fds in fds are the caller's then, CLOEXEC. */
ssize_t fd_recv(
	int sock, void *msg, size_t size, int *fds, size_t max_fds, size_t *n_fds_out) _must_check_;
