/* SPDX-License-Identifier: MIT */
#include "tests/gpu/real-dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <libdrm/drm.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/fd.h"

#define CARDS 4

static int create(int card, uint32_t width, uint32_t height, struct real_dmabuf *out)
{
	struct drm_mode_create_dumb dumb = {.width = width, .height = height, .bpp = 32};
	struct drm_prime_handle prime = {.flags = DRM_CLOEXEC, .fd = -1};

	if (ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &dumb) < 0) {
		return -errno;
	}
	prime.handle = dumb.handle;
	if (ioctl(card, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime) < 0) {
		return -errno;
	}
	*out = (struct real_dmabuf){prime.fd, width, height, dumb.pitch};
	return 0;
}

int real_dmabuf_create(uint32_t width, uint32_t height, struct real_dmabuf *out)
{
	int r = -ENODEV;

	for (int i = 0; i < CARDS && r < 0; i++) {
		_cleanup_close_ int card = -1;
		char path[32];

		snprintf(path, sizeof(path), "/dev/dri/card%d", i);
		card = open(path, O_RDWR | O_CLOEXEC);
		if (card >= 0) {
			r = create(card, width, height, out);
		}
	}
	return r;
}
