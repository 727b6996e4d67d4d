/* SPDX-License-Identifier: MIT */
#include "tests/integration/gpu-guest.h"

#include <stdlib.h>

#include "tests/unit/test.h"

int guest_kills(void)
{
	const char *text = getenv("GPU_KILLS");

	return text ? atoi(text) : 60;
}

int guest_setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	srand(11);
	r->f = fake_front_create();
	fake_front_start(r->f, "64M");
	*state = r;
	return 0;
}

int guest_teardown(void **state)
{
	struct rig *r = *state;

	fake_front_destroy(r->f);
	free(r);
	return 0;
}

void guest_offer(struct rig *r, union command *c, size_t size, uint32_t type)
{
	uint16_t head;

	c->hdr.flags = VIRTIO_GPU_FLAG_FENCE;
	c->hdr.fence_id = ++r->fence;
	head = fake_ring_offer(r->f, CONTROL, c, size, ANSWER_ROOM);
	r->expected[head] = (struct expected){type, r->fence};
	r->n_waiting++;
}

void guest_offer_life(struct rig *r, uint32_t id)
{
	const struct virtio_gpu_rect all = {0, 0, SIDE, SIDE};
	const uint64_t addr = AREA + id * BYTES;

	OFFER(r, OK, create, {{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, BGRX, SIDE, SIDE});
	OFFER(r, UNSPEC, transfer, {{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	OFFER(r, OK, attach,
		{{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 1}, {addr, BYTES, 0}});
	OFFER(r, VIRTIO_GPU_RESP_OK_DISPLAY_INFO, hdr, {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO});
	OFFER(r, OK, transfer, {{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, id % 2, id});
	OFFER(r, OK, flush, {{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, all, id, 0});
	OFFER(r, OK, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
	OFFER(r, UNSPEC, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
	OFFER(r, OK, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
	OFFER(r, BAD_RESOURCE, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
}

static bool take_control(struct rig *r, int ms)
{
	const struct virtio_gpu_ctrl_hdr *a;
	uint32_t written;
	int head = fake_ring_next(r->f, CONTROL, ms, &written);

	if (head < 0) {
		return false;
	}
	a = fake_answer(r->f, CONTROL, (uint16_t)head);
	assert_int_equal(a->type, r->expected[head].type);
	assert_int_equal(a->flags, VIRTIO_GPU_FLAG_FENCE);
	assert_true(a->fence_id == r->expected[head].fence);
	assert_int_equal(written, a->type == VIRTIO_GPU_RESP_OK_DISPLAY_INFO
					  ? sizeof(struct virtio_gpu_resp_display_info)
					  : sizeof(*a));
	r->n_waiting--;
	r->answered++;
	return true;
}

bool guest_take(struct rig *r, int ms)
{
	uint32_t ignored;

	while (fake_ring_next(r->f, CURSOR, 0, &ignored) >= 0) {
		r->n_cursors--;
	}
	return take_control(r, ms);
}

void guest_take_all(struct rig *r)
{
	while (r->n_waiting > 0) {
		assert_true(guest_take(r, 5000));
	}
	/* And nothing more. */
	assert_false(guest_take(r, 1));
	for (int i = 0; r->n_cursors > 0 && i < 1000; i++) {
		assert_false(guest_take(r, 5));
	}
	assert_int_equal(r->n_cursors, 0);
}

void guest_replace(struct rig *r)
{
	fake_front_kill(r->f);
	fake_front_start(r->f, "64M");
}

void guest_move_cursor(struct rig *r)
{
	const struct virtio_gpu_update_cursor move = {
		{.type = VIRTIO_GPU_CMD_MOVE_CURSOR}, {0, r->n_cursors, 1, 0}, 0, 0, 0, 0};

	if (r->n_cursors < RING_HEADS) {
		fake_ring_offer(r->f, CURSOR, &move, sizeof(move), 0);
		fake_ring_kick(r->f, CURSOR);
		r->n_cursors++;
	}
}
