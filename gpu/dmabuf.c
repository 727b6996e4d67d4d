/* SPDX-License-Identifier: MIT */
#include "gpu/dmabuf.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/virtio_gpu.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/checked.h"

#define PIXEL_BYTES 4

#define FOURCC(a, b, c, d) \
	((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

static bool format_known(uint32_t fourcc)
{
	static const uint32_t known[] = {
		FOURCC('X', 'R', '2', '4'),
		FOURCC('A', 'R', '2', '4'),
		FOURCC('X', 'B', '2', '4'),
		FOURCC('A', 'B', '2', '4'),
		FOURCC('R', 'X', '2', '4'),
		FOURCC('R', 'A', '2', '4'),
		FOURCC('B', 'X', '2', '4'),
		FOURCC('B', 'A', '2', '4'),
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i] == fourcc) {
			return true;
		}
	}
	return false;
}

/* Another file (a pipe, a socket, a memfd) would be what its reader waits for, or gets a signal
 * from. */
static int check_file(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0) {
		return -errno;
	}
	return fs.f_type == DMA_BUF_MAGIC && (uint64_t)st.st_size >= bytes ? 0 : -EINVAL;
}

bool dmabuf_is_plain(const struct dmabuf *d)
{
	return d->modifier == DMABUF_MODIFIER_UNKNOWN || d->modifier == DMABUF_MODIFIER_LINEAR;
}

bool dmabuf_fits(const struct dmabuf *d, uint32_t width, uint32_t height)
{
	return width > 0 && height > 0 && format_known(d->fourcc) &&
	       (d->flags & ~(uint32_t)VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP) == 0 &&
	       (d->modifier != DMABUF_MODIFIER_LINEAR || d->stride / PIXEL_BYTES >= width);
}

int dmabuf_check(const struct dmabuf *d, uint32_t width, uint32_t height)
{
	if (!dmabuf_fits(d, width, height)) {
		return -EINVAL;
	}
	/* Below 2^32 * 2^32. How large one of another modifier is only its driver knows. */
	return check_file(
		d->fd, d->modifier == DMABUF_MODIFIER_LINEAR
			       ? (uint64_t)d->stride * (height - 1) + (uint64_t)width * PIXEL_BYTES
			       : 1);
}
