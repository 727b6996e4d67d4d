/* SPDX-License-Identifier: MIT
 * What we change of what virglrenderer says of itself.
 */
#pragma once

#include <stdint.h>

/* In capset 2 of size bytes: the video memory is limit bytes, and nothing is said of the host's. */
void capset_tell_budget(uint8_t *capset, uint32_t size, uint64_t limit);
