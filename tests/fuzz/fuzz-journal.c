/* SPDX-License-Identifier: MIT
 * What a renderer that was taken over leaves in the journal, for the front and for the next
 * renderer: the journal of one that worked, with changes. A change is 4 bytes of where and 8 of
 * what.
 */
#include <linux/virtio_gpu.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/device.h"
#include "tests/fuzz/fuzz.h"

#define IDS          3
#define BLOB         (2 * IDS + 1)
#define SIDE         64 /* as a cursor has */
#define ENTRIES_SEEN 64
#define CHANGES_MAX  64

/* virtio 1.2, 2.7.5; the kernel's header for it has a struct vring of its own. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

/* A command with an answer in the place of its own number. */
static void offer(struct device *d, uint32_t queue, const void *command, size_t size)
{
	uint16_t *avail = (uint16_t *)(void *)(d->guest + DEVICE_AVAIL(queue));
	struct desc *desc = (struct desc *)(void *)(d->guest + DEVICE_DESC(queue));
	uint16_t n = avail[1], at = (uint16_t)(n % (DEVICE_RING / 2) * 2);
	uint64_t place = DEVICE_COMMANDS + queue * 0x2000 + at * 0x100U;

	memcpy(d->guest + place, command, size);
	desc[at] = (struct desc){place, (uint32_t)size, DESC_NEXT, (uint16_t)(at + 1)};
	desc[at + 1] = (struct desc){place + 0x100, 64, DESC_WRITE, 0};
	avail[2 + n % DEVICE_RING] = at;
	avail[1]++;
}

/* A blob, shown on a scanout of its own. */
static void work_blob(struct device *d)
{
	const struct {
		struct virtio_gpu_resource_create_blob c;
		struct virtio_gpu_mem_entry e;
	} create = {{{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB}, BLOB, VIRTIO_GPU_BLOB_MEM_GUEST,
			    0, 1, 0, SIDE * SIDE * 4},
		{0x8000, SIDE * SIDE * 4, 0}};
	const struct virtio_gpu_set_scanout_blob show = {
		.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT_BLOB,
		.r = {1, 1, SIDE - 1, SIDE - 1},
		.scanout_id = IDS + 1,
		.resource_id = BLOB,
		.width = SIDE,
		.height = SIDE,
		.format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
		.strides = {SIDE * 4}};
	const struct virtio_gpu_resource_flush flush = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {0, 0, SIDE, SIDE}, BLOB, 0};

	offer(d, 0, &create, sizeof(create));
	offer(d, 0, &show, sizeof(show));
	offer(d, 0, &flush, sizeof(flush));
	device_run(d);
}

/* Contexts and 3D resources, one of them shown, and a request that waits for a fence. */
static void work_3d(struct device *d)
{
	for (uint32_t id = 1; id <= IDS; id++) {
		const struct virtio_gpu_ctx_create context = {
			{.type = VIRTIO_GPU_CMD_CTX_CREATE, .ctx_id = id}, 0, 0, ""};
		const struct virtio_gpu_resource_create_3d create = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D}, id + IDS, 2,
			VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, 10, SIDE, SIDE, 1, 1, 0, 0, 0, 0};
		const struct virtio_gpu_cmd_submit submit = {{.type = VIRTIO_GPU_CMD_SUBMIT_3D,
								     .flags = VIRTIO_GPU_FLAG_FENCE,
								     .fence_id = id,
								     .ctx_id = id},
			0, 0};

		offer(d, 0, &context, sizeof(context));
		offer(d, 0, &create, sizeof(create));
		offer(d, 0, &submit, sizeof(submit));
		device_run(d);
	}
}

/* Resources with backing, some of them shown, a cursor, and requests that wait. */
static void work(struct device *d)
{
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	struct virtio_gpu_update_cursor cursor = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {0, 5, 6, 0}, 1, 1, 1, 0};

	for (uint32_t id = 1; id <= IDS; id++) {
		const struct virtio_gpu_resource_create_2d create = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id,
			VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, SIDE, SIDE};
		const struct {
			struct virtio_gpu_resource_attach_backing c;
			struct virtio_gpu_mem_entry e[2];
		} attach = {{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 2},
			{{0x8000, SIDE * SIDE * 2, 0}, {0xa000, SIDE * SIDE * 2, 0}}};
		const struct virtio_gpu_set_scanout scanout = {
			{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, {0, 0, SIDE, SIDE}, id, id};
		const struct virtio_gpu_resource_flush flush = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {0, 0, SIDE, SIDE}, id, 0};

		offer(d, 0, &create, sizeof(create));
		offer(d, 0, &attach, sizeof(attach));
		offer(d, 0, &scanout, sizeof(scanout));
		offer(d, 0, &flush, sizeof(flush));
		device_run(d);
	}
	work_blob(d);
	if (d->draws) {
		work_3d(d);
	}
	offer(d, 1, &cursor, sizeof(cursor));
	device_run(d);
	offer(d, 0, &info, sizeof(info));
	offer(d, 0, &info, sizeof(info));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Its tables of 3D take their time: in some only. */
	bool draws = size > 4 && data[4] % 4 == 0;
	struct device *d = device_begin(draws);
	uint8_t *journal = (uint8_t *)d->journal;
	const uint32_t seen =
		offsetof(struct journal, entries) + ENTRIES_SEEN * sizeof(struct journal_entry);

	device_start(d, 0, 1);
	work(d);
	for (size_t n = 0; n < CHANGES_MAX && size >= 12; n++, data += 12, size -= 12) {
		uint32_t at;

		memcpy(&at, data, sizeof(at));
		memcpy(journal + at % (seen - 8), data + 4, 8);
	}
	device_show(d);
	device_kill(d);
	device_start(d, 0, 1);
	device_run(d);
	device_show(d);
	/* And once more, from what this one made of it. */
	device_kill(d);
	device_start(d, 0, 1);
	device_run(d);
	device_end(d);
	return 0;
}
