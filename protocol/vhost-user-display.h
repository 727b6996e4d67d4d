/* SPDX-License-Identifier: MIT
 * The vhost-user-gpu protocol: a backend asks a VMM for its displays and shows it pictures.
 *
 * QEMU, docs/interop/vhost-user-gpu.rst. Messages go from the backend to the VMM; only those marked
 * so are answered, in order, with DISPLAY_REPLY in their flags. Host byte order.
 */
#pragma once

#include <assert.h>
#include <linux/virtio_gpu.h>
#include <stddef.h>
#include <stdint.h>

enum display_request {
	DISPLAY_GET_PROTOCOL_FEATURES = 1, /* answered: a number */
	DISPLAY_SET_PROTOCOL_FEATURES = 2, /* a number */
	DISPLAY_GET_DISPLAY_INFO = 3,      /* answered: struct virtio_gpu_resp_display_info */
	DISPLAY_CURSOR_POS = 4,            /* struct display_cursor_pos */
	DISPLAY_CURSOR_POS_HIDE = 5,       /* struct display_cursor_pos */
	DISPLAY_CURSOR_UPDATE = 6,         /* struct display_cursor_update */
	DISPLAY_SCANOUT = 7,               /* struct display_scanout */
	DISPLAY_UPDATE = 8,                /* struct display_update and its pixels */
	DISPLAY_DMABUF_SCANOUT = 9,        /* fd: the DMABUF; struct display_dmabuf */
	DISPLAY_DMABUF_UPDATE = 10,        /* struct display_update; answered: nothing */
	DISPLAY_GET_EDID = 11, /* with the feature EDID; answered: struct virtio_gpu_resp_edid */
	DISPLAY_DMABUF_SCANOUT2 = 12, /* with the feature DMABUF2; fd; struct display_dmabuf2 */
};

#define DISPLAY_REPLY (1u << 2) /* in the flags */

/* Bits of the protocol features. */
#define DISPLAY_F_EDID    0
#define DISPLAY_F_DMABUF2 1

#define DISPLAY_CURSOR_SIDE 64

struct display_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of what follows */
};
static_assert(sizeof(struct display_header) == 12, "wire size");

struct display_cursor_pos {
	uint32_t scanout;
	uint32_t x;
	uint32_t y;
};
static_assert(sizeof(struct display_cursor_pos) == 12, "wire size");

struct display_cursor_update {
	struct display_cursor_pos pos;
	uint32_t hot_x;
	uint32_t hot_y;
	uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4]; /* B8G8R8A8 */
};
static_assert(sizeof(struct display_cursor_update) == 20 + 64 * 64 * 4, "wire size");

struct display_scanout {
	uint32_t scanout;
	uint32_t width; /* no width or no height: off */
	uint32_t height;
};
static_assert(sizeof(struct display_scanout) == 12, "wire size");

/* What shows what lies in a DMABUF; no fd, width or height: off. */
struct display_dmabuf {
	uint32_t scanout;
	uint32_t x; /* what is shown of it */
	uint32_t y;
	uint32_t width;
	uint32_t height;
	uint32_t fd_width; /* of all of it */
	uint32_t fd_height;
	uint32_t stride; /* bytes */
	uint32_t flags;  /* VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP: its first row is the upper one */
	uint32_t fourcc; /* DRM's */
};
static_assert(sizeof(struct display_dmabuf) == 40, "wire size");

struct display_dmabuf2 {
	struct display_dmabuf dmabuf;
	uint64_t modifier; /* DRM's */
};
static_assert(sizeof(struct display_dmabuf2) == 48, "wire size");

/* UPDATE: followed by height rows of width pixels of 4 bytes, B8G8R8X8, without gaps. */
struct display_update {
	uint32_t scanout;
	uint32_t x;
	uint32_t y;
	uint32_t width;
	uint32_t height;
};
static_assert(sizeof(struct display_update) == 20, "wire size");
