/* SPDX-License-Identifier: MIT
 * The resources of one client of the vtest socket, by the ids that it gave them, and the budget
 * that they are charged to.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/budget.h"
#include "gpu/virgl.h"

#define VTEST_BUCKETS       4096
#define VTEST_RESOURCES_MAX 32768 /* half of the mappings that a process can have */

struct vtest_entry {
	struct vtest_entry *next; // of its bucket; may be NULL
	struct virgl_resource virgl;
	uint64_t charge;
	struct iovec shared; /* with the client; NULL: none */
};

struct vtest_table {
	struct budget budget;
	struct virgl_limits limits; /* of who draws: known when the client's context is made */
	uint32_t n;
	struct vtest_entry *buckets[VTEST_BUCKETS];
};

/* NULL: there is none of this id. */
struct vtest_entry *vtest_table_find(struct vtest_table *t, uint32_t id);

/* Charges r and shared bytes, and makes its entry and the shared memory, whose fd is the caller's
 * (-1: shared is 0). Nothing is asked of the renderer. 0; -EINVAL for an id of 0, and a resource
 * that there can't be; -EEXIST; -EDQUOT over the budget; -ENOSPC: too many; -errno. */
int vtest_table_add(struct vtest_table *t, const struct virgl_resource *r, uint32_t shared,
	struct vtest_entry **entry_out, int *fd_out) _must_check_;
/* The entry is the table's; it is freed, its memory unmapped, its charge given back. */
void vtest_table_remove(struct vtest_table *t, struct vtest_entry *e);
