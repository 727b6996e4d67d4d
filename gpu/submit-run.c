/* SPDX-License-Identifier: MIT
 *
 * A buffer may have a hundred thousand commands, and each make a driver compile a program: it is
 * executed in parts, at the ends of commands. What one part makes is what can be there before it is
 * noticed.
 */
#include "gpu/submit-run.h"

#include <errno.h>

#include "gpu/drift.h"
#include "gpu/submit-check.h"
#include "gpu/virgl.h"

/* Commands for which something may be compiled; 1 MiB each is usual. */
#define PART 8

int submit_run(const struct virgl_ops *ops, uint32_t context, uint32_t *dwords, uint32_t n,
	const struct submit_demand *demand, struct drift *drift, uint64_t *over)
{
	uint32_t heavy = drift->budget ? demand->heavy : 0, part;
	int err;

	for (uint32_t at = 0; at < n; at += part) {
		part = heavy > PART ? submit_part(&dwords[at], n - at, PART) : n - at;
		heavy -= heavy > PART ? PART : heavy;
		err = ops->submit(context, &dwords[at], part);
		if (err < 0) {
			return err;
		}
		if (drift_exceeds(drift, over)) {
			return -ENOMEM;
		}
	}
	return 0;
}
