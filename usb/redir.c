/* SPDX-License-Identifier: MIT
 *
 * Reading. Whatever the guest sends passes redir_wire_check before anybody looks at its content:
 * only known types, each with its exact size, and no payload over 1 MiB. Then it takes one of two
 * lanes. Control packets (all of them small) go to libusbredirparser, exactly one at a time, so
 * that it can neither wait for more nor allocate for what isn't there. Data packets are ours: their
 * header is decoded from the read buffer, the engine gives the transfer (and charges it), and the
 * payload goes into that transfer's buffer: what is already read is copied, the rest is read
 * straight into it by the next recvmsg, which takes what follows into the read buffer as well.
 *
 * Nothing is looked at while the engine holds us (a request to the device is being done, and what
 * follows must see its result), or while more replies are unread than we are ready to keep. The
 * guest's bytes stay in the socket then, and nothing is lost. Level-triggered: when reading goes
 * on, first what is in the buffer is parsed, then epoll tells of the rest.
 */
#include "usb/redir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/checked.h"
#include "base/fd.h"
#include "usb/redir-internal.h"

static bool waiting(const struct redir *r)
{
	return r->dead || r->held || r->congested;
}

void redir_update_events(struct redir *r)
{
	uint32_t events = 0;

	if (r->dead) {
		return;
	}
	if (!waiting(r)) {
		events |= EPOLLIN;
	}
	if (r->blocked) {
		events |= EPOLLOUT;
	}
	if (events != r->io_events && sd_event_source_set_io_events(r->io, events) >= 0) {
		r->io_events = events;
	}
}

void redir_abandon(struct redir *r)
{
	if (r->incoming) {
		r->skip = r->incoming_size - r->incoming_done;
		r->ops->abandoned(r->userdata, steal_ptr(r->incoming));
	}
}

void redir_close(struct redir *r)
{
	redir_abandon(r);
	r->dead = true;
	r->io = sd_event_source_disable_unref(r->io);
	r->fd = safe_close(r->fd);
}

void redir_fail(struct redir *r, const char *detail)
{
	if (!r->dead) {
		redir_close(r);
		r->ops->violated(r->userdata, detail);
	}
}

void redir_lost(struct redir *r, int error)
{
	if (!r->dead) {
		redir_close(r);
		r->ops->closed(r->userdata, error);
	}
}

/* Moves as much of the payload that is awaited as the buffer has. */
static void take_payload(struct redir *r)
{
	struct transfer *t = r->incoming;
	size_t n = MIN((size_t)(r->incoming_size - r->incoming_done), r->in_end - r->in_start);

	if (n > 0) {
		memcpy(r->incoming_to + r->incoming_done, r->in + r->in_start, n);
		r->in_start += n;
		r->incoming_done += (uint32_t)n;
	}
	if (r->incoming_done == r->incoming_size) {
		r->incoming = NULL;
		r->ops->received(r->userdata, t);
	}
}

static void handle_data(struct redir *r, const struct redir_frame *f, const uint8_t *p)
{
	struct redir_request request;
	const char *why = redir_wire_decode_data(f, &r->caps, p, &request);

	if (why) {
		redir_fail(r, why);
		return;
	}
	r->large = request.payload >= REDIR_LARGE;
	r->incoming = r->ops->begin(r->userdata, &request, &r->incoming_to);
	r->incoming_size = request.payload;
	r->incoming_done = 0;
	if (!r->incoming) {
		r->skip = request.payload;
	} else if (request.payload == 0) {
		struct transfer *t = steal_ptr(r->incoming);

		r->ops->received(r->userdata, t);
	} else {
		take_payload(r);
	}
}

/* packet is whole: frame_size bytes of framing and f->length of content. */
static void handle_control(
	struct redir *r, const struct redir_frame *f, const uint8_t *packet, size_t frame_size)
{
	uint8_t status[REDIR_FRAME_MAX + REDIR_DATA_MAX];
	const char *why;
	size_t size;

	if (f->type == REDIR_HELLO && r->hello_received) {
		redir_fail(r, "second hello");
		return;
	}
	size = redir_wire_encode_unsupported(f, &r->caps, packet + frame_size, status);
	if (size > 0) {
		struct redir_packet *reply = redir_packet_new(r);

		if (reply) {
			memcpy(reply->header, status, size);
			reply->header_size = (uint8_t)size;
			redir_queue(r, reply);
		}
		return;
	}
	why = redir_parser_feed(r, packet, frame_size + f->length);
	if (why) {
		redir_fail(r, why);
	}
}

/* Handles one packet if the buffer has enough of it. Returns whether it had. */
static bool parse_packet(struct redir *r)
{
	const uint8_t *p = r->in + r->in_start;
	size_t have = r->in_end - r->in_start;
	size_t frame_size = redir_wire_frame_size(&r->caps), need;
	struct redir_frame f;
	const char *why;

	if (have < frame_size) {
		return false;
	}
	redir_wire_decode_frame(p, &r->caps, &f);
	if (!r->hello_received && f.type != REDIR_HELLO) {
		redir_fail(r, "packet before hello");
		return false;
	}
	why = redir_wire_check(&f, &r->caps);
	if (why) {
		redir_fail(r, why);
		return false;
	}
	need = frame_size +
	       (redir_wire_is_data(f.type) ? redir_wire_data_size(f.type, &r->caps) : f.length);
	if (have < need) {
		return false;
	}
	r->in_start += need;
	if (redir_wire_is_data(f.type)) {
		handle_data(r, &f, p + frame_size);
	} else {
		handle_control(r, &f, p, frame_size);
	}
	return true;
}

void redir_parse(struct redir *r)
{
	bool more = true;

	if (r->parsing) {
		return; /* the call further up goes on */
	}
	r->parsing = true;
	while (more && !waiting(r)) {
		if (r->incoming) {
			take_payload(r);
			more = !r->incoming;
		} else if (r->skip > 0) {
			size_t n = MIN((size_t)r->skip, r->in_end - r->in_start);

			r->in_start += n;
			r->skip -= (uint32_t)n;
			more = r->skip == 0;
		} else {
			more = parse_packet(r);
		}
	}
	r->parsing = false;
	redir_update_events(r);
}

/* Reads once: the rest of a payload to where it belongs, and what follows into the buffer. Returns
 * whether it got all that it asked for, so that there may be more. */
static bool read_once(struct redir *r, size_t *n_out)
{
	struct iovec iov[2];
	struct msghdr msg = {.msg_iov = iov};
	size_t direct = 0, room;
	ssize_t n;

	if (r->in_start > 0) {
		/* Less than a packet's header, or a control packet: few bytes. */
		memmove(r->in, r->in + r->in_start, r->in_end - r->in_start);
		r->in_end -= r->in_start;
		r->in_start = 0;
	}
	if (r->incoming) {
		direct = r->incoming_size - r->incoming_done;
		iov[msg.msg_iovlen++] = (struct iovec){r->incoming_to + r->incoming_done, direct};
	}
	room = sizeof(r->in) - r->in_end;
	if (r->large) {
		room = MIN(room, (size_t)REDIR_READ_LITTLE);
	}
	iov[msg.msg_iovlen++] = (struct iovec){r->in + r->in_end, room};
	room += direct;
	*n_out = 0;
	/* The simpler call is the quicker one. */
	n = direct > 0 ? recvmsg(r->fd, &msg, MSG_DONTWAIT)
		       : recv(r->fd, r->in + r->in_end, room, MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			redir_lost(r, errno);
		}
		return false;
	}
	if (n == 0) {
		redir_lost(r, 0);
		return false;
	}
	*n_out = (size_t)n;
	direct = MIN(direct, (size_t)n);
	r->incoming_done += (uint32_t)direct;
	r->in_end += (size_t)n - direct;
	redir_parse(r);
	return (size_t)n == room;
}

static void read_stream(struct redir *r)
{
	size_t total = 0, n;
	bool more = true;

	while (more && total < REDIR_TURN_BYTES && !waiting(r)) {
		more = read_once(r, &n);
		total += n;
	}
}

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct redir *r = userdata;

	if (revents & EPOLLOUT) {
		redir_flush(r);
	}
	if (r->dead) {
		return 0;
	}
	if (revents & EPOLLIN && !waiting(r)) {
		read_stream(r);
	} else if (revents & (EPOLLHUP | EPOLLERR)) {
		/* Nobody is there any more, and what waits is of no use to anybody. */
		redir_lost(r, 0);
	}
	return 0;
}

void redir_hold(struct redir *r, bool hold)
{
	r->held = hold;
	if (hold) {
		redir_update_events(r);
	} else {
		redir_parse(r);
	}
}

bool redir_congested(const struct redir *r)
{
	return r->congested;
}

bool redir_has_disconnect_ack(const struct redir *r)
{
	return r->disconnect_ack;
}

int redir_create(sd_event *event, int fd, unsigned int offer, const struct redir_ops *ops,
	void *userdata, struct redir **out)
{
	struct redir *r = calloc(1, sizeof(*r));
	int e;

	if (!r) {
		safe_close(fd);
		return -ENOMEM;
	}
	r->fd = fd;
	r->ops = ops;
	r->userdata = userdata;
	list_init(&r->queue);
	list_init(&r->spare);
	r->io_events = EPOLLIN;
	e = sd_event_add_io(event, &r->io, fd, EPOLLIN, handle_io, r);
	if (e >= 0) {
		e = redir_parser_start(r, offer);
	}
	if (e < 0) {
		redir_destroy(r);
		return e;
	}
	*out = r;
	return 0;
}

void redir_destroy(struct redir *r)
{
	if (!r) {
		return;
	}
	redir_close(r);
	redir_write_finish(r);
	redir_parser_finish(r);
	free(r);
}
