/* SPDX-License-Identifier: MIT
 * One real backend for one test, and what must hold of it when the test is over: the renderer is
 * the one that there was, and everything is gone with the VMM.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/gpu/sim.h"

#define CASE_WIDTH  320u
#define CASE_HEIGHT 200u
#define CASE_BYTES  (CASE_WIDTH * CASE_HEIGHT * 4)
#define CASE_MEMORY (64U << 20)
/* The exit code for a VMM that broke the protocol. */
#define CASE_PEER_BAD 3

enum {
	CASE_OK = VIRTIO_GPU_RESP_OK_NODATA,
	CASE_UNSPEC = VIRTIO_GPU_RESP_ERR_UNSPEC,
	CASE_NO_MEMORY = VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY,
	CASE_BAD_SCANOUT = VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID,
	CASE_BAD_RESOURCE = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
	CASE_BAD_CONTEXT = VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID,
	CASE_BAD_PARAMETER = VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER,
};

struct gpu_case {
	struct sim sim;
	pid_t renderer; /* -1: it may be another one at the end */
	pid_t pids[SIM_PROCESSES_MAX];
	size_t n_pids;
};

/* For cmocka: up to DRIVER_OK, and up to where QEMU waits for a guest. */
int case_setup(void **state);
int case_setup_connected(void **state);
int case_teardown(void **state);

/* With a driver that wants blobs. */
int case_setup_blob(void **state);
/* The same with 3D, and a driver that wants it. */
int case_setup_3d(void **state);
/* And with a backend that waits two seconds for what is drawn. */
int case_setup_hasty(void **state);

/* Starts it with options (each may be NULL), up to DRIVER_OK if features are not 0. 0 or -errno. */
int case_begin(struct gpu_case **out, uint64_t features, const char *option,
	const char *another) _must_check_;
/* Starts it with a driver of other features. */
int case_start(struct gpu_case **out, uint64_t features) _must_check_;
/* The renderer that there is now, within 5 s; another one than not. */
pid_t case_renderer(struct gpu_case *c, pid_t not );
/* That it ends within 5 s by itself with this exit code, and all of its processes with it. */
void case_check_ended(struct gpu_case *c, int exit_code);
/* That it serves a guest: a resource is made, filled, shown, and seen on the display. The guest
 * must have none with this id. */
void case_check_serves(struct gpu_case *c, uint32_t id);
/* Paints CASE_BYTES of guest memory; what was painted. */
const uint32_t *case_paint(struct gpu_case *c, uint64_t at, uint32_t seed);
/* That this is on a scanout, within 1 s. */
void case_check_picture(struct gpu_case *c, uint32_t scanout, const uint32_t *pixels);

extern const struct virtio_gpu_rect case_all;
