/* SPDX-License-Identifier: MIT
 * What the front's files share: front.c (life, the VMM's messages), front-memory.c (its memory
 * table), front-vring.c (its queues), front-renderer.c (the link), front-picture.c (what is shown,
 * and copies of it), front-watch.c (whether there is still somebody at the link's other end),
 * front-parent.c.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/patience.h"
#include "base/restarts.h"
#include "gpu/display.h"
#include "gpu/front.h"
#include "gpu/journal.h"
#include "gpu/link.h"
#include "gpu/picture.h"
#include "protocol/gpu-parent.h"
#include "protocol/vhost-user.h"

#define FRONT_QUEUES        LINK_QUEUES
#define FRONT_QUEUE_MAX     JOURNAL_HEADS
#define FRONT_REGIONS_MAX   LINK_REGIONS_MAX
#define FRONT_QUEUE_CONTROL 0

struct front_region {
	struct vhost_user_region region;
	int fd;
};

struct front_vring {
	uint32_t size;
	uint32_t base; /* SET_VRING_BASE, or where it was stopped */
	uint32_t stopped_at;
	uint64_t run; /* which start by the VMM it is; every renderer is told the same */
	bool anew;    /* since it was stopped, something came that only a driver that begins says */
	struct vhost_user_vring_addr addr;
	int kick; /* -1 as the others: none */
	int call;
	int err;
	bool has_addr;
	bool enabled;
	bool started; /* by the VMM: it has a kick */
	bool told;    /* the renderer has been told so */
	bool broken;
};

/* What the VMM's message waits for; no other is read meanwhile. */
enum front_wait {
	FRONT_WAIT_NOTHING,
	FRONT_WAIT_MEMORY,  /* the renderer's DONE */
	FRONT_WAIT_STOPPED, /* of wait_queue */
	FRONT_WAIT_RESET,
};

/* Whether the renderer still answers. */
struct front_watch {
	int kicks; /* an epoll set of the rings' kicks, which keeps them until it is looked at */
	sd_event_source *kicks_io; /* while not on */
	sd_event_source *timer;    /* while on */
	bool on;                   /* it owes an answer, or has more to do */
	bool asked;                /* it owes an answer, to this PING */
	uint64_t seq;
	bool more;              /* there is more to do than that answer is about */
	bool kicked;            /* by the guest, since the last look */
	uint32_t beats;         /* as of the last look */
	struct patience silent; /* looks at which it had neither answered nor done a step */
	struct restarts hangs;
	struct restarts offences; /* ends while it drew in 3D */
	bool quarantined;         /* no 3D until it is allowed again */
	uint64_t n_offences;
};

/* Pictures that the parent waits for. */
#define FRONT_SHOTS_MAX 16
/* How often a picture is asked for again, because another one has been shown meanwhile. */
#define FRONT_SHOT_TRIES 8

struct front_shot {
	struct parent_msg ask;
	uint64_t seq; /* of its READ_BACK */
	unsigned int tries;
};

struct front {
	const struct front_options *o;
	sd_event *event;
	bool ended;
	int exit_code;

	/* the VMM */
	int vhost_fd;
	sd_event_source *vhost_io;
	struct vhost_user_header header;
	size_t received; /* of header and payload */
	uint8_t payload[VHOST_USER_PAYLOAD_MAX];
	int fds[VHOST_USER_FDS_MAX]; /* of the message that is being read */
	size_t n_fds;
	uint64_t features;
	uint64_t protocol_features;
	enum front_wait wait;
	struct vhost_user_header waiting; /* whose answer is owed then */
	uint32_t wait_queue;
	sd_event_source *late; /* ends that waiting */
	struct front_region regions[FRONT_REGIONS_MAX];
	size_t n_regions;
	uint64_t generation; /* of the table */
	uint64_t refused;    /* tables and regions */
	struct front_vring vrings[FRONT_QUEUES];
	uint64_t runs; /* starts so far */

	struct display *display;
	struct pictures pictures;
	enum display_dmabufs dmabufs; /* that the display takes */
	struct front_shot shots[FRONT_SHOTS_MAX];
	size_t n_shots;
	uint64_t shot_seq;

	/* the renderer */
	int journal_fd;
	struct journal *journal;
	struct journal_reader reader;
	int bell;
	sd_event_source *bell_io;
	int link; /* -1: there is none */
	sd_event_source *link_io;
	bool link_ready;
	bool modes_wanted;
	bool resetting; /* the renderer has not yet forgotten the guest before this one */
	uint32_t renderers;
	struct link_pong pong;         /* its last counters; only shown */
	char drawn_by[LINK_NAME_SIZE]; /* GL_RENDERER; "": 2D only */
	struct front_watch watch;
	uint8_t uuid_seed[8];

	/* the parent */
	int control;
	sd_event_source *control_io;
};

/* front.c */
/* Ends it. The first reason counts. */
void front_end(struct front *f, int exit_code, const char *why);
/* Answers the message that is waited for, and reads on. */
void front_answer_waiting(struct front *f, const void *payload, size_t size);
void front_acknowledge(struct front *f, int error);
/* From now on the renderer has its time for what is waited for, if anything is. */
void front_restart_waiting(struct front *f);

void front_reply(
	struct front *f, const struct vhost_user_header *to, const void *payload, size_t size);
void front_reply_number(struct front *f, const struct vhost_user_header *to, uint64_t number);
/* Whether the VMM wants to hear how its message went. */
bool front_acknowledges(const struct front *f, const struct vhost_user_header *h);
/* The answer comes later; nothing is read until then. */
void front_wait_for(struct front *f, enum front_wait what, const struct vhost_user_msg *m);

/* front-message.c: what a handler did with its message. */
enum front_done { FRONT_DONE, FRONT_ANSWERED, FRONT_LATER, FRONT_BAD };

enum front_done front_dispatch(struct front *f, const struct vhost_user_msg *m, const char **why);

/* front-memory.c: 0, -EINVAL with *why_out, -errno. The fds are taken when 0 is returned. */
int front_memory_set(struct front *f, const struct vhost_user_memory *m, int *fds,
	const char **why_out) _must_check_;
int front_memory_add(struct front *f, const struct vhost_user_region *r, int *fd,
	const char **why_out) _must_check_;
int front_memory_remove(
	struct front *f, const struct vhost_user_region *r, const char **why_out) _must_check_;
void front_memory_finish(struct front *f);

/* front-vring.c */
void front_vrings_init(struct front *f);
void front_vrings_finish(struct front *f);
/* NULL or why not. *fd is taken then. */
const char *front_vring_kick(struct front *f, uint32_t queue, int *fd);
const char *front_vring_call(struct front *f, uint32_t queue, int *fd);
const char *front_vring_err(struct front *f, uint32_t queue, int *fd);
/* Tells the renderer of each ring that can run and of which it has not been told. */
void front_vrings_start(struct front *f);
void front_vring_stopped(struct front *f, uint32_t queue, uint32_t next_avail);
/* All rings are as they were before the first message. */
void front_vrings_reset(struct front *f);

/* front-renderer.c */
int front_renderer_init(struct front *f) _must_check_;
void front_renderer_finish(struct front *f);
/* A new one; fd is taken. */
void front_renderer_set(struct front *f, int fd);
/* Gives it up, if there is one. */
void front_renderer_lost(struct front *f, const char *why);
/* To the renderer, if there is one; it is told everything again when there is one. */
void front_renderer_send(struct front *f, const union link_msg *msg, const int *fds, size_t n_fds);
void front_renderer_send_memory(struct front *f);
/* It forgets resources, scanouts and cursors. */
void front_renderer_send_reset(struct front *f);
void front_renderer_send_modes(struct front *f, const struct display_mode *modes);
/* Takes what is new on the screens; true if the front may sleep now. */
bool front_renderer_collect(struct front *f);

/* front-watch.c */
int front_watch_init(struct front *f) _must_check_;
void front_watch_finish(struct front *f);
/* A new renderer is there; there is none. */
void front_watch_start(struct front *f);
void front_watch_stop(struct front *f);
/* It has something to do: it has to show soon that it does it. */
void front_watch_ask(struct front *f);
void front_watch_answered(struct front *f, uint64_t seq, bool busy);
/* It does not answer: it is given up, and so is everything if that was not the first time. */
void front_watch_hung(struct front *f);
/* It is gone: whether it drew in 3D when it ended, whose fault that is, and what comes of that. */
void front_watch_blame(struct front *f);
/* 3D is allowed again. */
void front_watch_allow(struct front *f);
/* A ring's kick (borrowed), from its start to its end. */
void front_watch_add(struct front *f, int kick);
void front_watch_remove(struct front *f, int kick);

/* front-picture.c: what a renderer shows; fds as link_scanout says, -1 where there are none, and
 * the DMABUF's is -1 when it was taken. NULL, or why the renderer is given up. */
const char *front_picture_show(struct front *f, const struct link_scanout *s, int fds[static 2]);
/* Answers it, now or when the renderer has read back what the scanout shows. */
void front_picture_copy(struct front *f, const struct parent_msg *ask);
void front_picture_read(struct front *f, const struct link_read_back *done);
/* Nobody reads back what was asked for. */
void front_picture_lost(struct front *f);
/* For display_ops; userdata is the front. */
void front_picture_dmabufs(void *userdata, enum display_dmabufs which);

/* front-parent.c */
int front_parent_init(struct front *f) _must_check_;
void front_parent_finish(struct front *f);
void front_parent_say(struct front *f, const struct parent_msg *m, int fd);
