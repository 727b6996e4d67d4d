/* SPDX-License-Identifier: MIT
 *
 * Notices a renderer that hangs, also while no VMM waits for it. It is asked (PING) a while after a
 * guest's kick, when a VMM waits and when our parent asks, and as long as it has more to do; then
 * there is a timer that looks whether it answered or did a step of its work (journal::beats). One
 * that did neither in LOOKS_MAX looks is given up like one that ended. One that answered and has
 * nothing more to do is left alone, without any timer: the next kick wakes us. It wakes us once,
 * not each time: the kicks' epoll set keeps what comes in between until it is looked at.
 *
 * The beats are a renderer's own word. One that means harm only keeps itself alive with them, and
 * with it what it does to its own VM.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "gpu/front-internal.h"

#define LOOK_USEC UINT64_C(400000)
/* A new one has to close its sandbox first. */
#define LOOKS_MAX          3
#define LOOKS_TO_READY_MAX 25
/* Renderers that end while they draw: how often until it is not tried again. */
#define OFFENCES_MAX  2
#define OFFENCES_USEC UINT64_C(300000000)
/* What makes it hang is probably executed again by the next one. */
#define HANGS_MAX  4
#define HANGS_USEC UINT64_C(60000000)

/* Takes note of kicks since it was done last. */
static void take_kicks(struct front *f)
{
	struct epoll_event events[FRONT_QUEUES];

	if (epoll_wait(f->watch.kicks, events, FRONT_QUEUES, 0) > 0) {
		f->watch.kicked = f->watch.more = true;
	}
}

static void look_again(struct front *f)
{
	sd_event_source_set_time_relative(f->watch.timer, LOOK_USEC);
	sd_event_source_set_enabled(f->watch.timer, SD_EVENT_ONESHOT);
}

static void begin(struct front *f)
{
	f->watch.on = true;
	f->watch.kicked = false;
	f->watch.silent = (struct patience){0};
	f->watch.beats = journal_beats(f->journal);
	sd_event_source_set_enabled(f->watch.kicks_io, SD_EVENT_OFF);
	look_again(f);
}

static void rest(struct front *f)
{
	f->watch.on = false;
	sd_event_source_set_enabled(f->watch.timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(f->watch.kicks_io, SD_EVENT_ON);
}

static void ask(struct front *f)
{
	union link_msg m;

	take_kicks(f);
	f->watch.asked = true;
	f->watch.more = false;
	link_init(&m, LINK_PING);
	m.ping.seq = ++f->watch.seq;
	front_renderer_send(f, &m, NULL, 0);
}

void front_watch_ask(struct front *f)
{
	if (f->link < 0) {
		return;
	}
	if (!f->watch.on) {
		begin(f);
	}
	if (f->watch.asked) {
		f->watch.more = true;
	} else if (f->link_ready) {
		ask(f);
	}
}

void front_watch_answered(struct front *f, uint64_t seq, bool busy)
{
	if (!f->watch.asked || seq != f->watch.seq) {
		return;
	}
	f->watch.asked = false;
	take_kicks(f);
	f->watch.more = f->watch.more || busy;
	/* A guest that works would have us awake for each of its kicks. */
	if (!f->watch.more && !f->watch.kicked) {
		rest(f);
	}
}

void front_watch_start(struct front *f)
{
	front_watch_stop(f);
	f->watch.seq = 0;
	begin(f);
}

void front_watch_stop(struct front *f)
{
	f->watch.on = f->watch.asked = false;
	sd_event_source_set_enabled(f->watch.timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(f->watch.kicks_io, SD_EVENT_OFF);
}

void front_watch_hung(struct front *f)
{
	front_renderer_lost(f, "it does not answer");
	if (restarts_too_often(&f->watch.hangs, HANGS_MAX, HANGS_USEC, now_usec())) {
		front_end(f, FRONT_EXIT_FAILED, "its renderers hang too often");
	}
}

static uint32_t drawing(const struct front *f)
{
	return __atomic_load_n(&f->journal->drawing, __ATOMIC_ACQUIRE);
}

/* How often it may look as if it hung. Drawing takes its time, in software above all. */
static unsigned int looks_max(const struct front *f)
{
	if (!f->link_ready) {
		return LOOKS_TO_READY_MAX;
	}
	return drawing(f) ? (unsigned int)MAX(f->o->hang_usec / LOOK_USEC, (uint64_t)LOOKS_MAX)
			  : LOOKS_MAX;
}

/* Of a context, as its renderer wrote it down; it may have written anything. */
static void describe(const struct front *f, uint32_t slot, char *out, size_t size)
{
	char name[JOURNAL_NAME_SIZE], text[2 * JOURNAL_NAME_SIZE];

	if (slot == 0 || slot > JOURNAL_CONTEXTS) {
		snprintf(out, size, "no context");
		return;
	}
	memcpy(name, f->journal->context_names[slot - 1], sizeof(name));
	log_escape(name, strnlen(name, sizeof(name)), text, sizeof(text));
	snprintf(out, size, "context %u (%s)", f->journal->contexts[slot - 1].id, text);
}

void front_watch_blame(struct front *f)
{
	uint32_t slot = drawing(f);
	char whom[160];

	__atomic_store_n(&f->journal->drawing, 0, __ATOMIC_RELEASE);
	if (slot == 0) {
		return;
	}
	describe(f, slot - 1, whom, sizeof(whom));
	log_warn("%s: its renderer ended while it drew for %s", f->o->name, whom);
	f->watch.n_offences++;
	if (!f->watch.quarantined &&
		restarts_too_often(&f->watch.offences, OFFENCES_MAX, OFFENCES_USEC, now_usec())) {
		f->watch.quarantined = true;
		log_warn("%s: gets no 3D any more, after %d renderers within %d minutes; 2D stays. "
			 "To allow it again: devbroker gpu allow VM",
			f->o->name, OFFENCES_MAX + 1, (int)(OFFENCES_USEC / 60000000));
	}
}

void front_watch_allow(struct front *f)
{
	union link_msg m;

	f->watch.quarantined = false;
	f->watch.offences = (struct restarts){0};
	link_init(&m, LINK_ALLOW);
	m.allow.allowed = 1;
	front_renderer_send(f, &m, NULL, 0);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct front *f = userdata;
	struct front_watch *w = &f->watch;
	uint32_t beats = journal_beats(f->journal);
	bool answered = f->link_ready && !w->asked;

	if (answered || beats != w->beats) {
		w->silent = (struct patience){0};
	} else {
		patience_missed(&w->silent, usec, now_usec(), LOOK_USEC);
	}
	w->beats = beats;
	if (w->silent.misses >= looks_max(f)) {
		front_watch_hung(f);
		return 0;
	}
	w->kicked = false;
	take_kicks(f);
	if (answered && !w->more) {
		rest(f);
		return 0;
	}
	if (answered) {
		ask(f);
	}
	if (w->on) {
		look_again(f);
	}
	return 0;
}

/* The renderer was woken as well, and is at work now: a question would only be in its way. */
static int on_kicks(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct front *f = userdata;

	begin(f);
	f->watch.more = true;
	return 0;
}

void front_watch_add(struct front *f, int kick)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};
	struct stat st;

	/* An eventfd is of no type. Another file's own code might hold us up. */
	if (kick >= 0 && fstat(kick, &st) == 0 && (st.st_mode & S_IFMT) == 0) {
		_unused_ int r = epoll_ctl(f->watch.kicks, EPOLL_CTL_ADD, kick, &e);
	}
}

void front_watch_remove(struct front *f, int kick)
{
	if (kick >= 0) {
		epoll_ctl(f->watch.kicks, EPOLL_CTL_DEL, kick, NULL);
	}
}

int front_watch_init(struct front *f)
{
	struct front_watch *w = &f->watch;
	int r;

	w->kicks = epoll_create1(EPOLL_CLOEXEC);
	if (w->kicks < 0) {
		return -errno;
	}
	r = sd_event_add_io(f->event, &w->kicks_io, w->kicks, EPOLLIN, on_kicks, f);
	if (r >= 0) {
		r = sd_event_source_set_enabled(w->kicks_io, SD_EVENT_OFF);
	}
	if (r >= 0) {
		r = sd_event_add_time(
			f->event, &w->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_look, f);
	}
	return r < 0 ? r : sd_event_source_set_enabled(w->timer, SD_EVENT_OFF);
}

void front_watch_finish(struct front *f)
{
	sd_event_source_disable_unref(f->watch.timer);
	sd_event_source_disable_unref(f->watch.kicks_io);
	safe_close(f->watch.kicks);
}
