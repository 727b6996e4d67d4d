/* SPDX-License-Identifier: MIT
 * One of the guest's two queues: its ring, its three eventfds, and its part of the journal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/vring.h"

struct memory;
struct record;

struct queue {
	uint32_t index;
	struct record *record; /* borrowed */
	struct vring ring;
	int kick; /* -1: the ring is looked at without; each of them is owned */
	int call; /* -1: the guest polls */
	int err;  /* -1: nobody wants to know */
	bool started;
	bool enabled;
	bool told_broken; /* by err, and to the front */
	/* Heads that were added to the used ring and not published. */
	uint16_t added[VRING_SIZE_MAX];
	uint32_t n_added;
};

struct queue_fds {
	int kick, call, err;
};

void queue_init(struct queue *q, uint32_t index, struct record *record);
/* Closes the fds; what is not published never will be. */
void queue_finish(struct queue *q);

/* Starts the ring. fds are taken, and those of an earlier start closed. With the run that the
 * journal has it goes on where another renderer was: the heads that have to be executed again
 * are given by queue_resume then. The ring may be broken afterwards. */
void queue_start(struct queue *q, struct memory *m, const struct vring_setup *setup, uint64_t run,
	const struct queue_fds *fds);
/* The next head to be executed again, oldest first: one that another renderer did not get done, or
 * one that waits and is not younger than waiting_up_to. false: there is none. */
bool queue_resume(struct queue *q, uint64_t waiting_up_to, uint16_t *head_out) _must_check_;
/* Stops the ring. Returns where it is. Nothing may be in flight. */
uint16_t queue_stop(struct queue *q);

/* Takes the next head that the guest offers; the journal knows of it. */
bool queue_next(struct queue *q, uint16_t *head_out) _must_check_;
/* Gives a head back that was executed. */
void queue_give(struct queue *q, uint16_t head, uint32_t written);
/* It was executed and waits for a fence: queue_give comes later. */
void queue_fence(struct queue *q, uint16_t head, uint32_t written);
/* Shows the guest what was given back, and notifies it if it wants. */
void queue_publish(struct queue *q);
/* As vring_listen. */
bool queue_listen(struct queue *q) _must_check_;
/* The ring is broken and that has not been told: tells the guest. *why_out is for the front. */
bool queue_take_breakage(struct queue *q, const char **why_out) _must_check_;
