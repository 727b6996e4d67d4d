/* SPDX-License-Identifier: MIT
 * A capture of what a device's guest asks and gets: records (protocol/capture.h) into a pipe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct capture;
struct transfer;

struct capture_options {
	int fd;            /* taken even on error; a pipe's end, non-blocking */
	bool headers_only; /* nothing of the data */
	uint16_t bus;      /* of the device; 0: it has none */
	uint8_t device;
};

/* 0 or -errno. */
int capture_create(
	sd_event *event, const struct capture_options *options, struct capture **out) _must_check_;
/* What is not written is lost. NULL is fine. */
void capture_destroy(struct capture *c);

/* t goes to the device; t->urb is set. */
void capture_submitted(struct capture *c, struct transfer *t);
/* t is done, with its status. */
void capture_completed(struct capture *c, struct transfer *t);
/* Writes what the pipe takes. False: nobody reads it any more. */
bool capture_turn(struct capture *c) _must_check_;
