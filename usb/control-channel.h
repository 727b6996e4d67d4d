/* SPDX-License-Identifier: MIT
 * The worker's end of its socket to the broker (protocol/worker.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "protocol/worker.h"

struct control_channel;

/* configured, unplugged, keep, capture and pace may be NULL where nothing of the kind is expected.
 */
struct control_channel_ops {
	void (*ping)(void *userdata, uint64_t seq);
	void (*detach)(void *userdata);
	/* Answers the worker's SET_CONFIGURATION: 0 or -errno. */
	void (*configured)(void *userdata, int error);
	void (*unplugged)(void *userdata);
	void (*keep)(void *userdata, const struct worker_keep *keep);
	/* fd is the callee's. */
	void (*capture)(void *userdata, const struct worker_capture *capture, int fd);
	/* The same. */
	void (*pace)(void *userdata, int fd);
	/* The broker is gone, or sent something that is no message (error: errno, or 0). Nothing is
	 * called after it but by way of control_channel_reopen. */
	void (*closed)(void *userdata, int error);
};

/* Takes fd (SOCK_SEQPACKET) even on error; the rest is borrowed. 0 or -errno. */
int control_channel_create(sd_event *event, int fd, const struct control_channel_ops *ops,
	void *userdata, struct control_channel **out) _must_check_;
void control_channel_destroy(struct control_channel *c);

/* Sends a message, or keeps it until the socket takes it: the newest of each type, in the order
 * READY, STATE, SET_CONFIGURATION, PONG, DONE. A broker that doesn't read so costs nothing; each
 * STATE says all. */
void control_channel_send(struct control_channel *c, const union worker_msg *msg);
/* Whether anything is kept that way (false when the broker is gone for good). */
bool control_channel_pending(const struct control_channel *c);

/* Whether there may be another broker when this one is gone: then what is not said to this one,
 * PONG apart, is kept for that one. At first there is none. */
void control_channel_outlive(struct control_channel *c, bool outlive);
/* Another broker is there: takes its fd even on error, and says what was kept. 0 or -errno. */
int control_channel_reopen(struct control_channel *c, int fd) _must_check_;
