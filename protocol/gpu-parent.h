/* SPDX-License-Identifier: MIT
 * Messages between a front and its parent, which is devbrokerd or the small parent of a stand-alone
 * pair: fixed size, one per SOCK_SEQPACKET datagram, at most one fd.
 *
 * Each side distrusts the other's numbers; the parent treats the front as hostile.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define PARENT_VERSION   4
#define PARENT_NAME_SIZE 128

enum parent_type {
	/* parent to front */
	PARENT_RENDERER = 1,   /* fd: the link to a new renderer */
	PARENT_DISPLAY = 2,    /* a mode for a scanout; 0 by 0: the VMM's own again */
	PARENT_SCREENSHOT = 3, /* answered by PICTURE */
	PARENT_PING = 4,
	PARENT_ALLOW = 5, /* 3D, that was taken away because the guest hung its renderers */
	/* front to parent */
	PARENT_READY = 16,         /* first message: the sandbox is closed */
	PARENT_RENDERER_LOST = 17, /* the link is gone: another renderer is wanted */
	PARENT_PICTURE = 18,       /* fd: a memfd with the pixels, unless error is set */
	PARENT_PONG = 19,
	PARENT_RENDERER_STARTED = 20, /* it is ready for the guest's commands */
};

struct parent_msg {
	uint32_t type;    /* enum parent_type */
	uint32_t version; /* READY */
	uint32_t scanout; /* DISPLAY, SCREENSHOT, PICTURE */
	uint32_t width;   /* DISPLAY, PICTURE: pixels */
	uint32_t height;
	int32_t error;           /* PICTURE: 0 or -errno (-ENOENT: the scanout shows nothing) */
	uint32_t sandbox_stages; /* READY */
	uint32_t scanouts;       /* PONG: those that show something, a bit each */
	uint64_t seq;            /* PING, PONG, SCREENSHOT, PICTURE */
	uint64_t frames;         /* PONG: shown; the rest as well */
	uint64_t merged;
	uint64_t bytes;
	uint64_t commands;
	uint64_t errors;
	uint64_t memory;    /* bytes that the guest's resources take */
	uint64_t uncharged; /* that its renderer takes beyond that, and that count as well */
	uint64_t memory_max;
	uint32_t resources;
	uint32_t renderers;   /* that there have been */
	uint32_t display;     /* 1: the VMM's display is connected */
	uint32_t quarantined; /* 1: it gets no 3D until ALLOW */
	uint64_t cpu_ns;      /* of this renderer: what drawing in software costs, too */
	uint64_t refused;     /* requests over the budget, by this renderer */
	uint64_t poisoned;    /* contexts that were refused everything from then on */
	uint64_t hangs; /* renderers that were given up or died while they drew; RENDERER_LOST, too
			 */
	uint32_t contexts;
	uint32_t fences;                 /* requests that wait for them */
	char renderer[PARENT_NAME_SIZE]; /* GL_RENDERER, printable ASCII; "": 2D only */
};
static_assert(sizeof(struct parent_msg) == 288, "wire size");

enum parent_direction { PARENT_TO_FRONT, FRONT_TO_PARENT };

/* Whether what GL calls itself (parent_msg::renderer) draws with the CPU. */
bool parent_draws_in_software(const char *renderer);

/* Checks a received datagram: size, type, direction, number of fds, scanouts that there are, sizes
 * that pictures may have. 0 or -EBADMSG. */
int parent_decode(enum parent_direction direction, const void *data, size_t size, size_t n_fds,
	struct parent_msg *out) _must_check_;
