/* SPDX-License-Identifier: MIT
 * What a VMM may answer. The first byte says what is asked of it and how its answers are cut into
 * pieces; the rest is what it sends.
 */
#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"
#include "usb/qmp/session.h"

static void drain(struct qmp_session *s)
{
	const char *data;
	size_t n, sum = 0;
	bool with_fd;

	while (qmp_session_output(s, &data, &n, &with_fd)) {
		sum += n;
		assert(n > 0 && sum < 65536);
		qmp_session_written(s, n > 7 ? 7 : n);
	}
}

static void check_result(struct qmp_session *s)
{
	union worker_msg said, heard;

	assert(qmp_session_finished(s));
	qmp_session_result(s, &said);
	/* What the broker would believe. */
	must(worker_msg_decode(WORKER_TO_BROKER, &said, said.header.size, &heard) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qmp_session_options options = {.id = "dbk1", .bus = "xhci.0"};
	struct qmp_session *s;
	size_t piece;

	if (size == 0) {
		return 0;
	}
	options.op = (enum qmp_session_op)(data[0] % 3);
	piece = data[0] & 0x80 ? 1u + (data[0] >> 2 & 15u) : size;
	s = qmp_session_create(&options);
	assert(s);
	drain(s);
	for (size_t at = 1; at < size && !qmp_session_finished(s);) {
		size_t n = MIN(piece, size - at);

		if (data[0] & 0x40 && at > size / 2) {
			qmp_session_cancel(s);
		}
		qmp_session_input(s, (const char *)data + at, n);
		drain(s);
		at += n;
	}
	if (!qmp_session_finished(s)) {
		qmp_session_timeout(s);
		drain(s);
	}
	if (!qmp_session_finished(s)) {
		qmp_session_closed(s);
		drain(s);
	}
	check_result(s);
	qmp_session_destroy(s);
	return 0;
}
