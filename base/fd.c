/* SPDX-License-Identifier: MIT */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

int safe_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -1;
}

static int close_span(unsigned int first, unsigned int last)
{
	if (first > last) {
		return 0;
	}
	return syscall(SYS_close_range, first, last, 0) < 0 ? -errno : 0;
}

int close_all_except(int first, const int *keep, size_t n)
{
	int from = first, r;

	/* Selection by repeated minimum: n is a handful. */
	for (;;) {
		int next = -1;

		for (size_t i = 0; i < n; i++) {
			if (keep[i] >= from && (next < 0 || keep[i] < next)) {
				next = keep[i];
			}
		}
		if (next < 0) {
			return close_span((unsigned int)from, ~0U);
		}
		if (next > from) {
			r = close_span((unsigned int)from, (unsigned int)next - 1);
			if (r < 0) {
				return r;
			}
		}
		from = next + 1;
	}
}

static int change_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);

	if (flags < 0) {
		return -errno;
	}
	flags = on ? flags | flag : flags & ~flag;
	return fcntl(fd, set, flags) < 0 ? -errno : 0;
}

int fd_set_nonblock(int fd, bool nonblock)
{
	return change_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, nonblock);
}

int fd_set_cloexec(int fd, bool cloexec)
{
	return change_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, cloexec);
}

int fd_extend(int fd, uint64_t size)
{
	ssize_t n;

	do {
		n = pwrite(fd, "", 1, (off_t)(size - 1));
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n == 1 ? 0 : -ENOSPC;
}

int fd_create_sealed(const char *name, uint64_t size, int *fd_out, void **mapping_out)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *mapping;
	int err = fd < 0 ? -errno : fd_extend(fd, size);

	if (err < 0) {
		return err;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		return -errno;
	}
	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapping == MAP_FAILED) {
		return -errno;
	}
	*mapping_out = mapping;
	*fd_out = steal_fd(&fd);
	return 0;
}

int fd_send(int sock, const void *msg, size_t size, const int *fds, size_t n_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * FD_MSG_MAX)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = size};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds > FD_MSG_MAX) {
		return -EINVAL;
	}
	if (n_fds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return -errno;
	}
	return (size_t)n == size ? 0 : -EMSGSIZE;
}

ssize_t fd_recv(int sock, void *msg, size_t size, int *fds, size_t max_fds, size_t *n_fds_out)
{
	/* Room for one fd more than any caller may accept, so that a surplus is seen and closed. */
	union {
		char buf[CMSG_SPACE(sizeof(int) * (FD_MSG_MAX + 1))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = msg, .iov_len = size};
	struct msghdr mh = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	size_t n_fds = 0;
	bool bad;
	ssize_t n;

	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return -errno;
	}
	bad = mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n_fds < max_fds) {
				fds[n_fds++] = fd;
			} else {
				safe_close(fd);
				bad = true;
			}
		}
	}
	if (bad) {
		while (n_fds > 0) {
			safe_close(fds[--n_fds]);
		}
		return -EMSGSIZE;
	}
	*n_fds_out = n_fds;
	return n;
}

int fd_stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int fd_remove_dead_socket(const char *path)
{
	/* Another type of socket than anybody listens with: it is answered EPROTOTYPE, and no
	 * connection is made that could be taken for a client. */
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;

	if (lstat(path, &st) < 0) {
		return errno == ENOENT ? 0 : -errno;
	}
	if (!S_ISSOCK(st.st_mode) || fd < 0 || strlen(path) >= sizeof(addr.sun_path)) {
		return -EADDRINUSE;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 ||
		errno != ECONNREFUSED) {
		return -EADDRINUSE;
	}
	return unlink(path) < 0 ? -errno : 0;
}
