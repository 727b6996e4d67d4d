/* SPDX-License-Identifier: MIT
 * What libFuzzer calls, and so does replay.c: one input. It returns 0, and aborts if something is
 * not as it must be.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
