/* SPDX-License-Identifier: MIT */
#include "broker/gpu-socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "broker/shared-socket.h"
#include "broker/stream-address.h"

/* The socket that systemd listens on for us, or -1. */
static int find_activated(const char *vm)
{
	char **names = NULL;
	char wanted[96];
	int n = sd_listen_fds_with_names(0, &names), found = -1;

	snprintf(wanted, sizeof(wanted), "gpu-%s", vm);
	for (int i = 0; i < n; i++) {
		if (strcmp(names[i], wanted) == 0) {
			found = SD_LISTEN_FDS_START + i;
		}
		free(names[i]);
	}
	free(names);
	return found;
}

int gpu_socket_listen(const char *run_dir, const char *vm, const char *group,
	char path_out[static GPU_SOCKET_PATH_MAX], bool *own_out, int *fd_out)
{
	struct stream_address address;
	int activated = find_activated(vm);
	int n, r;

	*own_out = false;
	if (activated >= 0) {
		snprintf(path_out, GPU_SOCKET_PATH_MAX, "systemd's");
		*fd_out = activated;
		return 0;
	}
	n = snprintf(path_out, GPU_SOCKET_PATH_MAX, "%s/vm/%s/gpu.sock", run_dir, vm);
	r = n < GPU_SOCKET_PATH_MAX ? stream_address_unix(path_out, &address) : -ENAMETOOLONG;
	if (r == 0) {
		r = shared_socket_directory(run_dir, vm);
	}
	if (r == 0) {
		r = shared_socket_listen(&address, group, fd_out);
	}
	*own_out = r == 0;
	return r;
}
