/* SPDX-License-Identifier: MIT
 *
 * A client's connection on the loop. sd_bus_attach_event would do, but sd-bus takes messages of up
 * to 128 MiB, and keeps what it has of one for as long as the client likes. So the reading is done
 * from here, where it can be counted: all that is there before a turn is taken as read in it, and
 * a message that is complete begins the count anew (bus.c). It is no exact count: a header, which
 * sd-bus reads by itself, has what is behind it counted twice, and what comes in the middle of a
 * turn is missed, which is any length from a client that writes as fast as sd-bus reads. But once
 * sd-bus has a header it allocates all that the message is to have: so the heap tells, too, after
 * one turn of a long message. One that is complete in that turn is over with it.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "base/checked.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"

/* Requests are of some hundred bytes; but what is queued behind one is counted with it, and a
 * privileged client's socket may hold 8 MiB. */
#define UNFRAMED_MAX      (1 << 20)
#define UNFRAMED_MAX_HOST (20 << 20)
#define TURN_MIN          4096
#define MESSAGE_MAX       (1 << 20)

static uint64_t unframed_max(const struct bus_connection *c)
{
	return c->caller.class == UID_HOST ? UNFRAMED_MAX_HOST : UNFRAMED_MAX;
}

static size_t heap_in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void turn(struct bus_connection *c, bool readable)
{
	size_t heap = readable ? heap_in_use() : SIZE_MAX;
	int n = 0;

	/* What comes between the two calls is not seen: so a turn counts for something anyway. */
	if (readable && ioctl(sd_bus_get_fd(c->bus), FIONREAD, &n) == 0) {
		c->unframed += (uint64_t)MAX(n, TURN_MIN);
	}
	/* Before sd-bus closes the fd, which may be another client's by the time that epoll is
	 * told.
	 */
	if (sd_bus_process(c->bus, NULL) < 0 || sd_bus_is_open(c->bus) <= 0) {
		bus_pump_stop(c);
		bus_connection_drop(c);
		return;
	}
	/* Where a message was complete, it may have left something else than itself. */
	if (c->unframed > unframed_max(c) ||
		(c->unframed > 0 && heap < SIZE_MAX && heap_in_use() > heap + MESSAGE_MAX)) {
		log_warn("bus: uid %u pid %d sends a message that is too long; dropped",
			(unsigned int)c->caller.uid, (int)c->caller.pid);
		bus_connection_drop(c);
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	turn(userdata, revents & EPOLLIN);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	turn(userdata, false);
	return 0;
}

static int prepare(struct bus_connection *c)
{
	int events = sd_bus_get_events(c->bus), r;
	uint64_t until;

	if (events < 0) {
		return events;
	}
	r = sd_event_source_set_io_events(c->io, (uint32_t)events);
	if (r < 0) {
		return r;
	}
	r = sd_bus_get_timeout(c->bus, &until);
	if (r <= 0) {
		return r < 0 ? r : sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	}
	r = sd_event_source_set_time(c->timer, until);
	return r < 0 ? r : sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static int on_prepare(sd_event_source *source, void *userdata)
{
	struct bus_connection *c = userdata;

	if (!c->dying && prepare(c) < 0) {
		bus_pump_stop(c);
		bus_connection_drop(c);
	}
	return 0;
}

int bus_pump_start(struct bus_connection *c)
{
	sd_event *event = bus_broker(c)->event;
	int r = sd_event_add_io(event, &c->io, sd_bus_get_fd(c->bus), 0, on_io, c);

	if (r >= 0) {
		r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, 1, on_timer, c);
	}
	if (r >= 0) {
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	}
	return r < 0 ? r : sd_event_source_set_prepare(c->io, on_prepare);
}

void bus_pump_stop(struct bus_connection *c)
{
	c->io = sd_event_source_disable_unref(c->io);
	c->timer = sd_event_source_disable_unref(c->timer);
}
