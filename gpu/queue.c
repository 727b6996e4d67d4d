/* SPDX-License-Identifier: MIT
 *
 * Every step of a request stands in the journal before the next one begins (gpu/journal.h), which
 * costs a few stores. Requests are given back in batches: the guest sees them, and is notified,
 * when there is nothing more to do or when something took long.
 */
#include "gpu/queue.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/record.h"

static_assert(VRING_SIZE_MAX <= JOURNAL_HEADS, "a place for each head");

void queue_init(struct queue *q, uint32_t index, struct record *record)
{
	memset(q, 0, sizeof(*q));
	q->index = index;
	q->record = record;
	q->kick = q->call = q->err = -1;
	vring_stop(&q->ring);
}

void queue_finish(struct queue *q)
{
	q->kick = safe_close(q->kick);
	q->call = safe_close(q->call);
	q->err = safe_close(q->err);
	q->started = q->enabled = false;
	q->n_added = 0;
	vring_stop(&q->ring);
}

static void notify(int fd)
{
	const uint64_t one = 1;

	/* Full means that a notification is there that nobody has read yet. */
	_unused_ ssize_t n = fd >= 0 ? write(fd, &one, sizeof(one)) : 0;
}

static struct journal_queue *journal_of(struct queue *q)
{
	return &q->record->journal->queues[q->index];
}

/* Counts what is in flight after dropping what the guest has seen. */
static uint16_t settle(struct queue *q, uint16_t used)
{
	struct journal_queue *j = journal_of(q);
	uint16_t published = j->published, seen = (uint16_t)(used - published), n = 0;

	for (uint16_t i = 0; i < JOURNAL_HEADS; i++) {
		struct journal_head *h = &j->heads[i];

		if (h->order == 0) {
			continue;
		}
		if (i >= q->ring.setup.size || h->state > JOURNAL_FENCED ||
			(h->state == JOURNAL_ADDED && (uint16_t)(h->used_at - published) < seen)) {
			record_published(q->record, q->index, published, &i, 1);
		} else {
			n++;
		}
	}
	j->publishing = used;
	record_published(q->record, q->index, used, NULL, 0);
	return n;
}

/* Gives back again what was executed and not shown. */
static void give_executed(struct queue *q)
{
	const struct journal_queue *j = journal_of(q);

	for (uint32_t n = 0; n < q->ring.setup.size; n++) {
		const struct journal_head *h = &j->heads[n];
		uint16_t i = (uint16_t)n;

		/* What waits for a fence of a renderer that is gone waits for nothing. */
		if (h->order != 0 && (h->state == JOURNAL_ADDED || h->state == JOURNAL_FENCED ||
					     (h->state == JOURNAL_TAKEN &&
						     h->order <= q->record->journal->done))) {
			q->added[q->n_added++] = i;
			record_added(q->record, q->index, i, q->ring.next_used);
			vring_add(&q->ring, i, h->written);
		}
	}
}

static void recover(struct queue *q)
{
	struct journal_queue *j = journal_of(q);
	uint16_t used;

	if (j->stopped) {
		q->ring.next_avail = j->next_avail;
		return;
	}
	used = vring_used_index(&q->ring);
	if (used != j->published && used != j->publishing) {
		_unused_ int err = vring_break(&q->ring, "used index changed by the driver");
		return;
	}
	q->ring.next_used = q->ring.published = used;
	q->ring.next_avail = (uint16_t)(used + settle(q, used));
	give_executed(q);
}

void queue_start(struct queue *q, struct memory *m, const struct vring_setup *setup, uint64_t run,
	const struct queue_fds *fds)
{
	struct vring_setup s = *setup;

	queue_finish(q);
	q->kick = fds->kick;
	q->call = fds->call;
	q->err = fds->err;
	q->started = true;
	q->told_broken = false;
	if (vring_start(&q->ring, m, &s) < 0) {
		return;
	}
	q->ring.next_used = q->ring.published = vring_used_index(&q->ring);
	if (journal_of(q)->run == run) {
		recover(q);
	} else {
		record_queue_start(q->record, q->index, run, q->ring.next_used);
	}
}

static bool is_due(const struct queue *q, const struct journal_head *h, uint64_t waiting_up_to)
{
	switch (h->state) {
	case JOURNAL_TAKEN:
		return h->order > q->record->journal->done;
	case JOURNAL_WAITING:
		return h->order <= waiting_up_to;
	case JOURNAL_PAUSED:
		return true;
	default:
		return false;
	}
}

bool queue_resume(struct queue *q, uint64_t waiting_up_to, uint16_t *head_out)
{
	const struct journal_queue *j = journal_of(q);
	uint64_t oldest = UINT64_MAX;

	for (uint32_t i = 0; !q->ring.broken && i < q->ring.setup.size; i++) {
		const struct journal_head *h = &j->heads[i];

		if (h->order != 0 && h->order < oldest && is_due(q, h, waiting_up_to)) {
			oldest = h->order;
			*head_out = (uint16_t)i;
		}
	}
	if (oldest == UINT64_MAX) {
		return false;
	}
	record_resume(q->record, oldest);
	return true;
}

uint16_t queue_stop(struct queue *q)
{
	uint16_t next_avail = q->ring.next_avail;

	record_queue_stop(q->record, q->index, next_avail);
	queue_finish(q);
	return next_avail;
}

bool queue_next(struct queue *q, uint16_t *head_out)
{
	uint16_t head;

	if (!q->enabled || vring_peek(&q->ring, &head) <= 0) {
		return false;
	}
	if (record_in_flight(q->record, q->index, head)) {
		_unused_ int err = vring_break(&q->ring, "head offered while it is in flight");
		return false;
	}
	record_take(q->record, q->index, head);
	vring_take(&q->ring);
	*head_out = head;
	return true;
}

void queue_give(struct queue *q, uint16_t head, uint32_t written)
{
	record_done(q->record, q->index, head, written);
	assert(q->n_added < VRING_SIZE_MAX);
	q->added[q->n_added++] = head;
	record_added(q->record, q->index, head, q->ring.next_used);
	vring_add(&q->ring, head, written);
}

void queue_fence(struct queue *q, uint16_t head, uint32_t written)
{
	record_fenced(q->record, q->index, head, written);
}

void queue_publish(struct queue *q)
{
	if (q->n_added == 0) {
		return;
	}
	record_publishing(q->record, q->index, q->ring.next_used);
	vring_publish(&q->ring);
	record_published(q->record, q->index, q->ring.next_used, q->added, q->n_added);
	q->n_added = 0;
	if (vring_wants_call(&q->ring)) {
		notify(q->call);
	}
}

bool queue_listen(struct queue *q)
{
	return q->enabled && vring_listen(&q->ring);
}

bool queue_take_breakage(struct queue *q, const char **why_out)
{
	if (!q->started || !q->ring.broken || q->told_broken) {
		return false;
	}
	q->told_broken = true;
	*why_out = q->ring.broken;
	notify(q->err);
	return true;
}
