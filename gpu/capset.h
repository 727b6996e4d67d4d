/* SPDX-License-Identifier: MIT
 * What virglrenderer says of itself, and what we change of that.
 */
#pragma once

#include <stdint.h>

struct virgl_limits;

/* Capset 2 of size bytes says what textures can have; 0: it doesn't. */
void capset_limits(const uint8_t *capset, uint32_t size, struct virgl_limits *out);
/* In capset 2 of size bytes: the video memory is limit bytes, and nothing is said of the host's. */
void capset_tell_budget(uint8_t *capset, uint32_t size, uint64_t limit);
