/* SPDX-License-Identifier: MIT
 * What draws in 3D, behind a table of functions: virglrenderer (gpu/virgl.c, the only file that
 * includes its header), or a fake in unit tests.
 *
 * Its state is one per process, so there is no handle. Nothing here is a check: ids, sizes, formats
 * and boxes must have been checked, and sizes charged, before a call. What comes back is believed
 * only when it says no: 0.10 returns 0 for a texture that it could not allocate, for a second
 * context of one id and for a blob that is none. All calls come from one thread, and events are
 * told only from within poll().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/cleanup.h"

#define VIRGL_RENDERER_NAME_SIZE 128 /* of GL_RENDERER, with its end */

/* As VIRTIO_GPU_CMD_RESOURCE_CREATE_3D has them; target and format are virgl's (Gallium's). */
struct virgl_resource {
	uint32_t id; /* not 0, one namespace for the process */
	uint32_t target;
	uint32_t format;
	uint32_t bind;
	uint32_t width;
	uint32_t height;
	uint32_t depth;
	uint32_t array_size;
	uint32_t last_level;
	uint32_t nr_samples;
	uint32_t flags;
};

struct virgl_area {
	uint32_t x, y, z;
	uint32_t width, height, depth;
};

/* A part of a resource, and where its bytes lie in the iovec. Strides of 0: as the format has it.
 */
struct virgl_transfer {
	uint32_t id;
	uint32_t context; /* 0: none */
	uint32_t level;
	uint32_t stride;       /* bytes */
	uint32_t layer_stride; /* bytes */
	struct virgl_area area;
	uint64_t offset; /* bytes into the iovec */
};

struct virgl_blob {
	uint32_t id;
	uint32_t context;
	uint32_t memory; /* VIRTIO_GPU_BLOB_MEM_* */
	uint32_t flags;
	uint64_t blob_id;
	uint64_t size; /* bytes */
};

struct virgl_options {
	int drm_fd; /* a render node, borrowed for good; -1: software (llvmpipe) */
	/* The fence of this number and all of context 0 before it are reached. */
	void (*fence)(void *userdata, uint32_t fence);
	/* The same of one ring of a context that has its own timeline. */
	void (*context_fence)(void *userdata, uint32_t context, uint32_t ring, uint64_t fence);
	void *userdata;
};

/* Functions that return int: 0 or -errno. */
struct virgl_ops {
	/* Loads the libraries and the driver, makes a context and draws once, so that later no file
	 * is opened and no thread of the driver's pool is missing. renderer_out gets GL_RENDERER
	 * ("llvmpipe (LLVM 15.0.6, 256 bits)"). Takes 45 to 170 ms with llvmpipe. */
	int (*init)(const struct virgl_options *options,
		char renderer_out[VIRGL_RENDERER_NAME_SIZE]) _must_check_;
	void (*finish)(void);

	/* Becomes readable when poll() has something to tell; -1: poll() must be called by the
	 * clock while fences are out. */
	int (*poll_fd)(void);
	void (*poll)(void);

	/* Largest version and size in bytes; 0 and 0: there is none of this id. Venus (4) is never
	 * there. */
	void (*capset_info)(uint32_t id, uint32_t *version_out, uint32_t *size_out);
	/* Fills size bytes, all of them. max_video_memory is the caller's to set. */
	void (*capset_fill)(uint32_t id, uint32_t version, void *out, uint32_t size);

	/* name need not end with NUL. */
	int (*context_create)(uint32_t context, uint32_t flags, const char *name,
		uint32_t name_length) _must_check_;
	void (*context_destroy)(uint32_t context);

	int (*resource_create)(const struct virgl_resource *r) _must_check_;
	int (*resource_create_blob)(
		const struct virgl_blob *b, const struct iovec *iov, uint32_t n) _must_check_;
	void (*resource_unref)(uint32_t id);
	/* iov (borrowed until detach) is the resource's backing. */
	int (*resource_attach)(uint32_t id, const struct iovec *iov, uint32_t n) _must_check_;
	void (*resource_detach)(uint32_t id);
	void (*context_attach)(uint32_t context, uint32_t id);
	void (*context_detach)(uint32_t context, uint32_t id);

	/* Into the resource from iov, or the other way; iov NULL: from or to its backing. */
	int (*transfer_write)(
		const struct virgl_transfer *t, const struct iovec *iov, uint32_t n) _must_check_;
	int (*transfer_read)(
		const struct virgl_transfer *t, const struct iovec *iov, uint32_t n) _must_check_;

	/* n dwords of commands, which are ours: no guest can change them meanwhile. */
	int (*submit)(uint32_t context, uint32_t *dwords, uint32_t n) _must_check_;
	int (*fence)(uint32_t fence, uint32_t context) _must_check_;
	int (*context_fence)(uint32_t context, uint32_t ring, uint64_t fence) _must_check_;

	/* A DMABUF of a 2D texture, where there is a render node; modifier and fourcc are DRM's.
	 * *fd_out is the caller's. -ENOTSUP without one, and where its driver can't. */
	int (*resource_export)(uint32_t id, int *fd_out, uint32_t *fourcc_out, uint32_t *stride_out,
		uint32_t *offset_out, uint64_t *modifier_out) _must_check_;
};

extern const struct virgl_ops virgl_renderer;

/* How many CPUs it draws with in software: those that this process may use, but not more than
 * VIRGL_CPUS_MAX. */
#define VIRGL_CPUS_MAX 8
uint32_t virgl_cpus(void);

/* Bounds the memory of this process by a budget and what the budget doesn't see: objects and
 * shaders inside command streams, and the driver itself, which has 90 MiB when nothing is drawn
 * yet. Before the sandbox. 0 or -errno. */
int virgl_bound_memory(uint64_t bytes) _must_check_;

/* gpu/virgl-size.c: what the ledger charges.
 * Bytes that a resource takes in the renderer: all levels, layers and samples. 0 if it can't be:
 * a target or format that there is none of, no pixels, sides, layers, samples or levels beyond what
 * any driver has, more than 64 bits. */
uint64_t virgl_resource_bytes(const struct virgl_resource *r) _must_check_;
/* What textures of the driver that draws can have; more it refuses by an error of GL, of which
 * nobody hears. Pixels, but for layers and samples. */
struct virgl_limits {
	uint32_t side; /* of 1D, 2D and rectangles, layers aside */
	uint32_t side_3d;
	uint32_t side_cube;
	uint32_t layers;
	uint32_t samples;
};

/* As the renderer's capset says (gpu/capset.h); what it does not say, and what virgl_resource_bytes
 * does not take, is bounded by that alone. */
void virgl_limits_of(const struct virgl_ops *ops, struct virgl_limits *out);
/* Whether it keeps to them. Buffers always do: they cost what they have. */
bool virgl_resource_fits(
	const struct virgl_resource *r, const struct virgl_limits *limits) _must_check_;
/* Bytes of the guest's memory that a transfer of area to or from level touches behind offset; 0 if
 * the area is empty or not within that level of r, or strides are shorter than the area. */
uint64_t virgl_transfer_bytes(
	const struct virgl_resource *r, const struct virgl_transfer *t) _must_check_;
/* Bytes of a block of this format, and its sides in pixels; false: there is no such format. */
bool virgl_format_block(uint32_t format, uint32_t *bytes_out, uint32_t *width_out,
	uint32_t *height_out) _must_check_;
