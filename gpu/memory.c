/* SPDX-License-Identifier: MIT
 *
 * A VMM may cut a file that it lent, at any time; touching what is gone raises SIGBUS. The handler
 * puts zeroes under the whole region and marks it lost, so that the instruction goes on; whoever
 * was copying sees bytes that the guest might as well have written, finishes its command, and then
 * hears of the loss by memory_take_loss. Seals can't be demanded instead: QEMU sets none.
 */
#include "gpu/memory.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"

/* A signal handler has no userdata; this is the one exception to "no file-scope state". */
static struct memory *volatile guarded; // may be NULL
static volatile sig_atomic_t n_lost;

void memory_init(struct memory *m)
{
	memset(m, 0, sizeof(*m));
}

void memory_finish(struct memory *m)
{
	/* The handler must not put zeroes over what is somebody else's by then. */
	size_t n = m->n;

	m->n = 0;
	m->last = 0;
	for (size_t i = 0; i < n; i++) {
		munmap(m->mappings[i].map, m->mappings[i].map_size);
	}
}

static bool overlaps(const struct memory *m, const struct memory_region *region)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct memory_region *other = &m->mappings[i].region;

		if (region->guest < other->guest + other->size &&
			other->guest < region->guest + region->size) {
			return true;
		}
	}
	return false;
}

/* What an offset into fd must be a multiple of: huge pages have their own size. */
static uint64_t granule_of(int fd)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_blksize <= 0) {
		return page;
	}
	return MAX((uint64_t)st.st_blksize, page);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
	uint64_t over = n % to;

	return over ? n + (to - over) : n;
}

int memory_add(struct memory *m, const struct memory_region *region, int fd)
{
	uint64_t end, granule = granule_of(fd), skip = region->offset % granule;
	struct memory_mapping *mapping;
	void *map;

	if (m->n == MEMORY_REGIONS_MAX) {
		return -E2BIG;
	}
	if (region->size == 0 || !u64_add(region->guest, region->size, &end) ||
		!u64_add(region->user, region->size, &end) ||
		!u64_add(region->offset, region->size, &end) || end > INT64_MAX - granule ||
		overlaps(m, region)) {
		return -EINVAL;
	}
	end = round_up(skip + region->size, granule);
	map = mmap(
		NULL, end, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(region->offset - skip));
	if (map == MAP_FAILED) {
		return -errno;
	}
	mapping = &m->mappings[m->n];
	*mapping = (struct memory_mapping){
		.region = *region,
		.base = (uint8_t *)map + skip,
		.map = map,
		.map_size = end,
	};
	m->n++;
	return 0;
}

static uint8_t *piece_in(
	const struct memory_mapping *mapping, uint64_t guest, uint64_t len, uint64_t *len_out)
{
	uint64_t at = guest - mapping->region.guest;

	if (guest < mapping->region.guest || at >= mapping->region.size || mapping->lost) {
		return NULL;
	}
	*len_out = MIN(len, mapping->region.size - at);
	return mapping->base + at;
}

uint8_t *memory_piece(struct memory *m, uint64_t guest, uint64_t len, uint64_t *len_out)
{
	uint8_t *p;

	if (m->last < m->n) {
		p = piece_in(&m->mappings[m->last], guest, len, len_out);
		if (p) {
			return p;
		}
	}
	for (size_t i = 0; i < m->n; i++) {
		p = piece_in(&m->mappings[i], guest, len, len_out);
		if (p) {
			m->last = i;
			return p;
		}
	}
	return NULL;
}

uint8_t *memory_whole(struct memory *m, uint64_t guest, uint64_t len)
{
	uint64_t together = 0;
	uint8_t *p = memory_piece(m, guest, len, &together);

	return together == len ? p : NULL;
}

bool memory_from_user(const struct memory *m, uint64_t user, uint64_t *guest_out)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct memory_region *region = &m->mappings[i].region;

		if (user >= region->user && user - region->user < region->size) {
			*guest_out = region->guest + (user - region->user);
			return true;
		}
	}
	return false;
}

bool memory_to_guest(const struct memory *m, const void *at, uint64_t *guest_out)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct memory_mapping *mapping = &m->mappings[i];
		uintptr_t from = (uintptr_t)mapping->base;

		if ((uintptr_t)at >= from && (uintptr_t)at - from < mapping->region.size) {
			*guest_out = mapping->region.guest + ((uintptr_t)at - from);
			return true;
		}
	}
	return false;
}

/* Shared, so that it does not count as this process's data. */
static bool put_zeroes(const struct memory_mapping *mapping)
{
	void *p = mmap(mapping->map, mapping->map_size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	return p == mapping->map;
}

static void handle_fault(int sig, siginfo_t *info, void *context)
{
	struct memory *m = guarded;
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;

	for (size_t i = 0; m && i < m->n; i++) {
		struct memory_mapping *mapping = &m->mappings[i];

		if (at - (uintptr_t)mapping->map < mapping->map_size && put_zeroes(mapping)) {
			mapping->lost = true;
			n_lost = n_lost + 1;
			errno = saved;
			return;
		}
	}
	/* Nobody's memory: the same instruction faults again, and the process ends. */
	signal(SIGBUS, SIG_DFL);
}

int memory_guard(struct memory *m)
{
	struct sigaction action = {.sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO};

	if (!m) {
		action = (struct sigaction){.sa_handler = SIG_DFL};
	}
	guarded = m;
	n_lost = 0;
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

bool memory_take_loss(struct memory *m, uint64_t *guest_out)
{
	if (n_lost == 0) {
		return false;
	}
	n_lost = 0;
	for (size_t i = 0; i < m->n; i++) {
		if (m->mappings[i].lost) {
			*guest_out = m->mappings[i].region.guest;
		}
	}
	return true;
}
