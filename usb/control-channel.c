/* SPDX-License-Identifier: MIT */
#include "usb/control-channel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/fd.h"

static const uint32_t order[] = {
	WORKER_MSG_READY,
	WORKER_MSG_STATE,
	WORKER_MSG_SET_CONFIGURATION,
	WORKER_MSG_PONG,
	WORKER_MSG_DONE,
	WORKER_MSG_QMP,
};

struct control_channel {
	sd_event *event; /* borrowed */
	int fd;
	bool outlive; /* another broker may come */
	sd_event_source *io;
	const struct control_channel_ops *ops;
	void *userdata;
	bool kept[ARRAY_SIZE(order)];
	union worker_msg msgs[ARRAY_SIZE(order)];
};

static void shut(struct control_channel *c)
{
	c->io = sd_event_source_disable_unref(c->io);
	c->fd = safe_close(c->fd);
}

static void lost(struct control_channel *c, int error)
{
	if (c->fd >= 0) {
		shut(c);
		for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
			/* Nobody but that broker asked. */
			c->kept[i] = c->kept[i] && c->outlive && order[i] != WORKER_MSG_PONG;
		}
		c->ops->closed(c->userdata, error);
	}
}

static void send_kept(struct control_channel *c)
{
	uint32_t events = EPOLLIN;

	for (size_t i = 0; i < ARRAY_SIZE(order) && c->fd >= 0; i++) {
		int r;

		if (!c->kept[i]) {
			continue;
		}
		r = fd_send(c->fd, &c->msgs[i], c->msgs[i].header.size, NULL, 0);
		if (r == -EAGAIN) {
			events |= EPOLLOUT;
			break;
		}
		if (r < 0) {
			lost(c, r == -EPIPE || r == -ECONNRESET ? 0 : -r);
			return;
		}
		c->kept[i] = false;
	}
	if (c->fd >= 0) {
		(void)sd_event_source_set_io_events(c->io, events);
	}
}

void control_channel_send(struct control_channel *c, const union worker_msg *msg)
{
	for (size_t i = 0; i < ARRAY_SIZE(order) && (c->fd >= 0 || c->outlive); i++) {
		if (order[i] == msg->header.type) {
			c->msgs[i] = *msg;
			c->kept[i] = true;
			send_kept(c);
			return;
		}
	}
}

bool control_channel_pending(const struct control_channel *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (c->kept[i] && (c->fd >= 0 || c->outlive)) {
			return true;
		}
	}
	return false;
}

void control_channel_outlive(struct control_channel *c, bool outlive)
{
	c->outlive = outlive;
}

static bool brings_fd(uint32_t type)
{
	return type == WORKER_MSG_CAPTURE || type == WORKER_MSG_PACE;
}

static void receive(struct control_channel *c)
{
	_cleanup_close_ int fd = -1;
	union worker_msg raw, msg;
	size_t n_fds = 0;
	ssize_t n = fd_recv(c->fd, &raw, sizeof(raw), &fd, 1, &n_fds);

	if (n == -EAGAIN || n == -EINTR) {
		return;
	}
	if (n <= 0) {
		lost(c, n == -ECONNRESET ? 0 : (int)-n);
		return;
	}
	if (worker_msg_decode(BROKER_TO_WORKER, &raw, (size_t)n, &msg) < 0 ||
		(n_fds == 1) != brings_fd(msg.header.type)) {
		lost(c, EBADMSG);
	} else if (msg.header.type == WORKER_MSG_PING) {
		c->ops->ping(c->userdata, msg.ping.seq);
	} else if (msg.header.type == WORKER_MSG_DETACH) {
		c->ops->detach(c->userdata);
	} else if (msg.header.type == WORKER_MSG_CONFIGURED && c->ops->configured) {
		c->ops->configured(c->userdata, msg.configured.error);
	} else if (msg.header.type == WORKER_MSG_UNPLUGGED && c->ops->unplugged) {
		c->ops->unplugged(c->userdata);
	} else if (msg.header.type == WORKER_MSG_KEEP && c->ops->keep) {
		c->ops->keep(c->userdata, &msg.keep);
	} else if (msg.header.type == WORKER_MSG_CAPTURE && c->ops->capture) {
		c->ops->capture(c->userdata, &msg.capture, steal_fd(&fd));
	} else if (msg.header.type == WORKER_MSG_PACE && c->ops->pace) {
		c->ops->pace(c->userdata, steal_fd(&fd));
	}
}

static int handle_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control_channel *c = userdata;

	if (revents & EPOLLOUT) {
		send_kept(c);
	}
	if (c->fd >= 0 && revents & EPOLLIN) {
		receive(c);
	} else if (c->fd >= 0 && revents & (EPOLLHUP | EPOLLERR)) {
		lost(c, 0);
	}
	return 0;
}

static int watch(struct control_channel *c, int fd)
{
	int r = fd_set_nonblock(fd, true);

	c->fd = fd;
	if (r >= 0) {
		r = sd_event_add_io(c->event, &c->io, fd, EPOLLIN, handle_io, c);
	}
	/* The broker is heard and its pings are answered before the guest's packets. */
	return r < 0 ? r : sd_event_source_set_priority(c->io, SD_EVENT_PRIORITY_IMPORTANT);
}

int control_channel_reopen(struct control_channel *c, int fd)
{
	int r = watch(c, fd);

	if (r < 0) {
		shut(c);
		return r;
	}
	send_kept(c);
	return 0;
}

int control_channel_create(sd_event *event, int fd, const struct control_channel_ops *ops,
	void *userdata, struct control_channel **out)
{
	struct control_channel *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		safe_close(fd);
		return -ENOMEM;
	}
	c->event = event;
	c->ops = ops;
	c->userdata = userdata;
	r = watch(c, fd);
	if (r < 0) {
		control_channel_destroy(c);
		return r;
	}
	*out = c;
	return 0;
}

void control_channel_destroy(struct control_channel *c)
{
	if (c) {
		shut(c);
		free(c);
	}
}
