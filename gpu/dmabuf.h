/* SPDX-License-Identifier: MIT
 * A picture that lies where a GPU has drawn it: nobody copies it, its fd is passed to who shows it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

/* The exporter did not say how it lies: what the importer's driver takes for granted. DRM's
 * DRM_FORMAT_MOD_INVALID and DRM_FORMAT_MOD_LINEAR. */
#define DMABUF_MODIFIER_UNKNOWN UINT64_C(0x00ffffffffffffff)
#define DMABUF_MODIFIER_LINEAR  UINT64_C(0)

struct dmabuf {
	int fd;          /* -1: there is none */
	uint32_t fourcc; /* DRM's, of 4 bytes a pixel */
	uint32_t stride; /* bytes */
	uint32_t flags;  /* VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP */
	uint64_t modifier;
};

/* Whether who shows it need not be told its modifier. */
bool dmabuf_is_plain(const struct dmabuf *d) _must_check_;
/* Whether its numbers can be those of a picture of width by height, in one of the formats that
 * virtio-gpu's scanouts have. */
bool dmabuf_fits(const struct dmabuf *d, uint32_t width, uint32_t height) _must_check_;
/* What can be known of it without a GPU: the same, and that its file is a DMABUF, not too small for
 * that picture if it is linear. 0; -EINVAL if not; -errno. */
int dmabuf_check(const struct dmabuf *d, uint32_t width, uint32_t height) _must_check_;
