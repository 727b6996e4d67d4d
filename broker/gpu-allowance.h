/* SPDX-License-Identifier: MIT
 * The page that says what a VM's renderers may take (protocol/allowance.h), and its bells.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct allowance_page;
struct gpu_limits;

/* Lives in its GPU. Initialized by gpu_allowance_init; the page is there while there are processes.
 */
struct gpu_allowance {
	struct allowance_page *page; // may be NULL
	int fd;
	int grant, want;              /* our ends of socket pairs */
	sd_event_source *want_source; // may be NULL: it has closed its end
};

/* Of a renderer: the page, its ends of `grant` and `want`. */
#define GPU_ALLOWANCE_FDS 3

void gpu_allowance_init(struct gpu_allowance *a);
/* A new page, without any limit. 0 or -errno. */
int gpu_allowance_create(struct gpu_allowance *a) _must_check_;
void gpu_allowance_finish(struct gpu_allowance *a);
/* New bells for a new renderer, which gets fds_out: the page's is a's own, the others are the
 * caller's. The handler of `want` has to call gpu_allowance_heard. 0 or -errno. */
int gpu_allowance_connect(struct gpu_allowance *a, sd_event *event, sd_event_io_handler_t wanted,
	void *userdata, int fds_out[static GPU_ALLOWANCE_FDS]) _must_check_;
/* `want` has rung: it is not listened to any more, until gpu_allowance_listen. */
void gpu_allowance_heard(struct gpu_allowance *a);
void gpu_allowance_listen(struct gpu_allowance *a);
/* Wakes a renderer that waits for more. */
void gpu_allowance_ring(const struct gpu_allowance *a);
/* What l says holds from the renderer's next command on; but for its share. */
void gpu_allowance_limit(struct gpu_allowance *a, const struct gpu_limits *l, uint64_t memory_max);
