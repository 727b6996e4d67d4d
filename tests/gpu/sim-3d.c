/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim-3d.h"

#include <string.h>

uint32_t sim_context(struct sim *s, uint32_t id)
{
	const struct virtio_gpu_ctx_create c = {
		{.type = VIRTIO_GPU_CMD_CTX_CREATE, .ctx_id = id}, 3, 0, "sim"};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_context_end(struct sim *s, uint32_t id)
{
	const struct virtio_gpu_ctx_destroy c = {
		{.type = VIRTIO_GPU_CMD_CTX_DESTROY, .ctx_id = id}};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_create_3d(struct sim *s, const struct virtio_gpu_resource_create_3d *c)
{
	struct virtio_gpu_resource_create_3d m = *c;

	m.hdr.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D;
	return sim_command(s, &m, sizeof(m));
}

uint32_t sim_texture(struct sim *s, uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
	return sim_create_3d(s, &(struct virtio_gpu_resource_create_3d){
					{0}, id, 2, format, 10, width, height, 1, 1, 0, 0, 0, 0});
}

static uint32_t with_resource(struct sim *s, uint32_t type, uint32_t context, uint32_t id)
{
	const struct virtio_gpu_ctx_resource c = {{.type = type, .ctx_id = context}, id, 0};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_join(struct sim *s, uint32_t context, uint32_t id)
{
	return with_resource(s, VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, context, id);
}

uint32_t sim_part(struct sim *s, uint32_t context, uint32_t id)
{
	return with_resource(s, VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE, context, id);
}

uint32_t sim_transfer_3d(struct sim *s, bool to_host, uint32_t context, uint32_t id,
	const struct virtio_gpu_box *box, uint64_t offset)
{
	const struct virtio_gpu_transfer_host_3d c = {
		{.type = to_host ? VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D
				 : VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D,
			.ctx_id = context},
		*box, offset, id, 0, 0, 0};

	return sim_command(s, &c, sizeof(c));
}

int sim_offer_submit(struct sim *s, uint32_t context, const uint32_t *dwords, uint32_t n,
	uint64_t at, uint64_t fence)
{
	const struct virtio_gpu_cmd_submit c = {{.type = VIRTIO_GPU_CMD_SUBMIT_3D,
							.flags = fence ? VIRTIO_GPU_FLAG_FENCE : 0,
							.fence_id = fence,
							.ctx_id = context},
		n * 4, 0};
	struct sim_ring *r = &s->rings[SIM_CONTROL];
	uint64_t slot = SIM_SLOTS + (uint64_t)r->free_head * SIM_SLOT;
	const struct sim_segment segments[3] = {{slot, sizeof(c), false}, {at, n * 4, false},
		{slot + SIM_ANSWER_AT, sizeof(struct virtio_gpu_ctrl_hdr), true}};
	void *to = sim_memory_at(&s->vmm.memory, at);

	if (r->n_free < 3 || !to) {
		return -1;
	}
	memcpy(sim_memory_at(&s->vmm.memory, slot), &c, sizeof(c));
	memset(sim_memory_at(&s->vmm.memory, slot + SIM_ANSWER_AT), 0xee,
		sizeof(struct virtio_gpu_ctrl_hdr));
	if (to != dwords) {
		memcpy(to, dwords, (size_t)n * 4);
	}
	return sim_ring_offer(r, segments, 3);
}

uint32_t sim_submit(struct sim *s, uint32_t context, const uint32_t *dwords, uint32_t n,
	uint64_t at, bool fenced)
{
	const struct virtio_gpu_ctrl_hdr *answer;
	uint64_t fence = fenced ? ++s->fence : 0;
	int head = sim_offer_submit(s, context, dwords, n, at, fence);
	uint32_t written;

	sim_ring_kick(&s->rings[SIM_CONTROL]);
	if (head < 0 || sim_take(s, SIM_CONTROL, 5000, &written) != head ||
		written != sizeof(*answer)) {
		return 0;
	}
	answer = sim_answer(s, SIM_CONTROL, head);
	return answer->fence_id == fence ? answer->type : 0;
}
