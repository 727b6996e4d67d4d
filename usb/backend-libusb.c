/* SPDX-License-Identifier: MIT
 *
 * A host's device on a usbfs fd that somebody else opened and, started by the broker, stripped of
 * its privileges: life, libusb's fds in our loop, and the word that the device is gone.
 *
 * libusb finds no devices here, listens to nobody and makes no thread. Its fds (an eventfd, a
 * timerfd, the device) are sources of our loop; when one is ready, it handles its events without
 * waiting. Timeouts are not used, so that it needs no timer.
 *
 * Either the loop or the thread (usb/libusb-requests) has the device, never both: usbfs locks it
 * during what the thread does. Meanwhile transfers wait here, and so do cancels.
 */
#include "usb/backend-libusb.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/checked.h"
#include "base/fd.h"
#include "usb/libusb-internal.h"

/* 255 turns between two looks. */
#define LOOKS_MISSED_MAX 8

static void tell_lost(struct usb_host *h)
{
	if (h->gone && !h->lost_told && h->backend.sink) {
		h->lost_told = true;
		h->backend.sink->lost(h->backend.sink_data, ENODEV);
	}
}

static int handle_defer(sd_event_source *s, void *userdata)
{
	tell_lost(userdata);
	return 0;
}

void host_gone(struct usb_host *h)
{
	if (!h->gone) {
		h->gone = true;
		(void)sd_event_source_set_enabled(h->defer, SD_EVENT_ONESHOT);
	}
}

void backend_libusb_unplugged(struct backend *b)
{
	struct usb_host *h = host_of(b);

	h->gone = true;
	tell_lost(h);
}

/* ---- libusb's fds ---- */

static int handle_io(sd_event_source *s, int fd, uint32_t revents, void *userdata);

static void unwatch_all(struct usb_host *h)
{
	for (size_t i = 0; i < ARRAY_SIZE(h->sources); i++) {
		h->sources[i] = sd_event_source_disable_unref(h->sources[i]);
	}
}

/* Rare: at the start, and when libusb drops the fd of a device that is gone. */
static int watch_all(struct usb_host *h)
{
	const struct libusb_pollfd **fds;
	int r = 0;

	unwatch_all(h);
	atomic_store(&h->pollfds_changed, false);
	fds = libusb_get_pollfds(h->ctx);
	if (!fds) {
		return -ENOMEM;
	}
	for (size_t i = 0; fds[i] && r >= 0; i++) {
		uint32_t events = (fds[i]->events & POLLIN ? EPOLLIN : 0) |
				  (fds[i]->events & POLLOUT ? EPOLLOUT : 0);

		r = i < ARRAY_SIZE(h->sources) ? sd_event_add_io(h->event, &h->sources[i],
							 fds[i]->fd, events, handle_io, h)
					       : -E2BIG;
	}
	libusb_free_pollfds(fds);
	return r;
}

void host_watch(struct usb_host *h, bool on)
{
	h->sources_on = on;
	if (on && atomic_load(&h->pollfds_changed)) {
		if (watch_all(h) < 0) {
			host_gone(h);
		}
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(h->sources) && h->sources[i]; i++) {
		(void)sd_event_source_set_enabled(h->sources[i], on ? SD_EVENT_ON : SD_EVENT_OFF);
	}
}

static void LIBUSB_CALL on_pollfd_added(int fd, short events, void *userdata)
{
	struct usb_host *h = userdata;

	atomic_store(&h->pollfds_changed, true);
}

static void LIBUSB_CALL on_pollfd_removed(int fd, void *userdata)
{
	on_pollfd_added(fd, 0, userdata);
}

static void handle_events(struct usb_host *h)
{
	struct timeval now = {0};

	(void)libusb_handle_events_timeout_completed(h->ctx, &now, NULL);
}

/* May give up the source that calls. */
static void after_events(struct usb_host *h)
{
	if (atomic_load(&h->pollfds_changed)) {
		host_watch(h, h->sources_on);
	}
	requests_advance(h);
}

static int handle_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct usb_host *h = userdata;

	if (!h->sources_on) {
		return 0; /* was ready in the same turn, before the thread got the device */
	}
	handle_events(h);
	if (fd == h->device_fd && revents & (EPOLLERR | EPOLLHUP)) {
		host_gone(h);
		/* Nothing more comes, and the fd would stay ready for ever. */
		if (list_empty(&h->in_flight)) {
			(void)sd_event_source_set_enabled(s, SD_EVENT_OFF);
		}
	}
	after_events(h);
	return 0;
}

/* ---- Ops ---- */

static int host_describe(struct backend *b, struct usb_description *out)
{
	struct usb_host *h = host_of(b);

	if (h->gone) {
		return -ENODEV;
	}
	*out = h->description;
	return 0;
}

/* What was submitted in this turn may be done already, with a quick device or a deep queue: then
 * looking for it now saves a turn of the loop. Each look in vain doubles the pause until the next,
 * so that a slow device doesn't pay for it. */
static void host_turn(struct backend *b)
{
	struct usb_host *h = host_of(b);
	uint64_t completed = h->completed;

	if (!h->submitted || !h->sources_on) {
		return;
	}
	h->submitted = false;
	if (h->looks_off > 0) {
		h->looks_off--;
		return;
	}
	handle_events(h);
	after_events(h);
	h->looks_missed = h->completed > completed ? 0 : MIN(h->looks_missed + 1, LOOKS_MISSED_MAX);
	h->looks_off = (UINT32_C(1) << h->looks_missed) - 1;
}

/* There is nothing that a device would still have to write. */
static void host_quiesce(struct backend *b)
{
	b->sink->quiesced(b->sink_data, 0);
}

static void host_destroy(struct backend *b)
{
	struct usb_host *h = host_of(b);

	blocking_destroy(h->blocking);
	unwatch_all(h);
	sd_event_source_disable_unref(h->defer);
	if (h->ctx) {
		libusb_set_pollfd_notifiers(h->ctx, NULL, NULL, NULL);
	}
	transfers_finish(h);
	if (h->handle) {
		libusb_close(h->handle);
	}
	if (h->ctx) {
		libusb_exit(h->ctx);
	}
	safe_close(h->device_fd);
	sd_event_unref(h->event);
	free(h);
}

static const struct backend_ops host_ops = {
	.name = "libusb",
	.isochronous = true,
	.bulk_receiving = true,
	.describe = host_describe,
	.submit = transfers_submit,
	.turn = host_turn,
	.cancel = transfers_cancel,
	.set_configuration = requests_set_configuration,
	.set_interface = requests_set_interface,
	.reset = requests_reset,
	.alloc_streams = requests_alloc_streams,
	.free_streams = requests_free_streams,
	.quiesce = host_quiesce,
	.destroy = host_destroy,
};

static int init_libusb(struct usb_host *h)
{
	/* For the process, and before the context: discovery would need sockets and a thread. */
	if (libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY) != 0 ||
		libusb_init(&h->ctx) != 0) {
		return -ENOTSUP;
	}
	libusb_set_pollfd_notifiers(h->ctx, on_pollfd_added, on_pollfd_removed, h);
	return 0;
}

static int init(struct usb_host *h)
{
	int r = transfers_init(h);

	requests_init(h);
	if (r >= 0) {
		r = sd_event_add_defer(h->event, &h->defer, handle_defer, h);
	}
	if (r >= 0) {
		r = sd_event_source_set_enabled(h->defer, SD_EVENT_OFF);
	}
	if (r >= 0) {
		r = init_libusb(h);
	}
	return r < 0 ? r : blocking_create(h->event, requests_done, h, &h->blocking);
}

int backend_libusb_create(const struct backend_libusb_options *o, struct backend **out)
{
	struct usb_host *h = calloc(1, sizeof(*h));
	int r;

	if (!h) {
		safe_close(o->device_fd);
		return -ENOMEM;
	}
	h->backend.ops = &host_ops;
	h->event = sd_event_ref(o->event);
	h->device_fd = o->device_fd;
	h->interfaces = o->interfaces;
	h->budget.limit = o->usbfs_memory;
	h->may_configure = o->may_configure;
	h->listener = o->listener;
	h->userdata = o->userdata;
	r = init(h);
	if (r < 0) {
		host_destroy(&h->backend);
		return r;
	}
	*out = &h->backend;
	return 0;
}

int backend_libusb_open(struct backend *b, int *interface_out)
{
	struct usb_host *h = host_of(b);

	device_open(h);
	switch (h->result) {
	case 0:
		h->sources_on = true;
		return watch_all(h);
	case LIBUSB_ERROR_BUSY:
		*interface_out = h->busy_interface;
		return -EBUSY;
	case LIBUSB_ERROR_NO_DEVICE:
		return -ENODEV;
	default:
		return -EIO;
	}
}
