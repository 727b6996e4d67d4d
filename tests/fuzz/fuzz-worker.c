/* SPDX-License-Identifier: MIT
 * Messages between the broker and a worker, in both directions; the first byte says in which.
 */
#include <assert.h>
#include <string.h>

#include "protocol/worker.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum worker_direction direction;
	union worker_msg m, again;

	if (size == 0) {
		return 0;
	}
	direction = data[0] & 1 ? BROKER_TO_WORKER : WORKER_TO_BROKER;
	memset(&m, 0, sizeof(m));
	if (worker_msg_decode(direction, data + 1, size - 1, &m) < 0) {
		return 0;
	}
	assert(m.header.size == size - 1);
	/* It is what was sent, and a message in one direction only. */
	assert(memcmp(&m, data + 1, size - 1) == 0);
	must(worker_msg_decode(direction, &m, m.header.size, &again) == 0);
	must(worker_msg_decode(direction == BROKER_TO_WORKER ? WORKER_TO_BROKER : BROKER_TO_WORKER,
		     &m, m.header.size, &again) < 0);
	switch (m.header.type) {
	case WORKER_MSG_STATE:
		assert(worker_state_name(m.state.state));
		break;
	case WORKER_MSG_DONE:
		assert(worker_done_name(m.done.reason));
		assert(memchr(m.done.detail, '\0', sizeof(m.done.detail)));
		break;
	case WORKER_MSG_QMP:
		assert(qmp_status_name(m.qmp.status));
		break;
	default:
		break;
	}
	return 0;
}
