/* SPDX-License-Identifier: MIT
 * What a guest's driver says in 3D: a row of events, each a byte that says which, a byte that says
 * how many dwords follow, and these. The renderer behind it aborts when it hears of what must have
 * been refused; whatever is said, nothing is left behind and nothing over the budget.
 */
#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/device.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/gpu-fake-3d.h"

enum { COMMAND, CURSOR, REACH, REACH_RING, SETTLE, KILL, RESET, NEGOTIATE, EVENTS };

#define EVENTS_MAX  200
#define ANSWER_ROOM 2048

static void command(struct device *d, const uint8_t *bytes, size_t size, bool cursor)
{
	static struct vring_chain chain;
	static uint8_t answer[ANSWER_ROOM];
	static uint16_t head;
	uint32_t written = 0;

	head = (uint16_t)((head + 1) % VRING_SIZE_MAX);
	chain = (struct vring_chain){.head = head,
		.n_out = size > 0,
		.n_in = 1,
		.out_bytes = size,
		.in_bytes = sizeof(answer)};
	chain.pieces[0] = (struct iovec){(void *)(uintptr_t)bytes, size};
	chain.pieces[chain.n_out] = (struct iovec){answer, sizeof(answer)};
	if (cursor) {
		gpu_cursor(d->gpu, &chain, &written);
	} else {
		_unused_ enum gpu_outcome outcome = gpu_control(d->gpu, &chain, &written);
	}
	assert(written <= sizeof(answer) && d->gpu->budget.used <= d->gpu->budget.limit);
}

static void reach(struct device *d, uint32_t back, bool ring)
{
	uint32_t written;
	uint16_t head;

	if (ring) {
		gpu_context_fence_reached(
			d->gpu, fake.ring_context, fake.ring, fake.ring_fence - back);
	} else {
		gpu_fence_reached(d->gpu, fake.fence - back);
	}
	while (gpu_take_fenced(d->gpu, &head, &written)) {
	}
}

static void happen(struct device *d, uint32_t event, const uint8_t *bytes, size_t size)
{
	uint32_t number = 0;

	memcpy(&number, bytes, MIN(size, sizeof(number)));
	switch (event) {
	case COMMAND:
	case CURSOR:
		/* Its record in the journal has an order that is done, or is not. */
		d->record.order = ++d->record.last_order;
		command(d, bytes, size, event == CURSOR);
		d->journal->done = d->record.order - number % 2;
		break;
	case REACH:
	case REACH_RING:
		reach(d, number, event == REACH_RING);
		break;
	case SETTLE:
		gpu_settle(d->gpu);
		break;
	case KILL:
		device_kill(d);
		break;
	case RESET:
		gpu_reset(d->gpu);
		record_reset(&d->record);
		break;
	default:
		gpu_negotiated(d->gpu, number);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct device *d = device_begin(true);
	size_t at = 0;

	for (int n = 0; n < EVENTS_MAX && size - at >= 2; n++) {
		uint32_t event = data[at] % EVENTS;
		size_t bytes = MIN((size_t)data[at + 1] * 4, size - at - 2);

		happen(d, event, data + at + 2, bytes);
		at += 2 + bytes;
		/* No ring bounds them here. */
		if (gpu_fences_out(d->gpu) > VRING_SIZE_MAX / 2) {
			gpu_fences_forget(d->gpu);
		}
	}
	device_show(d);
	device_end(d);
	return 0;
}
