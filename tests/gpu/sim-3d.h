/* SPDX-License-Identifier: MIT
 * The 3D half of the simulated guest's driver, and streams of a real Mesa that were recorded
 * between it and a vtest server (protocol version 0), played through it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tests/gpu/sim.h"

#define SIM_FEATURES_3D                                          \
	(SIM_FEATURES_BLOB | UINT64_C(1) << VIRTIO_GPU_F_VIRGL | \
		UINT64_C(1) << VIRTIO_GPU_F_CONTEXT_INIT)

/* The types of the answers, as those of sim.h. */
uint32_t sim_context(struct sim *s, uint32_t id);
uint32_t sim_context_end(struct sim *s, uint32_t id);
uint32_t sim_create_3d(struct sim *s, const struct virtio_gpu_resource_create_3d *c);
/* A 2D texture, format as of enum virtio_gpu_formats. */
uint32_t sim_texture(struct sim *s, uint32_t id, uint32_t format, uint32_t width, uint32_t height);
uint32_t sim_join(struct sim *s, uint32_t context, uint32_t id);
uint32_t sim_part(struct sim *s, uint32_t context, uint32_t id);
uint32_t sim_transfer_3d(struct sim *s, bool to_host, uint32_t context, uint32_t id,
	const struct virtio_gpu_box *box, uint64_t offset);
/* n dwords, which are put at a guest address, with a fence of its own if fenced. */
uint32_t sim_submit(struct sim *s, uint32_t context, const uint32_t *dwords, uint32_t n,
	uint64_t at, bool fenced);
/* The same without waiting: its head, or -1 (no room). fence 0: none. */
int sim_offer_submit(struct sim *s, uint32_t context, const uint32_t *dwords, uint32_t n,
	uint64_t at, uint64_t fence);

#define SIM_PLAY_RESOURCES 16384
#define SIM_PLAY_FREE      32

struct sim_play_block {
	uint64_t at, size;
};

struct sim_play {
	uint8_t *bytes;
	size_t size;
	uint32_t *words;   /* of one request, aligned */
	size_t longest;    /* bytes of it */
	uint32_t gets;     /* read-backs in all */
	uint32_t context;  /* its id; resources have those of the recording, which names them */
	uint64_t from, to; /* the guest's memory that it uses */
	bool fenced;       /* as Linux does it: commands follow without waiting, all with fences */
	/* While it plays. */
	uint64_t next;           /* free memory */
	uint64_t ring, ring_end; /* for what is on its way */
	uint64_t ring_at;
	struct sim_play_block backing[SIM_PLAY_RESOURCES];
	uint64_t busy[SIM_PLAY_RESOURCES];           /* the fence of what reads that memory */
	struct sim_play_block unused[SIM_PLAY_FREE]; /* of resources that are gone */
	uint32_t out;                                /* commands on their way */
	uint64_t last_fence;
	/* What came of it. */
	uint32_t commands;
	uint32_t read_backs;
	uint32_t hash; /* FNV-1a of the last one */
	char wrong[128];
};

/* A file of at most 64 MiB. 0 or -errno. */
int sim_play_load(struct sim_play *p, const char *path) _must_check_;
void sim_play_finish(struct sim_play *p);
/* All of it; false with wrong. What it made is left there. */
bool sim_play(struct sim_play *p, struct sim *s);
/* Ends what it made. */
bool sim_play_end(struct sim_play *p, struct sim *s);
