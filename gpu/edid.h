/* SPDX-License-Identifier: MIT
 * The EDID of a display that exists as a window only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define EDID_SIZE_MAX 256
#define EDID_SIDE_MAX 16384 /* pixels */

/* Writes the EDID of scanout number's display, whose best mode is width by height (1 to
 * EDID_SIDE_MAX) at 60 Hz: 128 bytes, or 256 where the mode is too large for the first block.
 * Returns the number of bytes. */
size_t edid_build(
	uint32_t number, uint32_t width, uint32_t height, uint8_t out[static EDID_SIZE_MAX]);
