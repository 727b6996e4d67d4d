/* SPDX-License-Identifier: MIT
 *
 * Whoever reads a capture must not slow the device down: records go into a ring of fixed size, and
 * from there into the pipe when that takes them. A record for which there is no room is lost, and
 * the next one that there is room for says how many were. Nothing waits, and nothing grows.
 */
#include "usb/capture.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>

#include "base/checked.h"
#include "base/fd.h"
#include "protocol/capture.h"
#include "usb/transfer.h"

#define RING_BYTES   (2u << 20)
#define NSEC_PER_SEC UINT64_C(1000000000)

struct capture {
	int fd;
	sd_event_source *io;
	bool headers_only;
	bool broken;
	bool untold; /* something was lost since the last record */
	uint16_t bus;
	uint8_t device;
	uint64_t next_urb;
	uint64_t dropped;
	uint32_t at; /* of the oldest byte */
	uint32_t used;
	uint8_t ring[RING_BYTES];
};

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct capture *c = userdata;

	/* What there is to write is written at the end of the turn. */
	c->broken = c->broken || revents & (EPOLLERR | EPOLLHUP);
	return 0;
}

int capture_create(sd_event *event, const struct capture_options *o, struct capture **out)
{
	struct capture *c = malloc(sizeof(*c));
	int r;

	if (!c) {
		safe_close(o->fd);
		return -ENOMEM;
	}
	/* The ring's pages are touched when they are used. */
	memset(c, 0, offsetof(struct capture, ring));
	c->fd = o->fd;
	c->headers_only = o->headers_only;
	c->bus = o->bus;
	c->device = o->device;
	r = sd_event_add_io(event, &c->io, c->fd, 0, handle_io, c);
	if (r < 0) {
		capture_destroy(c);
		return r;
	}
	*out = c;
	return 0;
}

void capture_destroy(struct capture *c)
{
	if (c) {
		sd_event_source_disable_unref(c->io);
		safe_close(c->fd);
		free(c);
	}
}

static void put(struct capture *c, const void *data, uint32_t n)
{
	uint32_t to = (c->at + c->used) % RING_BYTES;
	uint32_t first = MIN(n, RING_BYTES - to);

	if (n > 0) {
		memcpy(c->ring + to, data, first);
		memcpy(c->ring, (const uint8_t *)data + first, n - first);
		c->used += n;
	}
}

static uint64_t now_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Begins a record; false if there is no room for all of it. */
static bool begin(struct capture *c, uint32_t packet, uint32_t original, uint64_t time_ns)
{
	const struct capture_record r = {
		.size = (uint32_t)sizeof(r) + packet,
		.original = original,
		.time_ns = time_ns,
		.dropped = c->dropped,
	};

	if (RING_BYTES - c->used < r.size) {
		return false;
	}
	put(c, &r, sizeof(r));
	c->untold = false;
	return true;
}

static int32_t errno_of(uint8_t status)
{
	static const int32_t errors[] = {
		[TRANSFER_OK] = 0,
		[TRANSFER_CANCELLED] = -ENOENT,
		[TRANSFER_INVALID] = -EINVAL,
		[TRANSFER_IO_ERROR] = -EPROTO,
		[TRANSFER_STALL] = -EPIPE,
		[TRANSFER_TIMEOUT] = -ETIMEDOUT,
		[TRANSFER_BABBLE] = -EOVERFLOW,
	};

	return status < ARRAY_SIZE(errors) ? errors[status] : -EPROTO;
}

static const uint8_t kinds[] = {
	[TRANSFER_CONTROL] = CAPTURE_CONTROL,
	[TRANSFER_BULK] = CAPTURE_BULK,
	[TRANSFER_INTERRUPT] = CAPTURE_INTERRUPT,
	[TRANSFER_ISO] = CAPTURE_ISO,
};

static void set_setup(const struct transfer *t, struct capture_usb *out)
{
	const uint8_t setup[8] = {
		t->setup.request_type,
		t->setup.request,
		(uint8_t)t->setup.value,
		(uint8_t)(t->setup.value >> 8),
		(uint8_t)t->setup.index,
		(uint8_t)(t->setup.index >> 8),
		(uint8_t)t->setup.length,
		(uint8_t)(t->setup.length >> 8),
	};

	out->flag_setup = 0;
	memcpy(out->u.setup, setup, sizeof(setup));
}

/* Where each isochronous packet of t lies, and how far what is in its buffer reaches. */
static uint32_t describe_iso(
	const struct transfer *t, bool done, struct capture_iso *out, int32_t *errors_out)
{
	uint32_t offset = 0, end = 0;

	*errors_out = 0;
	for (uint32_t i = 0; i < t->n_packets; i++) {
		const struct iso_packet *p = &t->packets[i];
		uint32_t length = done ? p->actual : p->length;

		out[i] = (struct capture_iso){
			.status = done ? errno_of(p->status) : -EXDEV,
			.offset = offset,
			.length = length,
		};
		*errors_out += done && p->status != TRANSFER_OK;
		end = length > 0 ? offset + length : end;
		offset += p->length;
	}
	return end;
}

static void capture(struct capture *c, const struct transfer *t, bool done)
{
	bool in = transfer_is_in(t), iso = t->type == TRANSFER_ISO;
	struct capture_iso packets[ISO_PACKETS_MAX];
	uint32_t table = iso ? t->n_packets * (uint32_t)sizeof(packets[0]) : 0;
	uint32_t head = (uint32_t)sizeof(struct capture_usb) + table;
	uint32_t length = done ? t->actual : t->length, there = length, data;
	uint64_t now = now_realtime();
	struct capture_usb u = {
		.id = t->urb,
		.type = done ? 'C' : 'S',
		.transfer = kinds[t->type],
		.endpoint = t->endpoint,
		.device = c->device,
		.bus = c->bus,
		.flag_setup = '-',
		.seconds = (int64_t)(now / NSEC_PER_SEC),
		.microseconds = (int32_t)(now % NSEC_PER_SEC / 1000),
		.status = done ? errno_of(t->status) : -EINPROGRESS,
		.length = length,
	};

	if (iso) {
		there = describe_iso(t, done, packets, &u.u.iso.errors);
		u.u.iso.n = (int32_t)t->n_packets;
		u.n_iso = t->n_packets;
	} else if (t->type == TRANSFER_CONTROL && !done) {
		set_setup(t, &u);
	}
	/* Data of IN is there when it is done, of OUT when it begins. */
	there = in == done && t->data ? there : 0;
	data = c->headers_only ? 0 : MIN(there, CAPTURE_PACKET_MAX - head);
	u.flag_data = data > 0 ? 0 : in ? '<' : '>';
	u.captured = table + data;
	if (!begin(c, head + data, head + there, now)) {
		c->dropped++;
		c->untold = true;
		return;
	}
	put(c, &u, sizeof(u));
	put(c, packets, table);
	put(c, t->data, data);
}

void capture_submitted(struct capture *c, struct transfer *t)
{
	t->urb = ++c->next_urb;
	capture(c, t, false);
}

void capture_completed(struct capture *c, struct transfer *t)
{
	if (t->urb == 0) {
		/* It was on its way before. */
		t->urb = ++c->next_urb;
	}
	capture(c, t, true);
}

bool capture_turn(struct capture *c)
{
	uint32_t first = MIN(c->used, RING_BYTES - c->at);
	const struct iovec v[] = {
		{c->ring + c->at, first},
		{c->ring, c->used - first},
	};
	ssize_t n = 0;

	if (c->used > 0 && !c->broken) {
		n = writev(c->fd, v, ARRAY_SIZE(v));
	}
	if (n > 0) {
		c->at = (c->at + (uint32_t)n) % RING_BYTES;
		c->used -= (uint32_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		c->broken = true;
	}
	if (c->untold) {
		/* It goes out with the next turn, which its being there makes come. */
		_unused_ bool room = begin(c, 0, 0, now_realtime());
	}
	_unused_ int r = sd_event_source_set_io_events(c->io, c->used > 0 ? EPOLLOUT : 0);
	return !c->broken;
}
