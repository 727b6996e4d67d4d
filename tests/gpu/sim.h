/* SPDX-License-Identifier: MIT
 * A VM without a VM: a VMM, its display and a guest with a virtio-gpu driver, in front of a real
 * backend, in one thread. For tests, benches and fuzzers.
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tests/gpu/sim-backend.h"
#include "tests/gpu/sim-ring.h"
#include "tests/gpu/sim-screen.h"
#include "tests/gpu/sim-vmm.h"

#define SIM_CONTROL 0
#define SIM_CURSOR  1

/* Where things lie in the guest: rings at 0x10000 and 0x20000, a page for each head of each queue,
 * and the guest's pixels from SIM_PIXELS on. */
#define SIM_SLOTS     0x100000
#define SIM_SLOT      0x1000
#define SIM_ANSWER_AT 0x800 /* in its slot */
#define SIM_PIXELS    0x400000

#define SIM_FEATURES                                                  \
	(UINT64_C(1) << 32 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | \
		UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_GPU_F_EDID)

struct sim {
	struct sim_backend backend;
	struct sim_vmm vmm;
	struct sim_screen screen;
	bool screen_reads; /* false: what it is told stays in the socket */
	struct sim_ring rings[SIM_QUEUES];
	uint64_t fence;
	bool dead; /* the backend closed the connection */
};

#define SIM_FEATURES_BLOB (SIM_FEATURES | UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB)

/* What to start. */
struct sim_options {
	const char *const *argv; /* of the backend, if it is to be started */
	const char *socket;      /* of one that listens there; NULL: argv is started */
	int cpu;                 /* of the backend; -1: any */
	bool quiet;
	size_t memory;          /* of the guest, bytes */
	uint32_t width, height; /* of its display */
	uint64_t features;      /* of its driver; 0: SIM_FEATURES */
};

/* Starts the backend and brings the device up to DRIVER_OK. 0, or -errno with nothing left. */
int sim_start(struct sim *s, const struct sim_options *o) _must_check_;
/* The two halves of it. */
int sim_connect(struct sim *s, const struct sim_options *o) _must_check_;
int sim_driver_ok(struct sim *s, uint64_t features) _must_check_;
/* Ends everything. */
void sim_stop(struct sim *s);
/* What a guest's reboot is for a backend: rings stopped, and up to DRIVER_OK with new ones and a
 * new display. */
int sim_reboot(struct sim *s) _must_check_;

/* Does what has to be done for the display and waits until there is something new, at most ms.
 * False: time is up, or the backend is gone. */
bool sim_wait(struct sim *s, int ms);

/* Puts a command into a queue, with room for its answer; no kick. Its head, or -1 (no room). */
int sim_offer(struct sim *s, uint32_t queue, const void *command, size_t size, size_t room);
/* The next head that came back, within ms: -1 none, -2 one that must not. */
int sim_take(struct sim *s, uint32_t queue, int ms, uint32_t *written_out);
const void *sim_answer(const struct sim *s, uint32_t queue, int head);
/* One command, kicked and answered. The type of the answer; 0: none in 5 s. A command with the
 * fence flag gets a fence of its own; an answer that doesn't have it counts as none. */
uint32_t sim_command(struct sim *s, const void *command, size_t size);

/* The usual ones: the type of the answer. */
uint32_t sim_create(struct sim *s, uint32_t id, uint32_t format, uint32_t width, uint32_t height);
uint32_t sim_unref(struct sim *s, uint32_t id);
uint32_t sim_attach(
	struct sim *s, uint32_t id, const struct virtio_gpu_mem_entry *entries, uint32_t n);
uint32_t sim_set_scanout(
	struct sim *s, uint32_t scanout, uint32_t id, uint32_t width, uint32_t height);
uint32_t sim_transfer(
	struct sim *s, uint32_t id, const struct virtio_gpu_rect *rect, uint64_t offset);
uint32_t sim_flush(struct sim *s, uint32_t id, const struct virtio_gpu_rect *rect);
/* A blob in guest memory of size bytes. */
uint32_t sim_blob(struct sim *s, uint32_t id, uint64_t size,
	const struct virtio_gpu_mem_entry *entries, uint32_t n);
/* All of one as a picture without gaps. */
uint32_t sim_show_blob(
	struct sim *s, uint32_t scanout, uint32_t id, uint32_t width, uint32_t height);
/* A resource with backing at a guest address, shown on a scanout: 0, or the first answer that was
 * no success. */
uint32_t sim_show(struct sim *s, uint32_t id, uint32_t scanout, uint32_t width, uint32_t height,
	uint64_t backing);
