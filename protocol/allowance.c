/* SPDX-License-Identifier: MIT */
#include "protocol/allowance.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int map(int fd, struct allowance_page **out)
{
	void *p = mmap(NULL, sizeof(**out), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		return -errno;
	}
	*out = p;
	return 0;
}

int allowance_create(int *fd_out, struct allowance_page **out)
{
	_cleanup_close_ int fd = memfd_create("gpu-allowance", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0 || ftruncate(fd, sizeof(**out)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
		return -errno;
	}
	r = map(fd, out);
	if (r < 0) {
		return r;
	}
	(*out)->version = ALLOWANCE_VERSION;
	atomic_store(&(*out)->granted_ns, ALLOWANCE_UNBOUNDED);
	*fd_out = steal_fd(&fd);
	return 0;
}

int allowance_map(int fd, struct allowance_page **out)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	/* Nobody can take it from under us. */
	if (st.st_size != sizeof(**out) || (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS) {
		return -EINVAL;
	}
	r = map(fd, out);
	if (r == 0 && (*out)->version != ALLOWANCE_VERSION) {
		allowance_unmap(*out);
		r = -EINVAL;
	}
	return r;
}

void allowance_unmap(struct allowance_page *p)
{
	if (p) {
		munmap(p, sizeof(*p));
	}
}
