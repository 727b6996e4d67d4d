/* SPDX-License-Identifier: MIT
 * The display of one VM: what is on its scanouts, and the socket on which its VMM is shown it.
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "gpu/picture.h"

#define DISPLAY_SCANOUTS 16

struct display;

struct display_rect {
	uint32_t x, y, width, height;
};

struct display_mode {
	uint32_t x, y, width, height; /* no width or no height: off */
};

struct display_cursor {
	bool visible;
	uint32_t x, y;
	uint32_t hot_x, hot_y;
};

enum display_dmabufs {
	DISPLAY_DMABUFS_NONE,
	DISPLAY_DMABUFS_PLAIN, /* those whose modifier need not be told */
	DISPLAY_DMABUFS_ALL,
};

struct display_ops {
	/* The features are negotiated, or that failed, or there is no display: the control queue
	 * may be served. Once for each socket. */
	void (*ready)(void *userdata);
	/* Answers display_ask_modes: as new as can be had. */
	void (*modes)(void *userdata, const struct display_mode modes[DISPLAY_SCANOUTS]);
	/* Which DMABUFs this VMM takes; once for each socket, before ready. May be NULL. */
	void (*dmabufs)(void *userdata, enum display_dmabufs which);
	/* The VMM closed it (why is NULL), or broke its protocol; nothing is shown any more. */
	void (*gone)(void *userdata, const char *why);
};

/* 0 or -errno. */
int display_create(sd_event *event, uint32_t n_scanouts, const struct display_ops *ops,
	void *userdata, struct display **out) _must_check_;
void display_destroy(struct display *d);

/* Whether DMABUFs may be shown at all: a VMM takes them whether it can show them or not, so
 * somebody has to know. Before the first socket; false in the beginning. */
void display_allow_dmabufs(struct display *d, bool allowed);

/* The VMM's (new) socket; taken even on error. Everything is shown on it from the start. 0 or
 * -errno. */
int display_set_socket(struct display *d, int fd) _must_check_;
bool display_is_ready(const struct display *d);

/* Asks for the modes; ops->modes answers, from the loop or from within. */
void display_ask_modes(struct display *d);
/* Overrides what the VMM says of one scanout at each later answer; 0 by 0 takes that back. */
void display_override(struct display *d, uint32_t scanout, uint32_t width, uint32_t height);

/* What scanout shows from now on: rect of picture (referred to while it is shown), or nothing. rect
 * lies within the picture. */
void display_show(struct display *d, uint32_t scanout, struct picture *picture,
	const struct display_rect *rect);
/* The same with the picture's DMABUF, which it has: its pixels are not looked at. Where the VMM
 * can't take it, nothing is sent until something else is shown. */
void display_show_dmabuf(struct display *d, uint32_t scanout, struct picture *picture,
	const struct display_rect *rect);
/* rect of the scanout (in its own coordinates) has new pixels; what is outside of it is ignored.
 * NULL: all of it. */
void display_damage(struct display *d, uint32_t scanout, const struct display_rect *rect);
/* pixels: DISPLAY_CURSOR_SIDE squared, 4 bytes each, or NULL: as before. */
void display_cursor(struct display *d, uint32_t scanout, const struct display_cursor *cursor,
	const uint8_t *pixels);

/* What scanout shows: the picture (borrowed, NULL if nothing) and its part. */
struct picture *display_shown(
	const struct display *d, uint32_t scanout, struct display_rect *rect_out);
/* Whether it shows the picture's DMABUF. */
bool display_shows_dmabuf(const struct display *d, uint32_t scanout);

/* Sends as much as the VMM takes: to be called at the end of each turn of the loop. */
void display_flush(struct display *d);

struct display_counters {
	uint64_t frames; /* UPDATE and DMABUF_UPDATE messages with damage in them: with another
			    picture alone they are none */
	uint64_t merged; /* damage that went with a later one's frame */
	uint64_t bytes;
	bool connected;
};

void display_count(const struct display *d, struct display_counters *out);
