/* SPDX-License-Identifier: MIT
 * A texture of the current EGL context as a DMABUF.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

/* texture: GL's name of a 2D texture with one level. The fd is the caller's; what is told of it is
 * how its bytes lie. -ENOTSUP where this driver can't, or not in one plane. */
int virgl_export_texture(uint32_t texture, int *fd_out, uint32_t *fourcc_out, uint32_t *stride_out,
	uint32_t *offset_out, uint64_t *modifier_out) _must_check_;
