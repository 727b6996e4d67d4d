/* SPDX-License-Identifier: MIT
 * Every 2D command with good and with bad arguments, through the real backend: each bad one gets
 * the error that it should have (gpu/virtio-gpu.c says which), changes nothing, and the VM goes on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/gpu/gpu-case.h"
#include "tests/unit/test.h"

#define BGRX VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define HOLE UINT64_C(0x90000000)

#define COMMAND(c, ...)                                   \
	({                                                \
		__typeof__(__VA_ARGS__) c_ = __VA_ARGS__; \
		sim_command(&(c)->sim, &c_, sizeof(c_));  \
	})

static uint32_t command_of_id(struct gpu_case *c, uint32_t type, uint32_t id)
{
	return COMMAND(c, (struct virtio_gpu_resource_detach_backing){{.type = type}, id, 0});
}

static void test_create(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	static const uint32_t formats[] = {1, 2, 3, 4, 67, 68, 121, 134};

	for (uint32_t i = 0; i < ARRAY_SIZE(formats); i++) {
		assert_int_equal(sim_create(s, 1 + i, formats[i], 16, 16), CASE_OK);
	}
	assert_int_equal(sim_create(s, 1, BGRX, 16, 16), CASE_BAD_RESOURCE);
	assert_int_equal(sim_create(s, 0, BGRX, 16, 16), CASE_BAD_RESOURCE);
	assert_int_equal(sim_create(s, UINT32_MAX, BGRX, 1, 1), CASE_OK);
	assert_int_equal(sim_create(s, 100, 0, 16, 16), CASE_BAD_PARAMETER);
	assert_int_equal(sim_create(s, 100, 77, 16, 16), CASE_BAD_PARAMETER);
	assert_int_equal(sim_create(s, 100, BGRX, 0, 16), CASE_BAD_PARAMETER);
	assert_int_equal(sim_create(s, 100, BGRX, 16, 0), CASE_BAD_PARAMETER);
	/* Their product is 2^32, 2^34 bytes, or 0 in 32 bits. */
	assert_int_equal(sim_create(s, 100, BGRX, 0x10000, 0x10000), CASE_BAD_PARAMETER);
	assert_int_equal(sim_create(s, 100, BGRX, UINT32_MAX, UINT32_MAX), CASE_BAD_PARAMETER);
	assert_int_equal(sim_create(s, 100, BGRX, 0x40000001, 1), CASE_BAD_PARAMETER);
	/* 1 GiB is possible, and above what one VM may have. */
	assert_int_equal(sim_create(s, 100, BGRX, 16384, 16384), CASE_NO_MEMORY);
	/* None of these is there. */
	assert_int_equal(sim_unref(s, 100), CASE_BAD_RESOURCE);
	for (uint32_t i = 0; i < ARRAY_SIZE(formats); i++) {
		assert_int_equal(sim_unref(s, 1 + i), CASE_OK);
	}
	assert_int_equal(sim_unref(s, 1), CASE_BAD_RESOURCE);
	assert_int_equal(sim_unref(s, 0), CASE_BAD_RESOURCE);
}

/* As many as there may be, as large as there may be; what is given back can be had again. */
static void test_too_many(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	uint32_t n = 0;

	for (int round = 0; round < 2; round++) {
		uint32_t made = 0;

		while (made < 5000 && sim_create(s, 1 + made, BGRX, 8, 8) == CASE_OK) {
			made++;
		}
		assert_in_range(made, 256, 4096);
		assert_true(round == 0 || made == n);
		n = made;
		assert_int_equal(sim_create(s, 1 + n, BGRX, 8, 8), CASE_NO_MEMORY);
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(sim_unref(s, 1 + i), CASE_OK);
		}
	}
	for (int round = 0; round < 2; round++) {
		uint32_t made = 0;

		while (made < 100 && sim_create(s, 1 + made, BGRX, 4096, 4096) == CASE_OK) {
			made++;
		}
		/* 64 MiB each, 512 MiB together. */
		assert_in_range(made, 7, 8);
		for (uint32_t i = 0; i < made; i++) {
			assert_int_equal(sim_unref(s, 1 + i), CASE_OK);
		}
	}
	case_check_serves(c, 1);
}

static uint32_t attach_one(struct gpu_case *c, uint32_t id, uint64_t at, uint32_t size)
{
	const struct virtio_gpu_mem_entry entry = {at, size, 0};

	return sim_attach(&c->sim, id, &entry, 1);
}

/* nr_entries that the command has not behind it. */
static uint32_t attach_claimed(struct gpu_case *c, uint32_t id, uint32_t claimed)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e;
	} m = {{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, claimed},
		{SIM_PIXELS, 0x1000, 0}};

	return sim_command(&c->sim, &m, sizeof(m));
}

static void test_backing(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const uint32_t attach = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
	const uint32_t detach = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING;
	const struct virtio_gpu_mem_entry last_bad[2] = {
		{SIM_PIXELS, 0x1000, 0}, {HOLE, 0x1000, 0}};

	assert_int_equal(sim_create(s, 1, BGRX, CASE_WIDTH, CASE_HEIGHT), CASE_OK);
	assert_int_equal(attach_one(c, 2, SIM_PIXELS, CASE_BYTES), CASE_BAD_RESOURCE);
	assert_int_equal(attach_one(c, 0, SIM_PIXELS, CASE_BYTES), CASE_BAD_RESOURCE);
	assert_int_equal(attach_one(c, 1, HOLE, CASE_BYTES), CASE_BAD_PARAMETER);
	assert_int_equal(attach_one(c, 1, UINT64_MAX - 10, CASE_BYTES), CASE_BAD_PARAMETER);
	assert_int_equal(attach_one(c, 1, CASE_MEMORY / 2 - 16, 32), CASE_BAD_PARAMETER);
	assert_int_equal(attach_one(c, 1, SIM_PIXELS, 0), CASE_BAD_PARAMETER);
	assert_int_equal(attach_one(c, 1, SIM_PIXELS, UINT32_MAX), CASE_BAD_PARAMETER);
	assert_int_equal(sim_attach(s, 1, last_bad, 2), CASE_BAD_PARAMETER);
	assert_int_equal(attach_claimed(c, 1, 2), CASE_BAD_PARAMETER);
	assert_int_equal(attach_claimed(c, 1, 1000000000), CASE_BAD_PARAMETER);
	assert_int_equal(attach_claimed(c, 1, 0x10000001), CASE_BAD_PARAMETER);
	assert_int_equal(attach_claimed(c, 1, UINT32_MAX), CASE_BAD_PARAMETER);
	assert_int_equal(command_of_id(c, attach, 1) >= CASE_UNSPEC, false); /* none at all */
	assert_int_equal(command_of_id(c, detach, 1), CASE_OK);
	/* None of the bad ones left a backing. */
	assert_int_equal(command_of_id(c, detach, 1), CASE_UNSPEC);
	assert_int_equal(attach_one(c, 1, SIM_PIXELS, CASE_BYTES), CASE_OK);
	assert_int_equal(attach_one(c, 1, SIM_PIXELS, CASE_BYTES), CASE_UNSPEC);
	assert_int_equal(command_of_id(c, detach, 9), CASE_BAD_RESOURCE);
	assert_int_equal(command_of_id(c, detach, 1), CASE_OK);
	assert_int_equal(sim_transfer(s, 1, &case_all, 0), CASE_UNSPEC);
}

static uint32_t transfer(
	struct gpu_case *c, uint32_t x, uint32_t y, uint32_t w, uint32_t h, uint64_t offset)
{
	const struct virtio_gpu_rect r = {x, y, w, h};

	return sim_transfer(&c->sim, 1, &r, offset);
}

static void test_transfer(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const uint32_t w = CASE_WIDTH, h = CASE_HEIGHT, max = UINT32_MAX;

	assert_int_equal(transfer(c, 0, 0, w, h, 0), CASE_BAD_RESOURCE);
	assert_int_equal(sim_create(s, 1, BGRX, w, h), CASE_OK);
	assert_int_equal(transfer(c, 0, 0, w, h, 0), CASE_UNSPEC);
	/* All but the last row. */
	assert_int_equal(attach_one(c, 1, SIM_PIXELS, w * 4 * (h - 1)), CASE_OK);
	assert_int_equal(transfer(c, 0, 0, w, h - 1, 0), CASE_OK);
	assert_int_equal(transfer(c, 0, 0, w, h, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 0, w, h - 1, 1), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 0, 1, 1, w * 4 * (h - 1)), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 0, 1, 1, w * 4 * (h - 1) - 4), CASE_OK);
	assert_int_equal(transfer(c, 0, 0, 1, 1, UINT64_MAX), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 0, 1, 2, UINT64_MAX - w * 4 + 1), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 1, 0, w, 1, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 1, 1, h, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, max, 0, 1, 1, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 2, 0, max, 1, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, 0, 2, 1, max, 0), CASE_BAD_PARAMETER);
	assert_int_equal(transfer(c, max, max, max, max, max), CASE_BAD_PARAMETER);
}

static uint32_t set_scanout(struct gpu_case *c, uint32_t scanout, uint32_t id, uint32_t x,
	uint32_t y, uint32_t w, uint32_t h)
{
	return COMMAND(c, (struct virtio_gpu_set_scanout){
				  {.type = VIRTIO_GPU_CMD_SET_SCANOUT}, {x, y, w, h}, scanout, id});
}

/* The display of scanout 0 has it in a second. */
static void wait_for_width(struct sim *s, uint32_t width)
{
	for (int i = 0; i < 100 && s->screen.scanouts[0].width != width; i++) {
		sim_wait(s, 10);
	}
	assert_int_equal(s->screen.scanouts[0].width, width);
}

static void test_scanout(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const uint32_t w = CASE_WIDTH, h = CASE_HEIGHT, max = UINT32_MAX;
	const struct virtio_gpu_rect outside[] = {
		{1, 0, w, h}, {0, 1, w, h}, {max, 0, 1, 1}, {2, 2, max, max}, {w, h, 1, 1}};

	assert_int_equal(set_scanout(c, 0, 1, 0, 0, w, h), CASE_BAD_RESOURCE);
	assert_int_equal(sim_create(s, 1, BGRX, w, h), CASE_OK);
	assert_int_equal(set_scanout(c, 16, 1, 0, 0, w, h), CASE_BAD_SCANOUT);
	assert_int_equal(set_scanout(c, max, 0, 0, 0, w, h), CASE_BAD_SCANOUT);
	assert_int_equal(set_scanout(c, 0, 1, 0, 0, 0, h), CASE_BAD_PARAMETER);
	assert_int_equal(set_scanout(c, 0, 1, 0, 0, w, 0), CASE_BAD_PARAMETER);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		const struct virtio_gpu_rect *r = &outside[i];

		assert_int_equal(
			set_scanout(c, 0, 1, r->x, r->y, r->width, r->height), CASE_BAD_PARAMETER);
		assert_int_equal(sim_flush(s, 1, r), CASE_BAD_PARAMETER);
	}
	assert_int_equal(sim_flush(s, 2, &case_all), CASE_BAD_RESOURCE);
	assert_int_equal(sim_flush(s, 1, &case_all), CASE_OK); /* shown nowhere */
	assert_int_equal(set_scanout(c, 15, 1, 0, 0, w, h), CASE_OK);
	assert_int_equal(set_scanout(c, 15, 0, 0, 0, 0, 0), CASE_OK);
	/* Unreferenced while it is shown: the scanout goes dark. */
	assert_int_equal(set_scanout(c, 0, 1, 16, 8, w - 16, h - 8), CASE_OK);
	wait_for_width(s, w - 16);
	assert_int_equal(sim_unref(s, 1), CASE_OK);
	wait_for_width(s, 0);
	case_check_serves(c, 1);
}

static void test_queries(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_resp_display_info *info;
	const struct virtio_gpu_resp_edid *edid;
	struct virtio_gpu_resp_resource_uuid uuid;
	uint8_t sum = 0;

	assert_int_equal(
		COMMAND(c, (struct virtio_gpu_ctrl_hdr){.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO}),
		VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	info = sim_answer(s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head);
	assert_int_equal(info->pmodes[0].r.width, CASE_WIDTH);
	assert_int_equal(info->pmodes[0].r.height, CASE_HEIGHT);
	assert_int_equal(info->pmodes[0].enabled, 1);
	assert_int_equal(info->pmodes[1].enabled, 0);

	assert_int_equal(
		COMMAND(c,
			(struct virtio_gpu_cmd_get_edid){{.type = VIRTIO_GPU_CMD_GET_EDID}, 0, 0}),
		VIRTIO_GPU_RESP_OK_EDID);
	edid = sim_answer(s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head);
	assert_true(edid->size == 128 || edid->size == 256);
	for (int i = 0; i < 128; i++) {
		sum = (uint8_t)(sum + edid->edid[i]);
	}
	assert_int_equal(sum, 0);
	/* VESA E-EDID 3.10.2: the first detailed timing has what is best. */
	assert_int_equal(edid->edid[56] | (edid->edid[58] & 0xf0) << 4, CASE_WIDTH);
	assert_int_equal(edid->edid[59] | (edid->edid[61] & 0xf0) << 4, CASE_HEIGHT);
	assert_int_equal(
		COMMAND(c,
			(struct virtio_gpu_cmd_get_edid){{.type = VIRTIO_GPU_CMD_GET_EDID}, 16, 0}),
		CASE_BAD_SCANOUT);

	assert_int_equal(sim_create(s, 1, BGRX, 8, 8), CASE_OK);
	assert_int_equal(sim_create(s, 2, BGRX, 8, 8), CASE_OK);
	assert_int_equal(command_of_id(c, VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, 1),
		VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	memcpy(&uuid, sim_answer(s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head), sizeof(uuid));
	assert_int_equal(command_of_id(c, VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, 2),
		VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	assert_memory_not_equal(uuid.uuid,
		((const struct virtio_gpu_resp_resource_uuid *)sim_answer(
			 s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head))
			->uuid,
		16);
	assert_int_equal(
		command_of_id(c, VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, 3), CASE_BAD_RESOURCE);
}

static const struct {
	uint32_t type;
	size_t size;
} sizes[] = {
	{VIRTIO_GPU_CMD_GET_DISPLAY_INFO, sizeof(struct virtio_gpu_ctrl_hdr)},
	{VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, sizeof(struct virtio_gpu_resource_create_2d)},
	{VIRTIO_GPU_CMD_RESOURCE_UNREF, sizeof(struct virtio_gpu_resource_unref)},
	{VIRTIO_GPU_CMD_SET_SCANOUT, sizeof(struct virtio_gpu_set_scanout)},
	{VIRTIO_GPU_CMD_RESOURCE_FLUSH, sizeof(struct virtio_gpu_resource_flush)},
	{VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, sizeof(struct virtio_gpu_transfer_to_host_2d)},
	{VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, sizeof(struct virtio_gpu_resource_attach_backing)},
	{VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, sizeof(struct virtio_gpu_resource_detach_backing)},
	{VIRTIO_GPU_CMD_GET_EDID, sizeof(struct virtio_gpu_cmd_get_edid)},
	{VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, sizeof(struct virtio_gpu_resource_assign_uuid)},
};

/* Each command cut short by a byte, to its header, and to less than that. */
static void test_short(void **state)
{
	struct gpu_case *c = *state;
	uint8_t bytes[64] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const size_t cut[] = {sizes[i].size - 1, 23, 4, 1};

		memcpy(bytes, &sizes[i].type, 4);
		bytes[24] = 7;
		for (size_t k = 0; k < ARRAY_SIZE(cut); k++) {
			assert_int_equal(sim_command(&c->sim, bytes, cut[k]), CASE_UNSPEC);
		}
	}
	case_check_serves(c, 7);
}

/* What there is none of: 3D, blobs, cursor's commands in this queue, answers, anything. */
static void test_unknown(void **state)
{
	static const uint32_t types[] = {0, 1, 0xff, VIRTIO_GPU_CMD_GET_CAPSET_INFO,
		VIRTIO_GPU_CMD_GET_CAPSET, VIRTIO_GPU_CMD_CTX_CREATE, VIRTIO_GPU_CMD_SUBMIT_3D,
		VIRTIO_GPU_CMD_RESOURCE_CREATE_3D, VIRTIO_GPU_CMD_UPDATE_CURSOR,
		VIRTIO_GPU_CMD_MOVE_CURSOR, VIRTIO_GPU_RESP_OK_NODATA, UINT32_MAX};
	struct gpu_case *c = *state;
	uint8_t bytes[128] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		memcpy(bytes, &types[i], 4);
		assert_int_equal(sim_command(&c->sim, bytes, sizeof(bytes)), CASE_UNSPEC);
	}
	case_check_serves(c, 1);
}

/* An answer is cut where its room ends, and nothing is written behind it. */
static void test_little_room(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_ctrl_hdr q = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
		.flags = VIRTIO_GPU_FLAG_FENCE,
		.fence_id = 0x1122334455667788};

	for (uint32_t room = 1; room < 40; room += 6) {
		uint32_t written;
		int head = sim_offer(s, SIM_CONTROL, &q, sizeof(q), room);
		uint8_t *answer = (uint8_t *)(uintptr_t)sim_answer(s, SIM_CONTROL, head);

		memset(answer, 0xa5, 64);
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		assert_int_equal(sim_take(s, SIM_CONTROL, 2000, &written), head);
		assert_int_equal(written, room);
		for (uint32_t i = room; i < 64; i++) {
			assert_int_equal(answer[i], 0xa5);
		}
	}
}

/* Commands and answers with fences of any number; without, the answer has none. */
static void test_fences(void **state)
{
	struct gpu_case *c = *state;
	struct virtio_gpu_ctrl_hdr q = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
		.flags = VIRTIO_GPU_FLAG_FENCE,
		.ctx_id = 5};
	const struct virtio_gpu_ctrl_hdr *a;

	c->sim.fence = UINT64_MAX - 3;
	for (int i = 0; i < 6; i++) {
		assert_int_equal(
			sim_command(&c->sim, &q, sizeof(q)), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	}
	/* An error has it too. */
	q.type = VIRTIO_GPU_CMD_SUBMIT_3D;
	assert_int_equal(sim_command(&c->sim, &q, sizeof(q)), CASE_UNSPEC);
	q.flags = 0;
	q.fence_id = 99;
	assert_int_equal(sim_command(&c->sim, &q, sizeof(q)), CASE_UNSPEC);
	a = sim_answer(&c->sim, SIM_CONTROL, c->sim.rings[SIM_CONTROL].free_head);
	assert_int_equal(a->flags, 0);
	assert_int_equal(a->fence_id, 0);
}

static void cursor_command(
	struct gpu_case *c, uint32_t type, uint32_t scanout, uint32_t id, uint32_t hot)
{
	const struct virtio_gpu_update_cursor q = {
		{.type = type}, {scanout, 7, 9, 0}, id, hot, hot, 0};
	uint32_t written;
	int head = sim_offer(&c->sim, SIM_CURSOR, &q, sizeof(q), 0);

	assert_true(head >= 0);
	sim_ring_kick(&c->sim.rings[SIM_CURSOR]);
	assert_int_equal(sim_take(&c->sim, SIM_CURSOR, 2000, &written), head);
}

/* Cursors that can't be are not shown; hot spots outside are moved in. */
static void test_cursor(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const uint32_t update = VIRTIO_GPU_CMD_UPDATE_CURSOR, move = VIRTIO_GPU_CMD_MOVE_CURSOR;

	assert_int_equal(sim_create(s, 1, BGRX, 63, 64), CASE_OK);
	assert_int_equal(sim_create(s, 2, BGRX, 64, 64), CASE_OK);
	cursor_command(c, update, 0, 1, 0);
	cursor_command(c, update, 0, 77, 0);
	cursor_command(c, update, 16, 2, 0);
	cursor_command(c, move, UINT32_MAX, 2, 0);
	cursor_command(c, VIRTIO_GPU_CMD_GET_DISPLAY_INFO, 0, 2, 0);
	cursor_command(c, update, 0, 2, UINT32_MAX);
	for (int i = 0; i < 200 && s->screen.n_messages[DISPLAY_CURSOR_UPDATE] == 0; i++) {
		sim_wait(s, 10);
	}
	assert_int_equal(s->screen.n_messages[DISPLAY_CURSOR_UPDATE], 1);
	assert_int_equal(s->screen.cursor.pos.x, 7);
	assert_in_range(s->screen.cursor.hot_x, 0, 63);
	case_check_serves(c, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, case_setup, case_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_create),
		TEST(test_too_many),
		TEST(test_backing),
		TEST(test_transfer),
		TEST(test_scanout),
		TEST(test_queries),
		TEST(test_short),
		TEST(test_unknown),
		TEST(test_little_room),
		TEST(test_fences),
		TEST(test_cursor),
	};

	return cmocka_run_group_tests_name("gpu-commands", tests, NULL, NULL);
}
