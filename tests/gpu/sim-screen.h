/* SPDX-License-Identifier: MIT
 * The VMM's end of the display socket. Good by itself: it answers what it is asked and keeps what
 * it is shown. It can also stop reading, answer garbage, or close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "protocol/vhost-user-display.h"

#define SIM_SCANOUTS 16

struct sim_scanout {
	uint32_t width, height;
	uint32_t *pixels; /* width * height; NULL while off, or with drop_pixels */
	struct display_update last;
	uint32_t watch_x, watch_y, watched; /* a pixel that is looked at, and what it is */
	uint64_t n_updates;                 /* DMABUF_UPDATEs as well */
	int dmabuf_fd;                      /* what is shown is in there; -1: in pixels */
	struct display_dmabuf2 dmabuf;
};

struct sim_screen {
	int fd; /* -1: none */
	/* How it behaves. */
	bool drop_pixels; /* reads them and forgets them */
	bool mute;        /* doesn't answer */
	bool never_draws; /* doesn't answer DMABUF_UPDATEs */
	uint64_t offers;  /* protocol features; none in the beginning */
	struct virtio_gpu_resp_display_info info;
	/* What it was told. */
	uint64_t n_messages[DISPLAY_DMABUF_SCANOUT2 + 1];
	uint64_t n_bytes;
	struct sim_scanout scanouts[SIM_SCANOUTS];
	struct display_cursor_update cursor;
	struct display_cursor_pos cursor_pos;
	bool cursor_hidden;
	uint64_t backend_features;
	char wrong[96]; /* what was wrong in what it was told; empty: nothing */
	/* The message that is being read. */
	struct display_header header;
	uint8_t *payload;
	size_t room, received; /* received: with the header */
	int fd_received;       /* with this message; -1 */
};

void sim_screen_init(struct sim_screen *s, uint32_t width, uint32_t height);
void sim_screen_finish(struct sim_screen *s);
/* A new socket for a backend: its end, which the caller sends and closes. An old one is closed.
 * -errno. */
int sim_screen_connect(struct sim_screen *s) _must_check_;
/* What there is to read, without waiting, and not so much that everything else waits. False when
 * the backend has closed it, or said what it must not say. */
bool sim_screen_read(struct sim_screen *s);
/* Bytes to the backend, whatever they are. */
int sim_screen_say(struct sim_screen *s, const void *data, size_t size) _must_check_;
