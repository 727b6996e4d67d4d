/* SPDX-License-Identifier: MIT
 * What the files of the renderer share: nobody else includes this.
 */
#pragma once

#include <stdbool.h>

#include "gpu/cadence.h"
#include "gpu/drift.h"
#include "gpu/link.h"
#include "gpu/memory.h"
#include "gpu/queue.h"
#include "gpu/record.h"
#include "gpu/renderer.h"
#include "gpu/spend.h"
#include "gpu/virtio-gpu.h"
#include "gpu/vring.h"

/* What the epoll set tells: a queue's kick, or one of these. */
enum { EVENT_LINK = LINK_QUEUES, EVENT_FENCES, EVENT_GRANT };

enum { QUEUE_CONTROL, QUEUE_CURSOR };

enum { DONE_SETUP, DONE_MEMORY, DONE_RESET };

/* What has to be told to the front and was not taken by the link yet. Each is the newest state, so
 * that a guest can't make it grow. */
struct outbox {
	bool done[3]; /* SETUP, MEMORY, RESET */
	int done_error[3];
	uint64_t done_generation;
	bool stopped[LINK_QUEUES];
	uint16_t stopped_at[LINK_QUEUES];
	const char *broken[LINK_QUEUES]; // may be NULL
	bool modes_wanted;
	bool pong;
	uint64_t pong_seq;
	uint32_t scanouts; /* bits: changed */
	uint32_t damaged;  /* bits: some damage was told before the change */
	uint32_t read;     /* bits: of scanouts that were read back */
	uint64_t read_seq[GPU_SCANOUTS_MAX];
	uint32_t gone[GPU_SLOTS_MAX];
	uint32_t n_gone;
	bool gone_all; /* gone was full: all that are not shown */
};

struct counters {
	uint64_t commands, cursor_commands;
};

struct renderer {
	const struct renderer_options *options;
	int epoll;
	int link;
	bool link_blocked; /* waits for EPOLLOUT */
	bool link_lost;
	bool failed; /* link_lost because of what came, not because the front ended */
	struct outbox out;
	int bell;                /* eventfd; -1 before SETUP */
	bool bell_due;           /* the front sleeps and has something to take */
	struct journal *journal; // may be NULL: before SETUP
	struct record record;
	struct gpu *gpu;               // may be NULL: before SETUP
	const struct virgl_ops *virgl; // may be NULL: 2D only
	char drawn_by[LINK_NAME_SIZE]; /* GL_RENDERER, printable */
	bool fences_by_clock;          /* it has no poll_fd */
	int statm;                     /* what it takes, by the kernel; -1: 2D only */
	struct drift_meter meter;      /* with it */
	bool recover;                  /* the journal is to be read when there is memory */
	bool busy;                     /* the rings have more */
	/* The table that holds, and one that is being told. */
	struct memory memories[2];
	int memory; /* which one holds */
	uint32_t regions_left;
	int regions_error;
	uint64_t generation;
	struct queue queues[LINK_QUEUES];
	/* Requests that wait for modes and are not younger get what is on its way. 0: nothing is.
	 */
	uint64_t modes_asked;
	bool modes_waited; /* some request waits */
	/* Numbers of images, for good; by slot, 0: the front does not have it. */
	uint32_t last_image;
	uint32_t images[GPU_SLOTS_MAX];
	/* By slot: the number of the image whose DMABUF the front has. */
	uint32_t dmabufs[GPU_SLOTS_MAX];
	struct counters counters;
	/* What it may take, and took (protocol/allowance.h). */
	struct allowance_page *allowance;
	struct spend spend;
	struct cadence cadence;
	bool starved;          /* the control queue waits for time */
	bool crowded;          /* it waits for a fence */
	uint64_t frame_due;    /* it waits for this time (ns), for a frame; 0: it doesn't */
	uint16_t delayed_head; /* of that frame, that was counted, if delayed */
	bool delayed;
	/* What is being executed: a cursor's request may be, within one of the control queue. */
	struct vring_chain chains[LINK_QUEUES];
	struct vring_chain peeked; /* what the control queue would execute next */
	uint16_t heads[LINK_QUEUES];
};

struct memory *renderer_memory(struct renderer *r);

/* renderer-rings.c: executes what the rings have, for a bounded time; true if there is more. */
bool renderer_run_rings(struct renderer *r);
/* Looks at the cursor's ring in the middle of a control request. */
void renderer_pause(struct renderer *r);
/* Executes again what another renderer did not get done, or (up_to) what waits for modes. */
void renderer_resume(struct renderer *r, uint32_t queue, uint64_t waiting_up_to);
void renderer_ask_modes(struct renderer *r);
/* The renderer has something to tell: gives back what waited for fences that are reached. The guest
 * sees it with what is executed next. */
void renderer_take_fences(struct renderer *r);
/* Waits for all fences, but not for long. */
void renderer_drain_fences(struct renderer *r);
/* For virgl_options; userdata is the renderer. */
void renderer_fence(void *userdata, uint32_t fence);
void renderer_context_fence(void *userdata, uint32_t context, uint32_t ring, uint64_t fence);

/* renderer-allowance.c: maps the page, or makes one without a limit. -errno */
int renderer_open_allowance(struct renderer *r) _must_check_;
void renderer_close_allowance(struct renderer *r);
/* What the page says now holds from here on. */
void renderer_heed_limits(struct renderer *r);
/* The bell has rung. */
void renderer_hear_grant(struct renderer *r);
/* Whether the control queue may take what comes next, if anything does; else what it waits for is
 * in starved, crowded or frame_due, and who has to know was told. */
bool renderer_may_take(struct renderer *r) _must_check_;
/* The control queue has something, and waits. */
static inline bool renderer_is_held(const struct renderer *r)
{
	return r->starved || r->crowded || r->frame_due;
}
/* The command that was executed gave these scanouts (bits) a frame. */
void renderer_count_frame(struct renderer *r);
/* The end of a turn. */
void renderer_settle_allowance(struct renderer *r);

/* renderer-listener.c: what comes of commands. */
extern const struct gpu_listener renderer_listener;
/* If it is due. To be done when the guest has its answers: on one CPU the front may run at once. */
void renderer_ring_bell(struct renderer *r);

/* renderer-link.c: messages of the front. */
void renderer_receive(struct renderer *r);
/* renderer-send.c: sends what the outbox has, as far as the link takes it. */
void renderer_send(struct renderer *r);
/* Watches the kick of a queue, edge-triggered. -errno */
int renderer_watch_kick(struct renderer *r, uint32_t queue) _must_check_;
