/* SPDX-License-Identifier: MIT */
#include "broker/shared-socket.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

static int make_directory(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int shared_socket_directory(const char *run_dir, const char *vm)
{
	char dir[PATH_MAX];
	int n = snprintf(dir, sizeof(dir), "%s/vm", run_dir);
	int r = n < (int)sizeof(dir) ? make_directory(dir) : -ENAMETOOLONG;

	if (r < 0) {
		return r;
	}
	n = snprintf(dir, sizeof(dir), "%s/vm/%s", run_dir, vm);
	return n < (int)sizeof(dir) ? make_directory(dir) : -ENAMETOOLONG;
}

/* Before it listens nobody connects. */
static int share(const char *path, const char *group)
{
	const struct group *entry = group ? getgrnam(group) : NULL;

	if (group && !entry) {
		return -ESRCH;
	}
	if (entry && chown(path, (uid_t)-1, entry->gr_gid) < 0) {
		return -errno;
	}
	return chmod(path, group ? 0660 : 0600) < 0 ? -errno : 0;
}

int shared_socket_listen(const struct stream_address *a, const char *group, int *fd_out)
{
	bool is_unix = stream_address_is_unix(a);
	_cleanup_close_ int fd =
		socket(a->socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int on = 1;
	int r = is_unix ? fd_remove_dead_socket(a->socket.un.sun_path) : 0;

	if (fd < 0) {
		return -errno;
	}
	/* Or the last connection's end would hold the port for a minute. */
	if (r == 0 && !is_unix && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0) {
		r = -errno;
	}
	if (r < 0) {
		return r;
	}
	if (bind(fd, &a->socket.any, a->length) < 0) {
		return -errno;
	}
	r = is_unix ? share(a->socket.un.sun_path, group) : 0;
	if (r == 0 && listen(fd, 4) < 0) {
		r = -errno;
	}
	if (r < 0) {
		if (is_unix) {
			unlink(a->socket.un.sun_path);
		}
		return r;
	}
	*fd_out = steal_fd(&fd);
	return 0;
}
