/* SPDX-License-Identifier: MIT
 * Blobs in guest memory, command by command: what good and bad ones are answered, which pixels are
 * fetched when, what is charged, and that nothing is kept of a refused one.
 */
#include "tests/unit/gpu-rig-3d.h"

#define GUEST     VIRTIO_GPU_BLOB_MEM_GUEST
#define SHAREABLE VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE
#define SIDE      16u
#define ROW       (SIDE * 4)
#define BYTES     (SIDE * ROW)
#define AT        0x8000u /* in the guest */

static int setup_blob(void **state)
{
	int err = setup(state);

	gpu_negotiated(((struct rig *)*state)->gpu, UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB);
	return err;
}

/* n entries of length bytes each that lie behind each other, of which it says said. */
static uint32_t blob_as(struct rig *r, const struct virtio_gpu_resource_create_blob *like,
	uint32_t said, uint32_t n, uint64_t at, uint32_t length)
{
	struct {
		struct virtio_gpu_resource_create_blob c;
		struct virtio_gpu_mem_entry e[4];
	} m = {.c = *like};

	m.c.hdr.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB;
	m.c.nr_entries = said;
	for (uint32_t i = 0; i < n; i++) {
		m.e[i] = (struct virtio_gpu_mem_entry){at + (uint64_t)i * length, length, 0};
	}
	return send(r, &m, sizeof(m.c) + n * sizeof(m.e[0]));
}

static uint32_t blob(struct rig *r, uint32_t id, uint64_t size, uint64_t at, uint32_t length)
{
	return blob_as(r,
		&(struct virtio_gpu_resource_create_blob){.resource_id = id,
			.blob_mem = GUEST,
			.blob_flags = SHAREABLE,
			.size = size},
		1, 1, at, length);
}

static struct virtio_gpu_set_scanout_blob view_of(uint32_t scanout, uint32_t id)
{
	return (struct virtio_gpu_set_scanout_blob){.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT_BLOB,
		.r = {0, 0, SIDE, SIDE},
		.scanout_id = scanout,
		.resource_id = id,
		.width = SIDE,
		.height = SIDE,
		.format = BGRX,
		.strides = {ROW}};
}

static uint32_t show(struct rig *r, uint32_t n, uint32_t id)
{
	struct virtio_gpu_set_scanout_blob c = view_of(n, id);

	return send(r, &c, sizeof(c));
}

static const struct resource *image_of(const struct rig *r, uint32_t n)
{
	return &r->gpu->resources[r->gpu->scanouts[n].slot];
}

static void paint(struct rig *r, uint64_t at, uint32_t bytes, uint32_t seed)
{
	for (uint32_t i = 0; i < bytes; i++) {
		r->guest[at + i] = (uint8_t)((i * 2654435761u) >> 13 ^ seed);
	}
}

static void creating(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_resource_create_blob c = {
		.resource_id = 1, .blob_mem = GUEST, .blob_flags = SHAREABLE, .size = 4096};
	static const uint32_t kinds[] = {
		0, VIRTIO_GPU_BLOB_MEM_HOST3D, VIRTIO_GPU_BLOB_MEM_HOST3D_GUEST, 4, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		c.blob_mem = kinds[i];
		assert_int_equal(blob_as(r, &c, 1, 1, AT, 4096), BAD_PARAMETER);
	}
	c.blob_mem = GUEST;
	c.blob_flags = 8;
	assert_int_equal(blob_as(r, &c, 1, 1, AT, 4096), BAD_PARAMETER);
	c.blob_flags = 7;
	assert_int_equal(blob_as(r, &c, 2, 1, AT, 4096), BAD_PARAMETER); /* fewer than it says */
	assert_int_equal(blob_as(r, &c, GPU_ENTRIES_MAX + 1, 1, AT, 4096), BAD_PARAMETER);
	assert_int_equal(blob_as(r, &c, UINT32_MAX, 1, AT, 4096), BAD_PARAMETER);
	assert_int_equal(blob_as(r, &c, 0, 0, AT, 4096), BAD_PARAMETER); /* no memory at all */
	assert_int_equal(blob_as(r, &c, 1, 1, AT, 4095), BAD_PARAMETER); /* less than it has */
	assert_int_equal(blob_as(r, &c, 1, 1, MEMORY - 4095, 4096), BAD_PARAMETER);
	assert_int_equal(blob_as(r, &c, 1, 1, UINT64_MAX - 4, 4096), BAD_PARAMETER);
	assert_int_equal(blob_as(r, &c, 1, 1, AT, 0), BAD_PARAMETER);
	c.size = 0;
	assert_int_equal(blob_as(r, &c, 1, 1, AT, 4096), BAD_PARAMETER);
	c.size = UINT64_MAX;
	assert_int_equal(blob_as(r, &c, 4, 4, AT, 4096), BAD_PARAMETER);
	c.size = 4096;
	c.resource_id = 0;
	assert_int_equal(blob_as(r, &c, 1, 1, AT, 4096), BAD_RESOURCE);
	assert_int_equal(r->n_resources, 0);
	assert_int_equal(r->gpu->budget.used, 0);
	/* What the journal can't keep is not there. */
	r->refuse_backing = -12;
	assert_int_equal(blob(r, 1, 4096, AT, 4096), NO_MEMORY);
	assert_int_equal(r->gpu->budget.used, 0);
	r->refuse_backing = 0;
	assert_int_equal(r->n_resources, 2); /* made, and gone */
	/* Only what describes it is charged. */
	assert_int_equal(blob(r, 1, 4096, AT, 4096), OK);
	assert_int_equal(r->gpu->budget.used, sizeof(struct backing_span));
	assert_int_equal(blob(r, 1, 4096, AT, 4096), BAD_RESOURCE);
	assert_int_equal(create(r, 1, BGRX, 4, 4), BAD_RESOURCE);
	assert_int_equal(uuid(r, 1), VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(unref(r, 1), BAD_RESOURCE);
	assert_int_equal(r->gpu->budget.used, 0);
}

/* Nothing of it is there for a driver that did not take the feature. */
static void not_negotiated(void **state)
{
	struct rig *r = *state;

	gpu_negotiated(r->gpu, 0);
	assert_int_equal(blob(r, 1, 4096, AT, 4096), UNSPEC);
	assert_int_equal(show(r, 0, 0), UNSPEC);
}

static void showing(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_set_scanout_blob c = view_of(0, 1);
	const struct {
		struct virtio_gpu_rect r;
		uint32_t width, height, format, stride, offset;
	} bad[] = {
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, 0, ROW, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, 77, ROW, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW - 1, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, 0, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW + 1, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, UINT32_MAX, 0},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW, 1},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW, UINT32_MAX},
		{{0, 0, SIDE, SIDE}, SIDE, SIDE + 1, BGRX, ROW, 0},
		{{0, 0, SIDE, SIDE}, SIDE + 1, SIDE, BGRX, ROW + 4, 0},
		{{0, 0, SIDE, SIDE}, 0, SIDE, BGRX, ROW, 0},
		{{0, 0, SIDE, SIDE}, SIDE, 0, BGRX, ROW, 0},
		{{0, 0, 1, 1}, UINT32_MAX, 1, BGRX, UINT32_MAX, 0},
		{{0, 0, 1, 1}, 1, UINT32_MAX, BGRX, ROW, 0},
		{{0, 0, 0, SIDE}, SIDE, SIDE, BGRX, ROW, 0},
		{{0, 0, SIDE, 0}, SIDE, SIDE, BGRX, ROW, 0},
		{{1, 0, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW, 0},
		{{0, 1, SIDE, SIDE}, SIDE, SIDE, BGRX, ROW, 0},
		{{UINT32_MAX, 0, 2, 1}, SIDE, SIDE, BGRX, ROW, 0},
		{{2, 2, UINT32_MAX, UINT32_MAX}, SIDE, SIDE, BGRX, ROW, 0},
	};

	assert_int_equal(show(r, 0, 1), BAD_RESOURCE);
	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(create(r, 2, BGRX, SIDE, SIDE), OK);
	assert_int_equal(show(r, 0, 2), BAD_RESOURCE); /* no blob */
	assert_int_equal(show(r, 2, 1), BAD_SCANOUT);
	assert_int_equal(scanout(r, 0, 1, 0, 0, SIDE, SIDE), BAD_PARAMETER); /* it has no format */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		c.r = bad[i].r;
		c.width = bad[i].width;
		c.height = bad[i].height;
		c.format = bad[i].format;
		c.strides[0] = bad[i].stride;
		c.offsets[0] = bad[i].offset;
		assert_int_equal(send(r, &c, sizeof(c)), BAD_PARAMETER);
	}
	assert_int_equal(r->n_scanouts, 0);
	assert_int_equal(unref(r, 2), OK);
	assert_int_equal(r->gpu->budget.used, sizeof(struct backing_span));
	/* Shown from the first moment; its image is charged, and gone with it. */
	paint(r, AT, BYTES, 1);
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(r->n_scanouts, 1);
	assert_memory_equal(image_of(r, 0)->pixels, r->guest + AT, BYTES);
	assert_int_equal(r->gpu->budget.used, sizeof(struct backing_span) + BYTES);
	assert_int_equal(show(r, 0, 0), OK);
	assert_int_equal(r->n_images_gone, 1);
	assert_int_equal(r->gpu->budget.used, sizeof(struct backing_span));
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(show(r, 1, 1), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(r->n_images_gone, 3);
	assert_int_equal(r->gpu->scanouts[0].slot, GPU_NO_SLOT);
	assert_int_equal(r->gpu->scanouts[1].slot, GPU_NO_SLOT);
	assert_int_equal(r->gpu->budget.used, 0);
}

/* Of a flush what is shown, of what is shown what is flushed; nothing before it is. */
static void flushing(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_set_scanout_blob c = view_of(1, 1);
	const uint8_t *pixels;
	uint8_t *before = malloc(BYTES);

	assert_int_equal(flush(r, 1, 0, 0, 1, 1), BAD_RESOURCE);
	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(flush(r, 1, 0, 0, SIDE, SIDE), OK); /* seen by nobody */
	assert_int_equal(r->n_damages, 0);
	assert_int_equal(flush(r, 1, UINT32_MAX, 0, 2, 2), BAD_PARAMETER);
	paint(r, AT, BYTES, 1);
	memcpy(before, r->guest + AT, BYTES);
	/* 8x8 pixels from 4, 2 on. */
	c.r = (struct virtio_gpu_rect){4, 2, 8, 8};
	assert_int_equal(send(r, &c, sizeof(c)), OK);
	assert_int_equal(image_of(r, 1)->width, 8);
	pixels = image_of(r, 1)->pixels;
	assert_memory_equal(pixels, before + 2 * ROW + 16, 32);
	paint(r, AT, BYTES, 99);
	assert_int_equal(flush(r, 1, 0, 0, 4, SIDE), OK); /* left of it */
	assert_int_equal(r->n_damages, 0);
	assert_memory_equal(pixels, before + 2 * ROW + 16, 32);
	assert_int_equal(flush(r, 1, 10, 0, 100, 4), OK);
	assert_int_equal(r->n_damages, 1);
	assert_int_equal(r->gpu->flushed, 1 << 1); /* for who counts frames */
	assert_memory_equal(&r->damage, &((struct rect){6, 0, 2, 2}), sizeof(r->damage));
	for (uint32_t y = 0; y < 8; y++) {
		const uint8_t *row = pixels + y * 32;
		const size_t at = (y + 2) * ROW + 16;

		assert_memory_equal(row, before + at, 24);
		assert_memory_equal(
			row + 24, y < 2 ? r->guest + AT + at + 24 : before + at + 24, 8);
	}
	/* A transfer is nothing that it would need. */
	assert_int_equal(transfer(r, 1, 0, 0, 0, SIDE, SIDE), OK);
	free(before);
}

/* Between two blobs, and between two parts of one: the image stays, the next flush is of all. */
static void flipping(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_set_scanout_blob c = view_of(0, 2);
	const uint8_t *pixels;

	paint(r, AT, BYTES, 1);
	paint(r, AT + BYTES, 2 * BYTES, 2);
	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(blob(r, 2, 2 * BYTES, AT + BYTES, 2 * BYTES), OK);
	assert_int_equal(show(r, 0, 1), OK);
	pixels = image_of(r, 0)->pixels;
	assert_int_equal(show(r, 0, 2), OK);
	assert_int_equal(r->n_scanouts, 1);
	assert_int_equal(r->n_views, 1);
	assert_ptr_equal(image_of(r, 0)->pixels, pixels);
	assert_int_equal(image_of(r, 0)->id, 2);
	assert_int_equal(flush(r, 1, 0, 0, SIDE, SIDE), OK); /* not the one that is shown */
	assert_int_equal(r->n_damages, 0);
	assert_int_equal(flush(r, 2, 3, 3, 1, 1), OK);
	assert_int_equal(r->damage.width, SIDE);
	assert_int_equal(r->damage.height, SIDE);
	assert_memory_equal(pixels, r->guest + AT + BYTES, BYTES);
	c.offsets[0] = BYTES;
	assert_int_equal(send(r, &c, sizeof(c)), OK);
	assert_int_equal(flush(r, 2, 3, 3, 1, 1), OK);
	assert_memory_equal(pixels, r->guest + AT + 2 * BYTES, BYTES);
	assert_int_equal(r->n_scanouts, 1);
	/* Another size is another image. */
	c.r.height = 4;
	assert_int_equal(send(r, &c, sizeof(c)), OK);
	assert_int_equal(r->n_images_gone, 1);
	assert_int_equal(r->n_scanouts, 2);
	assert_int_equal(image_of(r, 0)->size, 4 * ROW);
	/* And an ordinary resource is one, too. */
	assert_int_equal(create(r, 3, BGRX, SIDE, SIDE), OK);
	assert_int_equal(scanout(r, 0, 3, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(r->n_images_gone, 2);
	assert_int_equal(flush(r, 3, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(r->gpu->budget.used, 2 * sizeof(struct backing_span) + BYTES);
}

/* One blob on two scanouts, read in two ways. */
static void two_views(void **state)
{
	struct rig *r = *state;
	struct virtio_gpu_set_scanout_blob c = view_of(1, 1);
	const uint8_t *from = r->guest + AT;

	paint(r, AT, BYTES, 5);
	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(show(r, 0, 1), OK);
	c.format = VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM;
	c.strides[0] = 20;
	c.offsets[0] = 6;
	c.width = c.height = 3;
	c.r = (struct virtio_gpu_rect){1, 1, 2, 2};
	assert_int_equal(send(r, &c, sizeof(c)), OK);
	assert_memory_equal(image_of(r, 0)->pixels, from, BYTES);
	for (uint32_t y = 0; y < 2; y++) {
		for (uint32_t x = 0; x < 2; x++) {
			const uint8_t *p = image_of(r, 1)->pixels + (y * 2 + x) * 4;
			const uint8_t *q = from + 6 + (y + 1) * 20 + (x + 1) * 4;

			assert_int_equal(p[0], q[2]);
			assert_int_equal(p[1], q[1]);
			assert_int_equal(p[2], q[0]);
			assert_int_equal(p[3], q[3]);
		}
	}
	assert_int_equal(flush(r, 1, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(r->n_damages, 2);
}

static void backings(void **state)
{
	struct rig *r = *state;

	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(attach(r, 1, 1, 1, AT, BYTES), UNSPEC); /* has one */
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(detach(r, 1), OK);
	assert_int_equal(detach(r, 1), UNSPEC);
	assert_int_equal(flush(r, 1, 0, 0, 1, 1), UNSPEC);
	assert_int_equal(show(r, 1, 1), UNSPEC);
	assert_int_equal(attach(r, 1, 1, 1, AT, BYTES - 1), BAD_PARAMETER); /* too small for it */
	assert_int_equal(attach(r, 1, 2, 2, AT, BYTES / 2), OK);
	assert_int_equal(flush(r, 1, 0, 0, 1, 1), OK);
	gpu_reset(r->gpu);
	assert_int_equal(r->gpu->budget.used, 0);
	assert_int_equal(r->gpu->scanouts[0].slot, GPU_NO_SLOT);
	assert_int_equal(show(r, 0, 1), BAD_RESOURCE);
}

static void budgets(void **state)
{
	struct rig *r = *state;

	assert_int_equal(blob(r, 1, MEMORY, 0, MEMORY), OK);
	r->gpu->budget.limit = r->gpu->budget.used + BYTES - 1;
	assert_int_equal(show(r, 0, 1), NO_MEMORY);
	assert_int_equal(r->n_scanouts, 0);
	r->gpu->budget.limit++;
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(show(r, 1, 1), NO_MEMORY);
	assert_int_equal(blob(r, 2, BYTES, AT, BYTES), NO_MEMORY);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(blob(r, 2, BYTES, AT, BYTES), OK);
	gpu_set_limits(r->gpu, r->gpu->budget.limit, 1, 1);
	assert_int_equal(blob(r, 3, 4096, AT, 4096), NO_MEMORY);
	assert_int_equal(unref(r, 2), OK);
	assert_int_equal(blob(r, 3, 4096, AT, 4096), OK);
}

static uint32_t cursor(struct rig *r, uint32_t id)
{
	const struct virtio_gpu_update_cursor c = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {0, 1, 2, 0}, id, 0, 0, 0};

	fill(r, &c, sizeof(c));
	gpu_cursor(r->gpu, &r->chain, &r->written);
	return r->answer.hdr.type;
}

static void cursors(void **state)
{
	const uint32_t bytes = GPU_CURSOR_SIDE * GPU_CURSOR_SIDE * 4;
	struct rig *r = *state;

	paint(r, AT, bytes, 3);
	assert_int_equal(blob(r, 1, bytes - 1, AT, bytes), OK);
	assert_int_equal(cursor(r, 1), BAD_PARAMETER);
	assert_int_equal(blob(r, 2, bytes, AT, bytes), OK);
	assert_int_equal(cursor(r, 2), OK);
	assert_memory_equal(r->cursor_pixels, r->guest + AT, bytes);
	assert_int_equal(detach(r, 2), OK);
	assert_int_equal(cursor(r, 2), BAD_PARAMETER);
}

/* A context may have one, and draws in none. */
static void contexts(void **state)
{
	struct rig *r = *state;

	gpu_negotiated(r->gpu, UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB);
	assert_int_equal(blob(r, 1, BYTES, AT, BYTES), OK);
	assert_int_equal(context(r, 7), OK);
	assert_int_equal(join(r, 7, 1), OK);
	assert_int_equal(
		transfer_3d(r, VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D, 7, 1, 0, 1), BAD_RESOURCE);
	assert_int_equal(create_3d(r, 1, TARGET_2D, BGRA, SIDE, SIDE), BAD_RESOURCE);
	assert_int_equal(create_3d(r, 2, TARGET_2D, BGRA, SIDE, SIDE), OK);
	assert_int_equal(blob(r, 2, BYTES, AT, BYTES), BAD_RESOURCE);
	assert_int_equal(show(r, 0, 2), BAD_RESOURCE); /* no blob */
	/* From one kind to the other and back. */
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(scanout(r, 0, 2, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(r->n_images_gone, 1);
	assert_int_equal(show(r, 0, 1), OK);
	assert_int_equal(flush(r, 1, 0, 0, SIDE, SIDE), OK);
	assert_int_equal(part(r, 7, 1), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(unref(r, 2), OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_blob, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(creating),
		TEST(not_negotiated),
		TEST(showing),
		TEST(flushing),
		TEST(flipping),
		TEST(two_views),
		TEST(backings),
		TEST(budgets),
		TEST(cursors),
		cmocka_unit_test_setup_teardown(contexts, setup_3d, teardown_3d),
	};

	return cmocka_run_group_tests_name("gpu-blob", tests, NULL, NULL);
}
