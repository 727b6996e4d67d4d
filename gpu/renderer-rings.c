/* SPDX-License-Identifier: MIT
 *
 * The cursor's ring is looked at before each command of the control ring, and between the slices of
 * a large copy, so that a pointer moves while frames are copied. Requests are shown to the guest
 * when its ring is empty or when much was copied since; after a bounded amount of work the link
 * gets its turn.
 */
#include <poll.h>

#include "base/clock.h"
#include "base/log.h"
#include "gpu/renderer-internal.h"

#define TURN_COMMANDS 256
#define TURN_BYTES    (16 << 20)
/* As long as this takes to copy, a guest is not kept waiting for what is done. */
#define BATCH_BYTES (256 << 10)
/* How long a ring that is stopped waits for what it has in the renderer: shorter than a front takes
 * a renderer for one that hangs. */
#define DRAIN_MS 500

static void count(struct renderer *r, uint32_t queue)
{
	if (queue == QUEUE_CURSOR) {
		r->counters.cursor_commands++;
	} else {
		r->counters.commands++;
	}
}

/* Executes the request of a head that stands in the journal. */
static void execute(struct renderer *r, struct queue *q, uint16_t head)
{
	struct vring_chain *chain = &r->chains[q->index];
	enum gpu_outcome outcome;
	uint32_t written = 0;

	if (vring_read(&q->ring, renderer_memory(r), head, chain) < 0) {
		return;
	}
	r->heads[q->index] = head;
	count(r, q->index);
	if (q->index == QUEUE_CURSOR) {
		gpu_cursor(r->gpu, chain, &written);
		queue_give(q, head, written);
		return;
	}
	outcome = gpu_control(r->gpu, chain, &written);
	renderer_count_frame(r);
	switch (outcome) {
	case GPU_WAITS:
		record_wait(&r->record, q->index, head);
		r->modes_waited = true;
		return;
	case GPU_FENCED:
		queue_fence(q, head, written);
		return;
	default:
		queue_give(q, head, written);
	}
}

void renderer_fence(void *userdata, uint32_t fence)
{
	struct renderer *r = userdata;

	if (r->gpu) {
		gpu_fence_reached(r->gpu, fence);
	}
}

void renderer_context_fence(void *userdata, uint32_t context, uint32_t ring, uint64_t fence)
{
	struct renderer *r = userdata;

	if (r->gpu) {
		gpu_context_fence_reached(r->gpu, context, ring, fence);
	}
}

static void give_fenced(struct renderer *r)
{
	uint32_t written, n = 0;
	uint16_t head;

	while (gpu_take_fenced(r->gpu, &head, &written)) {
		queue_give(&r->queues[QUEUE_CONTROL], head, written);
		n++;
	}
	spend_reached(&r->spend, n);
}

void renderer_take_fences(struct renderer *r)
{
	r->virgl->poll();
	if (r->gpu) {
		give_fenced(r);
		gpu_account_fences(r->gpu);
	}
}

void renderer_drain_fences(struct renderer *r)
{
	int64_t end = now_ms() + DRAIN_MS, left = DRAIN_MS;

	while (gpu_fences_out(r->gpu) > 0 && left > 0) {
		struct pollfd p = {.fd = r->virgl->poll_fd(), .events = POLLIN};

		_unused_ int n = poll(&p, 1, p.fd < 0 ? 1 : (int)left);
		r->virgl->poll();
		give_fenced(r);
		left = end - now_ms();
	}
	gpu_fences_end(r->gpu);
	give_fenced(r);
	gpu_account_fences(r->gpu);
}

static void tell_breakage(struct renderer *r, struct queue *q)
{
	const char *why;

	if (queue_take_breakage(q, &why)) {
		/* The front says it aloud. */
		log_debug("vm %s: queue %u is broken: %s", r->options->name, q->index, why);
		r->out.broken[q->index] = why;
	}
}

static void look_after_memory(struct renderer *r)
{
	uint64_t guest;

	if (!memory_take_loss(renderer_memory(r), &guest)) {
		return;
	}
	log_warn("vm %s: its memory at 0x%llx is gone: the VMM truncated the file",
		r->options->name, (unsigned long long)guest);
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		if (r->queues[i].started) {
			_unused_ int err =
				vring_break(&r->queues[i].ring, "guest memory was truncated");
		}
	}
}

static void run_cursor(struct renderer *r)
{
	struct queue *q = &r->queues[QUEUE_CURSOR];
	uint16_t head;

	for (int i = 0; i < TURN_COMMANDS && queue_next(q, &head); i++) {
		execute(r, q, head);
	}
	queue_publish(q);
	renderer_ring_bell(r);
}

void renderer_pause(struct renderer *r)
{
	uint64_t order = r->record.order;
	uint16_t next;

	journal_beat(r->journal);
	if (!r->queues[QUEUE_CURSOR].enabled ||
		vring_peek(&r->queues[QUEUE_CURSOR].ring, &next) <= 0) {
		return;
	}
	record_pause(&r->record, QUEUE_CONTROL, r->heads[QUEUE_CONTROL]);
	run_cursor(r);
	record_resume(&r->record, order);
}

/* What was flushed is read back before the guest can draw into it again, and the front knows of a
 * scanout before
 * the guest knows that it has been set. */
static void show_control(struct renderer *r)
{
	gpu_settle(r->gpu);
	if (r->out.scanouts) {
		renderer_send(r);
	}
	queue_publish(&r->queues[QUEUE_CONTROL]);
	renderer_ring_bell(r);
}

static void run_control(struct renderer *r)
{
	struct queue *q = &r->queues[QUEUE_CONTROL];
	uint64_t start = r->gpu->copied, shown = start;
	uint16_t head;

	for (int i = 0; i < TURN_COMMANDS && r->gpu->copied - start < TURN_BYTES; i++) {
		run_cursor(r);
		if (!renderer_may_take(r) || !queue_next(q, &head)) {
			break;
		}
		/* A turn of commands that each take long is longer than the front waits. */
		journal_beat(r->journal);
		execute(r, q, head);
		if (r->gpu->copied - shown >= BATCH_BYTES) {
			shown = r->gpu->copied;
			show_control(r);
		}
	}
	show_control(r);
}

void renderer_ask_modes(struct renderer *r)
{
	if (r->modes_waited && r->modes_asked == 0) {
		r->modes_waited = false;
		r->modes_asked = r->record.last_order;
		r->out.modes_wanted = true;
	}
}

bool renderer_run_rings(struct renderer *r)
{
	bool more = false;

	if (!r->gpu || r->recover) {
		return false;
	}
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		vring_ignore(&r->queues[i].ring);
	}
	renderer_heed_limits(r);
	run_control(r);
	renderer_settle_allowance(r);
	renderer_ask_modes(r);
	look_after_memory(r);
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		/* What makes it wait wakes it, not the guest: it has something there already. */
		if ((i != QUEUE_CONTROL || !renderer_is_held(r)) && queue_listen(&r->queues[i])) {
			more = true;
		}
	}
	for (uint32_t i = 0; i < LINK_QUEUES; i++) {
		tell_breakage(r, &r->queues[i]);
	}
	return more;
}

void renderer_resume(struct renderer *r, uint32_t queue, uint64_t waiting_up_to)
{
	struct queue *q = &r->queues[queue];
	uint16_t head;

	while (queue_resume(q, waiting_up_to, &head)) {
		execute(r, q, head);
	}
	queue_publish(q);
	renderer_ring_bell(r);
}
