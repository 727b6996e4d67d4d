/* SPDX-License-Identifier: MIT
 *
 * The QMP conversation without a VMM: what is said to which answer, what is undone after which
 * failure, and that no bytes at all bring it down.
 */
#include "usb/qmp/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/unit/test.h"

#define GREETING  "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\r\n"
#define OK        "{\"return\":{}}\r\n"
#define RUNNING   "{\"return\":{\"status\":\"running\",\"singlestep\":false,\"running\":true}}\r\n"
#define DELETED   "{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"dbk1\",\"path\":\"/x\"}}\r\n"
#define EVENT     "{\"event\":\"RTC_CHANGE\",\"data\":{\"offset\":1}}\r\n"
#define NO_PORT   ERROR("GenericError", "usb port 1 (bus xhci.0) not found (in use?)")
#define NOT_FOUND ERROR("DeviceNotFound", "Device 'dbk1' not found")

#define ERROR(class, desc) "{\"error\":{\"class\":\"" class "\",\"desc\":\"" desc "\"}}\r\n"

#define CHARDEV(label, filename)                                                           \
	"{\"return\":[{\"frontend-open\":true,\"label\":\"serial0\",\"filename\":\"vc\"}," \
	"{\"frontend-open\":true,\"label\":\"" label "\",\"filename\":\"" filename "\"}]}\r\n"
#define CHARDEVS       CHARDEV("monitor", "disconnected:unix:/x,server=on")
#define STALE(label)   CHARDEV(label, "disconnected:fd:" label)
#define GONE(id)       "{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"" id "\"}}\r\n"
#define CHARDEV_REMOVE "\"chardev-remove\""

/* What the VMM says, and a part of what must be said to it then (NULL: nothing). */
struct turn {
	const char *in;
	const char *out;
};

static struct qmp_session *begin(enum qmp_session_op op)
{
	const struct qmp_session_options options = {.op = op, .id = "dbk1", .bus = "xhci.0"};
	struct qmp_session *s = qmp_session_create(&options);

	assert_non_null(s);
	return s;
}

/* Takes what is to be written into out; returns whether the fd went with it. */
static bool take_output(struct qmp_session *s, char *out, size_t size)
{
	const char *data;
	size_t n, at = 0;
	bool with_fd, any_fd = false;

	while (qmp_session_output(s, &data, &n, &with_fd)) {
		assert_true(at + n < size);
		memcpy(out + at, data, n);
		at += n;
		any_fd |= with_fd;
		qmp_session_written(s, n);
	}
	out[at] = '\0';
	return any_fd;
}

static void talk(struct qmp_session *s, const struct turn *turns, size_t n)
{
	char out[2048];

	for (size_t i = 0; i < n; i++) {
		bool with_fd;

		qmp_session_input(s, turns[i].in, strlen(turns[i].in));
		with_fd = take_output(s, out, sizeof(out));
		if (turns[i].out ? !strstr(out, turns[i].out) : out[0] != '\0') {
			fail_msg("turn %zu: to %s said %s, not %s", i, turns[i].in, out,
				turns[i].out ? turns[i].out : "nothing");
		}
		assert_int_equal(with_fd, turns[i].out && strstr(turns[i].out, "getfd"));
	}
}

static void expect(struct qmp_session *s, enum qmp_status status, const char *text)
{
	union worker_msg m, checked;

	assert_true(qmp_session_finished(s));
	qmp_session_result(s, &m);
	assert_int_equal(worker_msg_decode(WORKER_TO_BROKER, &m, m.header.size, &checked), 0);
	assert_string_equal(qmp_status_name(m.qmp.status), qmp_status_name(status));
	assert_string_equal(m.qmp.text, text);
	qmp_session_destroy(s);
}

#define TALK(s, ...)                                        \
	do {                                                \
		const struct turn turns_[] = {__VA_ARGS__}; \
		talk(s, turns_, ARRAY_SIZE(turns_));        \
	} while (0)

#define OPENING                             \
	{GREETING, "\"qmp_capabilities\""}, \
	{                                   \
		OK, "\"query-status\""      \
	}
#define PLUGGING                                                                               \
	OPENING, {RUNNING, "\"getfd\",\"arguments\":{\"fdname\":\"dbk1\""},                    \
		{OK, "\"chardev-add\",\"arguments\":{\"id\":\"dbk1-c\""},                      \
	{                                                                                      \
		OK, "\"driver\":\"usb-redir\",\"id\":\"dbk1\",\"chardev\":\"dbk1-c\",\"bus\":" \
		    "\"xhci.0\",\"port\":\"1\""                                                \
	}

static void a_probe_asks_for_the_state(void **state)
{
	static const struct {
		const char *status;
		enum qmp_vm_state vm;
	} states[] = {
		{"running", QMP_VM_RUNNING},
		{"prelaunch", QMP_VM_PAUSED},
		{"paused", QMP_VM_PAUSED},
		{"inmigrate", QMP_VM_MIGRATING},
		{"shutdown", QMP_VM_STOPPED},
		{"guest-panicked", QMP_VM_STOPPED},
		{"something-new", QMP_VM_STOPPED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct qmp_session *s = begin(QMP_OP_PROBE);
		union worker_msg m;
		char answer[128];

		snprintf(answer, sizeof(answer), "{\"return\":{\"status\":\"%s\"}}\n",
			states[i].status);
		if (states[i].vm == QMP_VM_MIGRATING) {
			TALK(s, OPENING, {answer, NULL});
		} else {
			TALK(s, OPENING, {answer, "\"query-chardev\""}, {CHARDEVS, NULL});
		}
		qmp_session_result(s, &m);
		assert_int_equal(m.qmp.vm_state, states[i].vm);
		expect(s, QMP_STATUS_OK, "");
	}
}

/* A killed broker's devices keep their ports until somebody unplugs them. */
static void a_probe_sweeps_what_nobody_serves(void **state)
{
	struct qmp_session *s = begin(QMP_OP_PROBE);

	/* Deleted in two ways, then a chardev without its device. */
	TALK(s, OPENING, {RUNNING, "\"query-chardev\""},
		{STALE("devbroker-00112233445566aa-c"),
			"\"device_del\",\"arguments\":{\"id\":\"devbroker-00112233445566aa\"}"},
		{DELETED, NULL}, {OK, NULL}, {GONE("devbroker-00112233445566aa"), CHARDEV_REMOVE},
		{ERROR("GenericError", "no such chardev"), "\"query-chardev\""},
		{STALE("devbroker-00112233445566ab-c"), "\"device_del\""},
		{GONE("devbroker-00112233445566ab"), NULL}, {OK, CHARDEV_REMOVE},
		{OK, "\"query-chardev\""},
		{STALE("devbroker-00112233445566ac-c"), "\"device_del\""},
		{NOT_FOUND, CHARDEV_REMOVE}, {OK, "\"query-chardev\""}, {CHARDEVS, NULL});
	expect(s, QMP_STATUS_OK, "took away 3 USB devices that nobody served any more");
}

static void a_probe_leaves_what_is_not_stale_or_not_ours(void **state)
{
	static const char *const others[] = {
		CHARDEV("devbroker-00112233445566aa-c", "fd:x"),
		STALE("devbroker-00112233445566aa"),
		STALE("devbroker-00112233445566AA-c"),
		STALE("devbroker-00112233445566aa0-c"),
		STALE("devbroker-0011223344556-c"),
		STALE("devbroker-00112233445566aa-c\\\""),
		STALE("usbredir1-c"),
		"{\"return\":{\"label\":1}}\r\n",
		"{\"return\":[[], 7, {\"label\":1,\"filename\":\"disconnected:\"}, {}]}\r\n",
		ERROR("CommandNotFound", "no"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct qmp_session *s = begin(QMP_OP_PROBE);

		TALK(s, OPENING, {RUNNING, "\"query-chardev\""}, {others[i], NULL});
		expect(s, QMP_STATUS_OK, "");
	}
}

static void a_sweep_that_fails_is_no_failed_probe(void **state)
{
	struct qmp_session *s = begin(QMP_OP_PROBE);

	TALK(s, OPENING, {RUNNING, "\"query-chardev\""},
		{STALE("devbroker-00112233445566aa-c"), "\"device_del\""},
		{ERROR("GenericError", "no"), NULL});
	expect(s, QMP_STATUS_OK, "");

	s = begin(QMP_OP_PROBE);
	TALK(s, OPENING, {RUNNING, "\"query-chardev\""},
		{STALE("devbroker-00112233445566aa-c"), "\"device_del\""}, {OK, NULL});
	qmp_session_timeout(s);
	expect(s, QMP_STATUS_OK, "");

	/* One that comes back for ever. */
	s = begin(QMP_OP_PROBE);
	TALK(s, OPENING, {RUNNING, "\"query-chardev\""});
	for (int i = 0; i < 32; i++) {
		TALK(s, {STALE("devbroker-00112233445566aa-c"), "\"device_del\""},
			{NOT_FOUND, CHARDEV_REMOVE}, {OK, "\"query-chardev\""});
	}
	TALK(s, {STALE("devbroker-00112233445566aa-c"), NULL});
	expect(s, QMP_STATUS_OK, "took away 32 USB devices that nobody served any more");
}

static void an_attach_plugs(void **state)
{
	struct qmp_session *s = begin(QMP_OP_ATTACH);

	TALK(s, PLUGGING, {EVENT, NULL}, {OK, NULL});
	expect(s, QMP_STATUS_OK, "");
}

static void an_attach_takes_the_first_free_port(void **state)
{
	struct qmp_session *s = begin(QMP_OP_ATTACH);

	TALK(s, PLUGGING, {NO_PORT, "\"port\":\"2\""}, {NO_PORT, "\"port\":\"3\""}, {OK, NULL});
	expect(s, QMP_STATUS_OK, "");
}

static void a_full_controller_is_refused(void **state)
{
	struct qmp_session *s = begin(QMP_OP_ATTACH);

	TALK(s, PLUGGING);
	for (int port = 2; port <= 15; port++) {
		TALK(s, {NO_PORT, "\"device_add\""});
	}
	TALK(s, {NO_PORT, "\"chardev-remove\",\"arguments\":{\"id\":\"dbk1-c\"}"}, {OK, NULL});
	expect(s, QMP_STATUS_REFUSED, "USB controller xhci.0 has no free port");
}

static void a_vm_that_is_migrated_in_waits(void **state)
{
	struct qmp_session *s = begin(QMP_OP_ATTACH);

	TALK(s, OPENING, {"{\"return\":{\"status\":\"inmigrate\"}}\n", NULL});
	expect(s, QMP_STATUS_TIMEOUT, "the VM is being migrated in");
}

static void a_failed_attach_leaves_nothing(void **state)
{
	struct qmp_session *s = begin(QMP_OP_ATTACH);

	TALK(s, OPENING, {RUNNING, "\"getfd\""}, {ERROR("GenericError", "No fd"), NULL});
	expect(s, QMP_STATUS_REFUSED, "No fd");

	s = begin(QMP_OP_ATTACH);
	TALK(s, OPENING, {RUNNING, "\"getfd\""}, {OK, "\"chardev-add\""},
		{ERROR("GenericError", "Chardev exists\\u0007"), "\"closefd\",\"arguments\":{"
								 "\"fdname\":\"dbk1\"}"},
		{OK, NULL});
	expect(s, QMP_STATUS_REFUSED, "Chardev exists?");

	s = begin(QMP_OP_ATTACH);
	TALK(s, PLUGGING, {ERROR("GenericError", "Bus 'xhci.0' not found"), "\"chardev-remove\""},
		{ERROR("GenericError", "busy"), NULL});
	expect(s, QMP_STATUS_REFUSED, "Bus 'xhci.0' not found");
}

static void a_cancelled_attach_is_taken_back(void **state)
{
	static const struct turn all[] = {PLUGGING, {OK, NULL}};
	static const char *const undo[] = {
		"", "query-status", NULL, "closefd", "chardev-remove", "device_del"};

	/* Cancelled while the answer to each command is awaited. */
	for (size_t at = 2; at < ARRAY_SIZE(all); at++) {
		struct qmp_session *s = begin(QMP_OP_ATTACH);

		talk(s, all, at);
		qmp_session_cancel(s);
		TALK(s, {all[at].in, undo[at]});
		if (at == 5) {
			TALK(s, {DELETED, NULL}, {OK, "chardev-remove"});
		}
		if (at > 2) {
			TALK(s, {OK, NULL});
		}
		expect(s, QMP_STATUS_OK, "");
	}
}

static void a_detach_waits_for_the_event(void **state)
{
	struct qmp_session *s = begin(QMP_OP_DETACH);

	TALK(s, OPENING, {RUNNING, "\"device_del\",\"arguments\":{\"id\":\"dbk1\"}"}, {OK, NULL},
		{EVENT, NULL},
		{"{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"other\"}}\n", NULL},
		{"{\"event\":\"DEVICE_DELETED\",\"data\":{\"path\":\"/x\"}}\n", NULL},
		{DELETED, "\"chardev-remove\""}, {NOT_FOUND, NULL});
	expect(s, QMP_STATUS_OK, "");

	/* The event may overtake the return. */
	s = begin(QMP_OP_DETACH);
	TALK(s, OPENING, {RUNNING, "\"device_del\""}, {DELETED, NULL}, {OK, "\"chardev-remove\""},
		{OK, NULL});
	expect(s, QMP_STATUS_OK, "");
}

static void a_detach_of_nothing_is_done(void **state)
{
	struct qmp_session *s = begin(QMP_OP_DETACH);

	TALK(s, OPENING, {RUNNING, "\"device_del\""}, {NOT_FOUND, "\"chardev-remove\""},
		{ERROR("GenericError", "Chardev 'dbk1-c' not found"), NULL});
	expect(s, QMP_STATUS_OK, "");

	s = begin(QMP_OP_DETACH);
	TALK(s, OPENING, {RUNNING, "\"device_del\""},
		{ERROR("GenericError", "Device dbk1 is already in the process of unplug"), NULL},
		{DELETED, "\"chardev-remove\""}, {OK, NULL});
	expect(s, QMP_STATUS_OK, "");

	s = begin(QMP_OP_DETACH);
	TALK(s, OPENING, {RUNNING, "\"device_del\""},
		{ERROR("GenericError", "Bus does not support hotplugging"), NULL});
	expect(s, QMP_STATUS_REFUSED, "Bus does not support hotplugging");
}

static void time_and_silence(void **state)
{
	struct qmp_session *s = begin(QMP_OP_PROBE);

	assert_false(qmp_session_greeted(s));
	qmp_session_timeout(s);
	expect(s, QMP_STATUS_NO_GREETING, "no greeting");

	s = begin(QMP_OP_DETACH);
	TALK(s, OPENING, {RUNNING, "\"device_del\""});
	assert_true(qmp_session_greeted(s));
	qmp_session_timeout(s);
	expect(s, QMP_STATUS_TIMEOUT, "no answer in time");

	s = begin(QMP_OP_DETACH);
	TALK(s, OPENING, {RUNNING, "\"device_del\""}, {OK, NULL});
	qmp_session_timeout(s);
	expect(s, QMP_STATUS_TIMEOUT, "no DEVICE_DELETED in time");

	s = begin(QMP_OP_PROBE);
	qmp_session_closed(s);
	expect(s, QMP_STATUS_CLOSED, "the VMM closed the connection");

	/* Over is over. */
	s = begin(QMP_OP_PROBE);
	TALK(s, OPENING, {RUNNING, "\"query-chardev\""}, {CHARDEVS, NULL}, {"garbage\n", NULL});
	qmp_session_closed(s);
	qmp_session_timeout(s);
	expect(s, QMP_STATUS_OK, "");
}

static void what_is_not_qmp_is_refused(void **state)
{
	static const struct {
		const char *in;
		const char *text;
	} bad[] = {
		{"SSH-2.0-OpenSSH_9.2\r\n", "a line that is no JSON object"},
		{"[]\n", "a line that is no JSON object"},
		{"null\n", "a line that is no JSON object"},
		{"{\"return\":{}}\n", "this is no QMP greeting"},
		{"{}\n", "this is no QMP greeting"},
		{"{\"QMP\":{}}\n{}\n", "neither return, error nor event"},
		{"{\"QMP\":{}}\n{\"error\":{}}\n", "an error without class and desc"},
		{"{\"QMP\":{}}\n{\"error\":{\"class\":1,\"desc\":2}}\n",
			"an error without class and desc"},
		{"{\"QMP\":{}}\n{\"return\":{},\"return\":{}}\n", "a line that is no JSON object"},
		{"{\"QMP\":{}}\n{\"return\":{}}\n{\"return\":{}}\n",
			"query-status returned no status"},
		{"{\"QMP\":{}}\n{\"return\":{}}\n{\"return\":{\"status\":{}}}\n",
			"query-status returned no status"},
		{"{\"QMP\":{}}\n{\"return\":\"\xff\"}\n", "a line that is no JSON object"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct qmp_session *s = begin(QMP_OP_PROBE);

		qmp_session_input(s, bad[i].in, strlen(bad[i].in));
		expect(s, QMP_STATUS_BAD_REPLY, bad[i].text);
	}
}

static void sizes_and_counts_are_bounded(void **state)
{
	struct qmp_session *s = begin(QMP_OP_PROBE);
	char *big = malloc(QMP_LINE_MAX + 16);

	assert_non_null(big);
	memset(big, ' ', QMP_LINE_MAX + 16);
	qmp_session_input(s, big, QMP_LINE_MAX);
	assert_false(qmp_session_finished(s));
	qmp_session_input(s, big, 1);
	expect(s, QMP_STATUS_BAD_REPLY, "a line is too long");

	/* 100,000 deep: the parser gives up long before the stack does. */
	s = begin(QMP_OP_PROBE);
	memset(big, '[', 100000);
	big[100000] = '\n';
	qmp_session_input(s, big, 100001);
	expect(s, QMP_STATUS_BAD_REPLY, "a line that is no JSON object");
	free(big);

	s = begin(QMP_OP_PROBE);
	TALK(s, OPENING);
	for (int i = 0; i < QMP_LINES_MAX - 2; i++) {
		assert_false(qmp_session_finished(s));
		qmp_session_input(s, EVENT, strlen(EVENT));
	}
	qmp_session_input(s, EVENT, strlen(EVENT));
	expect(s, QMP_STATUS_BAD_REPLY, "too many lines");
}

static void bytes_may_come_one_by_one(void **state)
{
	static const char all[] = GREETING OK RUNNING CHARDEVS;
	struct qmp_session *s = begin(QMP_OP_PROBE);
	char out[2048];

	for (size_t i = 0; i + 1 < sizeof(all); i++) {
		qmp_session_input(s, all + i, 1);
		take_output(s, out, sizeof(out));
	}
	expect(s, QMP_STATUS_OK, "");
}

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* A good conversation with bytes changed, doubled, left out, or cut short. */
static size_t mutate(const char *good, size_t size, char *out, uint32_t *seed)
{
	static const char spice[] = "{}[]\",:\\\n\r\0\xff\x80"
				    "0e-u";
	size_t at = 0;
	uint32_t rate = 20 + next_random(seed) % 3000;

	for (size_t i = 0; i < size; i++) {
		switch (next_random(seed) % rate) {
		case 0:
			out[at++] = (char)next_random(seed);
			break;
		case 1:
			out[at++] = good[i];
			out[at++] = spice[next_random(seed) % sizeof(spice)];
			break;
		case 2:
			break;
		case 3:
			i = next_random(seed) % size;
			out[at++] = good[i];
			break;
		default:
			out[at++] = good[i];
		}
		if (at > 2 * size || (next_random(seed) % 2000 == 0)) {
			break;
		}
	}
	return at;
}

static void ten_thousand_malformed_replies(void **state)
{
	static const char *const good[] = {
		[QMP_OP_PROBE] = GREETING OK EVENT RUNNING STALE("devbroker-00112233445566aa-c")
			OK GONE("devbroker-00112233445566aa") OK CHARDEVS,
		[QMP_OP_ATTACH] = GREETING OK RUNNING OK OK NO_PORT EVENT OK,
		[QMP_OP_DETACH] = GREETING OK RUNNING OK EVENT DELETED NOT_FOUND,
	};
	unsigned int count[QMP_STATUS_COUNT_] = {0};
	uint32_t seed = 20240611;
	char bytes[4096], out[4096];

	for (int i = 0; i < 10000; i++) {
		enum qmp_session_op op = (enum qmp_session_op)(i % 3);
		struct qmp_session *s = begin(op);
		size_t n = mutate(good[op], strlen(good[op]), bytes, &seed), at = 0;
		union worker_msg m, checked;

		while (at < n && !qmp_session_finished(s)) {
			size_t piece = MIN(1 + next_random(&seed) % 200, n - at);

			qmp_session_input(s, bytes + at, piece);
			take_output(s, out, sizeof(out));
			at += piece;
		}
		qmp_session_timeout(s);
		take_output(s, out, sizeof(out));
		assert_true(qmp_session_finished(s));
		qmp_session_result(s, &m);
		assert_int_equal(
			worker_msg_decode(WORKER_TO_BROKER, &m, m.header.size, &checked), 0);
		count[m.qmp.status]++;
		qmp_session_destroy(s);
	}
	for (uint32_t i = 0; i < QMP_STATUS_COUNT_; i++) {
		print_message("%s: %u\n", qmp_status_name(i), count[i]);
	}
	/* The mutations reach all of it, not only the first line. */
	assert_true(count[QMP_STATUS_OK] > 100);
	assert_true(count[QMP_STATUS_NO_GREETING] > 100);
	assert_true(count[QMP_STATUS_BAD_REPLY] > 1000);
	assert_true(count[QMP_STATUS_TIMEOUT] > 100);
	assert_true(count[QMP_STATUS_REFUSED] > 10);
	assert_int_equal(count[QMP_STATUS_CLOSED], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_probe_asks_for_the_state),
		cmocka_unit_test(a_probe_sweeps_what_nobody_serves),
		cmocka_unit_test(a_probe_leaves_what_is_not_stale_or_not_ours),
		cmocka_unit_test(a_sweep_that_fails_is_no_failed_probe),
		cmocka_unit_test(an_attach_plugs),
		cmocka_unit_test(an_attach_takes_the_first_free_port),
		cmocka_unit_test(a_full_controller_is_refused),
		cmocka_unit_test(a_vm_that_is_migrated_in_waits),
		cmocka_unit_test(a_failed_attach_leaves_nothing),
		cmocka_unit_test(a_cancelled_attach_is_taken_back),
		cmocka_unit_test(a_detach_waits_for_the_event),
		cmocka_unit_test(a_detach_of_nothing_is_done),
		cmocka_unit_test(time_and_silence),
		cmocka_unit_test(what_is_not_qmp_is_refused),
		cmocka_unit_test(sizes_and_counts_are_bounded),
		cmocka_unit_test(bytes_may_come_one_by_one),
		cmocka_unit_test(ten_thousand_malformed_replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
