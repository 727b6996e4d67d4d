/* SPDX-License-Identifier: MIT */
#include "protocol/worker.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
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
	static const uint32_t types[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20, 21};
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

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* A message of a random type with some of its bytes changed. Returns its size, which may be wrong.
 */
static size_t spoil(uint64_t *seed, union worker_msg *m)
{
	static const uint32_t types[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20, 21};
	size_t size = worker_msg_init(m, types[next_random(seed) % ARRAY_SIZE(types)]);
	uint8_t *bytes = (uint8_t *)m;

	for (uint32_t n = next_random(seed) % 4; n > 0; n--) {
		static const uint8_t edges[] = {0, 1, 4, 5, 6, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0xff};
		size_t at = next_random(seed) % size;

		bytes[at] = edges[next_random(seed) % ARRAY_SIZE(edges)];
	}
	if (next_random(seed) % 8 == 0) {
		size = next_random(seed) % (sizeof(*m) + 1);
	}
	return size;
}

static bool text_is_safe(const char *text, size_t size)
{
	size_t n = strnlen(text, size);

	for (size_t i = 0; i < n; i++) {
		if (text[i] < 0x20 || text[i] > 0x7e) {
			return false;
		}
	}
	return n < size;
}

/* What a handler relies on, written down a second time. */
static bool is_safe(enum worker_direction d, size_t size, const union worker_msg *m)
{
	if (m->header.size != size || (m->header.type < 16) != (d == WORKER_TO_BROKER)) {
		return false;
	}
	switch (m->header.type) {
	case WORKER_MSG_READY:
		return size == sizeof(m->ready);
	case WORKER_MSG_STATE:
		return size == sizeof(m->state) && m->state.state <= WORKER_STATE_EJECTED &&
		       m->state.pad == 0;
	case WORKER_MSG_PONG:
		return size == sizeof(m->pong) && m->pong.state <= WORKER_STATE_EJECTED;
	case WORKER_MSG_DONE:
		return size == sizeof(m->done) && m->done.reason <= WORKER_DONE_DEVICE_BUSY &&
		       text_is_safe(m->done.detail, sizeof(m->done.detail));
	case WORKER_MSG_QMP:
		return size == sizeof(m->qmp) && m->qmp.status <= QMP_STATUS_TIMEOUT &&
		       m->qmp.vm_state <= QMP_VM_MIGRATING &&
		       text_is_safe(m->qmp.text, sizeof(m->qmp.text));
	case WORKER_MSG_PING:
		return size == sizeof(m->ping);
	case WORKER_MSG_DETACH:
		return size == sizeof(m->detach);
	case WORKER_MSG_SET_CONFIGURATION:
		return size == sizeof(m->set_configuration) && m->set_configuration.value <= 255 &&
		       m->set_configuration.pad == 0;
	case WORKER_MSG_CLAIM:
		return size == sizeof(m->claim) && m->claim.error <= 0;
	case WORKER_MSG_CONFIGURED:
		return size == sizeof(m->configured) && m->configured.error <= 0 &&
		       m->configured.pad == 0;
	case WORKER_MSG_UNPLUGGED:
		return size == sizeof(m->unplugged);
	case WORKER_MSG_KEEP:
		return size == sizeof(m->keep);
	case WORKER_MSG_ADOPT:
		return size == sizeof(m->adopt);
	case WORKER_MSG_HELD:
		return size == sizeof(m->held) && m->held.state <= WORKER_STATE_EJECTED &&
		       m->held.pad == 0;
	default:
		return false;
	}
}

/* Of 100,000 messages exactly those are accepted that a handler may see, as they are; of all others
 * nothing gets out. Each lies in memory of its own size, so that a sanitizer sees a byte too many.
 */
static void random_messages(void **state)
{
	unsigned int accepted = 0, refused = 0;
	uint64_t seed = 20261126;

	for (unsigned int i = 0; i < 100000; i++) {
		enum worker_direction d = next_random(&seed) % 16 == 0;
		union worker_msg m, out, untouched;
		size_t size = spoil(&seed, &m);
		void *datagram = malloc(size + !size);
		int r;

		d ^= m.header.type >= 16;
		assert_non_null(datagram);
		memcpy(datagram, &m, size);
		memset(&untouched, 0xa5, sizeof(untouched));
		out = untouched;
		r = worker_msg_decode(d, datagram, size, &out);
		free(datagram);
		assert_int_equal(r, is_safe(d, size, &m) ? 0 : -EBADMSG);
		assert_memory_equal(&out, r == 0 ? &m : &untouched, r == 0 ? size : sizeof(out));
		accepted += r == 0;
		refused += r != 0;
	}
	assert_true(accepted > 10000 && refused > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(every_wrong_size_is_refused),
		cmocka_unit_test(bad_values_are_refused),
		cmocka_unit_test(random_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
