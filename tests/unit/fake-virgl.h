/* SPDX-License-Identifier: MIT
 * What draws in 3D, without drawing: it counts and remembers what it is asked for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gpu/virgl.h"

struct fake_virgl {
	uint32_t contexts, resources, attached, backed; /* that there are now */
	uint32_t submits, writes, reads, polls;
	uint32_t last_words; /* of the last submit */
	uint32_t first_word;
	uint32_t fences;   /* the number of the last one that was made */
	uint32_t reached;  /* told by the next poll() */
	bool refuse;       /* everything that can be refused */
	uint8_t pattern;   /* what a read writes, in each byte */
	size_t read_short; /* bytes at the end that a read leaves as they were */
	struct virgl_options options;
};

/* All that it knows; to be cleared by the test. */
struct fake_virgl *fake_virgl(void);

extern const struct virgl_ops fake_virgl_ops;
