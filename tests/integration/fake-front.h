/* SPDX-License-Identifier: MIT
 * A front of the GPU without a VMM, and the driver of a guest behind it: one renderer's other side.
 */
#pragma once

#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/sandbox.h"
#include "gpu/journal.h"
#include "gpu/link.h"

#define GUEST_REGION (32U << 20) /* bytes of each of two */
#define GUEST_SECOND 0x100000000 /* where the second one begins */
#define RING_SIZE    64
#define RING_HEADS   (RING_SIZE / 2) /* each request takes two descriptors */
#define ANSWER_ROOM  1088

enum { CONTROL, CURSOR };

struct fake_ring {
	int kick, call, err;
	uint64_t run;
	uint16_t base;    /* available index where this run began, or was stopped */
	uint16_t offered; /* available index */
	uint16_t seen;    /* used index up to which answers were taken */
	bool in_flight[RING_SIZE];
};

struct fake_front {
	int memory_fd;
	uint8_t *guest; /* both regions */
	int journal_fd;
	struct journal *journal;
	struct journal_reader reader;
	int bell;
	int link;  /* -1: no renderer */
	int pidfd; /* of it */
	pid_t pid;
	uint64_t generation;
	struct fake_ring rings[LINK_QUEUES];
	/* The last one of each message that comes unasked. */
	struct link_scanout scanouts[LINK_SCANOUTS];
	int image_fds[LINK_SCANOUTS]; /* of the first resource of each, -1 */
	struct link_broken broken[LINK_QUEUES];
	int n_modes_wanted;
	bool answers_modes; /* by itself */
	bool deaf;          /* doesn't read the link while it waits for answers */
	uint32_t n_images;  /* fds of images that came; and what was said to be gone */
	uint32_t n_gone, n_gone_all;
	uint32_t stages;
};

struct fake_front *fake_front_create(void);
void fake_front_destroy(struct fake_front *f);

/* Spawns a renderer and sends it everything; rings that run are gone on with. */
void fake_front_start(struct fake_front *f, const char *max_memory);
/* Kills it and forgets its link. */
void fake_front_kill(struct fake_front *f);
/* Whether it lives. */
bool fake_front_alive(const struct fake_front *f);

/* A new run of a ring, from zero, as after the driver's reset. */
void fake_ring_reset(struct fake_front *f, uint32_t queue);
void fake_ring_start(struct fake_front *f, uint32_t queue);
uint16_t fake_ring_stop(struct fake_front *f, uint32_t queue);

void fake_front_send(struct fake_front *f, const union link_msg *m, const int *fds, size_t n_fds);
/* Sends the memory table with both regions, and returns what it was answered. */
int fake_front_memory(struct fake_front *f);
/* Reads messages until one of this type came (it is in *out), or for ms. */
bool fake_front_wait(struct fake_front *f, uint32_t type, union link_msg *out, int ms);
/* Reads what is there. */
void fake_front_drain(struct fake_front *f);

/* Puts a request into the ring, at a head that is free; no kick. Returns the head. */
uint16_t fake_ring_offer(
	struct fake_front *f, uint32_t queue, const void *request, size_t size, size_t room);
void fake_ring_kick(struct fake_front *f, uint32_t queue);
/* The used index. */
uint16_t fake_ring_used(const struct fake_front *f, uint32_t queue);
/* The next head that was given back, within ms; -1. Its answer is at fake_answer(). */
int fake_ring_next(struct fake_front *f, uint32_t queue, int ms, uint32_t *written_out);
const void *fake_answer(const struct fake_front *f, uint32_t queue, uint16_t head);
/* One request, kicked and answered. Returns the type of the answer, 0 if there is none in 5 s. */
uint32_t fake_command(struct fake_front *f, const void *request, size_t size);
/* Descriptors, and the available index, for those who want to break them. */
void *fake_ring_desc(struct fake_front *f, uint32_t queue, int n);
uint16_t *fake_ring_avail(struct fake_front *f, uint32_t queue);
