/* SPDX-License-Identifier: MIT
 * A guest whose requests have one right answer each, for renderers that are killed under it.
 */
#pragma once

#include "tests/integration/fake-front.h"

#define BGRX  VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define SIDE  64
#define BYTES (SIDE * SIDE * 4)
#define AREA  (8U << 20) /* where the guest has its pixels */

enum {
	OK = VIRTIO_GPU_RESP_OK_NODATA,
	UNSPEC = VIRTIO_GPU_RESP_ERR_UNSPEC,
	BAD_RESOURCE = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
};

struct expected {
	uint32_t type;
	uint64_t fence;
};

struct rig {
	struct fake_front *f;
	struct expected expected[RING_SIZE]; /* by head, of the control ring */
	uint32_t n_waiting;
	uint32_t n_cursors; /* in flight on the other queue */
	uint64_t fence;
	uint64_t answered;
};

union command {
	struct virtio_gpu_ctrl_hdr hdr;
	struct virtio_gpu_resource_create_2d create;
	struct virtio_gpu_resource_unref unref;
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e;
	} attach;
	struct virtio_gpu_resource_detach_backing detach;
	struct virtio_gpu_transfer_to_host_2d transfer;
	struct virtio_gpu_set_scanout scanout;
	struct virtio_gpu_resource_flush flush;
};

/* How many kills of each kind: GPU_KILLS in the environment, default 60. */
int guest_kills(void);

/* For cmocka: a rig with a renderer that runs. */
int guest_setup(void **state);
int guest_teardown(void **state);

/* Puts a command with a fence into the control ring; want is the type of its answer. */
void guest_offer(struct rig *r, union command *c, size_t size, uint32_t want);

#define OFFER(r, want, member, ...)                           \
	do {                                                  \
		union command c_ = {.member = __VA_ARGS__};   \
		guest_offer(r, &c_, sizeof(c_.member), want); \
	} while (0)

/* Everything that can be done to a resource, in an order in which each command has one right
 * answer, and a second execution of nearly each of them another: 11 commands. */
void guest_offer_life(struct rig *r, uint32_t id);
/* One more request of the cursor queue, kicked. */
void guest_move_cursor(struct rig *r);
/* Takes one answer of the control queue and checks it; false if none comes in ms. */
bool guest_take(struct rig *r, int ms);
/* Takes all that are owed, and sees that there are no more. */
void guest_take_all(struct rig *r);
/* Kills the renderer and starts another. */
void guest_replace(struct rig *r);
