/* SPDX-License-Identifier: MIT
 * How fast a VM may use its USB devices, told to all of its workers at once (protocol/pace.h).
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

struct pace_page;
struct vm;
struct worker;

/* Lives in its VM. There is no page before the first limit. */
struct vm_pace {
	struct pace_page *page; // may be NULL
	int fd;
};

void vm_pace_init(struct vm_pace *p);
void vm_pace_finish(struct vm_pace *p);
/* What vm->limits says holds from now on. 0 or -errno: what held before holds. */
int vm_pace_apply(struct vm *vm) _must_check_;
/* A worker of vm has become ready, or is taken over. One that can't be told is ended. */
void vm_pace_tell(struct vm *vm, struct worker *w);
/* What its workers did together in the last heartbeat, per second. */
void vm_pace_used(const struct vm *vm, uint64_t *bytes_out, uint64_t *transfers_out);
