/* SPDX-License-Identifier: MIT
 * What display.c (state, the VMM's answers) and display-message.c (what is sent) share.
 */
#pragma once

#include "gpu/display.h"
#include "protocol/vhost-user-display.h"

struct scanout {
	struct picture *picture;    // NULL: off
	struct display_rect rect;   /* of the picture */
	bool is_dmabuf;             /* the picture's DMABUF is shown, not its pixels */
	bool vmm_has_dmabuf;        /* and such a one is what the VMM was told last */
	bool announce;              /* SCANOUT is to be sent */
	struct display_rect damage; /* of the scanout; no width: nothing */
	bool has_frame;             /* in it is what somebody finished, not only another picture */
	bool cursor_changed;        /* its image */
	bool cursor_moved;
	struct display_cursor cursor;
	bool has_pixels;
	uint8_t pixels[DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE * 4];
	uint32_t override_width, override_height;
};

/* ASKED_TO_DRAW: a DMABUF_UPDATE, which is answered when the VMM has drawn what it is about. */
enum asked { ASKED_NOTHING, ASKED_FEATURES, ASKED_MODES, ASKED_TO_DRAW };

/* The message that is on its way. */
struct outgoing {
	bool busy;
	size_t sent; /* bytes of it, head and pixels */
	size_t head_size;
	size_t size; /* of all */
	union {
		uint8_t bytes[sizeof(struct display_header) + sizeof(struct display_cursor_update)];
		uint64_t align;
	} head;
	struct picture *picture;  // NULL: no pixels
	struct display_rect rect; /* of the picture */
	struct picture *dmabuf;   // NULL: no fd goes with the first byte
};

struct display {
	sd_event *event;
	const struct display_ops *ops;
	void *userdata;
	uint32_t n_scanouts;
	int fd; /* -1: none */
	sd_event_source *io;
	sd_event_source *timer; /* for the answer */
	uint32_t io_events;
	bool ready;      /* the guest's commands may be executed */
	bool negotiated; /* the features: nothing but that question may be sent before */
	enum asked asked;
	bool late;        /* the VMM took too long: the guest waits for nothing until it answers */
	bool want_modes;  /* to be asked for as soon as nothing else is asked */
	bool guest_waits; /* ops->modes is owed */
	bool have_modes;
	bool features_set; /* SET_PROTOCOL_FEATURES is to be sent */
	uint64_t features; /* with these */
	bool allow_dmabufs;
	enum display_dmabufs dmabufs; /* of those that are allowed, the VMM takes these */
	struct display_mode modes[DISPLAY_SCANOUTS];
	size_t received;
	uint8_t answer[sizeof(struct display_header) + sizeof(struct virtio_gpu_resp_display_info)];
	struct outgoing out;
	uint32_t next; /* scanout that is looked at first */
	struct display_counters count;
	struct scanout scanouts[DISPLAY_SCANOUTS];
};

/* display-message.c */
/* Begins the next message; false if the VMM knows everything, or can't be told now. */
bool display_next_message(struct display *d);
/* Sends of it what the socket takes: 1 when it is sent, 0 when the socket is full, -errno. */
int display_send(struct display *d);
/* The message that is on its way is none any more. */
void display_drop_message(struct display *d);
/* Begins a question, whose payload of size bytes is to be filled in. */
void display_ask(struct display *d, enum asked what, enum display_request request, size_t size);
