/* SPDX-License-Identifier: MIT
 * The GPU of one VM: a socket on which its VMM connects, and while it is connected a front and a
 * renderer (devbroker-gpu), which come and go with it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/quota.h"
#include "protocol/gpu-parent.h"
#include "protocol/refusal.h"

struct allowance_page;
struct gpu;
struct gpu_limits;
struct vm;
struct vm_options;

/* What a renderer may take beside the memory of its VM's images before the kernel ends it, where
 * there are cgroups: above the rlimit that it sets itself (1 GiB), which says no before the kernel
 * ends it; how many threads; and its share of a CPU that others want as well. */
#define GPU_RENDERER_SLACK      (UINT64_C(1280) << 20)
#define GPU_RENDERER_TASKS      128
#define GPU_RENDERER_CPU_WEIGHT 100

enum gpu_state {
	GPU_WAITING,  /* for the VMM */
	GPU_STARTING, /* its processes */
	GPU_CONNECTED,
	GPU_ENDING,
	GPU_STATE_COUNT_,
};

/* Of a screenshot that was asked for. error: 0 with fd (borrowed), a memfd of width by height
 * pixels, B8G8R8X8, rows without gaps; -errno (-ENOENT: that scanout shows nothing). */
struct gpu_picture {
	int error;
	int fd;
	uint32_t width, height;
};

struct gpu_waiter {
	struct list link; // gpu::waiters
	uint64_t seq;
	void (*done)(struct gpu_waiter *w, const struct gpu_picture *picture);
	void *userdata;
};

struct gpu_status {
	enum gpu_state state;
	const char *socket;
	const char *detail; /* why it is not connected any more; "" */
	uint64_t memory_max;
	uint64_t heard_usec;        /* CLOCK_MONOTONIC when it said so */
	struct parent_msg counters; /* as the front said last; zero without one */
	const struct allowance_page
		*page;           // may be NULL: it has no renderer; any may be in its second half
	uint64_t used_ns;        /* of what it draws on, since its VMM is connected */
	uint32_t frames_per_sec; /* shown, between its last two words */
	uint32_t permille;       /* of all of that, in the last half second */
	uint64_t rss;            /* of its renderer, bytes; 0: unknown */
	uint64_t device_memory;  /* of it in the GPU's, by the kernel, bytes; 0: it does not say */
	const char *time_from;   /* who says used_ns: "cpu", "renderer", "kernel"; "" */
};

/* Makes the socket RUN-DIR/vm/NAME/gpu.sock, or takes over the one that systemd holds under the
 * name gpu-NAME. Of o, what is about GPUs; it need not outlive the call. pool is what it is to draw
 * on (gpu_pool_of). 0 or -errno. */
int gpu_create(
	struct vm *vm, const struct vm_options *o, const char *pool, struct gpu **out) _must_check_;
/* Ends its processes without waiting for them. NULL is fine. */
void gpu_destroy(struct gpu *g);

void gpu_status(const struct gpu *g, struct gpu_status *out);
/* Whether it may have this share beside what others are guaranteed of what it draws on. 0 or
 * REFUSAL_QUOTA with text. */
int gpu_check_share(
	const struct gpu *g, const struct gpu_limits *l, struct refusal_text *text) _must_check_;
/* vm::gpu_limits or vm::gpu_memory's limit were changed: they hold from now on. */
void gpu_limits_changed(struct gpu *g);
/* What the guest is told of scanout (below 16) when it asks the next time; 0 by 0: the VMM's own
 * word. 0; REFUSAL_INVALID, REFUSAL_VM_GONE with text. */
/* 3D, which was taken away because its guest hung renderers (PARENT_ALLOW). */
int gpu_allow(struct gpu *g, struct refusal_text *text) _must_check_;
int gpu_set_display(struct gpu *g, uint32_t scanout, uint32_t width, uint32_t height,
	struct refusal_text *text) _must_check_;
/* w->done is called once, from the loop, also when the GPU goes. 0;
 * REFUSAL_INVALID, REFUSAL_VM_GONE, REFUSAL_BUSY with text. */
int gpu_screenshot(struct gpu *g, uint32_t scanout, struct gpu_waiter *w,
	struct refusal_text *text) _must_check_;

/* As gpu_reservations_add. */
int gpu_reserve(struct gpu *g, uint64_t bytes, int *fd_out, struct refusal_text *text) _must_check_;

const char *gpu_state_name(enum gpu_state state);
