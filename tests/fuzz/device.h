/* SPDX-License-Identifier: MIT
 * A virtio-gpu device with its rings and its journal as a renderer has them, in one process, and
 * the guest's memory, for targets that fill it.
 */
#pragma once

#include <stdint.h>

#include "gpu/journal.h"
#include "gpu/memory.h"
#include "gpu/queue.h"
#include "gpu/record.h"
#include "gpu/virtio-gpu.h"
#include "gpu/vring.h"

#define DEVICE_RING   16
#define DEVICE_MEMORY 0x10000U /* bytes at 0 */
/* Where the rings lie; commands may lie anywhere. */
#define DEVICE_DESC(q)  ((uint64_t)(q)*0x300)
#define DEVICE_AVAIL(q) (DEVICE_DESC(q) + 0x100)
#define DEVICE_USED(q)  (DEVICE_DESC(q) + 0x180)
#define DEVICE_COMMANDS 0x600

struct device {
	struct memory memory;
	uint8_t *guest;
	struct journal *journal;
	struct journal_reader reader; /* the front's */
	struct record record;
	struct gpu *gpu;
	struct queue queues[JOURNAL_QUEUES];
	bool draws; /* in 3D, which is faked */
};

/* The only one, with an empty journal and its memory zeroed; no ring has started. draws: in 3D,
 * too, with a renderer that aborts when it hears of what can't be. */
struct device *device_begin(bool draws);
/* Starts both rings; features: bits of VRING_FEATURE_*. The same run: it goes on. */
void device_start(struct device *d, uint64_t features, uint64_t run);
/* What a renderer does with what is in them, for a while. */
void device_run(struct device *d);
/* As if it were killed; another one takes its place, without rings yet. */
void device_kill(struct device *d);
/* All that is drawn is done. */
void device_reach_fences(struct device *d);
/* What a front takes of what is shown. */
void device_show(struct device *d);
/* Everything is given back. */
void device_end(struct device *d);
