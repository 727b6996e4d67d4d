/* SPDX-License-Identifier: MIT
 * A worker without its broker: it serves on, and waits for the next one on the socket that the old
 * one bound for it.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "protocol/worker.h"

struct orphan;

struct orphan_ops {
	/* A broker that knows the cookie is there: what it shall be told (stages, state, times). */
	void (*adopt)(void *userdata, struct worker_held *held);
	/* It was told, and is to be served on fd, which is the callee's. */
	void (*adopted)(void *userdata, int fd);
	/* None came in time. */
	void (*time_over)(void *userdata);
};

struct orphan_options {
	sd_event *event;  /* borrowed */
	const char *name; /* borrowed; for the log */
	int listen_fd;    /* taken even on error: SOCK_SEQPACKET, bound */
	int image_fd;     /* borrowed; goes to the next broker; -1: none */
	const struct orphan_ops *ops;
	void *userdata;
};

/* Before the sandbox is locked: it listens from now on, so that the kernel tells who connects that
 * this process does. 0 or -errno. */
int orphan_create(const struct orphan_options *options, struct orphan **out) _must_check_;

/* The broker wants it kept. */
void orphan_keep(struct orphan *o, const struct worker_keep *keep);
bool orphan_is_kept(const struct orphan *o);
/* The broker is gone: accepts another one, until that time is over. */
void orphan_wait(struct orphan *o);
