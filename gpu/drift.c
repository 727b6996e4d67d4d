/* SPDX-License-Identifier: MIT
 *
 * The kernel's count of a process's own pages, less what is charged and was there before. Pages of
 * files are in neither: libraries, the guest's memory, and images, which are charged and shared.
 * What is charged and not there yet (nobody wrote into it) hides as much of what is uncharged; the
 * sum stays within the limit all the same.
 *
 * A look costs about a microsecond and is taken every few milliseconds at most, and only behind
 * commands that make something. One that compiles takes longer than that, so that the look behind
 * it is behind the context that it was for.
 *
 * Memory that was freed and that malloc keeps goes back to the kernel, and is counted anew: when a
 * context ends, whenever that much more is uncharged that it may be it, and before anybody is
 * refused.
 */
#include "gpu/drift.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/sandbox-internal.h"

#define PERIOD_NS (UINT64_C(4) * 1000 * 1000)

int drift_open(void)
{
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Pages: of addresses, in RAM, of these those of files and shared ones, ... */
static uint64_t read_own(int fd)
{
	uint64_t resident, shared;
	char text[128];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	/* A sanitizer keeps what was freed, and has shadows of everything. */
	if (n <= 0 || SANDBOX_SANITIZERS) {
		return 0;
	}
	text[n] = '\0';
	return sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) == 2 &&
			       resident > shared
		       ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE)
		       : 0;
}

static void trim(void)
{
	_unused_ int any = malloc_trim(0);
}

static uint64_t coarse(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

void drift_meter_init(struct drift_meter *out, int fd)
{
	*out = (struct drift_meter){.own = read_own, .fd = fd, .trim = trim, .coarse = coarse};
}

static void recount(struct drift *d)
{
	d->meter.trim();
	drift_look(d);
	d->kept = d->budget->uncharged;
}

void drift_init(struct drift *d, struct budget *budget, const struct drift_meter *meter)
{
	*d = (struct drift){.budget = budget, .meter = *meter};
	d->base = meter->own(meter->fd) + DRIFT_SLACK;
	budget->drift = d;
	budget->recount = recount;
}

void drift_look(struct drift *d)
{
	struct budget *b = d->budget;
	uint64_t own, known;

	if (!b) {
		return;
	}
	own = d->meter.own(d->meter.fd);
	known = d->base + (b->used - b->shared);
	b->uncharged = own > known ? own - known : 0;
	d->kept = MIN(d->kept, b->uncharged);
	d->looked = d->meter.coarse();
}

bool drift_made(struct drift *d)
{
	uint64_t before;

	if (!d->budget || d->meter.coarse() - d->looked < PERIOD_NS) {
		return false;
	}
	before = d->budget->uncharged;
	drift_look(d);
	if (d->budget->uncharged > d->kept + DRIFT_SLACK) {
		recount(d);
	}
	return d->budget->uncharged > before;
}

bool drift_exceeds(struct drift *d, uint64_t *over)
{
	struct budget *b = d->budget;
	uint64_t before = b ? b->uncharged : 0;

	if (!drift_made(d)) {
		return false;
	}
	if (budget_taken(b) > b->limit) {
		recount(d);
	}
	if (budget_taken(b) <= b->limit) {
		*over = 0;
	} else if (b->uncharged > before) {
		*over += MIN(b->uncharged - before, budget_taken(b) - b->limit);
	}
	return *over > DRIFT_OVER;
}

void drift_ended(struct drift *d)
{
	drift_look(d);
	if (d->budget && d->budget->uncharged > 0) {
		recount(d);
	}
}
