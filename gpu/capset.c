/* SPDX-License-Identifier: MIT */
#include "gpu/capset.h"

#include <string.h>

#include "base/checked.h"
#include "gpu/virgl.h"

/* struct virgl_caps_v2: max_texture_array_layers, max_samples, and the three sizes behind each
 * other.
 */
#define LAYERS_AT  268
#define SAMPLES_AT 284
#define SIDES_AT   484
/* Its second word of bits, and the size of what it calls video memory. */
#define BITS_AT    688
#define MEMORY_AT  692
#define HAS_MEMORY (1U << 2) /* the size is one */
#define HAS_INFO   (1U << 3) /* GET_MEMORY_INFO: what the host has */

static uint32_t field(const uint8_t *capset, uint32_t size, uint32_t at)
{
	uint32_t value = 0;

	if (size >= at + sizeof(value)) {
		memcpy(&value, capset + at, sizeof(value));
	}
	return value;
}

void capset_limits(const uint8_t *capset, uint32_t size, struct virgl_limits *out)
{
	*out = (struct virgl_limits){.side = field(capset, size, SIDES_AT),
		.side_3d = field(capset, size, SIDES_AT + 4),
		.side_cube = field(capset, size, SIDES_AT + 8),
		.layers = field(capset, size, LAYERS_AT),
		.samples = field(capset, size, SAMPLES_AT)};
}

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
