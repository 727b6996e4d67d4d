/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define CONTROL_SIZE 256
#define CURSOR_SIZE  16
#define ANSWER_ROOM  (SIM_SLOT - SIM_ANSWER_AT)
#define ANSWER_MS    5000

int sim_connect(struct sim *s, const struct sim_options *o)
{
	int r;

	*s = (struct sim){.screen_reads = true, .vmm.memory.fd = -1};
	sim_screen_init(&s->screen, o->width, o->height);
	r = o->socket ? sim_backend_connect(o->socket, &s->backend)
		      : sim_backend_start(o->argv, o->cpu, o->quiet, &s->backend);
	if (r < 0) {
		return r;
	}
	r = sim_vmm_init(&s->vmm, s->backend.vhost, o->memory);
	for (uint32_t q = 0; r == 0 && q < SIM_QUEUES; q++) {
		r = sim_ring_init(&s->rings[q], &s->vmm.memory, (q + 1) * SIM_RING_AREA,
			q == SIM_CONTROL ? CONTROL_SIZE : CURSOR_SIZE);
	}
	if (r < 0) {
		sim_stop(s);
	}
	return r;
}

static int set_socket(struct sim *s)
{
	_cleanup_close_ int fd = sim_screen_connect(&s->screen);

	return fd < 0 ? fd : sim_vmm_send(&s->vmm, VHOST_USER_GPU_SET_SOCKET, 0, NULL, 0, &fd, 1);
}

int sim_driver_ok(struct sim *s, uint64_t features)
{
	struct virtio_gpu_config config;
	int r = sim_vmm_config(&s->vmm, &config);

	if (r == 0) {
		r = set_socket(s);
	}
	if (r == 0) {
		r = sim_vmm_features(&s->vmm, features);
	}
	if (r == 0) {
		r = sim_vmm_memory(&s->vmm);
	}
	for (uint32_t q = 0; r == 0 && q < SIM_QUEUES; q++) {
		sim_ring_reset(&s->rings[q]);
		s->rings[q].event_idx = s->vmm.acked & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
		r = sim_vmm_ring_start(&s->vmm, q, &s->rings[q].vmm);
	}
	return r > 0 ? -EPROTO : r;
}

int sim_start(struct sim *s, const struct sim_options *o)
{
	int r = sim_connect(s, o);

	if (r == 0) {
		r = sim_driver_ok(s, o->features ? o->features : SIM_FEATURES);
		if (r < 0) {
			sim_stop(s);
		}
	}
	return r;
}

void sim_stop(struct sim *s)
{
	sim_backend_stop(&s->backend);
	sim_screen_finish(&s->screen);
	for (uint32_t q = 0; q < SIM_QUEUES; q++) {
		if (s->rings[q].desc) {
			sim_ring_finish(&s->rings[q]);
		}
	}
	sim_vmm_finish(&s->vmm);
}

int sim_reboot(struct sim *s)
{
	uint32_t base;
	int r = 0;

	for (uint32_t q = 0; r == 0 && q < SIM_QUEUES; q++) {
		r = sim_vmm_ring_stop(&s->vmm, q, &base);
	}
	return r == 0 ? sim_driver_ok(s, s->vmm.acked) : r;
}

bool sim_wait(struct sim *s, int ms)
{
	struct pollfd p[] = {
		{.fd = s->rings[SIM_CONTROL].vmm.call, .events = POLLIN},
		{.fd = s->rings[SIM_CURSOR].vmm.call, .events = POLLIN},
		{.fd = s->screen_reads ? s->screen.fd : -1, .events = POLLIN},
		{.fd = s->vmm.fd, .events = POLLIN},
	};

	if (s->dead || poll(p, 4, ms) <= 0) {
		return false;
	}
	for (uint32_t q = 0; q < SIM_QUEUES; q++) {
		uint64_t count;

		if (p[q].revents & POLLIN && read(p[q].fd, &count, sizeof(count)) > 0) {
			s->rings[q].n_calls += count;
		}
	}
	if (p[2].revents && !sim_screen_read(&s->screen)) {
		s->screen.fd = safe_close(s->screen.fd);
	}
	/* Nothing was asked: only its end can be there. */
	s->dead = p[3].revents != 0;
	return !s->dead;
}

static uint64_t slot(uint32_t queue, int head)
{
	return SIM_SLOTS + ((uint64_t)queue * SIM_RING_MAX + (uint64_t)head) * SIM_SLOT;
}

int sim_offer(struct sim *s, uint32_t queue, const void *command, size_t size, size_t room)
{
	struct sim_ring *r = &s->rings[queue];
	uint64_t at = slot(queue, r->free_head);
	const struct sim_segment segments[2] = {
		{at, (uint32_t)size, false}, {at + SIM_ANSWER_AT, (uint32_t)room, true}};
	uint8_t *memory = sim_memory_at(&s->vmm.memory, at);

	if (r->n_free < 2 || size > SIM_ANSWER_AT) {
		return -1;
	}
	memcpy(memory, command, size);
	memset(memory + SIM_ANSWER_AT, 0xee, sizeof(struct virtio_gpu_ctrl_hdr));
	return sim_ring_offer(r, segments, room > 0 ? 2 : 1);
}

int sim_take(struct sim *s, uint32_t queue, int ms, uint32_t *written_out)
{
	int64_t end = now_ms() + ms, left;

	for (;;) {
		int head = sim_ring_take(&s->rings[queue], written_out);

		if (head != -1) {
			return head;
		}
		sim_ring_arm(&s->rings[queue]);
		head = sim_ring_take(&s->rings[queue], written_out);
		if (head != -1) {
			return head;
		}
		left = end - now_ms();
		if (s->dead || (ms >= 0 && left <= 0)) {
			return -1;
		}
		sim_wait(s, ms < 0 ? -1 : (int)left);
	}
}

const void *sim_answer(const struct sim *s, uint32_t queue, int head)
{
	return sim_memory_at(&s->vmm.memory, slot(queue, head) + SIM_ANSWER_AT);
}

uint32_t sim_command(struct sim *s, const void *command, size_t size)
{
	const struct virtio_gpu_ctrl_hdr *answer;
	struct virtio_gpu_ctrl_hdr *hdr;
	uint32_t written;
	int head = sim_offer(s, SIM_CONTROL, command, size, ANSWER_ROOM);
	bool fenced;

	if (head < 0) {
		return 0;
	}
	hdr = sim_memory_at(&s->vmm.memory, slot(SIM_CONTROL, head));
	fenced = size >= sizeof(*hdr) && hdr->flags & VIRTIO_GPU_FLAG_FENCE;
	if (fenced) {
		hdr->fence_id = ++s->fence;
	}
	sim_ring_kick(&s->rings[SIM_CONTROL]);
	if (sim_take(s, SIM_CONTROL, ANSWER_MS, &written) != head || written < sizeof(*answer)) {
		return 0;
	}
	answer = sim_answer(s, SIM_CONTROL, head);
	if (fenced && (!(answer->flags & VIRTIO_GPU_FLAG_FENCE) || answer->fence_id != s->fence)) {
		return 0;
	}
	return answer->type;
}

uint32_t sim_create(struct sim *s, uint32_t id, uint32_t format, uint32_t width, uint32_t height)
{
	const struct virtio_gpu_resource_create_2d c = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, format, width, height};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_unref(struct sim *s, uint32_t id)
{
	const struct virtio_gpu_resource_unref c = {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_attach(
	struct sim *s, uint32_t id, const struct virtio_gpu_mem_entry *entries, uint32_t n)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry entries[64];
	} m = {.c = {{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, n}};

	if (n > 64) {
		return 0;
	}
	memcpy(m.entries, entries, n * sizeof(*entries));
	return sim_command(s, &m, sizeof(m.c) + n * sizeof(*entries));
}

uint32_t sim_set_scanout(
	struct sim *s, uint32_t scanout, uint32_t id, uint32_t width, uint32_t height)
{
	const struct virtio_gpu_set_scanout c = {
		{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, {0, 0, width, height}, scanout, id};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_transfer(
	struct sim *s, uint32_t id, const struct virtio_gpu_rect *rect, uint64_t offset)
{
	const struct virtio_gpu_transfer_to_host_2d c = {
		{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, *rect, offset, id, 0};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_flush(struct sim *s, uint32_t id, const struct virtio_gpu_rect *rect)
{
	const struct virtio_gpu_resource_flush c = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, *rect, id, 0};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_blob(struct sim *s, uint32_t id, uint64_t size,
	const struct virtio_gpu_mem_entry *entries, uint32_t n)
{
	struct {
		struct virtio_gpu_resource_create_blob c;
		struct virtio_gpu_mem_entry entries[64];
	} m = {.c = {{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB}, id, VIRTIO_GPU_BLOB_MEM_GUEST,
		       VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE, n, 0, size}};

	if (n > 64) {
		return 0;
	}
	memcpy(m.entries, entries, n * sizeof(*entries));
	return sim_command(s, &m, sizeof(m.c) + n * sizeof(*entries));
}

uint32_t sim_show_blob(
	struct sim *s, uint32_t scanout, uint32_t id, uint32_t width, uint32_t height)
{
	const struct virtio_gpu_set_scanout_blob c = {.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT_BLOB,
		.r = {0, 0, width, height},
		.scanout_id = scanout,
		.resource_id = id,
		.width = width,
		.height = height,
		.format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
		.strides = {width * 4}};

	return sim_command(s, &c, sizeof(c));
}

uint32_t sim_show(struct sim *s, uint32_t id, uint32_t scanout, uint32_t width, uint32_t height,
	uint64_t backing)
{
	const struct virtio_gpu_mem_entry entry = {backing, width * height * 4, 0};
	uint32_t r = sim_create(s, id, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, width, height);

	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_attach(s, id, &entry, 1);
	}
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_set_scanout(s, scanout, id, width, height);
	}
	return r == VIRTIO_GPU_RESP_OK_NODATA ? 0 : r;
}
