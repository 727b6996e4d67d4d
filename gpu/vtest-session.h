/* SPDX-License-Identifier: MIT
 * What one client of the vtest socket has, and what its bytes do: from bytes to calls of what
 * draws, and to bytes again. It has no socket, so that it can be tested without one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/drift.h"
#include "gpu/object.h"
#include "gpu/submit-check.h"
#include "gpu/vtest-table.h"
#include "protocol/vtest.h"

struct virgl_ops;

/* A buffer that has a usual size, and grows and is charged for what is asked of it beyond that. */
struct vtest_arena {
	uint8_t *base;
	size_t size;
	size_t start; /* of what is used */
	size_t end;
};

struct vtest_session {
	const struct virgl_ops *ops;
	struct vtest_table table; /* resources and the budget */
	uint64_t over;            /* as drift_exceeds has it */
	struct drift drift;       /* measures for the budget, if anybody does */
	struct submit_state streams;
	struct objects objects; /* that streams made */
	struct vtest_arena in;  /* received, not yet done */
	struct vtest_arena out; /* to be sent */
	int out_fd;             /* to be sent with one more byte behind that; -1: none */
	uint32_t version;
	bool created;  /* the client has said who it is, and has its context */
	bool waiting;  /* for a fence, with an answer to it */
	bool unfenced; /* commands came after the last fence */
	uint32_t fence_made, fence_reached;
	char why[160]; /* it ends: for the log, printable */
};

enum vtest_need {
	VTEST_NEED_BYTES = 1, /* of the client */
	VTEST_NEED_SEND,      /* output is sent first */
	VTEST_NEED_FENCE,     /* the renderer's poll_fd becomes readable */
};

/* Of resources, shared memory, what streams make, and buffers beyond their usual size up to
 * bytes_max. 0 or -ENOMEM.
 */
int vtest_session_init(
	struct vtest_session *s, const struct virgl_ops *ops, uint64_t bytes_max) _must_check_;
/* What draws has begun, and nothing was asked of it: what is taken from now on, by meter, counts as
 * used. */
void vtest_session_measure(struct vtest_session *s, const struct drift_meter *meter);
/* Everything that the client made is given back to the renderer, too. */
void vtest_session_finish(struct vtest_session *s);

/* Where the next bytes of the client go, and how many find room (> 0). Only after
 * VTEST_NEED_BYTES. */
void *vtest_session_room(struct vtest_session *s, size_t *room_out);
void vtest_session_received(struct vtest_session *s, size_t n);

/* Goes as far as it gets. enum vtest_need; or -errno with a sentence in why: this client is to be
 * dropped. */
int vtest_session_run(struct vtest_session *s) _must_check_;

/* All of out, and out_fd, which is closed, has been sent. */
void vtest_session_sent(struct vtest_session *s);

/* For virgl_options::fence, with the session as userdata. */
void vtest_session_fence(void *userdata, uint32_t fence);
