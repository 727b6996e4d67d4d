/* SPDX-License-Identifier: MIT
 *
 * What never comes back. A device (or its host controller) may keep a transfer that was cancelled,
 * or never answer a request; the guest's packets, or our end, would wait for ever. Everything that
 * was cancelled or asked for gets STUCK_US, then the device counts as lost, and the worker ends
 * with the transfers still out. A backend on a disk (backend_ops::slow) is left all the time it
 * takes.
 *
 * One timer for all: it is armed by the first of them, and when it fires it looks for the oldest
 * that is still out.
 */
#include "usb/engine-internal.h"

#include <errno.h>

#include "base/checked.h"

/* With DISCONNECT_WAIT_US and both timers' accuracy still less than 5 s. */
#define STUCK_US    (3500 * 1000)
#define ACCURACY_US (50 * 1000)

/* When the oldest was cancelled or asked for; UINT64_MAX if nothing is out. */
static uint64_t oldest(const struct engine *e)
{
	uint64_t us = e->request != ENGINE_REQUEST_NONE ? e->request_us : UINT64_MAX;
	const struct transfer *t;

	list_for_each (t, &e->in_flight, link) {
		if (t->submitted && t->cancelled) {
			us = MIN(us, t->cancelled_us);
		}
	}
	return us;
}

static void give_up(struct engine *e)
{
	const char *detail = e->request != ENGINE_REQUEST_NONE
				     ? "the device doesn't answer a request"
				     : "a cancelled transfer doesn't come back";

	e->stuck = true;
	engine_stop(e, WORKER_DONE_DEVICE_LOST, ETIMEDOUT, detail);
	if (e->reason != WORKER_DONE_DEVICE_LOST) {
		/* It was ending anyway: this is why it couldn't as it should. */
		e->reason = WORKER_DONE_DEVICE_LOST;
		e->error = ETIMEDOUT;
		worker_msg_text(e->detail, sizeof(e->detail), detail);
	}
}

static int handle_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct engine *e = userdata;
	uint64_t us = oldest(e), now;

	e->watching = false;
	sd_event_now(e->event, CLOCK_MONOTONIC, &now);
	if (us == UINT64_MAX) {
		return 0;
	}
	if (now - us >= STUCK_US || sd_event_source_set_time(e->watch_timer, us + STUCK_US) < 0 ||
		sd_event_source_set_enabled(e->watch_timer, SD_EVENT_ONESHOT) < 0) {
		give_up(e);
		return 0;
	}
	e->watching = true;
	return 0;
}

int engine_watch_create(struct engine *e)
{
	int r = sd_event_add_time_relative(
		e->event, &e->watch_timer, CLOCK_MONOTONIC, 0, ACCURACY_US, handle_timer, e);

	return r < 0 ? r : sd_event_source_set_enabled(e->watch_timer, SD_EVENT_OFF);
}

void engine_watch_destroy(struct engine *e)
{
	e->watch_timer = sd_event_source_disable_unref(e->watch_timer);
}

void engine_watch(struct engine *e)
{
	if (e->watching || !e->watch_timer || e->backend->ops->slow) {
		return;
	}
	e->watching = sd_event_source_set_time_relative(e->watch_timer, STUCK_US) >= 0 &&
		      sd_event_source_set_enabled(e->watch_timer, SD_EVENT_ONESHOT) >= 0;
}
