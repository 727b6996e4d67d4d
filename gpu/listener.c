/* SPDX-License-Identifier: MIT */
#include "gpu/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

static int bind_at(int listener, const struct sockaddr_un *addr)
{
	const struct sockaddr *any = (const struct sockaddr *)addr;
	int r;

	if (bind(listener, any, sizeof(*addr)) == 0) {
		return 0;
	}
	if (errno != EADDRINUSE) {
		return -errno;
	}
	r = fd_remove_dead_socket(addr->sun_path);
	return r < 0 ? r : bind(listener, any, sizeof(*addr)) < 0 ? -errno : 0;
}

static int bind_with(int listener, const struct sockaddr_un *addr, mode_t mode)
{
	mode_t before;
	int r;

	if (mode == LISTENER_UMASK) {
		return bind_at(listener, addr);
	}
	before = umask(~mode & 0777);
	r = bind_at(listener, addr);
	umask(before);
	return r;
}

int listener_open(const char *path, mode_t mode, gid_t group, int backlog)
{
	_cleanup_close_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	if (listener < 0) {
		return -errno;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	r = bind_with(listener, &addr, mode);
	if (r < 0) {
		return r;
	}
	/* Nobody can connect before it listens. */
	if ((group != LISTENER_NO_GROUP && lchown(path, (uid_t)-1, group) < 0) ||
		listen(listener, backlog) < 0) {
		r = -errno;
	}
	if (r < 0) {
		unlink(path);
		return r;
	}
	return steal_fd(&listener);
}
