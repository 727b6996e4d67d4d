/* SPDX-License-Identifier: MIT
 * The 3D half of the virtio-gpu device: contexts, 3D resources, fences, and what they may cost.
 * There is none without a renderer for it (gpu/virgl.h).
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/dmabuf.h"
#include "gpu/fence.h"
#include "gpu/object.h"
#include "gpu/resource.h"
#include "gpu/submit-check.h"
#include "gpu/virgl.h"

struct gpu;
struct memory;
struct vring_chain;

#define GPU_CONTEXTS_MAX     256
#define GPU_RESOURCES_3D_MAX 32768
/* Ids of resources that were refused and are remembered as such. */
#define GPU_GHOSTS_MAX        1024
#define GPU_RINGS_MAX         64 /* timelines of a context, as the protocol has them */
#define GPU_CAPSETS           2
#define GPU_CAPSET_SIZE       4096
#define GPU_CONTEXT_NAME_SIZE 65
#define GPU_NO_3D             0U /* no slot; slots begin at 1 */
/* Resources that are DMABUFs at once: each is an fd here and in the front. */
#define GPU_DMABUFS_MAX 32

/* Which DMABUFs the display takes. */
enum gpu_dmabufs {
	GPU_DMABUFS_NONE,
	GPU_DMABUFS_PLAIN, /* those whose modifier need not be told */
	GPU_DMABUFS_ALL,
};

struct gpu_timeline {
	uint64_t made, reached;
};

struct gpu_context {
	uint32_t id;       /* 0: there is none */
	uint32_t next;     /* of its bucket, or free; GPU_NO_3D: none */
	bool lost;         /* with an earlier renderer */
	uint32_t poison;   /* what everything that draws is answered from now on; 0: it isn't */
	uint32_t n_ghosts; /* attached */
	uint32_t n_attached;
	struct submit_state streams;
	uint64_t over;                    /* as drift_exceeds has it */
	char name[GPU_CONTEXT_NAME_SIZE]; /* printable */
	struct gpu_timeline rings[GPU_RINGS_MAX];
};

enum gpu_resource_state {
	GPU_RESOURCE_LIVE,
	GPU_RESOURCE_GHOST, /* was refused: over the budget */
	GPU_RESOURCE_LOST,  /* with an earlier renderer */
};

struct gpu_resource_3d {
	struct virgl_resource virgl; /* id 0: there is none */
	uint32_t next;               /* of its bucket, or free */
	enum gpu_resource_state state;
	uint64_t bytes;    /* the charge; of a ghost: what it would have been */
	struct iovec *iov; // may be NULL
	uint32_t n_iov;
	uint64_t backing_bytes;
	bool backed;
	uint32_t image; /* the slot of its image in gpu::resources; GPU_NO_SLOT: it was never shown
			 */
	struct dmabuf *dmabuf; // may be NULL: it was not exported
	bool no_dmabuf;        /* it can't be */
	bool from_dmabuf;      /* it is shown from there: flushes read nothing back */
	uint64_t attached[GPU_CONTEXTS_MAX / 64]; /* bits: slots of contexts, less 1 */
};

/* Flushes that came one behind the other are one read-back. */
struct gpu_pending_flush {
	uint32_t slot; /* of the 3D resource; GPU_NO_3D: nothing is pending */
	struct rect rect;
};

struct gpu_3d {
	const struct virgl_ops *ops;
	struct virgl_limits limits;
	const char *name;  /* of the VM */
	bool context_init; /* negotiated */
	bool barred;       /* nothing is made or drawn in 3D: the guest hung its renderers */

	struct gpu_context contexts[GPU_CONTEXTS_MAX + 1];
	uint32_t first_context[GPU_CONTEXTS_MAX];
	uint32_t free_context;
	uint32_t n_contexts;

	struct gpu_resource_3d *resources; /* GPU_RESOURCES_3D_MAX + 1 */
	uint32_t *first_resource;          /* GPU_RESOURCES_3D_MAX */
	uint32_t free_resource, opened;    /* behind opened all are free */
	uint32_t n_resources, n_ghosts;
	uint32_t n_images; /* that 3D resources are shown from */

	struct objects objects;
	uint32_t n_subs;

	bool drew;       /* the command that is being executed: it left work in the renderer */
	bool unfenced;   /* work was left since the last fence was made */
	uint32_t *arena; /* one command buffer; its size is charged */
	uint32_t arena_bytes;

	struct fences fences;
	struct gpu_timeline line; /* of everything but the rings of contexts */
	struct gpu_pending_flush flush;
	bool stale[VIRTIO_GPU_MAX_SCANOUTS]; /* what is shown there was not read back yet */
	enum gpu_dmabufs dmabufs;            /* that the display takes */
	uint32_t n_dmabufs;
	bool said_no_dmabuf;
	bool undone; /* it was drawn since the last fence */

	/* For who counts. */
	uint64_t poisoned; /* contexts, ever */
};

/* What was lost with an earlier renderer: contexts and resources by their slots and ids, for which
 * commands get errors until they are ended. False: the slot is used, or the id is none. */
bool gpu_lose_context(struct gpu *g, uint32_t slot, uint32_t id) _must_check_;
bool gpu_lose_resource(struct gpu *g, uint32_t slot, uint32_t id) _must_check_;

/* Whether there was a 3D resource of this id. */
bool gpu_is_lost(const struct gpu *g, uint32_t id);

/* For virgl_options. */
void gpu_fence_reached(struct gpu *g, uint32_t fence);
void gpu_context_fence_reached(struct gpu *g, uint32_t context, uint32_t ring, uint64_t fence);
/* Requests that wait for fences. */
uint32_t gpu_fences_out(const struct gpu *g);
/* Since when (now_ns) the oldest of them waits, and the slot of the context that it is of. Only
 * while some wait. */
uint64_t gpu_oldest_fence(const struct gpu *g, uint32_t *slot_out);
/* The slot of the context that the oldest fence is of that is not known to be reached; GPU_NO_3D:
 * none is out, or of none. */
uint32_t gpu_waited_for(const struct gpu *g);
/* The oldest whose fence is reached: it is to be given back. */
bool gpu_take_fenced(struct gpu *g, uint16_t *head_out, uint32_t *written_out) _must_check_;
/* A fence of nobody's behind what has none, so that its end is heard of. */
void gpu_fence_tail(struct gpu *g);
/* All are taken to be reached, or forgotten. */
void gpu_fences_end(struct gpu *g);
void gpu_fences_forget(struct gpu *g);

/* Reads back what was flushed. To be done before the guest sees its answers. */
void gpu_settle(struct gpu *g);
/* What scanouts of 3D resources may be shown from, from now on: those that change are told to the
 * listener anew, with all of them damaged. */
void gpu_set_dmabufs(struct gpu *g, enum gpu_dmabufs which);
/* The DMABUF that the image in a slot is shown from (borrowed), or NULL: from its pixels. */
const struct dmabuf *gpu_dmabuf_of(const struct gpu *g, uint32_t image);
/* Reads what a scanout shows from a DMABUF into its image. */
void gpu_read_scanout(struct gpu *g, uint32_t scanout);
/* The table of the guest's memory is another: what backs 3D resources is found in it again. Returns
 * how many lost their backing. */
uint32_t gpu_rebase_3d(struct gpu *g, const struct memory *old, struct memory *now);
