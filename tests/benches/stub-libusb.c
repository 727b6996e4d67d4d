/* SPDX-License-Identifier: MIT
 *
 * A drop-in libusb-1.0.so.0 for tests and benches: one device, made up (stub-device.c), and
 * libusb's API as far as devbroker-usb, libusbredirhost and usbredirect call it. In this file:
 * contexts, events and transfers.
 *
 * As with the real one, nothing is completed from within submit: an eventfd (and a timerfd for what
 * takes its time) becomes readable, and handling events calls back. What it leaves out is
 * usbfs's cost: one write wakes for any number of transfers that are submitted before events are
 * handled. Threads may submit and handle events at the same time (usbredirect does). Every fd is
 * made by libusb_init; after it the only system calls are read, write, poll and timerfd_settime.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

static struct libusb_context *default_context;

uint64_t stub_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct libusb_context *stub_context(struct libusb_context *ctx)
{
	return ctx ? ctx : default_context;
}

static struct libusb_context *context_create(void)
{
	struct libusb_context *ctx = calloc(1, sizeof(*ctx));

	if (!ctx) {
		return NULL;
	}
	ctx->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ctx->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ctx->event_fd < 0 || ctx->timer_fd < 0) {
		abort();
	}
	pthread_mutex_init(&ctx->lock, NULL);
	pthread_mutex_init(&ctx->events, NULL);
	list_init(&ctx->done);
	list_init(&ctx->waiting);
	ctx->refs = 1;
	return ctx;
}

int libusb_init(libusb_context **out)
{
	if (!out && default_context) {
		default_context->refs++;
		return 0;
	}
	struct libusb_context *ctx = context_create();

	if (!ctx) {
		return LIBUSB_ERROR_NO_MEM;
	}
	if (out) {
		*out = ctx;
	}
	if (!default_context) {
		default_context = ctx;
	}
	return 0;
}

void libusb_exit(libusb_context *ctx)
{
	ctx = stub_context(ctx);
	if (!ctx || --ctx->refs > 0) {
		return;
	}
	if (ctx == default_context) {
		default_context = NULL;
	}
	close(ctx->event_fd);
	close(ctx->timer_fd);
	pthread_mutex_destroy(&ctx->lock);
	pthread_mutex_destroy(&ctx->events);
	free(ctx->device);
	free(ctx);
}

struct libusb_transfer *libusb_alloc_transfer(int iso_packets)
{
	struct stub_transfer *s = calloc(
		1, sizeof(*s) + (size_t)iso_packets * sizeof(struct libusb_iso_packet_descriptor));

	if (!s) {
		return NULL;
	}
	list_init(&s->link);
	s->t.num_iso_packets = iso_packets;
	return &s->t;
}

static struct stub_transfer *of(struct libusb_transfer *t)
{
	return list_entry(t, struct stub_transfer, t);
}

void libusb_free_transfer(struct libusb_transfer *t)
{
	if (!t) {
		return;
	}
	if (of(t)->submitted) {
		abort(); /* as bad as it would be with the real one, but seen */
	}
	if (t->flags & LIBUSB_TRANSFER_FREE_BUFFER) {
		free(t->buffer);
	}
	free(of(t));
}

void libusb_transfer_set_stream_id(struct libusb_transfer *t, uint32_t stream)
{
	of(t)->stream = stream;
}

uint32_t libusb_transfer_get_stream_id(struct libusb_transfer *t)
{
	return of(t)->stream;
}

/* With the lock held. */
static void kick(struct libusb_context *ctx)
{
	const uint64_t one = 1;

	if (!ctx->kicked) {
		ctx->kicked = write(ctx->event_fd, &one, sizeof(one)) == sizeof(one);
	}
}

static void set_timer(struct libusb_context *ctx)
{
	struct stub_transfer *s = list_first(&ctx->waiting, struct stub_transfer, link);
	struct itimerspec when = {0};

	if (s && s->due != UINT64_MAX) {
		when.it_value.tv_sec = (time_t)(s->due / 1000000000u);
		when.it_value.tv_nsec = (long)(s->due % 1000000000u);
	}
	timerfd_settime(ctx->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void wait_until_due(struct libusb_context *ctx, struct stub_transfer *s)
{
	struct list *where = &ctx->waiting;

	while (where->prev != &ctx->waiting &&
		list_entry(where->prev, struct stub_transfer, link)->due > s->due) {
		where = where->prev;
	}
	list_append(where, &s->link);
	if (ctx->waiting.next == &s->link) {
		set_timer(ctx);
	}
}

static int check_submit(struct libusb_context *ctx, struct stub_transfer *s)
{
	struct libusb_transfer *t = &s->t;
	struct stub_device *d = &t->dev_handle->dev->device;
	int interface = stub_interface_of(d, t->endpoint);

	if (d->gone) {
		return LIBUSB_ERROR_NO_DEVICE;
	}
	if (s->submitted) {
		return LIBUSB_ERROR_BUSY;
	}
	if (d->options.memory && ctx->bytes + (uint64_t)t->length > d->options.memory) {
		return LIBUSB_ERROR_NO_MEM;
	}
	if (t->type == LIBUSB_TRANSFER_TYPE_CONTROL) {
		return t->length >= (int)LIBUSB_CONTROL_SETUP_SIZE ? 0 : LIBUSB_ERROR_INVALID_PARAM;
	}
	if (interface < 0 || !(t->dev_handle->claimed & 1u << interface)) {
		return LIBUSB_ERROR_NOT_FOUND;
	}
	if (t->type == LIBUSB_TRANSFER_TYPE_BULK_STREAM &&
		(s->stream == 0 || s->stream > stub_endpoint(d, t->endpoint)->streams)) {
		return LIBUSB_ERROR_INVALID_PARAM;
	}
	return 0;
}

int libusb_submit_transfer(struct libusb_transfer *t)
{
	struct libusb_context *ctx = t->dev_handle->dev->ctx;
	struct stub_transfer *s = of(t);
	bool paced = t->dev_handle->dev->device.options.latency_us ||
		     t->type == LIBUSB_TRANSFER_TYPE_ISOCHRONOUS ||
		     t->type == LIBUSB_TRANSFER_TYPE_INTERRUPT;
	uint64_t now = paced || t->timeout ? stub_now() : 0;
	int r;

	pthread_mutex_lock(&ctx->lock);
	r = check_submit(ctx, s);
	if (r == 0) {
		s->submitted = true;
		s->cancelled = s->timed_out = false;
		s->due = stub_due(&t->dev_handle->dev->device, t, now);
		if (t->timeout && s->due > now + t->timeout * UINT64_C(1000000)) {
			s->due = now + t->timeout * UINT64_C(1000000);
			s->timed_out = true;
		}
		ctx->bytes += (uint64_t)t->length;
		if (s->due > now) {
			wait_until_due(ctx, s);
		} else {
			list_append(&ctx->done, &s->link);
			kick(ctx);
		}
	}
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

int libusb_cancel_transfer(struct libusb_transfer *t)
{
	struct libusb_context *ctx = t->dev_handle->dev->ctx;
	struct stub_transfer *s = of(t);
	int r = 0;

	pthread_mutex_lock(&ctx->lock);
	if (!s->submitted || s->cancelled) {
		r = LIBUSB_ERROR_NOT_FOUND;
	} else if (t->endpoint == 0 || t->endpoint != t->dev_handle->dev->device.options.stuck) {
		s->cancelled = true;
		list_remove(&s->link);
		list_append(&ctx->done, &s->link);
		kick(ctx);
	}
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

/* Takes what is done off the lists, one by one. NULL: no more. */
static struct stub_transfer *next_done(struct libusb_context *ctx)
{
	struct stub_transfer *s;

	pthread_mutex_lock(&ctx->lock);
	s = list_first(&ctx->done, struct stub_transfer, link);
	if (s) {
		struct stub_device *d = &s->t.dev_handle->dev->device;

		list_remove(&s->link);
		s->submitted = false;
		ctx->bytes -= (uint64_t)s->t.length;
		if (s->cancelled || s->timed_out) {
			s->t.status = s->cancelled ? LIBUSB_TRANSFER_CANCELLED
						   : LIBUSB_TRANSFER_TIMED_OUT;
			s->t.actual_length = 0;
			d->counters.cancelled++;
		} else {
			stub_complete(d, &s->t, s->stream);
		}
	}
	pthread_mutex_unlock(&ctx->lock);
	return s;
}

/* Moves what has become due to done. Returns how many are done. */
static size_t collect(struct libusb_context *ctx, bool timer)
{
	struct stub_transfer *s;
	uint64_t count;
	size_t n = 0;

	pthread_mutex_lock(&ctx->lock);
	if (ctx->kicked) {
		ctx->kicked = read(ctx->event_fd, &count, sizeof(count)) < 0;
	}
	if (timer && read(ctx->timer_fd, &count, sizeof(count)) > 0) {
		uint64_t now = stub_now();

		for (s = list_first(&ctx->waiting, struct stub_transfer, link); s && s->due <= now;
			s = list_first(&ctx->waiting, struct stub_transfer, link)) {
			list_remove(&s->link);
			list_append(&ctx->done, &s->link);
		}
		set_timer(ctx);
	}
	list_for_each (s, &ctx->done, link) {
		n++;
	}
	pthread_mutex_unlock(&ctx->lock);
	return n;
}

static void finish(struct stub_transfer *s)
{
	struct libusb_transfer *t = &s->t;
	bool free_it = t->flags & LIBUSB_TRANSFER_FREE_TRANSFER;

	if (t->callback) {
		t->callback(t);
	}
	if (free_it) {
		libusb_free_transfer(t);
	}
}

int libusb_handle_events_timeout_completed(libusb_context *ctx, struct timeval *tv, int *completed)
{
	struct pollfd fds[2];
	size_t n;
	int r;

	ctx = stub_context(ctx);
	if (completed && *completed) {
		return 0;
	}
	fds[0] = (struct pollfd){ctx->event_fd, POLLIN, 0};
	fds[1] = (struct pollfd){ctx->timer_fd, POLLIN, 0};
	r = poll(fds, 2, (int)(tv->tv_sec * 1000 + (tv->tv_usec + 999) / 1000));
	if (r < 0) {
		return errno == EINTR ? LIBUSB_ERROR_INTERRUPTED : LIBUSB_ERROR_IO;
	}
	if (r == 0 || pthread_mutex_trylock(&ctx->events) != 0) {
		return 0; /* nothing, or another thread is at it */
	}
	for (n = collect(ctx, fds[1].revents); n > 0; n--) {
		struct stub_transfer *s = next_done(ctx);

		if (!s) {
			break;
		}
		finish(s);
	}
	pthread_mutex_unlock(&ctx->events);
	return 0;
}

int libusb_handle_events_timeout(libusb_context *ctx, struct timeval *tv)
{
	return libusb_handle_events_timeout_completed(ctx, tv, NULL);
}

int libusb_handle_events_completed(libusb_context *ctx, int *completed)
{
	struct timeval minute = {.tv_sec = 60};

	return libusb_handle_events_timeout_completed(ctx, &minute, completed);
}

int libusb_handle_events(libusb_context *ctx)
{
	return libusb_handle_events_completed(ctx, NULL);
}

void libusb_interrupt_event_handler(libusb_context *ctx)
{
	ctx = stub_context(ctx);
	pthread_mutex_lock(&ctx->lock);
	kick(ctx);
	pthread_mutex_unlock(&ctx->lock);
}

/* Never of use: the timerfd is among the pollfds. */
int libusb_pollfds_handle_timeouts(libusb_context *ctx)
{
	return 1;
}

int libusb_get_next_timeout(libusb_context *ctx, struct timeval *tv)
{
	return 0;
}

const struct libusb_pollfd **libusb_get_pollfds(libusb_context *ctx)
{
	const struct libusb_pollfd **list = calloc(3, sizeof(*list) + sizeof(**list));
	struct libusb_pollfd *fds;

	ctx = stub_context(ctx);
	if (!list) {
		return NULL;
	}
	fds = (void *)(list + 3);
	fds[0] = (struct libusb_pollfd){ctx->event_fd, POLLIN};
	fds[1] = (struct libusb_pollfd){ctx->timer_fd, POLLIN};
	list[0] = &fds[0];
	list[1] = &fds[1];
	return list;
}

void libusb_free_pollfds(const struct libusb_pollfd **list)
{
	free(list);
}

/* The fds never change, so that nobody is to be told. */
void libusb_set_pollfd_notifiers(libusb_context *ctx, libusb_pollfd_added_cb added,
	libusb_pollfd_removed_cb removed, void *data)
{
}
