/* SPDX-License-Identifier: MIT
 * Pixels written as a PNG file.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

/* Writes width by height pixels B8G8R8X8 (rows without gaps) to path, which is replaced as a whole;
 * "-" is standard output. 0 or -errno. */
int png_write(
	const char *path, const uint8_t *pixels, uint32_t width, uint32_t height) _must_check_;
