/* SPDX-License-Identifier: MIT */
#include "gpu/link.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/fd.h"
#include "base/utf8.h"

struct shape {
	uint32_t type;
	enum link_direction direction;
	uint32_t size;
	uint8_t fds_min, fds_max;
	bool (*check)(const union link_msg *m, size_t n_fds);
};

static bool check_setup(const union link_msg *m, size_t n_fds)
{
	return m->setup.version == LINK_VERSION && m->setup.n_scanouts > 0 &&
	       m->setup.n_scanouts <= LINK_SCANOUTS && m->setup.dmabufs <= LINK_DMABUFS_ALL &&
	       (m->setup.flags & ~(LINK_SETUP_RECOVER | LINK_SETUP_NO_3D)) == 0;
}

static bool check_memory(const union link_msg *m, size_t n_fds)
{
	return m->memory.n_regions <= LINK_REGIONS_MAX && m->memory.pad == 0;
}

static bool check_start(const union link_msg *m, size_t n_fds)
{
	const uint32_t all = LINK_HAS_KICK | LINK_HAS_CALL | LINK_HAS_ERR;

	return m->start.queue < LINK_QUEUES && (m->start.fds & ~all) == 0 &&
	       (size_t)__builtin_popcount(m->start.fds) == n_fds &&
	       m->start.next_avail <= UINT16_MAX && m->start.enabled <= 1 && m->start.run != 0 &&
	       m->start.pad == 0;
}

static bool check_queue(const union link_msg *m, size_t n_fds)
{
	return m->queue.queue < LINK_QUEUES && m->queue.pad == 0;
}

static bool check_enable(const union link_msg *m, size_t n_fds)
{
	return m->enable.queue < LINK_QUEUES && m->enable.enabled <= 1;
}

static bool check_allow(const union link_msg *m, size_t n_fds)
{
	return m->allow.allowed <= 1 && m->allow.pad == 0;
}

static bool check_dmabufs(const union link_msg *m, size_t n_fds)
{
	return m->dmabufs.which <= LINK_DMABUFS_ALL && m->dmabufs.pad == 0;
}

static bool check_read_back(const union link_msg *m, size_t n_fds)
{
	return m->read_back.scanout < LINK_SCANOUTS &&
	       (m->header.type == LINK_READ_DONE || m->read_back.image == 0);
}

static bool check_ready(const union link_msg *m, size_t n_fds)
{
	return m->ready.version == LINK_VERSION &&
	       ascii_text_ok(m->ready.renderer, sizeof(m->ready.renderer));
}

static bool check_done(const union link_msg *m, size_t n_fds)
{
	return m->done.error <= 0 && (m->done.type == LINK_SETUP || m->done.type == LINK_MEMORY ||
					     m->done.type == LINK_RESET);
}

static bool check_stopped(const union link_msg *m, size_t n_fds)
{
	return m->stopped.queue < LINK_QUEUES && m->stopped.next_avail <= UINT16_MAX;
}

static bool check_broken(const union link_msg *m, size_t n_fds)
{
	return ascii_text_ok(m->broken.reason, sizeof(m->broken.reason)) &&
	       m->broken.queue < LINK_QUEUES && m->broken.pad == 0;
}

/* The image's own size, and what is said of a DMABUF, is for the front to compare with the file. */
static bool check_scanout(const union link_msg *m, size_t n_fds)
{
	const struct link_scanout *s = &m->scanout;

	if (s->scanout >= LINK_SCANOUTS || s->damaged > 1 || s->from_dmabuf > 1 ||
		(s->fds & ~(LINK_HAS_IMAGE | LINK_HAS_DMABUF)) ||
		(size_t)__builtin_popcount(s->fds) != n_fds) {
		return false;
	}
	if (s->image == 0) {
		return n_fds == 0 && s->from_dmabuf == 0;
	}
	return s->scanout_width > 0 && s->scanout_height > 0 && s->x < s->width &&
	       s->scanout_width <= s->width - s->x && s->y < s->height &&
	       s->scanout_height <= s->height - s->y;
}

static bool check_image_gone(const union link_msg *m, size_t n_fds)
{
	return m->image_gone.pad == 0;
}

static bool check_pong(const union link_msg *m, size_t n_fds)
{
	return m->pong.busy <= 1;
}

static const struct shape shapes[] = {
	{LINK_SETUP, LINK_TO_RENDERER, sizeof(struct link_setup), 2, 2, check_setup},
	{LINK_MEMORY, LINK_TO_RENDERER, sizeof(struct link_memory), 0, 0, check_memory},
	{LINK_REGION, LINK_TO_RENDERER, sizeof(struct link_region), 1, 1, NULL},
	{LINK_START, LINK_TO_RENDERER, sizeof(struct link_start), 0, 3, check_start},
	{LINK_CALL, LINK_TO_RENDERER, sizeof(struct link_queue), 0, 1, check_queue},
	{LINK_ERR, LINK_TO_RENDERER, sizeof(struct link_queue), 0, 1, check_queue},
	{LINK_ENABLE, LINK_TO_RENDERER, sizeof(struct link_enable), 0, 0, check_enable},
	{LINK_STOP, LINK_TO_RENDERER, sizeof(struct link_queue), 0, 0, check_queue},
	{LINK_MODES, LINK_TO_RENDERER, sizeof(struct link_modes), 0, 0, NULL},
	{LINK_RESET, LINK_TO_RENDERER, sizeof(struct link_plain), 0, 0, NULL},
	{LINK_ALLOW, LINK_TO_RENDERER, sizeof(struct link_allow), 0, 0, check_allow},
	{LINK_DMABUFS, LINK_TO_RENDERER, sizeof(struct link_dmabufs_taken), 0, 0, check_dmabufs},
	{LINK_READ_BACK, LINK_TO_RENDERER, sizeof(struct link_read_back), 0, 0, check_read_back},
	{LINK_PING, LINK_TO_RENDERER, sizeof(struct link_ping), 0, 0, NULL},
	{LINK_READY, LINK_TO_FRONT, sizeof(struct link_ready), 0, 0, check_ready},
	{LINK_DONE, LINK_TO_FRONT, sizeof(struct link_done), 0, 0, check_done},
	{LINK_STOPPED, LINK_TO_FRONT, sizeof(struct link_stopped), 0, 0, check_stopped},
	{LINK_BROKEN, LINK_TO_FRONT, sizeof(struct link_broken), 0, 0, check_broken},
	{LINK_MODES_WANTED, LINK_TO_FRONT, sizeof(struct link_plain), 0, 0, NULL},
	{LINK_SCANOUT, LINK_TO_FRONT, sizeof(struct link_scanout), 0, 2, check_scanout},
	{LINK_IMAGE_GONE, LINK_TO_FRONT, sizeof(struct link_image_gone), 0, 0, check_image_gone},
	{LINK_PONG, LINK_TO_FRONT, sizeof(struct link_pong), 0, 0, check_pong},
	{LINK_READ_DONE, LINK_TO_FRONT, sizeof(struct link_read_back), 0, 0, check_read_back},
};

static const struct shape *shape_of(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (shapes[i].type == type) {
			return &shapes[i];
		}
	}
	return NULL;
}

int link_decode(enum link_direction direction, const void *data, size_t size, size_t n_fds,
	union link_msg *out)
{
	union link_msg m = {0};
	const struct shape *s;

	if (size < sizeof(m.header) || size > sizeof(m)) {
		return -EBADMSG;
	}
	memcpy(&m, data, size);
	s = shape_of(m.header.type);
	if (!s || s->direction != direction || s->size != size || m.header.size != size ||
		n_fds < s->fds_min || n_fds > s->fds_max) {
		return -EBADMSG;
	}
	if (s->check && !s->check(&m, n_fds)) {
		return -EBADMSG;
	}
	*out = m;
	return 0;
}

size_t link_init(union link_msg *msg, enum link_type type)
{
	const struct shape *s = shape_of(type);

	assert(s);
	memset(msg, 0, s->size);
	msg->header.type = type;
	msg->header.size = s->size;
	return s->size;
}

int link_send(int sock, const union link_msg *msg, const int *fds, size_t n_fds)
{
	return fd_send(sock, msg, msg->header.size, fds, n_fds);
}

int link_receive(
	int sock, enum link_direction direction, union link_msg *out, int fds[static LINK_FDS_MAX])
{
	union link_msg raw;
	size_t n_fds = 0;
	ssize_t n;

	for (size_t i = 0; i < LINK_FDS_MAX; i++) {
		fds[i] = -1;
	}
	n = fd_recv(sock, &raw, sizeof(raw), fds, LINK_FDS_MAX, &n_fds);
	if (n <= 0) {
		/* fd_recv closed what it had when it failed. */
		for (size_t i = 0; i < LINK_FDS_MAX; i++) {
			fds[i] = -1;
		}
		return n == -ECONNRESET ? 0 : (int)n;
	}
	if (link_decode(direction, &raw, (size_t)n, n_fds, out) < 0) {
		for (size_t i = 0; i < n_fds; i++) {
			fds[i] = safe_close(fds[i]);
		}
		return -EBADMSG;
	}
	return 1;
}
