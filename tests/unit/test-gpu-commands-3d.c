/* SPDX-License-Identifier: MIT
 * Every 3D command with good and bad arguments, against a renderer that ends the test when it hears
 * of anything that must have been refused; and what a refusal costs whom.
 */
#include "tests/unit/gpu-rig-3d.h"

enum { TO = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D, FROM = VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D };

#define OVER (64U << 20) /* more bytes than the rig's budget */

static void capsets(void **state)
{
	struct rig *r = *state;
	const struct virtio_gpu_resp_capset_info *info = (void *)r->answer.bytes;
	const struct virtio_gpu_resp_capset *capset = (void *)r->answer.bytes;
	uint32_t bits, megabytes;

	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(SEND(r,
					 (struct virtio_gpu_get_capset_info){
						 {.type = VIRTIO_GPU_CMD_GET_CAPSET_INFO}, i, 0}),
			VIRTIO_GPU_RESP_OK_CAPSET_INFO);
		assert_int_equal(r->written, sizeof(*info));
		assert_int_equal(info->capset_id, i + 1);
		assert_int_equal(info->capset_max_version, i + 1);
		assert_int_equal(info->capset_max_size, i ? 1376 : 308);
	}
	for (uint32_t i = 2; i < 5; i++) {
		assert_int_equal(SEND(r,
					 (struct virtio_gpu_get_capset_info){
						 {.type = VIRTIO_GPU_CMD_GET_CAPSET_INFO}, i, 0}),
			BAD_PARAMETER);
	}
	assert_int_equal(
		SEND(r, (struct virtio_gpu_get_capset){{.type = VIRTIO_GPU_CMD_GET_CAPSET}, 2, 2}),
		VIRTIO_GPU_RESP_OK_CAPSET);
	assert_int_equal(r->written, sizeof(*capset) + 1376);
	memcpy(&bits, capset->capset_data + 688, 4);
	memcpy(&megabytes, capset->capset_data + 692, 4);
	assert_int_equal(bits, ~8u);
	assert_int_equal(megabytes, 32);
	assert_int_equal(
		SEND(r, (struct virtio_gpu_get_capset){{.type = VIRTIO_GPU_CMD_GET_CAPSET}, 1, 1}),
		VIRTIO_GPU_RESP_OK_CAPSET);
	assert_int_equal(r->written, sizeof(*capset) + 308);
	for (uint32_t id = 0; id < 6; id++) {
		assert_int_equal(
			SEND(r, (struct virtio_gpu_get_capset){{.type = VIRTIO_GPU_CMD_GET_CAPSET},
					id, 3}),
			BAD_PARAMETER);
	}
	assert_int_equal(
		SEND(r, (struct virtio_gpu_get_capset){{.type = VIRTIO_GPU_CMD_GET_CAPSET}, 4, 0}),
		BAD_PARAMETER);
}

static void contexts(void **state)
{
	struct rig *r = *state;
	uint64_t used;

	assert_int_equal(context(r, 0), BAD_CONTEXT);
	assert_int_equal(context(r, 1), OK);
	assert_int_equal(context(r, 1), BAD_CONTEXT);
	assert_int_equal(context(r, UINT32_MAX), OK);
	assert_int_equal(fake.n_contexts, 2);
	used = r->gpu->budget.used;
	assert_int_equal(SEND(r, (struct virtio_gpu_ctx_create){{.type = VIRTIO_GPU_CMD_CTX_CREATE,
									.ctx_id = 2},
					 65, 0, ""}),
		BAD_PARAMETER);
	fake.refuse = -12;
	assert_int_equal(context(r, 2), NO_MEMORY);
	assert_int_equal(r->gpu->budget.used, used);
	assert_int_equal(context_end(r, 2), BAD_CONTEXT);
	assert_int_equal(context_end(r, 0), BAD_CONTEXT);
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(context_end(r, 1), BAD_CONTEXT);
	assert_int_equal(context(r, 1), OK);
	/* Not negotiated: whatever is there is padding. */
	assert_int_equal(SEND(r, (struct virtio_gpu_ctx_create){{.type = VIRTIO_GPU_CMD_CTX_CREATE,
									.ctx_id = 3},
					 0, 99, ""}),
		OK);
	gpu_negotiated(r->gpu, 1ULL << VIRTIO_GPU_F_CONTEXT_INIT);
	for (uint32_t capset = 0; capset < 6; capset++) {
		assert_int_equal(
			SEND(r, (struct virtio_gpu_ctx_create){{.type = VIRTIO_GPU_CMD_CTX_CREATE,
								       .ctx_id = 10 + capset},
					0, capset, ""}),
			capset <= 2 ? OK : BAD_PARAMETER);
	}
	/* As many as the budget of 32 MiB has: a context costs three, and there are six. */
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(context(r, 1000 + i), i < 4 ? OK : NO_MEMORY);
	}
	assert_int_equal(r->gpu->budget.used, 30 << 20);
}

static void resources(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 256, 128), OK);
	assert_int_equal(r->gpu->budget.used, virgl_resource_bytes(&fake.resources[0]));
	assert_int_equal(create_3d(r, 0, TARGET_2D, RGBA, 1, 1), BAD_RESOURCE);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 1, 1), BAD_RESOURCE);
	assert_int_equal(create(r, 1, BGRX, 1, 1), BAD_RESOURCE);
	assert_int_equal(create(r, 2, BGRX, 1, 1), OK);
	assert_int_equal(create_3d(r, 2, TARGET_2D, RGBA, 1, 1), BAD_RESOURCE);
	assert_int_equal(create_3d(r, 3, 99, RGBA, 1, 1), BAD_PARAMETER);
	assert_int_equal(create_3d(r, 3, TARGET_2D, 9999, 1, 1), BAD_PARAMETER);
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 0, 1), BAD_PARAMETER);
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, UINT32_MAX, UINT32_MAX), BAD_PARAMETER);
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 1U << 30, 16), BAD_PARAMETER);
	fake.refuse = -22;
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 1, 1), BAD_PARAMETER);
	assert_int_equal(fake.n_resources, 1);
	/* Of 1 GiB: over the budget, which is unchanged; the id is remembered. */
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(attach(r, 3, 1, 1, 0, 4096), NO_MEMORY);
	assert_int_equal(detach(r, 3), NO_MEMORY);
	assert_int_equal(scanout(r, 0, 3, 0, 0, 1, 1), NO_MEMORY);
	assert_int_equal(flush(r, 3, 0, 0, 1, 1), NO_MEMORY);
	assert_int_equal(transfer_3d(r, TO, 0, 3, 0, 1), NO_MEMORY);
	assert_int_equal(unref(r, 3), OK);
	assert_int_equal(unref(r, 3), BAD_RESOURCE);
	/* It may be tried again. */
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(unref(r, 3), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(unref(r, 2), OK);
	assert_int_equal(r->gpu->budget.used, 0);
	assert_int_equal(fake.n_resources, 0);
}

static int setup_small(void **state)
{
	fake = (struct fake_3d){.limits = {64, 16, 32, 8, 4}};
	return begin(state, &fake_3d_ops);
}

/* What the driver's capset says that it has not. */
static void beyond_the_driver(void **state)
{
	static const struct {
		uint32_t target, width, height, depth, layers, samples, answer;
	} cases[] = {
		{TARGET_2D, 64, 64, 1, 1, 0, OK},
		{TARGET_2D, 65, 1, 1, 1, 0, BAD_PARAMETER},
		{TARGET_2D, 1, 65, 1, 1, 0, BAD_PARAMETER},
		{TARGET_2D, 8, 8, 1, 1, 4, OK},
		{TARGET_2D, 8, 8, 1, 1, 5, BAD_PARAMETER},
		{3, 16, 16, 16, 1, 0, OK},
		{3, 17, 1, 1, 1, 0, BAD_PARAMETER},
		{3, 1, 1, 17, 1, 0, BAD_PARAMETER},
		{4, 32, 32, 1, 6, 0, OK},
		{4, 33, 33, 1, 6, 0, BAD_PARAMETER},
		{7, 64, 64, 1, 8, 0, OK},
		{7, 64, 64, 1, 9, 0, BAD_PARAMETER},
		{BUFFER, 1000, 1, 1, 1, 0, OK},
	};
	struct rig *r = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			SEND(r,
				(struct virtio_gpu_resource_create_3d){
					{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D}, i + 1,
					cases[i].target, cases[i].target == BUFFER ? R8 : RGBA, 2,
					cases[i].width, cases[i].height, cases[i].depth,
					cases[i].layers, 0, cases[i].samples, 0, 0}),
			cases[i].answer);
	}
}

static void ghosts_are_bounded(void **state)
{
	struct rig *r = *state;

	for (uint32_t id = 1; id <= GPU_GHOSTS_MAX + 10; id++) {
		assert_int_equal(create_3d(r, id, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	}
	assert_int_equal(unref(r, GPU_GHOSTS_MAX), OK);
	assert_int_equal(unref(r, GPU_GHOSTS_MAX + 1), BAD_RESOURCE);
}

static void backing(void **state)
{
	struct rig *r = *state;
	uint64_t used;

	assert_int_equal(create_3d(r, 1, BUFFER, R8, 8192, 1), OK);
	used = r->gpu->budget.used;
	assert_int_equal(attach(r, 1, 2, 1, 0, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, GPU_ENTRIES_MAX + 1, 1, 0, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, MEMORY, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, UINT64_MAX, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, 0, 0), BAD_PARAMETER);
	fake.refuse = -12;
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), NO_MEMORY);
	assert_int_equal(r->gpu->budget.used, used);
	assert_int_equal(detach(r, 1), UNSPEC);
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), OK);
	assert_int_equal(fake.n_iov[0], 1); /* neighbours */
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), UNSPEC);
	assert_int_equal(detach(r, 1), OK);
	assert_null(fake.iov[0]);
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(r->gpu->budget.used, 0);
}

static void attachments(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(join(r, 1, 1), BAD_CONTEXT);
	assert_int_equal(context(r, 1), OK);
	assert_int_equal(join(r, 1, 2), BAD_RESOURCE);
	assert_int_equal(join(r, 1, 0), BAD_RESOURCE);
	assert_int_equal(join(r, 0, 1), BAD_CONTEXT);
	assert_int_equal(part(r, 1, 1), BAD_RESOURCE);
	assert_int_equal(join(r, 1, 1), OK);
	assert_int_equal(join(r, 1, 1), OK);
	assert_int_equal(fake.n_attached, 1);
	assert_int_equal(part(r, 2, 1), BAD_CONTEXT);
	assert_int_equal(part(r, 1, 1), OK);
	assert_int_equal(part(r, 1, 1), BAD_RESOURCE);
	assert_int_equal(join(r, 1, 1), OK);
	/* One of 2D is ours alone. */
	assert_int_equal(create(r, 9, BGRX, 1, 1), OK);
	assert_int_equal(join(r, 1, 9), OK);
	assert_int_equal(part(r, 1, 9), OK);
	/* Another context does not see it when it gets the same id and slot. */
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(context(r, 1), OK);
	assert_int_equal(attach(r, 1, 1, 1, 0, 4096), OK);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 1), BAD_RESOURCE);
	assert_int_equal(join(r, 1, 1), OK);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 1), OK);
}

static uint32_t transfer_box(
	struct rig *r, struct virtio_gpu_box box, uint64_t offset, uint32_t level, uint32_t stride)
{
	return SEND(r, (struct virtio_gpu_transfer_host_3d){
			       {.type = TO, .ctx_id = 1}, box, offset, 1, level, stride, 0});
}

static void transfers(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 64, 32), OK);
	assert_int_equal(join(r, 1, 1), OK);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 1), UNSPEC); /* no backing */
	assert_int_equal(attach(r, 1, 2, 2, 8192, 4096), OK);
	assert_int_equal(transfer_3d(r, TO, 2, 1, 0, 1), BAD_CONTEXT);
	assert_int_equal(transfer_3d(r, TO, 1, 2, 0, 1), BAD_RESOURCE);
	assert_int_equal(fake.n_writes, 0);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 64), OK);
	assert_int_equal(transfer_3d(r, TO, 0, 1, 0, 64), OK);
	fake.pixel = 0x04030201;
	assert_int_equal(transfer_3d(r, FROM, 1, 1, 256, 64), OK);
	assert_int_equal(r->guest[8192 + 255], 0);
	assert_int_equal(r->guest[8192 + 256], 1);
	assert_int_equal(fake.n_writes, 2);
	assert_int_equal(fake.n_reads, 1);
	assert_int_equal(transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 64, 32, 1}, 0, 0, 0), OK);
	assert_int_equal(transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 64, 32, 1}, 1, 0, 0),
		BAD_PARAMETER);
	assert_int_equal(transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 65, 1, 1}, 0, 0, 0),
		BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){UINT32_MAX, 0, 0, 2, 1, 1}, 0, 0, 0),
		BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 0, 1, 1}, 0, 0, 0), BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 1, 1, 1}, 0, 1, 0), BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 1, 1, 1}, UINT64_MAX, 0, 0),
		BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 1, 2, 1}, 0, 0, UINT32_MAX),
		BAD_PARAMETER);
	assert_int_equal(
		transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 1, 1, 1}, 8188, 0, 0), OK);
	assert_int_equal(transfer_box(r, (struct virtio_gpu_box){0, 0, 0, 1, 1, 1}, 8189, 0, 0),
		BAD_PARAMETER);
}

static void streams(void **state)
{
	struct rig *r = *state;
	const uint32_t nop[] = {0, 0, 0, 0};

	assert_int_equal(submit(r, 1, nop, 4), BAD_CONTEXT);
	assert_int_equal(context(r, 1), OK);
	assert_int_equal(submit(r, 0, nop, 4), BAD_CONTEXT);
	assert_int_equal(submit(r, 1, nop, 4), OK);
	assert_int_equal(fake.n_dwords, 4);
	assert_int_equal(fake.submitted_to, 1);
	assert_int_equal(submit(r, 1, nop, 0), OK);
	assert_int_equal(fake.n_submits, 1);
	/* More than there is; no whole dwords. */
	assert_int_equal(submit_as(r, 1, nop, 4, 20, 0), GPU_ANSWERED);
	assert_int_equal(r->answer.hdr.type, BAD_PARAMETER);
	assert_int_equal(submit_as(r, 1, nop, 4, 15, 0), GPU_ANSWERED);
	assert_int_equal(r->answer.hdr.type, BAD_PARAMETER);
	assert_int_equal(submit_as(r, 1, nop, 4, 0xfffffffc, 0), GPU_ANSWERED);
	assert_int_equal(r->answer.hdr.type, BAD_PARAMETER);
	assert_int_equal(submit(r, 1, nop, 4), OK);
	/* What the renderer says of it. */
	fake.refuse = -22;
	assert_int_equal(submit(r, 1, nop, 4), BAD_PARAMETER);
	assert_int_equal(submit(r, 1, nop, 4), OK);
	assert_int_equal(fake.n_submits, 4);
}

/* 4 GiB, which the guest's memory has, in descriptors that are all the same. */
static void too_large_a_stream(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_cmd_submit c = {
		{.type = VIRTIO_GPU_CMD_SUBMIT_3D, .ctx_id = 1}, 0xfffffffc, 0};

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(context(r, 2), OK);
	fill(r, &c, sizeof(c));
	r->chain.out_bytes = UINT64_C(0x100000000) + sizeof(c);
	assert_int_equal(gpu_control(r->gpu, &r->chain, &r->written), GPU_ANSWERED);
	assert_int_equal(r->answer.hdr.type, NO_MEMORY);
	assert_int_equal(submit(r, 1, (uint32_t[]){0}, 1), NO_MEMORY);
	assert_int_equal(submit(r, 2, (uint32_t[]){0}, 1), OK);
	assert_int_equal(fake.n_submits, 1);
}

/* What a context can't be trusted with any more stays with it. */
static void poisoned(void **state)
{
	struct rig *r = *state;
	const uint32_t nop[] = {0}, broken[] = {0, 7 | 9 << 16, 0};

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(context(r, 2), OK);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(attach(r, 1, 1, 1, 0, 4096), OK);
	assert_int_equal(join(r, 1, 1), OK);
	assert_int_equal(submit(r, 1, broken, 3), BAD_PARAMETER);
	assert_int_equal(fake.n_submits, 0);
	assert_int_equal(submit(r, 1, nop, 1), BAD_PARAMETER);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 1), BAD_PARAMETER);
	assert_int_equal(submit(r, 2, nop, 1), OK);
	assert_int_equal(r->gpu->three->poisoned, 1);
	/* It ends as any other, and its id is as good as new. */
	assert_int_equal(part(r, 1, 1), OK);
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(context(r, 1), OK);
	assert_int_equal(submit(r, 1, nop, 1), OK);

	/* One that goes on without what it was refused; the other does not have it. */
	assert_int_equal(create_3d(r, 7, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(join(r, 1, 7), NO_MEMORY);
	assert_int_equal(join(r, 2, 7), NO_MEMORY);
	assert_int_equal(part(r, 2, 7), OK);
	assert_int_equal(submit(r, 1, nop, 1), NO_MEMORY);
	assert_int_equal(submit(r, 2, nop, 1), OK);
	/* And that stays, though it is gone. */
	assert_int_equal(unref(r, 7), OK);
	assert_int_equal(submit(r, 1, nop, 1), NO_MEMORY);
	assert_int_equal(r->gpu->three->poisoned, 2);
}

/* One who notices and frees it has lost nothing. */
static void refused_and_freed(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(create_3d(r, 7, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(join(r, 1, 7), NO_MEMORY);
	assert_int_equal(unref(r, 7), OK);
	assert_int_equal(submit(r, 1, (uint32_t[]){0}, 1), OK);
}

static void reset(void **state)
{
	struct rig *r = *state;
	const uint32_t makes[] = {29 | 1 << 16, 5, 28 | 1 << 16, 5, 1 | 1 << 8 | 2 << 16, 77, 0};

	for (int round = 0; round < 3; round++) {
		assert_int_equal(context(r, 1), OK);
		assert_int_equal(create_3d(r, 1, TARGET_2D, BGRA, 64, 64), OK);
		assert_int_equal(create_3d(r, 2, TARGET_2D, BGRA, 16384, 16384), NO_MEMORY);
		assert_int_equal(join(r, 1, 1), OK);
		assert_int_equal(join(r, 1, 2), NO_MEMORY);
		assert_int_equal(part(r, 1, 2), OK);
		assert_int_equal(attach(r, 1, 1, 1, 0, 4096), OK);
		assert_int_equal(scanout(r, 0, 1, 0, 0, 64, 64), OK);
		assert_int_equal(flush(r, 1, 0, 0, 64, 64), OK);
		assert_int_equal(submit(r, 1, makes, 7), OK);
		assert_int_equal(r->gpu->three->objects.n, 2);
		gpu_reset(r->gpu);
		assert_int_equal(r->gpu->budget.used, 0);
		assert_int_equal(fake.n_resources, 0);
		assert_int_equal(fake.n_contexts, 0);
	}
}

static void lost(void **state)
{
	struct rig *r = *state;

	assert_true(gpu_lose_context(r->gpu, 3, 11));
	assert_false(gpu_lose_context(r->gpu, 3, 12));
	assert_false(gpu_lose_context(r->gpu, 4, 11));
	assert_false(gpu_lose_context(r->gpu, 0, 12));
	assert_false(gpu_lose_context(r->gpu, GPU_CONTEXTS_MAX + 1, 12));
	assert_true(gpu_lose_resource(r->gpu, 5, 21));
	assert_false(gpu_lose_resource(r->gpu, 4, 22));
	assert_false(gpu_lose_resource(r->gpu, 6, 21));
	assert_false(gpu_lose_resource(r->gpu, GPU_RESOURCES_3D_MAX + 1, 22));
	assert_int_equal(submit(r, 11, (uint32_t[]){0}, 1), BAD_CONTEXT);
	assert_int_equal(context(r, 11), BAD_CONTEXT);
	assert_int_equal(create_3d(r, 21, TARGET_2D, RGBA, 1, 1), BAD_RESOURCE);
	assert_int_equal(attach(r, 21, 1, 1, 0, 4096), BAD_RESOURCE);
	assert_int_equal(detach(r, 21), BAD_RESOURCE);
	assert_int_equal(scanout(r, 0, 21, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(flush(r, 21, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(transfer_3d(r, TO, 0, 21, 0, 1), BAD_RESOURCE);
	assert_int_equal(join(r, 11, 21), BAD_CONTEXT);
	assert_int_equal(part(r, 11, 21), OK);
	/* New ones work. */
	assert_int_equal(context(r, 12), OK);
	assert_int_equal(join(r, 12, 21), BAD_RESOURCE);
	assert_int_equal(part(r, 12, 21), OK);
	assert_int_equal(submit(r, 12, (uint32_t[]){0}, 1), OK);
	assert_int_equal(create_3d(r, 22, TARGET_2D, RGBA, 1, 1), OK);
	assert_int_equal(join(r, 12, 22), OK);
	assert_int_equal(unref(r, 21), OK);
	assert_int_equal(unref(r, 21), BAD_RESOURCE);
	assert_int_equal(create_3d(r, 21, TARGET_2D, RGBA, 1, 1), OK);
	assert_int_equal(context_end(r, 11), OK);
	assert_int_equal(context(r, 11), OK);
}

/* What was made stays, and can be ended; nothing new is made or drawn. */
static void barred(void **state)
{
	struct rig *r = *state;
	uint32_t drawing = 99;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(attach(r, 1, 1, 1, 0, 4096), OK);
	assert_int_equal(join(r, 1, 1), OK);
	r->gpu->three->barred = true;
	r->gpu->drawing = &drawing;
	assert_int_equal(submit(r, 1, (uint32_t[]){0}, 1), UNSPEC);
	assert_int_equal(drawing, 0);
	assert_int_equal(context(r, 2), UNSPEC);
	assert_int_equal(create_3d(r, 2, TARGET_2D, RGBA, 1, 1), UNSPEC);
	assert_int_equal(transfer_3d(r, TO, 1, 1, 0, 1), UNSPEC);
	assert_int_equal(create(r, 2, BGRX, 1, 1), OK);
	assert_int_equal(part(r, 1, 1), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(context_end(r, 1), OK);
	r->gpu->three->barred = false;
	assert_int_equal(context(r, 1), OK);
}

/* Where there is no 3D, there is none of its commands. */
static void without_3d(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), UNSPEC);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 1, 1), UNSPEC);
	assert_int_equal(submit(r, 1, (uint32_t[]){0}, 1), UNSPEC);
	assert_int_equal(create(r, 1, BGRX, 1, 1), OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(capsets, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(contexts, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(resources, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(beyond_the_driver, setup_small, teardown_3d),
		cmocka_unit_test_setup_teardown(ghosts_are_bounded, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(backing, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(attachments, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(transfers, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(streams, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(too_large_a_stream, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(poisoned, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(refused_and_freed, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(reset, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(lost, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(barred, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(without_3d, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
