/* SPDX-License-Identifier: MIT
 *
 * The queues as the VMM describes them, and when the renderer is told: a ring runs from its kick
 * on, until GET_VRING_BASE; the control queue not before the display's features are negotiated.
 */
#include <string.h>

#include "base/fd.h"
#include "gpu/front-internal.h"

void front_vrings_init(struct front *f)
{
	for (size_t i = 0; i < FRONT_QUEUES; i++) {
		f->vrings[i] = (struct front_vring){.kick = -1, .call = -1, .err = -1};
	}
}

void front_vrings_finish(struct front *f)
{
	for (size_t i = 0; i < FRONT_QUEUES; i++) {
		front_watch_remove(f, f->vrings[i].kick);
		safe_close(f->vrings[i].kick);
		safe_close(f->vrings[i].call);
		safe_close(f->vrings[i].err);
	}
}

static void take_fd(int *field, int *fd)
{
	safe_close(*field);
	*field = *fd >= 0 ? steal_fd(fd) : -1;
}

static bool can_run(const struct front *f, uint32_t queue)
{
	const struct front_vring *q = &f->vrings[queue];

	return q->started && !q->told && q->has_addr && q->size > 0 && f->link_ready &&
	       (queue != FRONT_QUEUE_CONTROL || display_is_ready(f->display));
}

static void start(struct front *f, uint32_t queue)
{
	struct front_vring *q = &f->vrings[queue];
	union link_msg m;
	int fds[LINK_FDS_MAX];
	size_t n = 0;

	link_init(&m, LINK_START);
	m.start.queue = queue;
	m.start.size = q->size;
	m.start.features = f->features;
	m.start.desc = q->addr.desc;
	m.start.avail = q->addr.avail;
	m.start.used = q->addr.used;
	m.start.next_avail = q->base;
	m.start.run = q->run;
	m.start.enabled = q->enabled;
	if (q->kick >= 0) {
		m.start.fds |= LINK_HAS_KICK;
		fds[n++] = q->kick;
	}
	if (q->call >= 0) {
		m.start.fds |= LINK_HAS_CALL;
		fds[n++] = q->call;
	}
	if (q->err >= 0) {
		m.start.fds |= LINK_HAS_ERR;
		fds[n++] = q->err;
	}
	q->told = true;
	q->broken = false;
	front_renderer_send(f, &m, fds, n);
	front_watch_ask(f);
}

void front_vrings_start(struct front *f)
{
	for (uint32_t i = 0; i < FRONT_QUEUES; i++) {
		if (can_run(f, i)) {
			start(f, i);
		}
	}
}

/* QEMU stops the rings when its guest is paused and when it is reset, and tells neither apart by a
 * message (7.2 has no RESET_DEVICE for this device): but only a driver that begins anew begins with
 * the first entry. After exactly a multiple of 65536 requests one that was paused does so too; then
 * it is a reset if a guest did something meanwhile that one which is paused can't: it read the
 * configuration, put its ring elsewhere or negotiated other features. */
static bool begins_anew(const struct front *f, uint32_t queue)
{
	const struct front_vring *q = &f->vrings[queue];

	return queue == FRONT_QUEUE_CONTROL && q->run != 0 && q->base == 0 &&
	       (q->stopped_at != 0 || q->anew);
}

const char *front_vring_kick(struct front *f, uint32_t queue, int *fd)
{
	struct front_vring *q = &f->vrings[queue];

	if (q->size == 0 || !q->has_addr) {
		return "a kick for a queue without size or addresses";
	}
	if (q->started) {
		return "a second kick for a queue that runs";
	}
	if (begins_anew(f, queue)) {
		front_renderer_send_reset(f);
	}
	take_fd(&q->kick, fd);
	front_watch_add(f, q->kick);
	q->started = true;
	q->stopped_at = 0;
	q->anew = false;
	q->run = ++f->runs;
	/* Without protocol features a ring is enabled from the start. */
	q->enabled = q->enabled || !(f->features & VHOST_USER_F_PROTOCOL_FEATURES);
	front_vrings_start(f);
	return NULL;
}

static void tell_fd(struct front *f, uint32_t queue, enum link_type type, int fd)
{
	union link_msg m;

	if (f->vrings[queue].told) {
		link_init(&m, type);
		m.queue.queue = queue;
		front_renderer_send(f, &m, &fd, fd >= 0 ? 1 : 0);
	}
}

const char *front_vring_call(struct front *f, uint32_t queue, int *fd)
{
	take_fd(&f->vrings[queue].call, fd);
	tell_fd(f, queue, LINK_CALL, f->vrings[queue].call);
	return NULL;
}

const char *front_vring_err(struct front *f, uint32_t queue, int *fd)
{
	take_fd(&f->vrings[queue].err, fd);
	tell_fd(f, queue, LINK_ERR, f->vrings[queue].err);
	return NULL;
}

void front_vring_stopped(struct front *f, uint32_t queue, uint32_t next_avail)
{
	struct front_vring *q = &f->vrings[queue];

	q->base = q->stopped_at = next_avail;
	q->anew = false;
	q->started = q->told = q->broken = false;
	/* QEMU gives new ones when it starts the ring again. */
	front_watch_remove(f, q->kick);
	q->kick = safe_close(q->kick);
}

void front_vrings_reset(struct front *f)
{
	front_vrings_finish(f);
	front_vrings_init(f);
}
