/* SPDX-License-Identifier: MIT
 *
 * The VM's rates (protocol/pace.h), spent where transfers are given to the backend. What may not
 * begin yet waits here, in its order, and is in flight meanwhile: charged, and cancelled like
 * anything. Control transfers go at once, so that a guest can always talk to its device, and so do
 * isochronous ones, which would be lost if they were late; both are spent all the same, and the
 * rest gets what they leave. Without limits nothing waits and no timer runs.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "usb/engine-internal.h"

/* Limits may change meanwhile: they are looked at so often. */
#define LOOK_US     (100 * 1000)
#define ACCURACY_US 1

static void begin(struct engine *e, struct transfer *t, uint64_t now)
{
	t->paid = t->length;
	pace_spend(e->pace, now, t->length);
	engine_data_give(e, t);
}

static void wait_for_turn(struct engine *e, uint64_t ns)
{
	uint64_t us = MIN(ns / 1000 + 1, LOOK_US);

	if (sd_event_source_set_time_relative(e->pace_timer, us) < 0 ||
		sd_event_source_set_enabled(e->pace_timer, SD_EVENT_ONESHOT) < 0) {
		engine_stop(e, WORKER_DONE_INTERNAL, ENOMEM, "no timer");
	}
}

static int handle_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct engine *e = userdata;

	while (!list_empty(&e->paced)) {
		struct transfer *t = list_first(&e->paced, struct transfer, backend);
		uint64_t now = now_ns(), ns = pace_wait(e->pace, now);

		if (ns > 0) {
			wait_for_turn(e, ns);
			break;
		}
		engine_pace_forget(t);
		begin(e, t, now);
	}
	return 0;
}

void engine_pace_submit(struct engine *e, struct transfer *t)
{
	uint64_t now = now_ns(), ns;

	if (t->type == TRANSFER_CONTROL || t->type == TRANSFER_ISO) {
		begin(e, t, now);
		return;
	}
	ns = list_empty(&e->paced) ? pace_wait(e->pace, now) : 1;
	if (ns == 0) {
		begin(e, t, now);
		return;
	}
	if (list_empty(&e->paced)) {
		wait_for_turn(e, ns);
	}
	t->paced = true;
	list_append(&e->paced, &t->backend);
}

void engine_pace_forget(struct transfer *t)
{
	t->paced = false;
	list_remove(&t->backend);
}

void engine_pace_completed(struct engine *e, struct transfer *t)
{
	if (t->paid > t->actual) {
		pace_refund(e->pace, t->paid - t->actual);
	}
	t->paid = 0;
}

int engine_pace_create(struct engine *e)
{
	int r = sd_event_add_time_relative(
		e->event, &e->pace_timer, CLOCK_MONOTONIC, 0, ACCURACY_US, handle_timer, e);
	return r < 0 ? r : sd_event_source_set_enabled(e->pace_timer, SD_EVENT_OFF);
}

int engine_pace(struct engine *e, int fd)
{
	void *page = mmap(NULL, sizeof(*e->pace), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = page == MAP_FAILED ? -errno : 0;

	safe_close(fd);
	if (r == 0) {
		if (e->pace) {
			munmap(e->pace, sizeof(*e->pace));
		}
		e->pace = page;
	}
	return r;
}

void engine_pace_destroy(struct engine *e)
{
	struct transfer *t, *tmp;

	e->pace_timer = sd_event_source_disable_unref(e->pace_timer);
	list_for_each_safe (t, tmp, &e->paced, backend) {
		engine_pace_forget(t);
	}
	if (e->pace) {
		munmap(e->pace, sizeof(*e->pace));
	}
}
