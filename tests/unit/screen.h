/* SPDX-License-Identifier: MIT
 * A display with the test as its VMM.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "gpu/display.h"
#include "protocol/vhost-user-display.h"

#define SIDE  64
#define LARGE 1024 /* a frame of it is larger than any socket's buffer here */

struct screen {
	sd_event *event;
	struct display *d;
	struct pictures pictures;
	int vmm; /* our end; -1: none */
	unsigned int ready, modes, gone, dmabufs;
	enum display_dmabufs last_dmabufs;
	uint64_t offers; /* protocol features; 3 in the beginning */
	uint64_t takes;  /* those of them that the display has to take */
	int fd;          /* that came with the last message; -1: none */
	struct display_mode last_modes[DISPLAY_SCANOUTS];
	const char *why;
};

struct screen_message {
	struct display_header h;
	uint8_t *payload; /* malloc'ed */
};

int screen_set_up(void **state);
int screen_tear_down(void **state);

/* What front.c's loop does, until nothing happens for ms. */
void screen_turn(struct screen *x, int ms);
double screen_now(void); /* seconds */

/* A new socket, whose buffer is small. */
void screen_plug(struct screen *x);
/* The same, with its features negotiated. */
void screen_negotiate(struct screen *x);

/* The next message. False if there is none. */
bool screen_next(struct screen *x, struct screen_message *m);
/* The next message is this one, of this size. Its payload is the caller's. */
uint8_t *screen_expect(struct screen *x, enum display_request request, size_t size);
void screen_expect_nothing(struct screen *x);
void screen_check_scanout(struct screen *x, uint32_t scanout, uint32_t width, uint32_t height);
/* The next message is an UPDATE of this rectangle, whose pixels are those of map (of side squared)
 * at dx, dy from there. */
void screen_check_update(struct screen *x, uint32_t scanout, const struct display_rect *r,
	const uint32_t *map, uint32_t side, uint32_t dx, uint32_t dy);

void screen_answer(struct screen *x, uint32_t request, const void *payload, uint32_t size);
void screen_answer_features(struct screen *x);
void screen_answer_modes(struct screen *x, uint32_t width, uint32_t height);

/* A picture of side squared, each pixel its number, whose pixels stay writable at *out. */
struct picture *screen_picture(struct screen *x, uint32_t number, uint32_t side, uint32_t **out);
