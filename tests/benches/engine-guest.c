/* SPDX-License-Identifier: MIT
 *
 * The guest's side of usbredir for tests/bench usb-engine: keeps depth transfers of one size in
 * flight and times each. As cheap as can be, since it shares the CPU with what is measured: one
 * vectored send for all requests that are due, one large receive for all replies that are there,
 * payloads are looked over and not kept.
 */
#include "base/clock.h"
#include "engine-bench.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define IN_BYTES    (256 * 1024)
#define SAMPLES_MAX (1u << 20)
#define HELLO_SIZE  68
#define EP_IN       0x81
#define EP_OUT      0x01

/* usbredirproto.h: packet types and capabilities. */
enum {
	HELLO = 0,
	CONNECT = 1,
	SET_CONFIGURATION = 6,
	CONFIGURATION_STATUS = 8,
	CONTROL = 100,
	BULK = 101
};
#define CAPS (1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6)

struct guest {
	int fd;
	size_t frame; /* 12 until both hellos are there */

	/* reading */
	size_t start;
	size_t end;
	uint32_t skip; /* of the present packet's payload */
	uint64_t current;
	bool is_reply;
	uint8_t in[IN_BYTES];

	/* writing: the requests that are due, by slot; the first may be partly sent */
	uint8_t due[DEPTH_MAX];
	size_t n_due;
	size_t sent;
	uint8_t headers[DEPTH_MAX][FRAME + DATA_HEAD];
	uint8_t payload[SIZE_LARGEST];
	uint32_t payload_size;

	/* the cell */
	uint32_t type;
	uint64_t started[DEPTH_MAX];
	uint64_t next_id;
	uint64_t in_flight;
	uint64_t done;
	uint32_t *samples;
	uint64_t n_samples;
};

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(v >> 8 * i);
	}
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

struct guest *guest_create(int fd)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g) {
		die("calloc");
		return NULL;
	}
	g->fd = fd;
	g->frame = 12;
	g->samples = calloc(SAMPLES_MAX, sizeof(*g->samples));
	memset(g->payload, 0x5a, sizeof(g->payload));
	return g;
}

void guest_destroy(struct guest *g)
{
	free(g->samples);
	free(g);
}

static void send_all(struct guest *g, const uint8_t *p, size_t size)
{
	while (size > 0) {
		ssize_t n = send(g->fd, p, size, MSG_NOSIGNAL);

		if (n < 0) {
			die("send");
		}
		p += n;
		size -= (size_t)n;
	}
}

/* At least need bytes at g->start. */
static void want(struct guest *g, size_t need)
{
	while (g->end - g->start < need) {
		ssize_t n;

		memmove(g->in, g->in + g->start, g->end - g->start);
		g->end -= g->start;
		g->start = 0;
		n = recv(g->fd, g->in + g->end, IN_BYTES - g->end, 0);
		if (n <= 0) {
			die("recv");
		}
		g->end += (size_t)n;
	}
}

/* Waits for a packet of that type; skips the others. */
static void expect(struct guest *g, uint32_t type)
{
	uint32_t got, length;

	do {
		want(g, g->frame);
		got = get32(g->in + g->start);
		length = get32(g->in + g->start + 4);
		want(g, g->frame + length);
		g->start += g->frame + length;
	} while (got != type);
}

uint64_t guest_attach(struct guest *g)
{
	uint8_t hello[12 + HELLO_SIZE] = {0}, configure[FRAME + 1] = {0};
	uint64_t begin = now_ns(), attached;

	put32(hello + 4, HELLO_SIZE);
	put32(hello + 12 + 64, CAPS);
	send_all(g, hello, sizeof(hello));
	expect(g, HELLO);
	g->frame = FRAME;
	expect(g, CONNECT);
	attached = now_ns() - begin;
	put32(configure, SET_CONFIGURATION);
	put32(configure + 4, 1);
	configure[FRAME] = 1;
	send_all(g, configure, sizeof(configure));
	expect(g, CONFIGURATION_STATUS);
	return attached;
}

static void prepare(struct guest *g, const struct cell *c)
{
	bool control = c->mode == CELL_CONTROL;

	g->type = control ? CONTROL : BULK;
	g->payload_size = c->mode == CELL_OUT ? c->size : 0;
	g->done = g->n_samples = 0;
	for (size_t i = 0; i < DEPTH_MAX; i++) {
		uint8_t *h = g->headers[i], *p = h + FRAME;

		memset(h, 0, FRAME + DATA_HEAD);
		put32(h, g->type);
		put32(h + 4, DATA_HEAD + g->payload_size);
		if (control) {
			p[0] = 0x80;
			p[1] = 6; /* GET_DESCRIPTOR */
			p[2] = 0x80;
			p[5] = 1; /* of the device */
			p[8] = (uint8_t)c->size;
		} else {
			p[0] = c->mode == CELL_OUT ? EP_OUT : EP_IN;
			p[2] = (uint8_t)c->size;
			p[3] = (uint8_t)(c->size >> 8);
			p[8] = (uint8_t)(c->size >> 16);
			p[9] = (uint8_t)(c->size >> 24);
		}
	}
}

/* An id is a number and, in its low byte, the slot. */
static void request(struct guest *g, uint8_t slot, uint64_t now)
{
	uint64_t id = ++g->next_id << 8 | slot;

	put32(g->headers[slot] + 8, (uint32_t)id);
	put32(g->headers[slot] + 12, (uint32_t)(id >> 32));
	g->started[slot] = now;
	g->due[g->n_due++] = slot;
	g->in_flight++;
}

/* Sends what the socket takes. */
static void flush(struct guest *g)
{
	const size_t size = FRAME + DATA_HEAD + g->payload_size;
	struct iovec iov[2 * DEPTH_MAX];
	struct msghdr msg = {.msg_iov = iov};
	size_t skip = g->sent, done;
	ssize_t n;

	for (size_t i = 0; i < g->n_due; i++) {
		size_t head = skip < FRAME + DATA_HEAD ? skip : FRAME + DATA_HEAD;

		iov[msg.msg_iovlen++] =
			(struct iovec){g->headers[g->due[i]] + head, FRAME + DATA_HEAD - head};
		if (g->payload_size > 0) {
			iov[msg.msg_iovlen++] = (struct iovec){
				g->payload + (skip - head), g->payload_size - (skip - head)};
		}
		skip = 0;
	}
	n = sendmsg(g->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		die("sendmsg");
	}
	g->sent += n > 0 ? (size_t)n : 0;
	done = g->sent / size;
	g->sent %= size;
	g->n_due -= done;
	memmove(g->due, g->due + done, g->n_due);
}

static void complete(struct guest *g, uint64_t now)
{
	uint8_t slot = (uint8_t)g->current;

	if (g->n_samples < SAMPLES_MAX) {
		g->samples[g->n_samples++] = (uint32_t)(now - g->started[slot]);
	}
	g->done++;
	g->in_flight--;
}

/* Handles one packet, or what there is of it. Returns the slot that is free now, -1 if none, -2 if
 * more has to be read. */
static int take_packet(struct guest *g, uint64_t now)
{
	const uint8_t *p = g->in + g->start;
	size_t have = g->end - g->start, n;

	if (g->skip == 0) {
		if (have < FRAME + DATA_HEAD) {
			return -2;
		}
		g->is_reply = get32(p) == g->type;
		g->current = get32(p + 8) | (uint64_t)get32(p + 12) << 32;
		g->skip = get32(p + 4) + FRAME;
		if (g->is_reply && p[FRAME + (g->type == CONTROL ? 3 : 1)] != 0) {
			errno = EIO;
			die("a transfer's status");
		}
	}
	n = have < g->skip ? have : g->skip;
	g->start += n;
	g->skip -= (uint32_t)n;
	if (g->skip > 0) {
		return -2;
	}
	if (!g->is_reply) {
		return -1;
	}
	complete(g, now);
	return (int)(g->current & 0xff);
}

static void receive(struct guest *g)
{
	ssize_t n;

	memmove(g->in, g->in + g->start, g->end - g->start);
	g->end -= g->start;
	g->start = 0;
	n = recv(g->fd, g->in + g->end, IN_BYTES - g->end, 0);
	if (n <= 0) {
		die("recv");
	}
	g->end += (size_t)n;
}

/* Transfers until the time or the count is over and all are back. */
static uint64_t run(struct guest *g, const struct cell *c, uint64_t ns, uint64_t count)
{
	uint64_t begin = now_ns(), now = begin, issued = 0;

	for (; issued < c->depth && (!count || issued < count); issued++) {
		request(g, (uint8_t)issued, now);
	}
	while (g->in_flight > 0) {
		int slot;

		if (g->n_due > 0) {
			flush(g);
		}
		if (g->n_due > 0) {
			struct pollfd p = {g->fd, POLLIN | POLLOUT, 0};

			if (poll(&p, 1, -1) < 0) {
				die("poll");
			}
			if (!(p.revents & POLLIN)) {
				continue;
			}
		}
		receive(g);
		now = now_ns();
		while ((slot = take_packet(g, now)) != -2) {
			if (slot >= 0 && (count ? issued < count : now - begin < ns)) {
				request(g, (uint8_t)slot, now);
				issued++;
			}
		}
	}
	return now_ns() - begin;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void guest_measure(struct guest *g, const struct cell *c, const struct run *r, struct result *out)
{
	double peer, own;

	prepare(g, c);
	if (!r->count) {
		run(g, c, r->ns / 10, 0);
	}
	g->done = g->n_samples = 0;
	peer = cpu_seconds(r->peer);
	own = cpu_seconds(getpid());
	out->ns = run(g, c, r->ns, r->count);
	out->peer_cpu_s = cpu_seconds(r->peer) - peer;
	out->guest_cpu_s = cpu_seconds(getpid()) - own;
	out->n = g->done;
	qsort(g->samples, g->n_samples, sizeof(*g->samples), by_value);
	out->p50_ns = g->samples[g->n_samples / 2];
	out->p99_ns = g->samples[g->n_samples * 99 / 100];
}
