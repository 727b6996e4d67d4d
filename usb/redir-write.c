/* SPDX-License-Identifier: MIT
 *
 * Writing. Every packet, whoever made it, goes into one ordered queue; once per turn of the loop
 * the whole queue goes out in one sendmsg, headers and payloads where they lie (or, where they are
 * few bytes, in one send). A packet's charge is what it costs us in memory, not on the wire: a
 * guest that never reads pays for our bookkeeping, too. The queue's nodes come from a list of spare
 * ones.
 */
#include "usb/redir-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/checked.h"

/* One sendmsg takes at most that many packets, each a header and a payload. */
#define BATCH 128
/* So few bytes are sent sooner when they are copied together than when the kernel gathers them. */
#define COPY_MAX 2048
/* Nodes kept for later; enough for what one turn of a busy device makes. */
#define SPARE_MAX 1024

struct redir_packet *redir_packet_new(struct redir *r)
{
	struct redir_packet *p = list_first(&r->spare, struct redir_packet, link);

	if (r->dead) {
		return NULL;
	}
	if (p) {
		list_remove(&p->link);
		r->n_spare--;
	} else {
		p = malloc(sizeof(*p));
	}
	if (!p) {
		redir_lost(r, ENOMEM);
		return NULL;
	}
	list_init(&p->link);
	p->header_size = 0;
	p->mark = REDIR_MARK_NONE;
	p->payload_size = 0;
	p->payload = NULL;
	p->transfer = NULL;
	p->shared = false;
	p->parser_buffer = NULL;
	return p;
}

void redir_queue(struct redir *r, struct redir_packet *p)
{
	p->charge = (uint32_t)sizeof(*p);
	if (p->transfer && !p->shared) {
		p->charge += (uint32_t)sizeof(*p->transfer) + p->transfer->capacity;
	} else if (!p->transfer) {
		p->charge += p->payload_size;
	}
	list_append(&r->queue, &p->link);
	r->unread += p->charge;
	if (r->unread > REDIR_UNREAD_MAX) {
		r->congested = true;
	}
}

/* Takes p out of the queue and gives everything that it holds back. */
static void packet_done(struct redir *r, struct redir_packet *p)
{
	list_remove(&p->link);
	r->unread -= p->charge;
	if (p->parser_buffer) {
		redir_parser_free(r, p->parser_buffer);
	}
	if (p->transfer) {
		r->ops->sent(r->userdata, p->transfer);
	}
	if (r->n_spare < SPARE_MAX) {
		list_prepend(&r->spare, &p->link);
		r->n_spare++;
	} else {
		free(p);
	}
}

static size_t packet_size(const struct redir_packet *p)
{
	return p->header_size + (size_t)p->payload_size;
}

/* Appends what is left of p behind its first skip bytes. Returns the bytes appended. */
static size_t gather(const struct redir_packet *p, size_t skip, struct iovec *iov, size_t *n)
{
	size_t size = packet_size(p) - skip;

	if (skip < p->header_size) {
		iov[(*n)++] = (struct iovec){
			(uint8_t *)(uintptr_t)p->header + skip, p->header_size - skip};
		skip = p->header_size;
	}
	if (skip < packet_size(p)) {
		skip -= p->header_size;
		iov[(*n)++] = (struct iovec){
			(uint8_t *)(uintptr_t)p->payload + skip, p->payload_size - skip};
	}
	return size;
}

/* Takes n written bytes off the head of the queue. */
static void consume(struct redir *r, size_t n)
{
	while (n > 0) {
		struct redir_packet *p = list_first(&r->queue, struct redir_packet, link);
		size_t left = packet_size(p) - r->sent;
		uint8_t mark = p->mark;

		if (n < left) {
			r->sent += n;
			return;
		}
		n -= left;
		r->sent = 0;
		packet_done(r, p);
		if (mark != REDIR_MARK_NONE) {
			r->ops->written(r->userdata, mark);
		}
	}
}

static ssize_t send_gathered(int fd, struct iovec *iov, size_t n, size_t total)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
	uint8_t copy[COPY_MAX];
	size_t at = 0;

	if (total > sizeof(copy)) {
		return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(copy + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return send(fd, copy, at, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One sendmsg. Returns whether everything that it was given is written. */
static bool write_batch(struct redir *r)
{
	struct iovec iov[2 * BATCH];
	size_t n_iov = 0, total = 0, skip = r->sent;
	struct redir_packet *p;
	ssize_t n;

	list_for_each (p, &r->queue, link) {
		if (n_iov + 2 > 2 * BATCH) {
			break;
		}
		total += gather(p, skip, iov, &n_iov);
		skip = 0;
	}
	n = send_gathered(r->fd, iov, n_iov, total);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			redir_lost(r, errno == EPIPE || errno == ECONNRESET ? 0 : errno);
		}
		return false;
	}
	consume(r, (size_t)n);
	return (size_t)n == total;
}

static void write_queue(struct redir *r)
{
	while (!r->dead && !list_empty(&r->queue)) {
		if (!write_batch(r)) {
			break;
		}
	}
	r->blocked = !list_empty(&r->queue);
	if (r->congested && r->unread < REDIR_UNREAD_RESUME) {
		r->congested = false;
	}
}

void redir_flush(struct redir *r)
{
	bool was = r->congested;

	write_queue(r);
	/* What was read before the guest fell behind lies in our buffer, where no event tells of
	 * it: as often as the guest catches up within this turn, go on there. Each time takes at
	 * least one packet from the buffer, and nothing is read meanwhile. */
	while (was && !r->congested && !r->dead) {
		r->ops->drained(r->userdata);
		redir_parse(r);
		was = r->congested;
		write_queue(r);
	}
	redir_update_events(r);
}

static void drop_unsent(struct redir *r)
{
	struct redir_packet *p, *tmp;
	bool first = r->sent > 0;

	list_for_each_safe (p, tmp, &r->queue, link) {
		if (!first) {
			packet_done(r, p);
		}
		first = false;
	}
	if (r->unread < REDIR_UNREAD_RESUME) {
		r->congested = false;
	}
}

void redir_drop(struct redir *r)
{
	redir_abandon(r);
	drop_unsent(r);
}

void redir_write_finish(struct redir *r)
{
	struct redir_packet *p, *tmp;

	r->sent = 0;
	drop_unsent(r);
	list_for_each_safe (p, tmp, &r->spare, link) {
		free(p);
	}
}

/* Of t, which may be NULL, what lies at payload is sent if t is IN. */
static void queue_data(struct redir *r, const struct redir_request *request, struct transfer *t,
	const uint8_t *payload, uint8_t status, uint32_t length, bool shared)
{
	struct redir_packet *p = redir_packet_new(r);

	if (!p) {
		if (t) {
			r->ops->sent(r->userdata, t);
		}
		return;
	}
	p->transfer = t;
	p->shared = shared;
	if (t && transfer_is_in(t)) {
		p->payload = payload;
		p->payload_size = length;
	}
	p->header_size = (uint8_t)redir_wire_encode_data(
		request, &r->caps, status, length, p->payload_size, p->header);
	redir_queue(r, p);
}

void redir_send_transfer(struct redir *r, struct transfer *t)
{
	struct redir_request request = {
		.type = t->type,
		.endpoint = t->endpoint,
		.id = t->id,
		.stream_id = t->stream_id,
		.buffered = t->owner == TRANSFER_OF_RECEIVING && t->type == TRANSFER_BULK,
		.setup = t->setup,
	};

	queue_data(r, &request, t, t->data, t->status, MIN(t->actual, t->length), false);
}

void redir_send_iso_packet(
	struct redir *r, struct transfer *t, uint32_t i, uint32_t offset, uint64_t id)
{
	struct redir_request request = {
		.type = TRANSFER_ISO,
		.endpoint = t->endpoint,
		.id = id,
	};
	const struct iso_packet *p = &t->packets[i];

	queue_data(r, &request, t, t->data + offset, p->status, MIN(p->actual, p->length),
		i + 1 < t->n_packets);
}

void redir_refuse(struct redir *r, const struct redir_request *request, enum transfer_status status)
{
	if (request->type == TRANSFER_ISO) {
		/* What went wrong with a packet is told of its stream. */
		redir_send_iso_status(r, request->id, status, request->endpoint);
	} else {
		queue_data(r, request, NULL, NULL, (uint8_t)status, 0, false);
	}
}
