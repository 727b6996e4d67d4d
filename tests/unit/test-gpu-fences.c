/* SPDX-License-Identifier: MIT
 * When fenced commands are answered, and what of a 3D resource is read back for a screen.
 */
#include <errno.h>

#include "gpu/spend.h"
#include "tests/unit/gpu-rig-3d.h"

#define MS UINT64_C(1000000)

static enum gpu_outcome draw(struct rig *r, uint32_t context, uint64_t fence)
{
	return submit_as(r, context, (uint32_t[]){0}, 1, 4, fence);
}

/* A command that leaves nothing in the renderer. */
static enum gpu_outcome ask(struct rig *r, uint64_t fence)
{
	const struct virtio_gpu_resource_unref c = {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF,
							    .flags = VIRTIO_GPU_FLAG_FENCE,
							    .fence_id = fence},
		1234, 0};

	fill(r, &c, sizeof(c));
	r->chain.head = (uint16_t)fence;
	return gpu_control(r->gpu, &r->chain, &r->written);
}

/* The heads that are given back now, as a number of decimal digits. */
static int given(struct rig *r)
{
	uint32_t written;
	uint16_t head;
	int n = 0;

	while (gpu_take_fenced(r->gpu, &head, &written)) {
		assert_int_equal(written, sizeof(struct virtio_gpu_ctrl_hdr));
		n = n * 10 + head;
	}
	return n;
}

static void one_timeline(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(ask(r, 1), GPU_ANSWERED);
	assert_int_equal(draw(r, 1, 0), GPU_ANSWERED);
	assert_int_equal(fake.n_fences, 0);
	assert_int_equal(draw(r, 1, 2), GPU_FENCED);
	assert_int_equal(r->answer.hdr.type, OK);
	assert_int_equal(r->answer.hdr.fence_id, 2);
	assert_int_equal(r->answer.hdr.ctx_id, 1);
	assert_int_equal(fake.n_fences, 1);
	assert_int_equal(fake.fence_context, 1);
	/* Behind it, and without a fence of its own; an error, too. */
	assert_int_equal(ask(r, 3), GPU_FENCED);
	assert_int_equal(draw(r, 99, 4), GPU_FENCED);
	assert_int_equal(r->answer.hdr.type, BAD_CONTEXT);
	assert_int_equal(fake.n_fences, 1);
	assert_int_equal(draw(r, 1, 5), GPU_FENCED);
	assert_int_equal(ask(r, 6), GPU_FENCED);
	assert_int_equal(fake.n_fences, 2);
	assert_int_equal(given(r), 0);
	assert_int_equal(gpu_fences_out(r->gpu), 5);
	gpu_fence_reached(r->gpu, fake.fence - 1);
	assert_int_equal(given(r), 234);
	gpu_fence_reached(r->gpu, fake.fence - 1);
	gpu_fence_reached(r->gpu, fake.fence + 1); /* was never made */
	assert_int_equal(given(r), 0);
	gpu_fence_reached(r->gpu, fake.fence);
	assert_int_equal(given(r), 56);
	assert_int_equal(ask(r, 7), GPU_ANSWERED);
	/* What the renderer can't make does not hold anybody up. */
	fake.refuse = 0;
	assert_int_equal(draw(r, 1, 8), GPU_FENCED);
	gpu_fences_end(r->gpu);
	assert_int_equal(given(r), 8);
}

/* The numbers that the renderer sees have 32 bits. */
static void numbers_wrap(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), OK);
	r->gpu->three->line.made = r->gpu->three->line.reached = UINT64_C(0x1fffffffe);
	for (uint64_t i = 1; i < 5; i++) {
		assert_int_equal(draw(r, 1, i), GPU_FENCED);
	}
	assert_int_equal(fake.fence, 2);
	gpu_fence_reached(r->gpu, UINT32_MAX);
	assert_int_equal(given(r), 1);
	gpu_fence_reached(r->gpu, 1);
	assert_int_equal(given(r), 23);
	gpu_fence_reached(r->gpu, 2);
	assert_int_equal(given(r), 4);
}

static enum gpu_outcome draw_on(struct rig *r, uint32_t context, uint8_t ring, uint16_t head)
{
	const struct {
		struct virtio_gpu_cmd_submit c;
		uint32_t nop;
	} m = {{{.type = VIRTIO_GPU_CMD_SUBMIT_3D,
			.flags = VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX,
			.fence_id = head,
			.ctx_id = context,
			.ring_idx = ring},
		       4, 0},
		0};

	fill(r, &m, sizeof(m));
	r->chain.head = head;
	return gpu_control(r->gpu, &r->chain, &r->written);
}

static void several_timelines(void **state)
{
	struct rig *r = *state;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(context(r, 2), OK);
	/* Not negotiated: everybody's. */
	assert_int_equal(draw_on(r, 1, 1, 1), GPU_FENCED);
	assert_int_equal(fake.n_fences, 1);
	gpu_fence_reached(r->gpu, fake.fence);
	assert_int_equal(given(r), 1);
	gpu_negotiated(r->gpu, 1ULL << VIRTIO_GPU_F_CONTEXT_INIT);
	assert_int_equal(draw_on(r, 1, 1, 1), GPU_FENCED);
	assert_int_equal(fake.ring_context, 1);
	assert_int_equal(fake.ring, 1);
	assert_int_equal(
		r->answer.hdr.flags, VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX);
	assert_int_equal(r->answer.hdr.ring_idx, 1);
	assert_int_equal(draw_on(r, 1, 2, 2), GPU_FENCED);
	assert_int_equal(draw_on(r, 2, 1, 3), GPU_FENCED);
	assert_int_equal(draw_on(r, 1, 1, 4), GPU_FENCED);
	/* Of other timelines nothing is known to the one that all share. */
	assert_int_equal(ask(r, 5), GPU_ANSWERED);
	gpu_context_fence_reached(r->gpu, 1, 2, 1);
	assert_int_equal(given(r), 2);
	gpu_context_fence_reached(r->gpu, 1, 1, 2);
	assert_int_equal(given(r), 14);
	gpu_context_fence_reached(r->gpu, 2, GPU_RINGS_MAX, 1);
	gpu_context_fence_reached(r->gpu, 3, 1, 1);
	assert_int_equal(given(r), 0);
	/* Its context ends before. */
	assert_int_equal(context_end(r, 2), OK);
	assert_int_equal(given(r), 3);
	assert_int_equal(draw_on(r, 1, GPU_RINGS_MAX, 6), GPU_FENCED);
	assert_int_equal(fake.n_fences, 2);
	gpu_fence_reached(r->gpu, fake.fence);
	assert_int_equal(given(r), 6);
}

/* Whom to blame when it is never reached. */
static void oldest(void **state)
{
	struct rig *r = *state;
	uint32_t slot, first;
	uint64_t since;

	assert_int_equal(context(r, 7), OK);
	first = r->context_slot;
	assert_int_equal(context(r, 8), OK);
	assert_int_equal(draw(r, 7, 1), GPU_FENCED);
	since = gpu_oldest_fence(r->gpu, &slot);
	assert_int_equal(slot, first);
	assert_int_equal(draw(r, 8, 2), GPU_FENCED);
	assert_int_equal(gpu_oldest_fence(r->gpu, &slot), since);
	gpu_fence_reached(r->gpu, fake.fence - 1);
	assert_int_equal(given(r), 1);
	assert_true(gpu_oldest_fence(r->gpu, &slot) >= since);
	assert_int_equal(slot, r->context_slot);
}

static uint64_t fake_now;

static uint64_t the_time(void)
{
	return fake_now;
}

static void reach(struct rig *r, uint32_t fence)
{
	gpu_fence_reached(r->gpu, fence);
	given(r);
	gpu_account_fences(r->gpu);
}

static uint64_t of_slot(const struct allowance_page *page, uint32_t slot)
{
	return atomic_load(&page->contexts[slot - 1].gpu_ns);
}

static struct allowance_page page;
static struct spend spend;

/* What is used is counted from now on, for contexts 7 (whose slot this is) and 8. */
static uint32_t begin_spending(struct rig *r, bool by_work)
{
	const struct spend_clocks clocks = {the_time, the_time, the_time, MS};
	uint32_t first;

	memset(&page, 0, sizeof(page));
	fake_now = 1000 * MS;
	spend_init(&spend, &page, &clocks, by_work, 2);
	r->gpu->spend = &spend;
	assert_int_equal(context(r, 7), OK);
	first = r->context_slot;
	assert_int_equal(context(r, 8), OK);
	return first;
}

/* On a render node what counts is how long there is work, whoever has it: the oldest; and that of
 * which nobody wants to hear the end counts as well. */
static void work_on_a_render_node(void **state)
{
	struct rig *r = *state;
	uint32_t first = begin_spending(r, true);

	fake_now += 50 * MS;
	assert_int_equal(draw(r, 7, 1), GPU_FENCED);
	fake_now += 3 * MS;
	assert_int_equal(draw(r, 8, 2), GPU_FENCED);
	gpu_fence_tail(r->gpu);
	assert_int_equal(fake.n_fences, 2);
	fake_now += 2 * MS;
	reach(r, fake.fence - 1);
	fake_now += 4 * MS;
	reach(r, fake.fence);
	fake_now += 100 * MS;
	spend_sample(&spend);
	assert_int_equal(atomic_load(&page.used_ns), 9 * MS);
	assert_int_equal(of_slot(&page, first), 5 * MS);
	assert_int_equal(of_slot(&page, r->context_slot), 4 * MS);
	/* Without a fence of its own. */
	assert_int_equal(draw(r, 7, 0), GPU_ANSWERED);
	fake_now += 5 * MS;
	gpu_fence_tail(r->gpu);
	gpu_fence_tail(r->gpu);
	assert_int_equal(fake.n_fences, 3);
	fake_now += 2 * MS;
	reach(r, fake.fence);
	fake_now += 100 * MS;
	/* One that can't be made holds nobody up. */
	assert_int_equal(draw(r, 7, 0), GPU_ANSWERED);
	fake_now += MS;
	fake.refuse = -EINVAL;
	gpu_fence_tail(r->gpu);
	fake_now += 100 * MS;
	spend_sample(&spend);
	assert_int_equal(atomic_load(&page.used_ns), 17 * MS);
	/* The driver's reset. */
	assert_int_equal(draw(r, 7, 1), GPU_FENCED);
	fake_now += MS;
	gpu_reset(r->gpu);
	gpu_account_fences(r->gpu);
	fake_now += 100 * MS;
	spend_sample(&spend);
	assert_int_equal(atomic_load(&page.used_ns), 18 * MS);
	r->gpu->spend = NULL;
}

/* In software commands count for their context, and those of none for whose fence is out. */
static void work_in_software(void **state)
{
	struct rig *r = *state;
	uint32_t first = begin_spending(r, false);

	assert_int_equal(ask(r, 3), GPU_ANSWERED);
	fake_now += 50 * MS;
	assert_int_equal(draw(r, 7, 0), GPU_ANSWERED);
	fake_now += 3 * MS;
	assert_int_equal(draw(r, 8, 2), GPU_FENCED);
	fake_now += 4 * MS;
	assert_int_equal(draw(r, 7, 0), GPU_ANSWERED);
	fake_now += 5 * MS;
	/* Of no context: who is waited for. */
	assert_int_equal(ask(r, 3), GPU_FENCED);
	fake_now += 6 * MS;
	spend_sample(&spend);
	assert_int_equal(of_slot(&page, first), 8 * MS);
	assert_int_equal(of_slot(&page, r->context_slot), 10 * MS);
	r->gpu->spend = NULL;
}

static void as_many_as_a_ring_has(void **state)
{
	struct rig *r = *state;
	uint32_t written, n = 0;
	uint16_t head;

	assert_int_equal(context(r, 1), OK);
	for (uint32_t i = 1; i <= VRING_SIZE_MAX; i++) {
		assert_int_equal(draw(r, 1, i), GPU_FENCED);
	}
	gpu_fence_reached(r->gpu, fake.fence);
	while (gpu_take_fenced(r->gpu, &head, &written)) {
		assert_int_equal(head, ++n);
	}
	assert_int_equal(n, VRING_SIZE_MAX);
}

static void scanouts(void **state)
{
	struct rig *r = *state;
	uint64_t used;

	fake.pixel = 0x04030201;
	assert_int_equal(create_3d(r, 1, TARGET_2D, BGRA, 64, 32), OK);
	assert_int_equal(create_3d(r, 2, 0, 64, 64, 1), OK);
	used = r->gpu->budget.used;
	assert_int_equal(scanout(r, 0, 2, 0, 0, 1, 1), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 65, 1), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 0, 0), BAD_PARAMETER);
	assert_int_equal(scanout(r, 2, 1, 0, 0, 1, 1), BAD_SCANOUT);
	assert_int_equal(flush(r, 1, 0, 0, 65, 1), BAD_PARAMETER);
	assert_int_equal(flush(r, 1, 0, 0, 64, 32), OK); /* seen nowhere */
	gpu_settle(r->gpu);
	assert_int_equal(fake.n_reads, 0);
	assert_int_equal(scanout(r, 0, 1, 8, 4, 48, 24), OK);
	assert_int_equal(r->n_scanouts, 1);
	assert_true(r->gpu->budget.used >= used + 64 * 32 * 4);
	/* All of it the first time, and only what is shown. */
	assert_int_equal(flush(r, 1, 10, 5, 1, 1), OK);
	assert_int_equal(fake.n_reads, 0);
	gpu_settle(r->gpu);
	assert_int_equal(fake.n_reads, 1);
	assert_int_equal(fake.transfer.area.x, 8);
	assert_int_equal(fake.transfer.area.width, 48);
	assert_int_equal(fake.transfer.area.height, 24);
	assert_int_equal(fake.transfer.stride, 256);
	assert_int_equal(fake.transfer.offset, 4 * 256 + 32);
	assert_int_equal(r->damage.x, 0);
	assert_int_equal(r->damage.width, 48);
	/* Several become one. */
	assert_int_equal(flush(r, 1, 10, 5, 1, 1), OK);
	assert_int_equal(flush(r, 1, 12, 9, 2, 1), OK);
	assert_int_equal(context(r, 5), OK); /* any other command comes after */
	assert_int_equal(fake.n_reads, 2);
	assert_int_equal(fake.transfer.area.x, 10);
	assert_int_equal(fake.transfer.area.width, 4);
	assert_int_equal(fake.transfer.area.height, 5);
	assert_int_equal(r->damage.x, 2);
	assert_int_equal(r->damage.y, 1);
	assert_int_equal(r->n_damages, 2);
	gpu_settle(r->gpu);
	assert_int_equal(fake.n_reads, 2);
	/* Gone: off the screen too, and with a flush that nobody waited for. */
	assert_int_equal(flush(r, 1, 10, 5, 1, 1), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(r->n_scanouts, 2);
	assert_int_equal(r->n_images_gone, 1);
	assert_int_equal(r->gpu->scanouts[0].slot, GPU_NO_SLOT);
	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
}

/* Turned into what the front takes. */
static void formats(void **state)
{
	struct rig *r = *state;
	const uint8_t *p;

	fake.pixel = 0x04030201;
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 4, 4), OK);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 4, 4), OK);
	assert_int_equal(flush(r, 1, 0, 0, 4, 4), OK);
	gpu_settle(r->gpu);
	p = r->gpu->resources[gpu_find(r->gpu, 1)].pixels;
	for (int i = 0; i < 16; i++) {
		assert_memory_equal(p + 4 * i, "\x03\x02\x01\x04", 4);
	}
}

static uint32_t show_cursor(struct rig *r, uint32_t id)
{
	const struct virtio_gpu_update_cursor c = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {0, 1, 2, 0}, id, 0, 0, 0};

	fill(r, &c, sizeof(c));
	gpu_cursor(r->gpu, &r->chain, &r->written);
	return r->answer.hdr.type;
}

static void cursors(void **state)
{
	struct rig *r = *state;

	fake.pixel = 0x04030201;
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 64, 64), OK);
	assert_int_equal(create_3d(r, 2, TARGET_2D, RGBA, 64, 65), OK);
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(show_cursor(r, 1), OK);
	assert_memory_equal(r->cursor_pixels + 64 * 64 * 4 - 4, "\x03\x02\x01\x04", 4);
	assert_int_equal(show_cursor(r, 2), BAD_PARAMETER);
	assert_int_equal(show_cursor(r, 3), NO_MEMORY);
	assert_int_equal(show_cursor(r, 4), BAD_RESOURCE);
	fake.refuse = -22;
	assert_int_equal(show_cursor(r, 1), BAD_PARAMETER);
	assert_int_equal(r->n_cursors, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_timeline, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(numbers_wrap, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(several_timelines, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(oldest, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(work_on_a_render_node, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(work_in_software, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(as_many_as_a_ring_has, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(scanouts, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(formats, setup_3d, teardown_3d),
		cmocka_unit_test_setup_teardown(cursors, setup_3d, teardown_3d),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
