/* SPDX-License-Identifier: MIT
 *
 * The front's end of the link. A renderer that ends, breaks the link's protocol or doesn't read is
 * given up: its socket is closed, which ends it, and the parent is asked for another, which is told
 * everything again and finds the rest in the journal. The VMM notices nothing but a pause.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "gpu/front-internal.h"

#define MESSAGES_PER_TURN 64
/* Damages taken per turn; what is more is found in the next one. */
#define DAMAGES_PER_TURN 512

void front_renderer_lost(struct front *f, const char *why)
{
	struct parent_msg m = {.type = PARENT_RENDERER_LOST};

	if (f->link < 0) {
		return;
	}
	log_warn("%s: its renderer is gone (%s); another one is wanted", f->o->name, why);
	f->link_io = sd_event_source_disable_unref(f->link_io);
	f->link = safe_close(f->link);
	f->link_ready = false;
	front_watch_stop(f);
	front_watch_blame(f);
	for (size_t i = 0; i < FRONT_QUEUES; i++) {
		f->vrings[i].told = false;
	}
	/* Its pictures stay on the screens; the numbers of the next one's are its own. */
	pictures_finish(&f->pictures);
	front_picture_lost(f);
	m.hangs = f->watch.n_offences;
	front_parent_say(f, &m, -1);
}

void front_renderer_send(struct front *f, const union link_msg *msg, const int *fds, size_t n_fds)
{
	int r;

	if (!f->link_ready) {
		return;
	}
	r = link_send(f->link, msg, fds, n_fds);
	if (r < 0) {
		front_renderer_lost(f, r == -EAGAIN ? "it does not read" : strerror(-r));
	}
}

void front_renderer_send_memory(struct front *f)
{
	union link_msg m;

	link_init(&m, LINK_MEMORY);
	m.memory.generation = f->generation;
	m.memory.n_regions = (uint32_t)f->n_regions;
	front_renderer_send(f, &m, NULL, 0);
	for (size_t i = 0; i < f->n_regions; i++) {
		const struct vhost_user_region *r = &f->regions[i].region;

		link_init(&m, LINK_REGION);
		m.region.guest = r->guest;
		m.region.user = r->user;
		m.region.size = r->size;
		m.region.offset = r->offset;
		front_renderer_send(f, &m, &f->regions[i].fd, 1);
	}
}

void front_renderer_send_reset(struct front *f)
{
	union link_msg m;

	for (uint32_t i = 0; i < DISPLAY_SCANOUTS; i++) {
		display_show(f->display, i, NULL, NULL);
	}
	f->resetting = f->renderers > 0;
	link_init(&m, LINK_RESET);
	front_renderer_send(f, &m, NULL, 0);
}

void front_renderer_send_modes(struct front *f, const struct display_mode *modes)
{
	union link_msg m;

	f->modes_wanted = false;
	link_init(&m, LINK_MODES);
	for (size_t i = 0; i < LINK_SCANOUTS; i++) {
		m.modes.modes[i] =
			(struct link_mode){modes[i].x, modes[i].y, modes[i].width, modes[i].height};
	}
	front_renderer_send(f, &m, NULL, 0);
}

/* Everything that a renderer has to know, to a new one. */
static void handle_ready(struct front *f, const struct link_ready *ready)
{
	const int fds[] = {f->journal_fd, f->bell};
	const struct parent_msg started = {.type = PARENT_RENDERER_STARTED};
	union link_msg m;

	if (f->link_ready || ready->version != LINK_VERSION) {
		front_renderer_lost(f, "it is of another version");
		return;
	}
	f->link_ready = true;
	link_init(&m, LINK_SETUP);
	m.setup.version = LINK_VERSION;
	m.setup.n_scanouts = LINK_SCANOUTS;
	m.setup.flags = (f->renderers > 1 ? LINK_SETUP_RECOVER : 0) |
			(f->watch.quarantined ? LINK_SETUP_NO_3D : 0);
	m.setup.dmabufs = f->dmabufs;
	memcpy(f->drawn_by, ready->renderer, sizeof(f->drawn_by));
	memcpy(m.setup.uuid_seed, f->uuid_seed, sizeof(m.setup.uuid_seed));
	front_renderer_send(f, &m, fds, 2);
	front_renderer_send_memory(f);
	if (f->resetting) {
		front_renderer_send_reset(f);
	}
	front_vrings_start(f);
	if (f->wait == FRONT_WAIT_STOPPED) {
		link_init(&m, LINK_STOP);
		m.queue.queue = f->wait_queue;
		front_renderer_send(f, &m, NULL, 0);
	}
	front_watch_ask(f);
	front_parent_say(f, &started, -1);
}

static void handle_done(struct front *f, const struct link_done *done)
{
	if (done->error) {
		log_warn("%s: the renderer can't use what the VMM gave it: %s", f->o->name,
			strerror(-done->error));
	}
	if (done->type == LINK_MEMORY && f->wait == FRONT_WAIT_MEMORY &&
		done->generation == f->generation) {
		front_acknowledge(f, done->error);
	} else if (done->type == LINK_RESET) {
		f->resetting = false;
		if (f->wait == FRONT_WAIT_RESET) {
			front_acknowledge(f, done->error);
		}
	}
}

static void handle_stopped(struct front *f, const struct link_stopped *stopped)
{
	struct vhost_user_vring_state state = {stopped->queue, stopped->next_avail};

	if (f->wait != FRONT_WAIT_STOPPED || f->wait_queue != stopped->queue) {
		front_renderer_lost(f, "it stopped a queue that runs");
		return;
	}
	front_vring_stopped(f, stopped->queue, stopped->next_avail);
	front_answer_waiting(f, &state, sizeof(state));
}

/* NULL, or why the renderer is given up. */
static const char *handle_message(struct front *f, const union link_msg *m, int fds[])
{
	if (m->header.type != LINK_READY && !f->link_ready) {
		return "it is not ready and says something else";
	}
	switch (m->header.type) {
	case LINK_READY:
		handle_ready(f, &m->ready);
		break;
	case LINK_DONE:
		handle_done(f, &m->done);
		break;
	case LINK_STOPPED:
		handle_stopped(f, &m->stopped);
		break;
	case LINK_BROKEN:
		if (!f->vrings[m->broken.queue].broken) {
			log_warn("%s: queue %u is broken by its guest: %s", f->o->name,
				m->broken.queue, m->broken.reason);
		}
		f->vrings[m->broken.queue].broken = true;
		break;
	case LINK_MODES_WANTED:
		f->modes_wanted = true;
		display_ask_modes(f->display);
		break;
	case LINK_SCANOUT:
		return front_picture_show(f, &m->scanout, fds);
	case LINK_IMAGE_GONE:
		pictures_forget(&f->pictures, m->image_gone.image);
		break;
	case LINK_READ_DONE:
		front_picture_read(f, &m->read_back);
		break;
	case LINK_PONG:
		f->pong = m->pong;
		front_watch_answered(f, m->pong.seq, m->pong.busy);
		break;
	default:
		break;
	}
	return NULL;
}

static int on_link(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
	struct front *f = userdata;

	for (int i = 0; i < MESSAGES_PER_TURN && f->link >= 0; i++) {
		union link_msg m;
		int fds[LINK_FDS_MAX];
		int r = link_receive(f->link, LINK_TO_FRONT, &m, fds);
		const char *why;

		if (r == -EAGAIN) {
			break;
		}
		if (r <= 0) {
			front_renderer_lost(f, r == 0 ? "it ended" : "it sent a malformed message");
			break;
		}
		why = handle_message(f, &m, fds);
		for (size_t k = 0; k < LINK_FDS_MAX; k++) {
			safe_close(fds[k]);
		}
		if (why) {
			front_renderer_lost(f, why);
		}
	}
	return 0;
}

bool front_renderer_collect(struct front *f)
{
	int n = 0;

	for (; n < DAMAGES_PER_TURN; n++) {
		struct journal_damage d;
		int r = journal_take_damage(f->journal, &f->reader, &d);

		if (r == 0) {
			break;
		}
		if (r == 1) {
			const struct display_rect rect = {d.x, d.y, d.width, d.height};

			display_damage(f->display, d.scanout, &rect);
		} else {
			for (uint32_t i = 0; i < DISPLAY_SCANOUTS; i++) {
				display_damage(f->display, i, NULL);
			}
		}
	}
	for (uint32_t i = 0; i < JOURNAL_SCANOUTS; i++) {
		static struct journal_cursor c; /* 16 KiB: not on the stack */
		bool new_image;

		if (journal_take_cursor(f->journal, &f->reader, i, &c, &new_image)) {
			const struct display_cursor cursor = {
				c.resource_id != 0, c.x, c.y, c.hot_x, c.hot_y};

			display_cursor(f->display, i, &cursor, new_image ? c.pixels : NULL);
		}
	}
	return n < DAMAGES_PER_TURN && !journal_sleep(f->journal, &f->reader);
}

/* What it is about is collected at the end of the turn. */
static int on_bell(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	return 0;
}

static int watch_bell(struct front *f)
{
	f->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->bell < 0) {
		return -errno;
	}
	/* Edge-triggered, and never read: a renderer that means harm can make it block. */
	return sd_event_add_io(f->event, &f->bell_io, f->bell, EPOLLIN | EPOLLET, on_bell, f);
}

int front_renderer_init(struct front *f)
{
	int r = journal_create(&f->journal_fd, &f->journal);

	if (r < 0) {
		return r;
	}
	if (getrandom(f->uuid_seed, sizeof(f->uuid_seed), 0) != sizeof(f->uuid_seed)) {
		return -EIO;
	}
	pictures_init(&f->pictures);
	return watch_bell(f);
}

void front_renderer_finish(struct front *f)
{
	sd_event_source_disable_unref(f->link_io);
	sd_event_source_disable_unref(f->bell_io);
	safe_close(f->link);
	safe_close(f->bell);
	safe_close(f->journal_fd);
	journal_unmap(f->journal);
}

void front_renderer_set(struct front *f, int fd)
{
	int r;

	if (f->link >= 0) {
		/* The parent's word counts: it has ended the other one, or will. */
		f->link_io = sd_event_source_disable_unref(f->link_io);
		f->link = safe_close(f->link);
		f->link_ready = false;
		pictures_finish(&f->pictures);
		front_picture_lost(f);
		for (size_t i = 0; i < FRONT_QUEUES; i++) {
			f->vrings[i].told = false;
		}
	}
	r = fd_set_nonblock(fd, true);
	if (r >= 0) {
		r = sd_event_add_io(f->event, &f->link_io, fd, EPOLLIN, on_link, f);
	}
	if (r < 0) {
		safe_close(fd);
		front_end(f, FRONT_EXIT_FAILED, "out of memory");
		return;
	}
	f->link = fd;
	f->renderers++;
	front_watch_start(f);
	front_restart_waiting(f);
}
