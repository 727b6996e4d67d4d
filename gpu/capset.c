/* SPDX-License-Identifier: MIT */
#include "gpu/capset.h"

#include <string.h>

#include "base/checked.h"

/* struct virgl_caps_v2: its second word of bits, and the size of what it calls video memory. */
#define BITS_AT    688
#define MEMORY_AT  692
#define HAS_MEMORY (1U << 2) /* the size is one */
#define HAS_INFO   (1U << 3) /* GET_MEMORY_INFO: what the host has */

void capset_tell_budget(uint8_t *capset, uint32_t size, uint64_t limit)
{
	uint32_t bits, megabytes = (uint32_t)MIN(limit >> 20, INT32_MAX);

	if (size < MEMORY_AT + sizeof(megabytes)) {
		return;
	}
	memcpy(&bits, capset + BITS_AT, sizeof(bits));
	bits = (bits | HAS_MEMORY) & ~HAS_INFO;
	memcpy(capset + BITS_AT, &bits, sizeof(bits));
	memcpy(capset + MEMORY_AT, &megabytes, sizeof(megabytes));
}
