/* SPDX-License-Identifier: MIT
 *
 * vtest's requests and what a guest's kernel makes of them: a resource has all of its memory
 * behind it, data goes through that, and a wait is for the last fence.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/gpu/sim-3d.h"

enum {
	VTEST_CREATE = 2,
	VTEST_UNREF = 3,
	VTEST_GET = 4,
	VTEST_PUT = 5,
	VTEST_SUBMIT = 6,
	VTEST_WAIT = 7,
	VTEST_RENDERER = 8,
};

#define FILE_MAX (64U << 20)
/* Of the memory: for what is on its way. */
#define ON_ITS_WAY (4U << 20)

/* The bytes of a request behind its header. */
static size_t body_size(const uint32_t *header, const uint8_t *body, size_t left)
{
	uint32_t w[11];

	if (header[1] == VTEST_RENDERER) {
		return header[0];
	}
	if (header[1] == VTEST_PUT && left >= sizeof(w)) {
		memcpy(w, body, sizeof(w));
		return sizeof(w) + w[10];
	}
	return (size_t)header[0] * 4;
}

/* The request at *at, whose body lies at *body_out and may not be aligned; false: there is no whole
 * one any more. */
static bool next(const struct sim_play *p, size_t *at, uint32_t header[2], const uint8_t **body_out,
	size_t *size_out)
{
	size_t left = p->size - *at;

	if (left < 8) {
		return false;
	}
	memcpy(header, p->bytes + *at, 8);
	*body_out = p->bytes + *at + 8;
	*size_out = body_size(header, *body_out, left - 8);
	if (*size_out > left - 8) {
		return false;
	}
	*at += 8 + *size_out;
	return true;
}

/* How many read-backs there are, and the longest body. */
static void survey(struct sim_play *p)
{
	const uint8_t *body;
	uint32_t header[2];
	size_t at = 0, size;

	while (next(p, &at, header, &body, &size)) {
		p->gets += header[1] == VTEST_GET;
		p->longest = MAX(p->longest, size);
	}
}

int sim_play_load(struct sim_play *p, const char *path)
{
	FILE *f = fopen(path, "re");

	*p = (struct sim_play){.context = 1};
	if (!f) {
		return -errno;
	}
	p->bytes = malloc(FILE_MAX);
	if (p->bytes) {
		p->size = fread(p->bytes, 1, FILE_MAX, f);
	}
	fclose(f);
	if (!p->bytes) {
		return -ENOMEM;
	}
	survey(p);
	p->words = malloc(p->longest + 4);
	return p->words ? 0 : -ENOMEM;
}

void sim_play_finish(struct sim_play *p)
{
	free(p->bytes);
	free(p->words);
	p->bytes = NULL;
	p->words = NULL;
}

_printf_(2, 3) static bool fail(struct sim_play *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->wrong, sizeof(p->wrong), format, args);
	va_end(args);
	return false;
}

/* Takes what came back until this fence is reached, and all before it. */
static bool collect_to(struct sim_play *p, struct sim *s, uint64_t fence)
{
	while (p->out > 0 && p->last_fence < fence) {
		const struct virtio_gpu_ctrl_hdr *answer;
		uint32_t written;
		int head = sim_take(s, SIM_CONTROL, 10000, &written);

		if (head < 0) {
			return fail(p, "command %u: nothing came back", p->commands);
		}
		p->out--;
		answer = sim_answer(s, SIM_CONTROL, head);
		if (answer->type != VIRTIO_GPU_RESP_OK_NODATA) {
			return fail(p, "command %u or before: 0x%x", p->commands, answer->type);
		}
		if (answer->fence_id && answer->fence_id <= p->last_fence) {
			return fail(p, "fence %llu after %llu",
				(unsigned long long)answer->fence_id,
				(unsigned long long)p->last_fence);
		}
		p->last_fence = MAX(p->last_fence, (uint64_t)answer->fence_id);
	}
	return true;
}

/* All that is out. */
static bool collect(struct sim_play *p, struct sim *s)
{
	return collect_to(p, s, UINT64_MAX);
}

/* It is offered; whether to wait for it depends. */
static bool offered(struct sim_play *p, struct sim *s, bool wait)
{
	p->out++;
	p->commands++;
	if (!p->fenced || wait || s->rings[SIM_CONTROL].n_free < 8) {
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		return collect(p, s);
	}
	sim_ring_kick(&s->rings[SIM_CONTROL]);
	return true;
}

static bool send(struct sim_play *p, struct sim *s, void *command, size_t size, bool wait)
{
	struct virtio_gpu_ctrl_hdr *hdr = command;

	if (p->fenced) {
		hdr->flags = VIRTIO_GPU_FLAG_FENCE;
		hdr->fence_id = ++s->fence;
	}
	if (sim_offer(s, SIM_CONTROL, command, size, sizeof(*hdr)) < 0) {
		return fail(p, "no room in the ring");
	}
	return offered(p, s, wait);
}

/* Room for what is on its way; NULL: there is none at all. */
static void *take_room(struct sim_play *p, struct sim *s, uint64_t size, uint64_t *at_out)
{
	if (p->ring_end - p->ring_at < size) {
		if (size > p->ring_end - p->ring || !collect(p, s)) {
			return NULL;
		}
		p->ring_at = p->ring;
	}
	*at_out = p->ring_at;
	p->ring_at += (size + 15) & ~15ULL;
	return sim_memory_at(&s->vmm.memory, *at_out);
}

/* Memory of a resource that is gone, or new one; at is 0 if there is none. */
static struct sim_play_block take_memory(struct sim_play *p, uint64_t size)
{
	struct sim_play_block b = {p->next, (size + 4095) & ~4095ULL};

	for (size_t i = 0; i < SIM_PLAY_FREE; i++) {
		if (p->unused[i].size == b.size) {
			b.at = p->unused[i].at;
			p->unused[i].size = 0;
			return b;
		}
	}
	if (b.size > p->to - p->next) {
		return (struct sim_play_block){0};
	}
	p->next += b.size;
	return b;
}

static void give_memory(struct sim_play *p, struct sim_play_block *b)
{
	for (size_t i = 0; i < SIM_PLAY_FREE; i++) {
		if (p->unused[i].size == 0) {
			p->unused[i] = *b;
			break;
		}
	}
	*b = (struct sim_play_block){0};
}

static bool create(struct sim_play *p, struct sim *s, const uint32_t *w)
{
	uint64_t bytes = (uint64_t)w[4] * w[5] * w[6] * MAX(w[7], 1U) * (w[1] == 0 ? 1 : 16);
	struct sim_play_block memory =
		w[0] < SIM_PLAY_RESOURCES ? take_memory(p, bytes) : (struct sim_play_block){0};
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry entry;
	} attach = {{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, w[0], 1},
		{memory.at, (uint32_t)bytes, 0}};
	struct virtio_gpu_resource_create_3d c = {{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D}, w[0],
		w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], 0, 0};
	struct virtio_gpu_ctx_resource join = {
		{.type = VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, .ctx_id = p->context}, w[0], 0};

	if (memory.size == 0) {
		return fail(p, "no memory for resource %u", w[0]);
	}
	p->backing[w[0]] = memory;
	p->busy[w[0]] = s->fence;
	return send(p, s, &c, sizeof(c), false) && send(p, s, &attach, sizeof(attach), false) &&
	       send(p, s, &join, sizeof(join), false);
}

static bool unref(struct sim_play *p, struct sim *s, uint32_t id)
{
	struct virtio_gpu_resource_unref c = {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0};

	if (id >= SIM_PLAY_RESOURCES || p->backing[id].size == 0) {
		return fail(p, "no resource %u", id);
	}
	give_memory(p, &p->backing[id]);
	return send(p, s, &c, sizeof(c), false);
}

static uint32_t fnv1a(const uint8_t *p, size_t n)
{
	uint32_t h = 2166136261;

	for (size_t i = 0; i < n; i++) {
		h = (h ^ p[i]) * 16777619;
	}
	return h;
}

/* w: id, level, stride, layer stride, box, bytes; its data follow if they go to the host. */
static bool transfer(struct sim_play *p, struct sim *s, const uint32_t *w, bool to_host)
{
	struct virtio_gpu_transfer_host_3d c = {
		{.type = to_host ? VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D
				 : VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D,
			.ctx_id = p->context},
		{w[4], w[5], w[6], w[7], w[8], w[9]}, 0, w[0], w[1], w[2], w[3]};
	uint8_t *memory;

	if (w[0] >= SIM_PLAY_RESOURCES || p->backing[w[0]].size == 0) {
		return fail(p, "no resource %u", w[0]);
	}
	memory = sim_memory_at(&s->vmm.memory, p->backing[w[0]].at);
	if (to_host) {
		/* What was put there before may not have been read yet. */
		if (!collect_to(p, s, p->fenced ? p->busy[w[0]] : UINT64_MAX)) {
			return false;
		}
		memcpy(memory, w + 11, w[10]);
		if (!send(p, s, &c, sizeof(c), false)) {
			return false;
		}
		p->busy[w[0]] = s->fence;
		return true;
	}
	if (!send(p, s, &c, sizeof(c), true)) {
		return false;
	}
	/* To hash each would take as long as to draw it. */
	if (++p->read_backs == p->gets) {
		p->hash = fnv1a(memory, w[10]);
	}
	return true;
}

static bool submit(struct sim_play *p, struct sim *s, const uint32_t *words, uint32_t n)
{
	uint64_t at;
	void *room = take_room(p, s, (uint64_t)n * 4, &at);

	if (!room) {
		return fail(p, "no room for %u dwords", n);
	}
	if (sim_offer_submit(s, p->context, words, n, at, p->fenced ? ++s->fence : 0) < 0) {
		return fail(p, "no room in the ring");
	}
	return offered(p, s, false);
}

static bool make_context(struct sim_play *p, struct sim *s)
{
	struct virtio_gpu_ctx_create c = {
		{.type = VIRTIO_GPU_CMD_CTX_CREATE, .ctx_id = p->context}, 4, 0, "play"};

	return send(p, s, &c, sizeof(c), false);
}

static bool play(struct sim_play *p, struct sim *s, uint32_t request, const uint32_t *w, uint32_t n)
{
	switch (request) {
	case VTEST_RENDERER:
		return make_context(p, s);
	case VTEST_CREATE:
		return create(p, s, w);
	case VTEST_UNREF:
		return unref(p, s, w[0]);
	case VTEST_GET:
	case VTEST_PUT:
		return transfer(p, s, w, request == VTEST_PUT);
	case VTEST_SUBMIT:
		return submit(p, s, w, n);
	default:
		/* Waits are implied by what is read. */
		return true;
	}
}

bool sim_play(struct sim_play *p, struct sim *s)
{
	const uint8_t *body;
	uint32_t header[2];
	size_t at = 0, size;
	bool good = true;

	memset(p->backing, 0, sizeof(p->backing));
	memset(p->unused, 0, sizeof(p->unused));
	p->out = p->commands = p->read_backs = p->hash = 0;
	p->last_fence = 0;
	p->next = p->from;
	p->ring_end = p->to;
	p->to -= ON_ITS_WAY;
	p->ring = p->ring_at = p->to;
	while (good && next(p, &at, header, &body, &size)) {
		memcpy(p->words, body, size);
		good = play(p, s, header[1], p->words, (uint32_t)(size / 4));
	}
	if (good && p->size - at > 0) {
		good = fail(p, "the recording ends in the middle");
	}
	p->to += ON_ITS_WAY;
	return good && collect(p, s);
}

bool sim_play_end(struct sim_play *p, struct sim *s)
{
	bool good = true;

	for (uint32_t id = 0; good && id < SIM_PLAY_RESOURCES; id++) {
		good = p->backing[id].size == 0 || unref(p, s, id);
	}
	return good && collect(p, s) && sim_context_end(s, p->context) == VIRTIO_GPU_RESP_OK_NODATA;
}
