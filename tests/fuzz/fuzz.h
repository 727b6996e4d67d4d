/* SPDX-License-Identifier: MIT
 * What libFuzzer calls, and so does replay.c: one input. It returns 0, and aborts if something is
 * not as it must be.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For what is done, and not only looked at, in a check. */
static inline void must(bool ok)
{
	if (!ok) {
		abort();
	}
}
