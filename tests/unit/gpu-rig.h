/* SPDX-License-Identifier: MIT
 * A virtio-gpu device without queues: what a test of commands sends it, and what its listener was
 * told. Each of these tests has its own: everything is static.
 */
#pragma once

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/memory.h"
#include "gpu/virtio-gpu.h"
#include "gpu/vring.h"
#include "tests/unit/gpu-fake-3d.h"
#include "tests/unit/test.h"

#define MEMORY (1 << 20)
#define BGRX   VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM

enum {
	OK = VIRTIO_GPU_RESP_OK_NODATA,
	UNSPEC = VIRTIO_GPU_RESP_ERR_UNSPEC,
	NO_MEMORY = VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY,
	BAD_SCANOUT = VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID,
	BAD_RESOURCE = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
	BAD_PARAMETER = VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER,
	BAD_CONTEXT = VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID,
};

struct rig {
	struct memory memory;
	struct gpu *gpu;
	uint8_t *guest;
	int fd;
	struct vring_chain chain;
	union {
		struct virtio_gpu_ctrl_hdr hdr;
		struct virtio_gpu_resp_display_info info;
		struct virtio_gpu_resp_edid edid;
		struct virtio_gpu_resp_resource_uuid uuid;
		uint8_t bytes[2048];
	} answer;
	uint32_t written;
	size_t room;
	/* What the listener was told last, and how often. */
	int n_resources, n_backed, n_unbacked, n_scanouts, n_damages, n_cursors, n_pauses;
	int n_images_gone, n_views;
	int refuse_backing;
	uint32_t context_slot, slot_3d;
	uint32_t slot, scanout;
	struct rect damage;
	struct gpu_cursor cursor;
	const uint8_t *cursor_pixels;
};

static void on_resource(void *userdata, uint32_t slot, const struct resource *res)
{
	struct rig *r = userdata;

	r->n_resources++;
	r->slot = slot;
}

static int on_backed(void *userdata, uint32_t slot, const struct backing_entry *entries, uint32_t n)
{
	struct rig *r = userdata;

	r->n_backed++;
	return r->refuse_backing;
}

static void on_unbacked(void *userdata, uint32_t slot)
{
	((struct rig *)userdata)->n_unbacked++;
}

static void on_context(void *userdata, uint32_t slot, uint32_t id, const char *name)
{
	((struct rig *)userdata)->context_slot = slot;
}

static void on_resource_3d(void *userdata, uint32_t slot, uint32_t id)
{
	((struct rig *)userdata)->slot_3d = slot;
}

static void on_image_gone(void *userdata, uint32_t slot)
{
	((struct rig *)userdata)->n_images_gone++;
}

static void on_scanout(void *userdata, uint32_t scanout)
{
	struct rig *r = userdata;

	r->n_scanouts++;
	r->scanout = scanout;
}

static void on_view(void *userdata, uint32_t scanout)
{
	((struct rig *)userdata)->n_views++;
}

static void on_damage(void *userdata, uint32_t scanout, const struct rect *rect)
{
	struct rig *r = userdata;

	r->n_damages++;
	r->scanout = scanout;
	r->damage = *rect;
}

static void on_cursor(void *userdata, const struct gpu_cursor *cursor, const uint8_t *pixels)
{
	struct rig *r = userdata;

	r->n_cursors++;
	r->cursor = *cursor;
	r->cursor_pixels = pixels;
}

static void on_pause(void *userdata)
{
	((struct rig *)userdata)->n_pauses++;
}

static const struct gpu_listener listener = {
	.resource = on_resource,
	.backed = on_backed,
	.unbacked = on_unbacked,
	.context = on_context,
	.resource_3d = on_resource_3d,
	.image_gone = on_image_gone,
	.scanout = on_scanout,
	.view = on_view,
	.damage = on_damage,
	.cursor = on_cursor,
	.pause = on_pause,
};

static int begin(void **state, const struct virgl_ops *virgl)
{
	struct rig *r = calloc(1, sizeof(*r));
	const struct gpu_options options = {
		.memory = &r->memory,
		.listener = &listener,
		.userdata = r,
		.bytes_max = 32 << 20,
		.n_scanouts = 2,
		.virgl = virgl,
		.name = "test",
	};

	r->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r->fd, MEMORY), 0);
	r->guest = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	memory_init(&r->memory);
	assert_int_equal(
		memory_add(&r->memory, &(struct memory_region){0, 0, MEMORY, 0}, r->fd), 0);
	assert_int_equal(gpu_create(&options, &r->gpu), 0);
	r->room = sizeof(r->answer);
	*state = r;
	return 0;
}

static _unused_ int setup(void **state)
{
	return begin(state, NULL);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	gpu_destroy(r->gpu); /* asserts that all charges are given back */
	memory_finish(&r->memory);
	munmap(r->guest, MEMORY);
	close(r->fd);
	free(r);
	return 0;
}

static void fill(struct rig *r, const void *command, size_t size)
{
	memset(r->answer.bytes, 0xa5, sizeof(r->answer));
	r->chain = (struct vring_chain){.n_out = size > 0, .n_in = r->room > 0, .out_bytes = size};
	r->chain.pieces[0] = (struct iovec){(void *)(uintptr_t)command, size};
	r->chain.pieces[r->chain.n_out] = (struct iovec){r->answer.bytes, r->room};
	r->written = 0;
}

static uint32_t send(struct rig *r, const void *command, size_t size)
{
	fill(r, command, size);
	assert_int_equal(gpu_control(r->gpu, &r->chain, &r->written), GPU_ANSWERED);
	/* Nothing is written behind what is said to be. */
	assert_int_equal(r->answer.bytes[r->written], 0xa5);
	return r->answer.hdr.type;
}

#define SEND(r, ...)                                     \
	({                                               \
		__typeof__(__VA_ARGS__) c = __VA_ARGS__; \
		send(r, &c, sizeof(c));                  \
	})

static uint32_t create(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h)
{
	return SEND(r, (struct virtio_gpu_resource_create_2d){
			       {.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, format, w, h});
}

static uint32_t unref(struct rig *r, uint32_t id)
{
	return SEND(r,
		(struct virtio_gpu_resource_unref){{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
}

static _unused_ uint32_t attach(
	struct rig *r, uint32_t id, uint32_t said, uint32_t n, uint64_t addr, uint32_t length)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e[4];
	} m = {.c = {{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, said}};

	for (uint32_t i = 0; i < n; i++) {
		m.e[i] = (struct virtio_gpu_mem_entry){
			addr + (uint64_t)i * length, length, 0xffffffff};
	}
	return send(r, &m, sizeof(m.c) + n * sizeof(m.e[0]));
}

static _unused_ uint32_t detach(struct rig *r, uint32_t id)
{
	return SEND(r, (struct virtio_gpu_resource_detach_backing){
			       {.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
}

static _unused_ uint32_t scanout(
	struct rig *r, uint32_t n, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	return SEND(r, (struct virtio_gpu_set_scanout){
			       {.type = VIRTIO_GPU_CMD_SET_SCANOUT}, {x, y, w, h}, n, id});
}

static _unused_ uint32_t flush(
	struct rig *r, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	return SEND(r, (struct virtio_gpu_resource_flush){
			       {.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {x, y, w, h}, id, 0});
}

static _unused_ uint32_t transfer(
	struct rig *r, uint32_t id, uint64_t offset, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	return SEND(r,
		(struct virtio_gpu_transfer_to_host_2d){
			{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, {x, y, w, h}, offset, id, 0});
}

static _unused_ uint32_t uuid(struct rig *r, uint32_t id)
{
	return SEND(r, (struct virtio_gpu_resource_assign_uuid){
			       {.type = VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID}, id, 0});
}
