/* SPDX-License-Identifier: MIT
 * The guest's memory: rings, descriptors, commands and backing, whatever is in it. The first byte
 * has the negotiated features, whether there is 3D, and whether the renderer is killed in between.
 */
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/device.h"
#include "tests/fuzz/fuzz.h"

enum { EVENT_IDX = 1, INDIRECT = 2, KILLED = 4, CONTINUED = 8, DRAWS = 16, REACHED = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct device *d;
	uint64_t features = 0;

	if (size == 0) {
		return 0;
	}
	features |= data[0] & EVENT_IDX ? UINT64_C(1) << VRING_FEATURE_EVENT_IDX : 0;
	features |= data[0] & INDIRECT ? UINT64_C(1) << VRING_FEATURE_INDIRECT : 0;
	d = device_begin(data[0] & DRAWS);
	memcpy(d->guest, data + 1, MIN(size - 1, (size_t)DEVICE_MEMORY));
	device_start(d, features, 1);
	device_run(d);
	if (data[0] & REACHED) {
		device_reach_fences(d);
	}
	device_show(d);
	if (data[0] & KILLED) {
		device_kill(d);
		device_start(d, features, data[0] & CONTINUED ? 1 : 3);
		/* The guest goes on; what it offers is what lies there. */
		d->guest[DEVICE_AVAIL(0) + 2]++;
		d->guest[DEVICE_AVAIL(1) + 2]++;
		device_run(d);
		device_show(d);
	}
	device_end(d);
	return 0;
}
