/* SPDX-License-Identifier: MIT
 *
 * usb/disk-io for devbroker-usb-nbd: the image is the export of an NBD server, at the other end of
 * a connected socket. One thread: libnbd's asynchronous commands on the loop, several in flight.
 *
 * What disk-io promises in order, NBD does not: a server may carry out what is in flight in any
 * order, and a flush covers only what was answered before it was sent. So a request is not begun
 * before those that it has to come after are over (may_begin), and is told as done only when all
 * before it are. Requests begin in the order of submission:
 *
 *	reaped (told) <= begun <= submitted
 *
 * libnbd calls completed() with its lock held: it only marks the request, and pump(), after each
 * call into libnbd, goes on with it.
 *
 * A server that is gone, or silent for too long while something is in flight, stays gone: an NBD
 * connection can't be taken up again, and what a new one's server has written is unknown. Every
 * request fails from then on; the guest reads of a medium error, and adding it again, with a new
 * connection for a new worker, is what helps.
 */
#include "usb/disk-io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define SCRATCH_SIZE   (128 * 1024)
#define CHUNK_MAX      (4U << 20)
#define TRIM_MAX       (1U << 30)
#define HANDSHAKE_USEC (5 * UINT64_C(1000000))
/* Guests give up after 30 s; a flush may have to wait for a disk. */
#define SILENCE_USEC       (20 * UINT64_C(1000000))
#define SILENCE_FLUSH_USEC (60 * UINT64_C(1000000))

const bool disk_io_is_nbd = true;

struct entry {
	struct disk_io_request *r;
	uint64_t at;    /* bytes of it that are done */
	uint64_t piece; /* bytes in flight */
	bool in_flight;
	bool finished;
	int error; /* of the piece, then of the request */
};

struct disk_io {
	struct nbd_handle *nbd; // NULL: gone
	int fd;                 /* until it is the handle's; -1 */
	/* The same socket, for the loop: libnbd closes its own when it gives up, and the kernel
	 * forgets a closed fd in an epoll set only where it was the last one (the broker has one).
	 */
	int watched;
	bool writable, can_discard, can_flush;
	uint64_t size;
	uint64_t chunk; /* bytes of one command at most */
	sd_event *event;
	sd_event_source *source, *timer;
	uint32_t events;
	uint64_t heard; /* CLOCK_MONOTONIC µs of the server's last answer */
	int dead;       /* -errno: the server is gone */
	int flush_error;
	bool pumping, again;

	struct entry ring[DISK_IO_QUEUE_MAX];
	uint64_t reaped, begun, submitted;
	uint64_t verify_aborted; /* requests before this position end early */
	uint8_t *scratch;        /* of the one COMPARE or VERIFY that is begun */
};

static struct entry *entry_at(struct disk_io *io, uint64_t at)
{
	return &io->ring[at % DISK_IO_QUEUE_MAX];
}

static void finish(struct entry *e, int error)
{
	e->finished = true;
	e->error = error;
}

/* It is carried out alone: after all that came before it, and before all that comes. */
static bool is_barrier(const struct disk_io_request *r)
{
	return r->op == DISK_IO_FLUSH || r->op == DISK_IO_VERIFY || r->op == DISK_IO_COMPARE;
}

static bool conflict(const struct disk_io_request *a, const struct disk_io_request *b)
{
	return (a->op != DISK_IO_READ || b->op != DISK_IO_READ) &&
	       a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static bool may_begin(struct disk_io *io, const struct disk_io_request *r)
{
	for (uint64_t i = io->reaped; i != io->begun; i++) {
		const struct entry *e = entry_at(io, i);

		if (!e->finished && (is_barrier(r) || is_barrier(e->r) || conflict(e->r, r))) {
			return false;
		}
	}
	return true;
}

static int completed(void *userdata, int *error)
{
	struct entry *e = userdata;

	e->in_flight = false;
	e->error = -*error;
	return 1; /* libnbd may forget it */
}

static int64_t send_piece(struct disk_io *io, struct entry *e)
{
	const struct disk_io_request *r = e->r;
	const nbd_completion_callback done = {.callback = completed, .user_data = e};
	uint64_t offset = r->offset + e->at;

	switch (r->op) {
	case DISK_IO_READ:
		return nbd_aio_pread(io->nbd, r->data + e->at, e->piece, offset, done, 0);
	case DISK_IO_WRITE:
		return nbd_aio_pwrite(io->nbd, r->data + e->at, e->piece, offset, done, 0);
	case DISK_IO_DISCARD:
		return nbd_aio_trim(io->nbd, e->piece, offset, done, 0);
	case DISK_IO_FLUSH:
		return nbd_aio_flush(io->nbd, done, 0);
	default:
		return nbd_aio_pread(io->nbd, io->scratch, e->piece, offset, done, 0);
	}
}

/* Sends its next piece, or finishes it. */
static void go_on(struct disk_io *io, struct entry *e, uint64_t position)
{
	const struct disk_io_request *r = e->r;
	uint64_t most = r->op == DISK_IO_DISCARD ? TRIM_MAX
			: is_barrier(r)          ? MIN(io->chunk, (uint64_t)SCRATCH_SIZE)
						 : io->chunk;

	if (io->dead) {
		finish(e, io->dead);
	} else if (r->op == DISK_IO_FLUSH && (io->flush_error || !io->can_flush)) {
		finish(e, io->flush_error);
	} else if (r->op != DISK_IO_FLUSH && e->at == r->length) {
		finish(e, 0);
	} else if (r->op == DISK_IO_VERIFY && position < io->verify_aborted) {
		finish(e, -ECANCELED);
	} else {
		e->piece = MIN(r->length - e->at, most);
		e->in_flight = true;
		if (send_piece(io, e) < 0) {
			int error = nbd_get_errno();

			e->in_flight = false;
			finish(e, error ? -error : -EIO);
		}
	}
}

/* Its piece is back. */
static void take_answer(struct disk_io *io, struct entry *e, uint64_t position)
{
	const struct disk_io_request *r = e->r;

	if (e->error) {
		if (r->op == DISK_IO_FLUSH) {
			io->flush_error = e->error; /* as with a file: see disk-io.c */
		}
		finish(e, e->error);
	} else if (r->op == DISK_IO_FLUSH) {
		finish(e, 0);
	} else if (r->op == DISK_IO_COMPARE &&
		   memcmp(io->scratch, r->data + e->at, e->piece) != 0) {
		finish(e, DISK_IO_MISCOMPARE);
	} else {
		e->at += e->piece;
		go_on(io, e, position);
	}
}

static bool in_flight(struct disk_io *io, bool flush_only)
{
	for (uint64_t i = io->reaped; i != io->begun; i++) {
		const struct entry *e = entry_at(io, i);

		if (e->in_flight && (!flush_only || e->r->op == DISK_IO_FLUSH)) {
			return true;
		}
	}
	return false;
}

/* The connection is of no use any more: what is in flight fails. Frees the handle first, so that
 * libnbd writes into no request's data any more. */
static void die(struct disk_io *io, int error, const char *why)
{
	if (io->dead) {
		return;
	}
	log_error("the NBD server is gone: %s. Every access fails from now on; add it again", why);
	io->dead = error;
	io->source = sd_event_source_disable_unref(io->source);
	nbd_close(io->nbd);
	io->nbd = NULL;
	/* For who else has it: there is nothing more to be had from it. */
	shutdown(io->watched, SHUT_RDWR);
	io->watched = safe_close(io->watched);
	for (uint64_t i = io->reaped; i != io->begun; i++) {
		struct entry *e = entry_at(io, i);

		if (!e->finished) {
			e->in_flight = false;
			finish(e, error);
		}
	}
}

static bool check_alive(struct disk_io *io)
{
	if (!io->dead && (nbd_aio_is_dead(io->nbd) || nbd_aio_is_closed(io->nbd))) {
		const char *why = nbd_get_error();

		die(io, -EIO, why ? why : "it closed the connection");
	}
	return !io->dead;
}

static void reap(struct disk_io *io)
{
	while (io->reaped != io->begun && entry_at(io, io->reaped)->finished) {
		struct entry *e = entry_at(io, io->reaped);

		/* First, because done may submit. */
		io->reaped++;
		e->r->done(e->r, e->error);
	}
}

static void watch(struct disk_io *io)
{
	unsigned direction;
	uint32_t events;

	if (io->dead) {
		return;
	}
	direction = nbd_aio_get_direction(io->nbd);
	events = (direction & LIBNBD_AIO_DIRECTION_READ ? (uint32_t)EPOLLIN : 0) |
		 (direction & LIBNBD_AIO_DIRECTION_WRITE ? (uint32_t)EPOLLOUT : 0);
	if (events != io->events && sd_event_source_set_io_events(io->source, events) >= 0) {
		io->events = events;
	}
}

static void watch_silence(struct disk_io *io)
{
	int enabled = SD_EVENT_OFF;

	sd_event_source_get_enabled(io->timer, &enabled);
	if (enabled == SD_EVENT_OFF && !io->dead && in_flight(io, false)) {
		io->heard = now_usec();
		sd_event_source_set_time(io->timer, io->heard + SILENCE_USEC);
		sd_event_source_set_enabled(io->timer, SD_EVENT_ONESHOT);
	}
}

/* Goes on with everything that can go on. Never nests: done may submit. */
static void pump(struct disk_io *io)
{
	if (io->pumping) {
		io->again = true;
		return;
	}
	io->pumping = true;
	do {
		io->again = false;
		check_alive(io);
		for (uint64_t i = io->reaped; i != io->begun; i++) {
			struct entry *e = entry_at(io, i);

			if (!e->finished && !e->in_flight) {
				take_answer(io, e, i);
				io->again = true;
			}
		}
		while (io->begun != io->submitted && may_begin(io, entry_at(io, io->begun)->r)) {
			go_on(io, entry_at(io, io->begun), io->begun);
			io->begun++;
			io->again = true;
		}
		reap(io);
	} while (io->again);
	io->pumping = false;
	watch(io);
	watch_silence(io);
}

static int handle_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct disk_io *io = userdata;
	unsigned direction = nbd_aio_get_direction(io->nbd);

	io->heard = now_usec();
	/* A failure is seen as a dead handle. */
	if (direction & LIBNBD_AIO_DIRECTION_READ && revents & ~(uint32_t)EPOLLOUT) {
		nbd_aio_notify_read(io->nbd);
	} else if (direction & LIBNBD_AIO_DIRECTION_WRITE) {
		nbd_aio_notify_write(io->nbd);
	}
	pump(io);
	return 0;
}

static int handle_silence(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct disk_io *io = userdata;
	uint64_t most = in_flight(io, true) ? SILENCE_FLUSH_USEC : SILENCE_USEC;

	if (io->dead || !in_flight(io, false)) {
		return 0;
	}
	if (now_usec() < io->heard + most) {
		sd_event_source_set_time(io->timer, io->heard + most);
		sd_event_source_set_enabled(io->timer, SD_EVENT_ONESHOT);
		return 0;
	}
	die(io, -ETIMEDOUT, "it does not answer");
	pump(io);
	return 0;
}

bool disk_io_full(const struct disk_io *io)
{
	return io->submitted - io->reaped >= DISK_IO_QUEUE_MAX;
}

void disk_io_submit(struct disk_io *io, struct disk_io_request *r)
{
	assert(!disk_io_full(io));
	assert(r->op == DISK_IO_FLUSH ||
		(r->offset <= io->size && r->length <= io->size - r->offset));
	*entry_at(io, io->submitted++) = (struct entry){.r = r};
	pump(io);
}

void disk_io_abort_verify(struct disk_io *io)
{
	io->verify_aborted = io->submitted;
}

bool disk_io_can_discard(const struct disk_io *io)
{
	return io->can_discard;
}

static int handshake(struct disk_io *io)
{
	uint64_t end = now_usec() + HANDSHAKE_USEC;

	if (nbd_aio_connect_socket(io->nbd, steal_fd(&io->fd)) < 0) {
		return -EPROTO;
	}
	while (!nbd_aio_is_ready(io->nbd)) {
		uint64_t now = now_usec();

		if (now >= end) {
			return -ETIMEDOUT;
		}
		if (nbd_aio_is_dead(io->nbd) || nbd_aio_is_closed(io->nbd) ||
			nbd_poll(io->nbd, (int)((end - now) / 1000) + 1) < 0) {
			return -EPROTO;
		}
	}
	return 0;
}

/* What the server said about its export. */
static int take_terms(struct disk_io *io, uint32_t block, const char **why)
{
	int64_t size = nbd_get_size(io->nbd);
	int64_t least = nbd_get_block_size(io->nbd, LIBNBD_SIZE_MINIMUM);
	int64_t most = nbd_get_block_size(io->nbd, LIBNBD_SIZE_MAXIMUM);

	if (size < (int64_t)block) {
		*why = "its export is smaller than a block";
		return -EINVAL;
	}
	/* 0: it did not say. A power of two. */
	if (least > (int64_t)block) {
		*why = "its export takes only blocks that are larger than a stick's 512 bytes";
		return -EOPNOTSUPP;
	}
	io->chunk = most >= (int64_t)block ? MIN((uint64_t)most, (uint64_t)CHUNK_MAX) : CHUNK_MAX;
	io->chunk -= io->chunk % block;
	io->size = (uint64_t)size;
	io->writable = io->writable && nbd_is_read_only(io->nbd) == 0;
	io->can_flush = io->writable && nbd_can_flush(io->nbd) == 1;
	io->can_discard = io->writable && nbd_can_trim(io->nbd) == 1;
	return 0;
}

static int begin_to_watch(struct disk_io *io)
{
	int r;

	io->events = EPOLLIN;
	r = sd_event_add_io(io->event, &io->source, io->watched, io->events, handle_io, io);
	if (r >= 0) {
		r = sd_event_add_time(
			io->event, &io->timer, CLOCK_MONOTONIC, UINT64_MAX, 0, handle_silence, io);
	}
	if (r >= 0) {
		r = sd_event_source_set_enabled(io->timer, SD_EVENT_OFF);
	}
	if (r >= 0) {
		watch(io);
	}
	return r < 0 ? r : 0;
}

int disk_io_open(
	struct disk_io *io, uint32_t block, struct disk_io_medium *out, char *why, size_t why_size)
{
	const char *text = NULL;
	int r = handshake(io);

	if (r == 0) {
		r = take_terms(io, block, &text);
	}
	if (r == 0) {
		r = begin_to_watch(io);
	}
	if (r < 0) {
		if (!text) {
			text = r == -ETIMEDOUT ? "it does not answer" : nbd_get_error();
		}
		snprintf(why, why_size, "NBD: %s", text ? text : strerror(-r));
		return r;
	}
	*out = (struct disk_io_medium){.size = io->size, .writable = io->writable};
	return 0;
}

int disk_io_start(const struct disk_io_options *o, struct disk_io **out)
{
	struct disk_io *io = calloc(1, sizeof(*io));

	if (!io) {
		safe_close(o->fd);
		return -ENOMEM;
	}
	io->fd = o->fd;
	io->watched = fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
	io->writable = o->writable;
	io->event = o->event;
	io->scratch = malloc(SCRATCH_SIZE);
	io->nbd = nbd_create();
	if (io->watched < 0 || !io->scratch || !io->nbd ||
		nbd_set_export_name(io->nbd, o->export) < 0) {
		disk_io_destroy(io);
		return -ENOMEM;
	}
	*out = io;
	return 0;
}

void disk_io_destroy(struct disk_io *io)
{
	if (!io) {
		return;
	}
	sd_event_source_disable_unref(io->source);
	sd_event_source_disable_unref(io->timer);
	nbd_close(io->nbd);
	safe_close(io->watched);
	safe_close(io->fd);
	free(io->scratch);
	free(io);
}
