/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/unit/gpu-fake-3d.h"

#define COMMANDS_MAX 64
#define BYTES_MAX    (24U << 20)

static void on_resource(void *userdata, uint32_t slot, const struct resource *res)
{
	struct device *d = userdata;

	if (res->id) {
		record_resource(&d->record, slot, res);
	} else {
		record_removed(&d->record, slot);
	}
}

static int on_backed(void *userdata, uint32_t slot, const struct backing_entry *entries, uint32_t n)
{
	return record_backed(&((struct device *)userdata)->record, slot, entries, n);
}

static void on_unbacked(void *userdata, uint32_t slot)
{
	record_unbacked(&((struct device *)userdata)->record, slot);
}

static void on_context(void *userdata, uint32_t slot, uint32_t id, const char *name)
{
	record_context(&((struct device *)userdata)->record, slot, id, name);
}

static void on_resource_3d(void *userdata, uint32_t slot, uint32_t id)
{
	record_resource_3d(&((struct device *)userdata)->record, slot, id);
}

static void on_image_gone(void *userdata, uint32_t slot)
{
}

static void on_scanout(void *userdata, uint32_t scanout)
{
	struct device *d = userdata;
	const struct gpu_scanout *s = &d->gpu->scanouts[scanout];
	const struct resource *res = s->slot == GPU_NO_SLOT ? NULL : &d->gpu->resources[s->slot];

	assert(!res || (res->id && rect_within(&s->rect, res->width, res->height)));
	record_scanout(&d->record, scanout, res ? res->id : 0, s);
}

static void on_damage(void *userdata, uint32_t scanout, const struct rect *rect)
{
	struct device *d = userdata;
	const struct gpu_scanout *s = &d->gpu->scanouts[scanout];
	const struct journal_damage damage = {.scanout = scanout,
		.x = rect->x,
		.y = rect->y,
		.width = rect->width,
		.height = rect->height};

	assert(s->slot != GPU_NO_SLOT && rect->width > 0 && rect->height > 0);
	assert(rect_within(rect, s->rect.width, s->rect.height));
	_unused_ bool bell = journal_put_damage(d->journal, &damage);
}

static void on_cursor(void *userdata, const struct gpu_cursor *cursor, const uint8_t *pixels)
{
	const struct journal_cursor c = {.resource_id = cursor->resource_id,
		.x = cursor->x,
		.y = cursor->y,
		.hot_x = cursor->hot_x,
		.hot_y = cursor->hot_y};

	assert(cursor->scanout < JOURNAL_SCANOUTS);
	_unused_ bool bell = journal_put_cursor(
		((struct device *)userdata)->journal, cursor->scanout, &c, pixels);
}

static void on_pause(void *userdata)
{
}

static const struct gpu_listener listener = {
	.resource = on_resource,
	.backed = on_backed,
	.unbacked = on_unbacked,
	.context = on_context,
	.resource_3d = on_resource_3d,
	.image_gone = on_image_gone,
	.scanout = on_scanout,
	.view = on_scanout,
	.damage = on_damage,
	.cursor = on_cursor,
	.pause = on_pause,
};

static void make_gpu(struct device *d)
{
	const struct gpu_options options = {
		.memory = &d->memory,
		.listener = &listener,
		.userdata = d,
		.bytes_max = BYTES_MAX,
		.n_scanouts = JOURNAL_SCANOUTS,
		.virgl = d->draws ? &fake_3d_ops : NULL,
		.name = "fuzzed",
	};

	if (gpu_create(&options, &d->gpu) < 0) {
		abort();
	}
	for (uint32_t i = 0; i < JOURNAL_QUEUES; i++) {
		queue_init(&d->queues[i], i, &d->record);
	}
}

/* What is made once for all inputs. */
static void make(struct device *d)
{
	int fd = memfd_create("guest", MFD_CLOEXEC), journal;

	if (fd < 0 || fd_extend(fd, DEVICE_MEMORY) < 0) {
		abort();
	}
	d->guest = mmap(NULL, DEVICE_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memory_init(&d->memory);
	if (d->guest == MAP_FAILED ||
		memory_add(&d->memory, &(struct memory_region){0, 0, DEVICE_MEMORY, 0}, fd) < 0 ||
		journal_create(&journal, &d->journal) < 0) {
		abort();
	}
	close(journal);
	close(fd);
}

struct device *device_begin(bool draws)
{
	static struct device d;

	if (!d.guest) {
		make(&d);
	}
	memset(d.guest, 0, DEVICE_MEMORY);
	memset(d.journal, 0, offsetof(struct journal, done));
	memset(&d.reader, 0, sizeof(d.reader));
	record_init(&d.record, d.journal);
	memset(&fake, 0, sizeof(fake));
	d.draws = draws;
	make_gpu(&d);
	return &d;
}

void device_start(struct device *d, uint64_t features, uint64_t run)
{
	gpu_negotiated(d->gpu, UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB);
	for (uint32_t q = 0; q < JOURNAL_QUEUES; q++) {
		const struct vring_setup setup = {.size = DEVICE_RING,
			.desc = DEVICE_DESC(q),
			.avail = DEVICE_AVAIL(q),
			.used = DEVICE_USED(q),
			.event_idx = features & 1U << VRING_FEATURE_EVENT_IDX,
			.indirect = features & 1U << VRING_FEATURE_INDIRECT};
		const struct queue_fds none = {-1, -1, -1};

		queue_start(&d->queues[q], &d->memory, &setup, run + q, &none);
		d->queues[q].enabled = true;
	}
}

static void execute(struct device *d, struct queue *q, uint16_t head)
{
	static struct vring_chain chain;
	uint32_t written = 0;

	if (vring_read(&q->ring, &d->memory, head, &chain) < 0) {
		return;
	}
	if (q->index == 1) {
		gpu_cursor(d->gpu, &chain, &written);
	} else {
		switch (gpu_control(d->gpu, &chain, &written)) {
		case GPU_WAITS:
			record_wait(&d->record, q->index, head);
			return;
		case GPU_FENCED:
			queue_fence(q, head, written);
			return;
		default:
			break;
		}
	}
	assert(written <= chain.in_bytes);
	queue_give(q, head, written);
}

void device_reach_fences(struct device *d)
{
	uint32_t written;
	uint16_t head;

	gpu_fences_end(d->gpu);
	while (gpu_take_fenced(d->gpu, &head, &written)) {
		queue_give(&d->queues[0], head, written);
	}
	queue_publish(&d->queues[0]);
}

void device_run(struct device *d)
{
	for (uint32_t i = 0; i < JOURNAL_QUEUES; i++) {
		struct queue *q = &d->queues[i];
		const char *why;
		uint16_t head;
		int n = 0;

		while (n++ < COMMANDS_MAX && queue_resume(q, 0, &head)) {
			execute(d, q, head);
		}
		while (n++ < COMMANDS_MAX && queue_next(q, &head)) {
			execute(d, q, head);
		}
		gpu_settle(d->gpu);
		queue_publish(q);
		_unused_ bool more = queue_listen(q), broken = queue_take_breakage(q, &why);
	}
	d->gpu->modes_known = true;
	for (uint16_t head; queue_resume(&d->queues[0], UINT64_MAX, &head);) {
		execute(d, &d->queues[0], head);
	}
	d->gpu->modes_known = false;
	queue_publish(&d->queues[0]);
	assert(d->gpu->budget.used <= BYTES_MAX);
}

static void drop(struct device *d)
{
	for (uint32_t i = 0; i < JOURNAL_QUEUES; i++) {
		queue_finish(&d->queues[i]);
	}
	gpu_destroy(d->gpu); /* asserts that nothing is charged any more */
	assert(fake.n_resources == 0 && fake.n_contexts == 0);
}

void device_kill(struct device *d)
{
	drop(d);
	memset(&d->record, 0, sizeof(d->record));
	make_gpu(d);
	_unused_ bool sane = record_recover(&d->record, d->journal, d->gpu);
	assert(d->gpu->budget.used <= BYTES_MAX);
}

void device_show(struct device *d)
{
	struct journal_damage damage;
	int r = 1;

	for (int n = 0; n < 2 * JOURNAL_DAMAGES && r != 0; n++) {
		r = journal_take_damage(d->journal, &d->reader, &damage);
		assert(r != 1 || damage.scanout < JOURNAL_SCANOUTS);
	}
	for (uint32_t i = 0; i < JOURNAL_SCANOUTS; i++) {
		static struct journal_cursor cursor;
		bool fresh;

		_unused_ bool changed =
			journal_take_cursor(d->journal, &d->reader, i, &cursor, &fresh);
	}
	_unused_ bool awake = journal_sleep(d->journal, &d->reader);
}

void device_end(struct device *d)
{
	drop(d);
}
