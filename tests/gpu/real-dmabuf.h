/* SPDX-License-Identifier: MIT
 * DMABUFs of the kernel's own, from a DRM device that makes plain buffers (vgem, virtio-gpu).
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

struct real_dmabuf {
	int fd;
	uint32_t width, height;
	uint32_t stride; /* bytes */
};

/* A new one, linear, of 4 bytes a pixel. -ENODEV: there is no device for it here. -errno. */
int real_dmabuf_create(uint32_t width, uint32_t height, struct real_dmabuf *out) _must_check_;
