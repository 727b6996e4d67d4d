/* SPDX-License-Identifier: MIT
 * What the files of the 3D half share with each other and with virtio-gpu.c: nobody else includes
 * this.
 */
#pragma once

#include "gpu/device-3d.h"
#include "gpu/virtio-gpu-internal.h"

/* device-3d.c. 0 or -ENOMEM. */
int gpu_3d_create(struct gpu *g, const struct virgl_ops *ops, const char *name) _must_check_;
/* Everything ends in the renderer, too. */
void gpu_3d_reset(struct gpu *g);
void gpu_3d_destroy(struct gpu *g);
/* A fenced command is executed, with an answer of written bytes. Whether it has to wait for its
 * fence, or for an earlier one of its timeline. drew: it has left work in the renderer. */
bool gpu_3d_fence(struct gpu *g, const struct virtio_gpu_ctrl_hdr *hdr, bool drew, uint16_t head,
	uint32_t written);
/* 0: it is back; else 1 and the slot of the context that it works for. */
void gpu_set_drawing(struct gpu *g, uint32_t drawing);
/* What comes next is for the context in this slot (GPU_NO_3D: for none): who counts hears of it. */
void gpu_account_command(struct gpu *g, uint32_t slot);

/* context-3d.c: GPU_NO_3D, or a slot. */
uint32_t gpu_context_find(const struct gpu_3d *t, uint32_t id);
void gpu_context_end(struct gpu *g, uint32_t slot);
/* Everything that draws is answered so from now on. what: in the log, behind the context. */
void gpu_context_poison(struct gpu *g, uint32_t slot, uint32_t answer, const char *what);
/* VIRTIO_GPU_RESP_OK_NODATA with *slot_out, or why nothing can be drawn in it. */
uint32_t gpu_context_usable(const struct gpu_3d *t, uint32_t id, uint32_t *slot_out);

/* resource-3d.c */
uint32_t gpu_resource_find(const struct gpu_3d *t, uint32_t id);
/* A new slot; GPU_NO_3D: all are used. */
uint32_t gpu_resource_add(struct gpu_3d *t, uint32_t id, enum gpu_resource_state state);
void gpu_resource_end(struct gpu *g, uint32_t slot);
bool gpu_resource_attached(const struct gpu_resource_3d *r, uint32_t context);
/* 0; -EINVAL if an entry is empty or not in memory; -ENOMEM; errors of the renderer. */
int gpu_resource_back(
	struct gpu *g, uint32_t slot, const struct backing_entry *entries, uint32_t n) _must_check_;
void gpu_resource_unback(struct gpu *g, uint32_t slot);
/* VIRTIO_GPU_RESP_OK_NODATA with *slot_out if there is a live one, or the error. */
uint32_t gpu_resource_usable(const struct gpu_3d *t, uint32_t id, uint32_t *slot_out);
/* Remembers that this was refused, and says so. */
void gpu_resource_refuse(struct gpu *g, const struct virgl_resource *v, uint64_t bytes);

/* scanout-3d.c, and dmabuf-3d.c what is about DMABUFs */
/* The image that a live 3D resource is shown from: made the first time. VIRTIO_GPU_RESP_OK_NODATA
 * with *image_out, a slot of gpu::resources, or the error. */
uint32_t gpu_show_3d(struct gpu *g, uint32_t slot, uint32_t *image_out);
/* The image is gone. */
void gpu_hide_3d(struct gpu *g, uint32_t slot);
/* Chooses what an image is shown from, of pixels and DMABUF. */
void gpu_choose_dmabuf(struct gpu *g, uint32_t slot);
/* It has no DMABUF any more. */
void gpu_end_dmabuf(struct gpu *g, uint32_t slot);
/* rect lies within it. */
void gpu_flush_3d(struct gpu *g, uint32_t slot, const struct rect *rect);
/* Pixels of a 64 by 64 one in B8G8R8A8, valid until the next call; NULL: it can't be. */
const uint8_t *gpu_cursor_3d(struct gpu *g, uint32_t slot);

/* Whether a resource of any kind has this id. */
bool gpu_id_used(const struct gpu *g, uint32_t id);

uint32_t handle_capset_info(struct gpu *g, const struct gpu_request *q);
uint32_t handle_capset(struct gpu *g, const struct gpu_request *q);
uint32_t handle_context_create(struct gpu *g, const struct gpu_request *q);
uint32_t handle_context_destroy(struct gpu *g, const struct gpu_request *q);
uint32_t handle_context_attach(struct gpu *g, const struct gpu_request *q);
uint32_t handle_context_detach(struct gpu *g, const struct gpu_request *q);
uint32_t handle_create_3d(struct gpu *g, const struct gpu_request *q);
uint32_t handle_transfer_to_3d(struct gpu *g, const struct gpu_request *q);
uint32_t handle_transfer_from_3d(struct gpu *g, const struct gpu_request *q);
uint32_t handle_submit(struct gpu *g, const struct gpu_request *q);
/* Of 2D commands when the id is that of a 3D resource. */
uint32_t gpu_unref_3d(struct gpu *g, uint32_t slot);
uint32_t gpu_attach_3d(struct gpu *g, uint32_t slot, const struct gpu_request *q);
uint32_t gpu_detach_3d(struct gpu *g, uint32_t slot);
