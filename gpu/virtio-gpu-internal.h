/* SPDX-License-Identifier: MIT
 * What the files of the virtio-gpu device share: nobody else includes this.
 */
#pragma once

#include "gpu/virtio-gpu.h"

/* An answer of ours, and no type of the protocol: there is none yet. */
#define GPU_ANSWER_LATER 0U

union gpu_command {
	struct virtio_gpu_ctrl_hdr hdr;
	struct virtio_gpu_resource_create_2d create;
	struct virtio_gpu_resource_unref unref;
	struct virtio_gpu_set_scanout set_scanout;
	struct virtio_gpu_resource_flush flush;
	struct virtio_gpu_transfer_to_host_2d transfer;
	struct virtio_gpu_resource_attach_backing attach;
	struct virtio_gpu_resource_detach_backing detach;
	struct virtio_gpu_cmd_get_edid get_edid;
	struct virtio_gpu_resource_assign_uuid assign_uuid;
	struct virtio_gpu_resource_create_blob create_blob;
	struct virtio_gpu_set_scanout_blob set_scanout_blob;
	struct virtio_gpu_update_cursor cursor;
	struct virtio_gpu_get_capset_info get_capset_info;
	struct virtio_gpu_get_capset get_capset;
	struct virtio_gpu_ctx_create context_create;
	struct virtio_gpu_ctx_resource context_resource;
	struct virtio_gpu_resource_create_3d create_3d;
	struct virtio_gpu_transfer_host_3d transfer_3d;
	struct virtio_gpu_cmd_submit submit;
};

struct gpu_capset {
	struct virtio_gpu_ctrl_hdr hdr;
	uint8_t data[GPU_CAPSET_SIZE];
	uint32_t size; /* of data; not sent */
};

union gpu_answer {
	struct virtio_gpu_ctrl_hdr hdr;
	struct virtio_gpu_resp_display_info display_info;
	struct virtio_gpu_resp_edid edid;
	struct virtio_gpu_resp_resource_uuid uuid;
	struct virtio_gpu_resp_capset_info capset_info;
	struct gpu_capset capset;
};

struct gpu_request {
	union gpu_command command;
	const struct vring_chain *chain;
	union gpu_answer *answer; /* to be filled, but for its header */
};

/* Each returns the type of the answer, or GPU_ANSWER_LATER. */
uint32_t handle_display_info(struct gpu *g, const struct gpu_request *q);
uint32_t handle_edid(struct gpu *g, const struct gpu_request *q);
uint32_t handle_create(struct gpu *g, const struct gpu_request *q);
uint32_t handle_unref(struct gpu *g, const struct gpu_request *q);
uint32_t handle_set_scanout(struct gpu *g, const struct gpu_request *q);
uint32_t handle_flush(struct gpu *g, const struct gpu_request *q);
uint32_t handle_transfer(struct gpu *g, const struct gpu_request *q);
uint32_t handle_attach(struct gpu *g, const struct gpu_request *q);
uint32_t handle_detach(struct gpu *g, const struct gpu_request *q);
uint32_t handle_uuid(struct gpu *g, const struct gpu_request *q);
uint32_t handle_create_blob(struct gpu *g, const struct gpu_request *q);
uint32_t handle_set_scanout_blob(struct gpu *g, const struct gpu_request *q);
uint32_t handle_update_cursor(struct gpu *g, const struct gpu_request *q);
uint32_t handle_move_cursor(struct gpu *g, const struct gpu_request *q);

/* Reads n entries, which lie behind a command of size bytes, into gpu::entries. False: they are not
 * there, or more than GPU_ENTRIES_MAX. */
bool gpu_read_entries(struct gpu *g, const struct gpu_request *q, size_t size, uint32_t n);
/* The answer to what came to 0 or -errno. */
uint32_t gpu_answer_of(int err);
/* On a little-endian machine as virtio is (vring.c checks). */
struct rect gpu_rect_of(const struct virtio_gpu_rect *r);
/* A scanout shows what is in slot, or (GPU_NO_SLOT) nothing. */
void gpu_show(struct gpu *g, uint32_t scanout, uint32_t slot, const struct rect *rect);

/* blob.c: of 2D commands when the resource is one. */
uint32_t gpu_flush_blob(struct gpu *g, uint32_t slot, const struct rect *rect);
/* The scanout shows no blob any more: its image is gone. Nothing, if it showed none. */
void gpu_hide_blob(struct gpu *g, uint32_t scanout);
/* No scanout shows it any more. */
void gpu_hide_blob_everywhere(struct gpu *g, uint32_t slot);
/* Pixels of a cursor in B8G8R8A8, valid until the next call; NULL: it has not so many. */
const uint8_t *gpu_cursor_blob(struct gpu *g, uint32_t slot);
/* A slot that is empty, or GPU_NO_SLOT. */
uint32_t gpu_free_slot(const struct gpu *g);
/* The scanouts (bits) that show what is in this slot, which may be GPU_NO_SLOT. */
uint32_t gpu_scanouts_of(const struct gpu *g, uint32_t slot);
/* At most so many lines a minute that a guest can cause. */
bool gpu_may_say(struct gpu *g);
/* Counts and says that what (its kind, its id and what it is) was refused: it takes so many bytes,
 * or is one more than there may be. */
void gpu_refuse(struct gpu *g, const char *what, uint64_t bytes);
/* The same of a backing, bytes for each entry. */
void gpu_refuse_backing(
	struct gpu *g, const struct virtio_gpu_resource_attach_backing *c, size_t bytes);
/* The slot of a resource is empty from now on. */
void gpu_take_away(struct gpu *g, uint32_t slot);
