/* SPDX-License-Identifier: MIT
 * The 3D commands for a test's rig; as that one, everything is static.
 */
#pragma once

#include "tests/unit/gpu-rig.h"

#define RGBA      VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM
#define BGRA      VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM
#define TARGET_2D 2
#define BUFFER    0
#define R8        64

static int setup_3d(void **state)
{
	fake = (struct fake_3d){0};
	return begin(state, &fake_3d_ops);
}

static _unused_ int teardown_3d(void **state)
{
	int r = teardown(state);

	assert_int_equal(fake.n_resources, 0);
	assert_int_equal(fake.n_contexts, 0);
	return r;
}

static _unused_ uint32_t context(struct rig *r, uint32_t id)
{
	return SEND(r, (struct virtio_gpu_ctx_create){
			       {.type = VIRTIO_GPU_CMD_CTX_CREATE, .ctx_id = id}, 4, 0, "test"});
}

static _unused_ uint32_t context_end(struct rig *r, uint32_t id)
{
	return SEND(r, (struct virtio_gpu_ctx_destroy){
			       {.type = VIRTIO_GPU_CMD_CTX_DESTROY, .ctx_id = id}});
}

static _unused_ uint32_t create_3d(
	struct rig *r, uint32_t id, uint32_t target, uint32_t format, uint32_t w, uint32_t h)
{
	return SEND(r,
		(struct virtio_gpu_resource_create_3d){{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D},
			id, target, format, target == BUFFER ? 16 : 10, w, h, 1, 1, 0, 0, 0, 0});
}

static _unused_ uint32_t with_resource(struct rig *r, uint32_t type, uint32_t context, uint32_t id)
{
	return SEND(r, (struct virtio_gpu_ctx_resource){{.type = type, .ctx_id = context}, id, 0});
}

static _unused_ uint32_t join(struct rig *r, uint32_t context, uint32_t id)
{
	return with_resource(r, VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, context, id);
}

static _unused_ uint32_t part(struct rig *r, uint32_t context, uint32_t id)
{
	return with_resource(r, VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE, context, id);
}

static _unused_ uint32_t transfer_3d(
	struct rig *r, uint32_t type, uint32_t context, uint32_t id, uint64_t offset, uint32_t w)
{
	return SEND(r, (struct virtio_gpu_transfer_host_3d){{.type = type, .ctx_id = context},
			       {0, 0, 0, w, 1, 1}, offset, id, 0, 0, 0});
}

/* A buffer that says size bytes, of which n are there; its fence, if not 0. */
static _unused_ enum gpu_outcome submit_as(struct rig *r, uint32_t context, const uint32_t *dwords,
	size_t n, uint32_t size, uint64_t fence)
{
	static struct {
		struct virtio_gpu_cmd_submit c;
		uint32_t dwords[4096];
	} m;

	m.c = (struct virtio_gpu_cmd_submit){{.type = VIRTIO_GPU_CMD_SUBMIT_3D,
						     .flags = fence ? VIRTIO_GPU_FLAG_FENCE : 0,
						     .fence_id = fence,
						     .ctx_id = context},
		size, 0};
	memcpy(m.dwords, dwords, n * 4);
	fill(r, &m, sizeof(m.c) + n * 4);
	r->chain.head = (uint16_t)fence;
	return gpu_control(r->gpu, &r->chain, &r->written);
}

static _unused_ uint32_t submit(struct rig *r, uint32_t context, const uint32_t *dwords, size_t n)
{
	assert_int_equal(submit_as(r, context, dwords, n, (uint32_t)(n * 4), 0), GPU_ANSWERED);
	return r->answer.hdr.type;
}
