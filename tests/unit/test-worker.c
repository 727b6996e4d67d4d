/* SPDX-License-Identifier: MIT */
#include "protocol/worker.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/test.h"

static void round_trip(void **state)
{
	union worker_msg m, out;
	size_t size = worker_msg_init(&m, WORKER_MSG_DONE);

	m.done.reason = WORKER_DONE_PEER_BAD;
	worker_msg_text(m.done.detail, sizeof(m.done.detail), "frame\x01too long");
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), 0);
	assert_string_equal(out.done.detail, "frame?too long");
}

static void every_wrong_size_is_refused(void **state)
{
	static const uint32_t types[] = {1, 2, 3, 4, 5, 16, 17};
	union worker_msg m, out;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		enum worker_direction d = types[i] < 16 ? WORKER_TO_BROKER : BROKER_TO_WORKER;
		size_t right = worker_msg_init(&m, types[i]);

		for (size_t size = 0; size <= sizeof(m); size++) {
			int want = size == right ? 0 : -EBADMSG;

			assert_int_equal(worker_msg_decode(d, &m, size, &out), want);
		}
		/* The header's size must agree, and the direction. */
		assert_int_equal(worker_msg_decode(!d, &m, right, &out), -EBADMSG);
		m.header.size++;
		assert_int_equal(worker_msg_decode(d, &m, right, &out), -EBADMSG);
	}
}

static void bad_values_are_refused(void **state)
{
	union worker_msg m, out;
	size_t size = worker_msg_init(&m, WORKER_MSG_STATE);

	m.state.state = WORKER_STATE_COUNT_;
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), -EBADMSG);
	m.state.state = 0;
	m.state.pad = 1;
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), -EBADMSG);

	size = worker_msg_init(&m, WORKER_MSG_QMP);
	memset(m.qmp.text, 'x', sizeof(m.qmp.text));
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), -EBADMSG);
	m.qmp.text[3] = '\0';
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), 0);
	m.qmp.text[1] = '\x1b';
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, size, &out), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(every_wrong_size_is_refused),
		cmocka_unit_test(bad_values_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
