/* SPDX-License-Identifier: MIT */
#include "gpu/vtest-table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/fd.h"

struct vtest_entry *vtest_table_find(struct vtest_table *t, uint32_t id)
{
	struct vtest_entry *e = t->buckets[id % VTEST_BUCKETS];

	while (e && e->virgl.id != id) {
		e = e->next;
	}
	return e;
}

/* Sealed: the client can't cut it off under us. */
static int make_shared(uint32_t size, struct iovec *out, int *fd_out)
{
	_cleanup_close_ int fd = -1;
	void *base;
	int r;

	if (size == 0) {
		return 0;
	}
	r = fd_create_sealed("devbroker-vtest", size, &fd, &base);
	if (r < 0) {
		return r;
	}
	*out = (struct iovec){base, size};
	*fd_out = steal_fd(&fd);
	return 0;
}

int vtest_table_add(struct vtest_table *t, const struct virgl_resource *r, uint32_t shared,
	struct vtest_entry **entry_out, int *fd_out)
{
	_cleanup_free_ struct vtest_entry *e = NULL;
	uint64_t bytes = virgl_resource_bytes(r), charge;
	struct vtest_entry **bucket = &t->buckets[r->id % VTEST_BUCKETS];
	int err;

	if (r->id == 0 || bytes == 0 || !virgl_resource_fits(r, &t->limits) ||
		!u64_add(bytes, shared + sizeof(*e), &charge)) {
		return -EINVAL;
	}
	if (vtest_table_find(t, r->id)) {
		return -EEXIST;
	}
	if (t->n >= VTEST_RESOURCES_MAX) {
		return -ENOSPC;
	}
	if (!budget_charge(&t->budget, charge)) {
		return -EDQUOT;
	}
	*fd_out = -1;
	e = calloc(1, sizeof(*e));
	err = e ? make_shared(shared, &e->shared, fd_out) : -ENOMEM;
	if (err < 0) {
		budget_give_back(&t->budget, charge);
		return err;
	}
	t->budget.shared += e->shared.iov_len;
	e->virgl = *r;
	e->charge = charge;
	e->next = *bucket;
	*bucket = e;
	t->n++;
	*entry_out = steal_ptr(e);
	return 0;
}

void vtest_table_remove(struct vtest_table *t, struct vtest_entry *e)
{
	struct vtest_entry **link = &t->buckets[e->virgl.id % VTEST_BUCKETS];

	while (*link != e) {
		link = &(*link)->next;
	}
	*link = e->next;
	t->n--;
	if (e->shared.iov_base) {
		munmap(e->shared.iov_base, e->shared.iov_len);
	}
	t->budget.shared -= e->shared.iov_len;
	budget_give_back(&t->budget, e->charge);
	free(e);
}
