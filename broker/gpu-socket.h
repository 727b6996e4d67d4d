/* SPDX-License-Identifier: MIT
 * The socket on which the VMM of a VM with a GPU connects: systemd's, or one of our own.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"

#define GPU_SOCKET_PATH_MAX 108

/* Makes RUN-DIR/vm/NAME/gpu.sock (*own_out; it is the caller's to unlink), or takes the one that
 * systemd holds under the name gpu-NAME. group (may be NULL): whose members may connect to it.
 * 0 or -errno. */
int gpu_socket_listen(const char *run_dir, const char *vm, const char *group,
	char path_out[static GPU_SOCKET_PATH_MAX], bool *own_out, int *fd_out) _must_check_;
