/* SPDX-License-Identifier: MIT
 * The text of a DRM client's fdinfo.
 */
#include <assert.h>
#include <string.h>

#include "broker/drm-usage.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char more[] = "pos:\t0\ndrm-client-id:\t7\n";
	struct drm_usage u = {.engine_ns = 1, .memory = 2}, again;
	char *longer;
	int r = drm_usage_parse((const char *)data, size, &u);

	if (r != 0) {
		assert(u.engine_ns == 1 && u.memory == 2);
		return 0;
	}
	assert(u.counts_time || u.engine_ns == 0);
	assert(u.counts_memory || u.memory == 0);
	assert(u.counts_cycles || (u.cycles == 0 && u.cycles_all == 0));
	/* Lines that say nothing of this change nothing. */
	longer = calloc(1, size + sizeof(more));
	must(longer);
	if (size > 0) {
		memcpy(longer, data, size);
	}
	memcpy(longer + size, more, sizeof(more));
	must(drm_usage_parse(longer, size + sizeof(more) - 1, &again) == 0);
	assert(again.engine_ns == u.engine_ns && again.memory == u.memory);
	assert(again.cycles == u.cycles && again.cycles_all == u.cycles_all);
	assert(again.counts_time == u.counts_time && again.counts_memory == u.counts_memory);
	free(longer);
	return 0;
}
