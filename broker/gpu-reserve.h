/* SPDX-License-Identifier: MIT
 * GPU memory of a VM that is used outside of its VMM: by clients of devbroker-gpu --vtest. Each
 * reservation lives as long as somebody holds the other end of its socket.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "protocol/refusal.h"

struct vm;

struct gpu_reservations {
	struct list all; // reservation::link
	unsigned int n;
};

void gpu_reservations_init(struct gpu_reservations *r);
/* The VM goes: who holds one sees its end. */
void gpu_reservations_finish(struct gpu_reservations *r);

/* Charges bytes to vm's GPU memory. 0 with *fd_out, which is the caller's: when all copies of it
 * are closed, the charge is returned. REFUSAL_QUOTA, REFUSAL_INVALID with text; -errno. */
int gpu_reservations_add(struct gpu_reservations *r, struct vm *vm, uint64_t bytes, int *fd_out,
	struct refusal_text *text) _must_check_;
