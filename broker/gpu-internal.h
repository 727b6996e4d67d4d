/* SPDX-License-Identifier: MIT
 * What the files of a VM's GPU share (broker/gpu.h).
 */
#pragma once

#include "base/patience.h"
#include "base/restarts.h"
#include "broker/config.h"
#include "broker/gpu-allowance.h"
#include "broker/gpu-arbiter.h"
#include "broker/gpu-fdinfo.h"
#include "broker/gpu-reserve.h"
#include "broker/gpu-socket.h"
#include "broker/gpu.h"
#include "broker/process.h"

#define GPU_SCANOUTS 16

struct gpu {
	struct vm *vm;
	char path[GPU_SOCKET_PATH_MAX];
	char name[80]; /* for the log: "vm win11: gpu" */
	bool own_socket;
	int listener;
	sd_event_source *listen_source;
	enum gpu_state state;
	char detail[160];
	uint64_t memory_max;
	enum gpu_virgl virgl;
	char *render_node;             // may be NULL: the one that is tagged
	bool dmabuf;                   /* its VMM shows DMABUFs */
	uint32_t hang_seconds;         /* 0: as devbroker-gpu has it */
	char refused[128];             /* why there is nothing to draw on; "" */
	bool told;                     /* what draws, in the log */
	struct charge memory;          /* while there are processes */
	char pool[GPU_POOL_NAME_SIZE]; /* what it is to draw on; "": in software */
	struct gpu_allowance allowance;
	struct gpu_part part;     /* of what it draws on */
	struct gpu_fdinfo fdinfo; /* of its renderer's render node, while there is one */
	struct process *front;    // may be NULL
	struct process *renderer; // may be NULL
	/* The front has lost its renderer: there is another one as soon as that one has ended. Its
	 * word is waited for: it is how it is known which renderer it means. */
	bool wanted;
	bool blamed; /* the front says that the guest has made the last one hang */
	int control;
	sd_event_source *control_source;
	sd_event_source *timer;
	bool ready;
	struct patience unanswered; /* pings since its last message */
	unsigned int messages;      /* since the last ping */
	uint64_t seq;
	struct parent_msg counters;
	uint64_t heard_usec;
	uint32_t frames_per_sec;
	struct list waiters; // gpu_waiter::link
	unsigned int n_waiters;
	struct gpu_reservations reserved;
	struct restarts restarts; // of renderers
	struct {
		uint32_t width, height;
	} modes[GPU_SCANOUTS]; /* of set_display, for the next front too */
};

#define GPU_HANG_OPTION_SIZE 32

/* Appends --hang-timeout to n arguments, if it was configured; out keeps it. How many there are. */
size_t gpu_add_hang(
	const struct gpu *g, const char **args, size_t n, char out[static GPU_HANG_OPTION_SIZE]);

/* To the front; fd (borrowed) may be -1. 0 or -errno. */
int gpu_say(struct gpu *g, const struct parent_msg *m, int fd);

/* gpu-renderer.c: a renderer for the front, which is told of it. 0; -errno, with gpu::refused if
 * there is more to say. */
int gpu_renderer_start(struct gpu *g) _must_check_;
/* gpu.c: it has ended (process_ended). */
void gpu_renderer_ended(void *userdata, int error, int status);
