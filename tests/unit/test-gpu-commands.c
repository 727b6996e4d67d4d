/* SPDX-License-Identifier: MIT
 * Every 2D command with good and bad arguments: what it is answered, what comes of it, and that
 * nothing is kept of a refused one.
 */
#include "tests/unit/gpu-rig.h"

static void resources(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
	assert_int_equal(r->n_resources, 1);
	assert_int_equal(r->gpu->budget.used, 64 * 32 * 4);
	assert_int_equal(create(r, 0, BGRX, 64, 32), BAD_RESOURCE);
	assert_int_equal(create(r, 1, BGRX, 64, 32), BAD_RESOURCE);
	assert_int_equal(create(r, 2, 0, 64, 32), BAD_PARAMETER);
	assert_int_equal(create(r, 2, BGRX, 0, 32), BAD_PARAMETER);
	assert_int_equal(create(r, 2, BGRX, 64, 0), BAD_PARAMETER);
	assert_int_equal(create(r, 2, BGRX, UINT32_MAX, UINT32_MAX), BAD_PARAMETER);
	assert_int_equal(create(r, 2, BGRX, 0x40000001, 1), BAD_PARAMETER);
	assert_int_equal(create(r, 2, BGRX, 4096, 4096), NO_MEMORY);
	assert_int_equal(r->n_resources, 1);
	assert_int_equal(r->gpu->budget.used, 64 * 32 * 4);
	/* Ids that meet in one list. */
	assert_int_equal(create(r, 1 + GPU_RESOURCES_MAX, BGRX, 1, 1), OK);
	assert_int_equal(create(r, 1 + 2 * GPU_RESOURCES_MAX, BGRX, 1, 1), OK);
	assert_int_equal(unref(r, 1 + GPU_RESOURCES_MAX), OK);
	assert_int_equal(unref(r, 1 + GPU_RESOURCES_MAX), BAD_RESOURCE);
	assert_int_equal(unref(r, 0), BAD_RESOURCE);
	assert_int_equal(unref(r, UINT32_MAX), BAD_RESOURCE);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(unref(r, 1 + 2 * GPU_RESOURCES_MAX), OK);
	assert_int_equal(r->n_resources, 6);
	assert_int_equal(r->gpu->budget.used, 0);
}

static void many_resources(void **state)
{
	struct rig *r = *state;

	for (uint32_t round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < GPU_RESOURCES_MAX; i++) {
			assert_int_equal(create(r, 1 + i * 3, BGRX, 1, 1), OK);
		}
		assert_int_equal(create(r, UINT32_MAX, BGRX, 1, 1), NO_MEMORY);
		for (uint32_t i = GPU_RESOURCES_MAX; i > 0; i--) {
			assert_int_equal(unref(r, 1 + (i - 1) * 3), OK);
		}
	}
	assert_int_equal(r->gpu->budget.used, 0);
}

static void backing(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
	assert_int_equal(attach(r, 9, 1, 1, 0, 4096), BAD_RESOURCE);
	assert_int_equal(attach(r, 0, 1, 1, 0, 4096), BAD_RESOURCE);
	assert_int_equal(attach(r, 1, 2, 1, 0, 4096), BAD_PARAMETER); /* fewer than it says */
	assert_int_equal(attach(r, 1, GPU_ENTRIES_MAX + 1, 1, 0, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, UINT32_MAX, 1, 0, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, MEMORY, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, MEMORY - 4095, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, UINT64_MAX, 4096), BAD_PARAMETER);
	assert_int_equal(attach(r, 1, 1, 1, 0, 0), BAD_PARAMETER);
	assert_int_equal(r->n_backed, 0);
	r->refuse_backing = -12;
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), NO_MEMORY);
	r->refuse_backing = 0;
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), OK);
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), UNSPEC); /* has one */
	assert_int_equal(r->n_backed, 2);
	assert_int_equal(detach(r, 2), BAD_RESOURCE);
	assert_int_equal(detach(r, 1), OK);
	assert_int_equal(detach(r, 1), UNSPEC);
	assert_int_equal(r->n_unbacked, 1);
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(r->gpu->budget.used, 0);
}

static void transfers(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
	assert_int_equal(transfer(r, 2, 0, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(transfer(r, 1, 0, 0, 0, 1, 1), UNSPEC); /* no backing */
	assert_int_equal(attach(r, 1, 2, 2, 8192, 4096), OK);
	r->guest[8192] = 1;
	r->guest[8192 + 8191] = 2;
	assert_int_equal(transfer(r, 1, 0, 0, 0, 64, 32), OK);
	assert_int_equal(r->gpu->resources[r->slot].pixels[0], 1);
	assert_int_equal(r->gpu->resources[r->slot].pixels[8191], 2);
	assert_int_equal(transfer(r, 1, 0, 0, 0, 65, 32), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 0, 0, 0, 64, 33), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 0, 64, 0, 1, 1), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 0, UINT32_MAX, 1, 2, 1), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 0, 1, 1, UINT32_MAX, UINT32_MAX), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 1, 0, 0, 64, 32), BAD_PARAMETER); /* past the backing */
	assert_int_equal(transfer(r, 1, UINT64_MAX, 0, 0, 1, 1), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 8188, 63, 31, 1, 1), OK);
	assert_int_equal(transfer(r, 1, 8189, 63, 31, 1, 1), BAD_PARAMETER);
	assert_int_equal(transfer(r, 1, 0, 64, 32, 0, 0), OK);
}

/* A large one has pauses, and is the same as in one go. */
static void slices(void **state)
{
	struct rig *r = *state;
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e[4];
	} m = {.c = {{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, 1, 4}};
	const uint8_t *pixels;

	for (uint32_t i = 0; i < MEMORY; i++) {
		r->guest[i] = (uint8_t)(i / 4093 + i);
	}
	for (size_t i = 0; i < 4; i++) {
		m.e[i] = (struct virtio_gpu_mem_entry){0, MEMORY, 0};
	}
	assert_int_equal(create(r, 1, BGRX, 1000, 1048), OK);
	pixels = r->gpu->resources[r->slot].pixels;
	assert_int_equal(send(r, &m, sizeof(m)), OK);
	assert_int_equal(transfer(r, 1, 0, 0, 0, 1000, 128), OK);
	assert_int_equal(r->n_pauses, 0);
	assert_int_equal(transfer(r, 1, 0, 0, 0, 1000, 1048), OK);
	assert_in_range(r->n_pauses, 6, 10);
	for (uint32_t i = 0; i < 1000 * 1048 * 4; i++) {
		assert_int_equal(pixels[i], r->guest[i % MEMORY]);
	}
	assert_int_equal(transfer(r, 1, 40, 10, 20, 980, 1000), OK);
	for (uint32_t y = 0; y < 1000; y++) {
		assert_memory_equal(pixels + ((y + 20) * 1000 + 10) * 4,
			r->guest + (40 + y * 4000) % MEMORY,
			MIN(3920, MEMORY - (40 + y * 4000) % MEMORY));
	}
}

static void scanouts(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
	assert_int_equal(scanout(r, 2, 1, 0, 0, 64, 32), BAD_SCANOUT);
	assert_int_equal(scanout(r, UINT32_MAX, 0, 0, 0, 64, 32), BAD_SCANOUT);
	assert_int_equal(scanout(r, 0, 2, 0, 0, 64, 32), BAD_RESOURCE);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 65, 32), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, 1, 0, 64, 32), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 0, 32), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 64, 0), BAD_PARAMETER);
	assert_int_equal(scanout(r, 0, 1, UINT32_MAX, 0, 2, 1), BAD_PARAMETER);
	assert_int_equal(r->n_scanouts, 0);

	/* The right half on one, all on the other. */
	assert_int_equal(scanout(r, 0, 1, 32, 0, 32, 32), OK);
	assert_int_equal(scanout(r, 1, 1, 0, 0, 64, 32), OK);
	assert_int_equal(flush(r, 2, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(flush(r, 1, 0, 0, 65, 1), BAD_PARAMETER);
	assert_int_equal(flush(r, 1, 64, 32, 1, 1), BAD_PARAMETER);
	assert_int_equal(flush(r, 1, 0, 0, UINT32_MAX, UINT32_MAX), BAD_PARAMETER);
	assert_int_equal(flush(r, 1, 0, 0, 0, 0), OK);
	assert_int_equal(r->n_damages, 0);
	assert_int_equal(flush(r, 1, 0, 0, 8, 8), OK); /* left: the second only */
	assert_int_equal(r->n_damages, 1);
	assert_int_equal(r->scanout, 1);
	assert_int_equal(scanout(r, 1, 0, 0, 0, 0, 0), OK);
	assert_int_equal(flush(r, 1, 24, 4, 16, 8), OK);
	assert_int_equal(r->n_damages, 2);
	assert_int_equal(r->scanout, 0);
	assert_true(r->damage.x == 0 && r->damage.y == 4 && r->damage.width == 8 &&
		    r->damage.height == 8);

	/* What is shown goes: the scanout is off. */
	r->n_scanouts = 0;
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(r->n_scanouts, 1);
	assert_int_equal(r->gpu->scanouts[0].slot, GPU_NO_SLOT);
}

static void displays(void **state)
{
	struct rig *r = *state;
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	struct virtio_gpu_cmd_get_edid edid = {{.type = VIRTIO_GPU_CMD_GET_EDID}, 1, 0};

	fill(r, &info, sizeof(info));
	assert_int_equal(gpu_control(r->gpu, &r->chain, &r->written), GPU_WAITS);
	fill(r, &edid, sizeof(edid));
	assert_int_equal(gpu_control(r->gpu, &r->chain, &r->written), GPU_WAITS);
	assert_int_equal(r->answer.bytes[0], 0xa5);
	r->gpu->modes_known = true;
	r->gpu->modes[0] = (struct gpu_mode){1024, 768, 0, 0};
	assert_int_equal(send(r, &info, sizeof(info)), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	assert_int_equal(r->written, sizeof(r->answer.info));
	assert_int_equal(r->answer.info.pmodes[0].enabled, 1);
	assert_int_equal(r->answer.info.pmodes[0].r.width, 1024);
	assert_int_equal(r->answer.info.pmodes[1].enabled, 0);
	assert_int_equal(r->answer.info.pmodes[15].r.height, 0);
	assert_int_equal(send(r, &edid, sizeof(edid)), VIRTIO_GPU_RESP_OK_EDID);
	assert_int_equal(r->written, sizeof(r->answer.edid));
	assert_int_equal(r->answer.edid.size, 128);
	assert_int_equal(r->answer.edid.edid[1023], 0);
	r->gpu->modes[1] = (struct gpu_mode){UINT32_MAX, 1, 0, 0};
	assert_int_equal(send(r, &edid, sizeof(edid)), VIRTIO_GPU_RESP_OK_EDID);
	assert_int_equal(r->answer.edid.size, 256);
	edid.scanout = 2;
	assert_int_equal(send(r, &edid, sizeof(edid)), BAD_SCANOUT);
}

static void uuids(void **state)
{
	struct rig *r = *state;
	uint8_t first[16];

	assert_int_equal(create(r, 7, BGRX, 1, 1), OK);
	assert_int_equal(create(r, 8, BGRX, 1, 1), OK);
	assert_int_equal(uuid(r, 9), BAD_RESOURCE);
	assert_int_equal(uuid(r, 7), VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	assert_int_equal(r->written, sizeof(r->answer.uuid));
	memcpy(first, r->answer.uuid.uuid, sizeof(first));
	assert_int_equal(uuid(r, 8), VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	assert_memory_not_equal(r->answer.uuid.uuid, first, sizeof(first));
	assert_int_equal(uuid(r, 7), VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	assert_memory_equal(r->answer.uuid.uuid, first, sizeof(first));
}

static uint32_t cursor(
	struct rig *r, uint32_t type, uint32_t n, uint32_t x, uint32_t y, uint32_t id, uint32_t hot)
{
	const struct virtio_gpu_update_cursor c = {{.type = type}, {n, x, y, 0}, id, hot, hot, 0};

	fill(r, &c, sizeof(c));
	gpu_cursor(r->gpu, &r->chain, &r->written);
	return r->answer.hdr.type;
}

static void cursors(void **state)
{
	const uint32_t update = VIRTIO_GPU_CMD_UPDATE_CURSOR, move = VIRTIO_GPU_CMD_MOVE_CURSOR;
	struct rig *r = *state;

	assert_int_equal(create(r, 1, VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 64, 64), OK);
	assert_int_equal(create(r, 2, BGRX, 64, 63), OK);
	assert_int_equal(cursor(r, update, 2, 0, 0, 1, 0), BAD_SCANOUT);
	assert_int_equal(cursor(r, update, 0, 0, 0, 9, 0), BAD_RESOURCE);
	assert_int_equal(cursor(r, update, 0, 0, 0, 2, 0), BAD_PARAMETER);
	assert_int_equal(cursor(r, move, 2, 0, 0, 0, 0), BAD_SCANOUT);
	assert_int_equal(cursor(r, VIRTIO_GPU_CMD_RESOURCE_UNREF, 0, 0, 0, 1, 0), UNSPEC);
	assert_int_equal(r->n_cursors, 0);
	assert_int_equal(cursor(r, update, 1, 10, 20, 1, 1000), OK);
	assert_int_equal(r->cursor.scanout, 1);
	assert_int_equal(r->cursor.hot_x, 63);
	assert_non_null(r->cursor_pixels);
	assert_int_equal(cursor(r, move, 1, 11, 21, 0, 0), OK);
	assert_int_equal(r->cursor.resource_id, 1); /* as it was */
	assert_int_equal(r->cursor.x, 11);
	assert_null(r->cursor_pixels);
	assert_int_equal(cursor(r, update, 1, 0, 0, 0, 0), OK);
	assert_int_equal(r->cursor.resource_id, 0);
	/* And no control command is one of the cursor's. */
	assert_int_equal(
		SEND(r, (struct virtio_gpu_update_cursor){{.type = update}, {0}, 1, 0, 0, 0}),
		UNSPEC);
}

static void short_and_unknown(void **state)
{
	static const struct {
		uint32_t type;
		size_t size;
	} sizes[] = {{0x100, 24}, {0x101, 40}, {0x102, 32}, {0x103, 48}, {0x104, 48}, {0x105, 56},
		{0x106, 32}, {0x107, 32}, {0x10a, 32}, {0x10b, 32}};
	struct rig *r = *state;

	for (uint32_t type = 0; type < 0x400; type++) {
		struct virtio_gpu_ctrl_hdr c[4] = {{.type = type}};
		size_t need = 0;

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			need = sizes[i].type == type ? sizes[i].size : need;
		}
		for (size_t size = 0; size <= (need ? need - 1 : 96); size++) {
			assert_int_equal(send(r, c, size), UNSPEC);
		}
	}
}

static void answers(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_resource_unref c = {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF,
						      .flags = VIRTIO_GPU_FLAG_FENCE,
						      .fence_id = 0x123456789abcdef0,
						      .ctx_id = 7},
		5, 0};

	/* The fence comes back, in an error too. */
	assert_int_equal(send(r, &c, sizeof(c)), BAD_RESOURCE);
	assert_int_equal(r->written, sizeof(struct virtio_gpu_ctrl_hdr));
	assert_int_equal(r->answer.hdr.flags, VIRTIO_GPU_FLAG_FENCE);
	assert_true(r->answer.hdr.fence_id == 0x123456789abcdef0);
	assert_int_equal(r->answer.hdr.ctx_id, 7);
	c.hdr.flags = 0;
	assert_int_equal(send(r, &c, sizeof(c)), BAD_RESOURCE);
	assert_int_equal(r->answer.hdr.flags, 0);
	assert_true(r->answer.hdr.fence_id == 0);
	/* Too little room, and none. */
	r->room = 5;
	assert_int_equal(send(r, &c, sizeof(c)) & 0xffffffff, BAD_RESOURCE);
	assert_int_equal(r->written, 5);
	r->room = 0;
	send(r, &c, sizeof(c));
	assert_int_equal(r->written, 0);
}

static void resets(void **state)
{
	struct rig *r = *state;

	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
	assert_int_equal(attach(r, 1, 2, 2, 0, 4096), OK);
	assert_int_equal(scanout(r, 0, 1, 0, 0, 64, 32), OK);
	gpu_reset(r->gpu);
	assert_int_equal(r->gpu->budget.used, 0);
	assert_int_equal(unref(r, 1), BAD_RESOURCE);
	assert_int_equal(flush(r, 1, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(create(r, 1, BGRX, 64, 32), OK);
}

/* Random commands in any order: the charge is always the sum of what there is. */
static void random_commands(void **state)
{
	struct rig *r = *state;
	uint32_t seen[6] = {0};

	srand(3);
	for (int round = 0; round < 50000; round++) {
		struct {
			struct virtio_gpu_ctrl_hdr hdr;
			uint32_t rest[20];
		} c = {.hdr.type = 0x100U + (uint32_t)rand() % 12};
		uint64_t sum = 0;

		for (size_t i = 0; i < 20; i++) {
			c.rest[i] = (uint32_t)rand() % 8;
			if (rand() % 30 == 0) {
				c.rest[i] = (uint32_t)rand() * 2654435761U;
			}
		}
		r->gpu->modes_known = true;
		uint32_t type = send(r, &c, sizeof(c.hdr) + (size_t)rand() % sizeof(c.rest));

		assert_true(
			(type >= 0x1100 && type <= 0x1105) || (type >= 0x1200 && type <= 0x1205));
		seen[type >= 0x1200 ? type - 0x1200 : 0]++;
		for (size_t i = 0; i < GPU_RESOURCES_MAX; i++) {
			const struct resource *res = &r->gpu->resources[i];

			sum += res->id ? res->size + res->n_spans * sizeof(*res->spans) : 0;
		}
		assert_int_equal(r->gpu->budget.used, sum);
	}
	assert_true(seen[BAD_SCANOUT - UNSPEC] > 100);
	assert_true(seen[BAD_RESOURCE - UNSPEC] > 100);
	assert_true(seen[BAD_PARAMETER - UNSPEC] > 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(resources),
		TEST(many_resources),
		TEST(backing),
		TEST(transfers),
		TEST(slices),
		TEST(scanouts),
		TEST(displays),
		TEST(uuids),
		TEST(cursors),
		TEST(short_and_unknown),
		TEST(answers),
		TEST(resets),
		TEST(random_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
