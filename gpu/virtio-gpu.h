/* SPDX-License-Identifier: MIT
 * The virtio-gpu device: what each command of a guest does, and what it is answered.
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/restarts.h"
#include "gpu/device-3d.h"
#include "gpu/drift.h"
#include "gpu/resource.h"

struct memory;
struct spend;
struct vring_chain;

#define GPU_SCANOUTS_MAX  VIRTIO_GPU_MAX_SCANOUTS
#define GPU_RESOURCES_MAX 1024
/* Of images: one for each resource, and behind them one for each scanout that shows a blob. */
#define GPU_SLOTS_MAX (GPU_RESOURCES_MAX + GPU_SCANOUTS_MAX)
/* Of one resource: 64 MiB in pages of 4 KiB. */
#define GPU_ENTRIES_MAX 16384
#define GPU_CURSOR_SIDE 64
/* Of a display that has not told its size. */
#define GPU_DEFAULT_WIDTH  1280
#define GPU_DEFAULT_HEIGHT 800
/* A transfer of more is done in parts. */
#define GPU_SLICE_BYTES (512U << 10)
#define GPU_NO_SLOT     UINT32_MAX

/* Which pixels of a blob a scanout shows. */
struct gpu_view {
	uint32_t blob;   /* its slot */
	uint32_t format; /* 0: it shows no blob */
	uint32_t x, y;   /* of the first pixel that is shown; rect has how many */
	uint32_t stride; /* bytes */
	uint32_t offset; /* bytes, of pixel 0, 0 in the blob */
	bool stale;      /* the next flush is one of everything */
};

struct gpu_scanout {
	uint32_t slot; /* of the image it shows; GPU_NO_SLOT: nothing */
	struct rect rect;
	struct gpu_view view;
};

struct gpu_cursor {
	uint32_t resource_id; /* 0: hidden */
	uint32_t scanout;
	uint32_t x, y;
	uint32_t hot_x, hot_y;
};

struct gpu_mode {
	uint32_t width, height; /* 0: this scanout is off */
	uint32_t x, y;
};

/* What comes of a command, for who keeps the journal and who shows the picture. None may fail but
 * backed. */
struct gpu_listener {
	/* The resource in slot was made, or is about to go (id 0). */
	void (*resource)(void *userdata, uint32_t slot, const struct resource *r);
	/* Keeps the entries of its backing. 0, or -ENOMEM: the guest is told so. */
	int (*backed)(
		void *userdata, uint32_t slot, const struct backing_entry *entries, uint32_t n);
	void (*unbacked)(void *userdata, uint32_t slot);
	/* A context, or a 3D resource, was made or is gone (id 0). Slots begin at 1. */
	void (*context)(void *userdata, uint32_t slot, uint32_t id, const char *name);
	void (*resource_3d)(void *userdata, uint32_t slot, uint32_t id);
	/* The image in slot, that a 3D resource or a blob was shown from, is gone. */
	void (*image_gone)(void *userdata, uint32_t slot);
	/* A scanout shows something else, or nothing. */
	void (*scanout)(void *userdata, uint32_t scanout);
	/* It shows another blob or another part of one, in the same image: the next flush says so.
	 */
	void (*view)(void *userdata, uint32_t scanout);
	/* rect of the scanout (in its own coordinates, not empty) has new pixels. */
	void (*damage)(void *userdata, uint32_t scanout, const struct rect *rect);
	/* The cursor has moved or is hidden or shown, or (pixels) has a new image. pixels are
	 * GPU_CURSOR_SIDE squared. */
	void (*cursor)(void *userdata, const struct gpu_cursor *cursor, const uint8_t *pixels);
	/* A transfer goes on after this. gpu_cursor may be called from it, gpu_control not. */
	void (*pause)(void *userdata);
};

struct gpu {
	struct gpu_3d *three; // may be NULL: 2D only
	struct memory *memory;
	const struct gpu_listener *listener;
	void *userdata;
	uint32_t n_scanouts;
	struct gpu_scanout scanouts[GPU_SCANOUTS_MAX];
	struct gpu_cursor cursors[GPU_SCANOUTS_MAX];
	struct gpu_mode modes[GPU_SCANOUTS_MAX];
	bool modes_known; /* modes were asked for after the command came that wants them */
	bool blobs;       /* negotiated */
	uint8_t uuid_seed[8];
	struct budget budget;
	struct drift drift;                   /* measures for budget, if anybody does */
	uint32_t *drawing;                    // may be NULL: journal::drawing
	bool warned;                          /* that the budget is nearly used up */
	struct restarts said;                 /* lines of the log that the guest brings about */
	const char *name;                     /* of the VM, for the log */
	struct spend *spend;                  // may be NULL: nobody counts
	uint32_t contexts_max, resources_max; /* besides what there is room for */
	uint32_t n_placed;                    /* slots of resources in use */
	uint32_t flushed; /* scanouts (bits) that got a frame: to be cleared by who looks */
	uint64_t copied;  /* bytes from the guest's memory, ever */
	uint64_t errors;  /* answers, ever */
	uint64_t refused; /* over a limit, ever */
	struct resource resources[GPU_SLOTS_MAX];
	/* Slots by id modulo GPU_RESOURCES_MAX, and free ones: first, then next. */
	uint16_t first[GPU_RESOURCES_MAX];
	uint16_t next[GPU_RESOURCES_MAX];
	uint16_t first_free;
	struct backing_entry entries[GPU_ENTRIES_MAX];
	uint8_t cursor_pixels[GPU_CURSOR_SIDE * GPU_CURSOR_SIDE * RESOURCE_PIXEL_BYTES];
};

enum gpu_outcome {
	GPU_ANSWERED,
	GPU_WAITS,  /* for modes: to be executed again when they are known; nothing was done */
	GPU_FENCED, /* executed and its answer written; gpu_take_fenced gives it later */
};

struct gpu_options {
	struct memory *memory; /* borrowed, as all of these */
	const struct gpu_listener *listener;
	void *userdata;
	struct spend *spend;             // may be NULL
	const struct drift_meter *meter; // may be NULL: only what is charged is known
	uint64_t bytes_max;              /* of images and backings together */
	uint32_t n_scanouts;             /* 1 to GPU_SCANOUTS_MAX */
	const struct virgl_ops *virgl;   // may be NULL: 2D only; initialised
	const char *name;                /* of the VM, for the log */
};

/* A struct gpu is large: one is allocated at the start. 0 or -ENOMEM. */
int gpu_create(const struct gpu_options *options, struct gpu **out) _must_check_;
/* Takes everything back: no resource, no scanout, no cursor, as after the driver's reset. The
 * listener hears of nothing but images that are gone. */
void gpu_reset(struct gpu *g);
void gpu_destroy(struct gpu *g);
/* virtio's features that the driver has taken. */
void gpu_negotiated(struct gpu *g, uint64_t features);

/* Executes a request of the control or the cursor queue and writes its answer into the chain, as
 * far as there is room. *written_out is the answer's size then. */
enum gpu_outcome gpu_control(
	struct gpu *g, const struct vring_chain *chain, uint32_t *written_out) _must_check_;
void gpu_cursor(struct gpu *g, const struct vring_chain *chain, uint32_t *written_out);

/* From the next charge on; what is there already stays. */
void gpu_set_limits(struct gpu *g, uint64_t bytes, uint32_t contexts, uint32_t resources);
/* Those that are there, of both kinds. */
uint32_t gpu_count_resources(const struct gpu *g);
/* The scanouts (bits) that a request of the control queue, not executed yet, would give a frame. */
uint32_t gpu_peek_frame(const struct gpu *g, const struct vring_chain *chain);
/* The command that was executed last, or what was reached since, changed what is out: who counts
 * hears of it. */
void gpu_account_fences(struct gpu *g);

/* The slot of a resource, or GPU_NO_SLOT. */
uint32_t gpu_find(const struct gpu *g, uint32_t id);
/* For a rebuild: makes resource id in exactly this slot, which is free. Errors as resource_init. */
int gpu_place(struct gpu *g, uint32_t slot, uint32_t id, uint32_t format, uint32_t width,
	uint32_t height) _must_check_;
/* The same of a blob of size bytes; false: there can't be one of no bytes. */
bool gpu_place_blob(struct gpu *g, uint32_t slot, uint32_t id, uint64_t size) _must_check_;
/* Shows rect (x, y and size, in pixels) of a blob as view (but for x and y) says. Tells the
 * listener nothing but images that are gone. 0: in the image that there was; 1: in a new one, all
 * zero; -EINVAL if anything of it can't be or lies outside of the blob; -ENOMEM, and -errno of its
 * image. */
int gpu_view_blob(struct gpu *g, uint32_t scanout, const struct gpu_view *view,
	const struct rect *rect) _must_check_;
/* Fills the image of a scanout that shows a blob. */
void gpu_refresh_blob(struct gpu *g, uint32_t scanout);
/* What of its resource a scanout shows. */
struct rect gpu_shown(const struct gpu_scanout *s);
/* Copies rows of one's backing into all of a box of another's image, as resource_copy, with pauses.
 */
void gpu_copy(struct gpu *g, struct resource *to, const struct resource *from,
	const struct rect *all, uint64_t offset, uint64_t stride);
/* What a command of this type is called, or "unknown". */
const char *gpu_command_name(uint32_t type);
