/* SPDX-License-Identifier: MIT
 * What a renderer takes beyond what it is charged: what its driver compiles, caches and forgets to
 * give back. Nobody can tell before how much that will be, so it is measured, and counts as used.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "gpu/budget.h"

/* So much is nobody's: what a driver makes once, and what lies about in between. Measured with
 * llvmpipe: docs/performance.md. */
#define DRIFT_SLACK (UINT64_C(16) << 20)

/* Of one context, beyond the limit: less than a program takes. */
#define DRIFT_OVER (UINT64_C(512) << 10)

/* Of one process. */
struct drift_meter {
	/* Bytes of memory that nobody shares with it; 0: it can't be told. */
	uint64_t (*own)(int fd);
	int fd;
	/* Gives back to the kernel what is free. */
	void (*trim)(void);
	uint64_t (*coarse)(void); /* ns, that only go on; cheap */
};

struct drift {
	struct budget *budget; // may be NULL: nobody measures
	struct drift_meter meter;
	uint64_t base;   /* bytes, before a guest did anything, and the slack */
	uint64_t looked; /* when it was looked last */
	uint64_t kept;   /* bytes: no more was uncharged when all that was free was given back */
};

/* What a meter reads: an fd for good, whatever becomes of paths. -errno */
int drift_open(void) _must_check_;
/* A real one of fd (borrowed). */
void drift_meter_init(struct drift_meter *out, int fd);

/* What there is now is not the guest's. From now on what is uncharged is in budget, which outlives
 * d. */
void drift_init(struct drift *d, struct budget *budget, const struct drift_meter *meter);

/* Looks now. */
void drift_look(struct drift *d);
/* Something was made, or is gone: looks, if some time has passed since the last look. Whether more
 * is uncharged than before. */
bool drift_made(struct drift *d);
/* As drift_made, for who has drawn: adds to *over (bytes) what was taken since the last look, as
 * far as there was no room for it; 0 again if there is. Whether that is more than is let pass, so
 * that who draws only is not given up for some pages that somebody else left no room for. */
bool drift_exceeds(struct drift *d, uint64_t *over) _must_check_;
/* Much may have ended. */
void drift_ended(struct drift *d);
