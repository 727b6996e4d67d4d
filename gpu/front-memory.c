/* SPDX-License-Identifier: MIT
 *
 * The VMM's memory table. The front maps none of it; it sees to it that what the renderer maps can
 * be mapped: each region lies in its file, wraps nowhere and overlaps no other. A new table is
 * checked as a whole before the old one goes.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/front-internal.h"

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/* NULL, or what is wrong with a region by itself. */
static const char *check_region(const struct vhost_user_region *r, int fd)
{
	uint64_t end;
	struct stat st;

	if (r->size == 0) {
		return "an empty memory region";
	}
	if (!u64_add(r->guest, r->size, &end) || !u64_add(r->user, r->size, &end) ||
		!u64_add(r->offset, r->size, &end)) {
		return "a memory region that wraps";
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		return "a memory region that is no file";
	}
	/* Huge pages' files say so as well. */
	return (uint64_t)st.st_size >= end ? NULL : "a memory region behind its file's end";
}

static const char *check_against(
	const struct vhost_user_region *r, const struct vhost_user_region *other)
{
	return overlap(r->guest, r->size, other->guest, other->size) ||
			       overlap(r->user, r->size, other->user, other->size)
		       ? "memory regions that overlap"
		       : NULL;
}

static void changed(struct front *f)
{
	f->generation++;
	front_renderer_send_memory(f);
}

int front_memory_set(
	struct front *f, const struct vhost_user_memory *m, int *fds, const char **why_out)
{
	for (uint32_t i = 0; i < m->n_regions; i++) {
		const char *why = check_region(&m->regions[i], fds[i]);

		for (uint32_t k = 0; k < i && !why; k++) {
			why = check_against(&m->regions[i], &m->regions[k]);
		}
		if (why) {
			*why_out = why;
			return -EINVAL;
		}
	}
	front_memory_finish(f);
	for (uint32_t i = 0; i < m->n_regions; i++) {
		f->regions[i] = (struct front_region){m->regions[i], steal_fd(&fds[i])};
	}
	f->n_regions = m->n_regions;
	changed(f);
	return 0;
}

int front_memory_add(
	struct front *f, const struct vhost_user_region *r, int *fd, const char **why_out)
{
	const char *why = f->n_regions == FRONT_REGIONS_MAX ? "too many memory regions"
							    : check_region(r, *fd);

	for (size_t i = 0; i < f->n_regions && !why; i++) {
		why = check_against(r, &f->regions[i].region);
	}
	if (why) {
		*why_out = why;
		return -EINVAL;
	}
	f->regions[f->n_regions++] = (struct front_region){*r, steal_fd(fd)};
	changed(f);
	return 0;
}

int front_memory_remove(struct front *f, const struct vhost_user_region *r, const char **why_out)
{
	for (size_t i = 0; i < f->n_regions; i++) {
		const struct vhost_user_region *have = &f->regions[i].region;

		if (have->guest == r->guest && have->size == r->size && have->user == r->user) {
			safe_close(f->regions[i].fd);
			f->n_regions--;
			memmove(&f->regions[i], &f->regions[i + 1],
				(f->n_regions - i) * sizeof(f->regions[0]));
			changed(f);
			return 0;
		}
	}
	*why_out = "removal of a memory region that is not there";
	return -EINVAL;
}

void front_memory_finish(struct front *f)
{
	for (size_t i = 0; i < f->n_regions; i++) {
		safe_close(f->regions[i].fd);
	}
	f->n_regions = 0;
}
