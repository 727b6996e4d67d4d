/* SPDX-License-Identifier: MIT
 * What draws in 3D, without drawing: it holds what it is told to, says no when it is told to, and
 * ends the test when it is told what must have been refused before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gpu/virgl.h"

#define FAKE_3D_MAX 512

struct fake_3d {
	/* What there is. */
	struct virgl_resource resources[FAKE_3D_MAX];
	const struct iovec *iov[FAKE_3D_MAX];
	uint32_t n_iov[FAKE_3D_MAX];
	uint32_t n_resources;
	uint32_t contexts[FAKE_3D_MAX];
	uint32_t n_contexts, n_attached;
	/* What it was asked for last, and how often. */
	uint32_t n_submits, n_dwords, submitted_to;
	uint32_t first_dword;
	uint32_t n_writes, n_reads;
	struct virgl_transfer transfer;
	uint32_t fence, fence_context, n_fences;
	uint32_t ring_context, ring;
	uint64_t ring_fence;
	/* Bytes of memory: that each buffer takes, and all of them took. */
	uint64_t takes, taken;
	/* What the next call returns. */
	int refuse;
	uint32_t pixel; /* what is read of a resource */
	/* What its capset says, where that is not 0. */
	struct virgl_limits limits;
	/* Whether resources can be exported, and as what; stride 0: as their width has it. */
	bool exports;
	uint32_t stride, offset;
	uint64_t modifier;
	uint32_t n_exports;
	int exported; /* the last fd, which is somebody else's */
};

/* All zero; the same one for all: as the renderer is. */
extern struct fake_3d fake;
extern const struct virgl_ops fake_3d_ops;
