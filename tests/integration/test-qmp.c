/* SPDX-License-Identifier: MIT
 *
 * devbroker-qmp, sandboxed, against a VMM that plays by the book and against ones that don't.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/integration/fake-vmm.h"
#include "tests/integration/qmp-helper.h"
#include "tests/unit/test.h"

#define SAY(text)                  \
	{                          \
		FAKE_VMM_SAY, text \
	}
#define EXPECT(text)                  \
	{                             \
		FAKE_VMM_EXPECT, text \
	}
#define OPENING                                                               \
	SAY(FAKE_VMM_GREETING), EXPECT("qmp_capabilities"), SAY(FAKE_VMM_OK), \
		EXPECT("query-status"), SAY(FAKE_VMM_RUNNING)
#define PLUGGING                                                                             \
	OPENING, EXPECT("getfd"), SAY(FAKE_VMM_OK), EXPECT("chardev-add"), SAY(FAKE_VMM_OK), \
		EXPECT("device_add")
#define EVENT   "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n"
#define DELETED "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"dbk1\"}}\r\n"

struct run {
	struct fake_vmm vmm;
	struct qmp_helper helper;
	int stream; /* our end; -1 if none */
};

static void begin(struct run *r, const char *op, const struct fake_vmm_step *steps, size_t n)
{
	int pair[2] = {-1, -1};

	assert_int_equal(fake_vmm_start(steps, n, &r->vmm), 0);
	if (strcmp(op, "attach") == 0) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	}
	r->helper = (struct qmp_helper){
		.op = op, .id = "dbk1", .qmp_fd = r->vmm.fd, .stream_fd = pair[1]};
	r->stream = pair[0];
	qmp_helper_start(&r->helper);
	/* The VMM sees the helper's end, not ours. */
	safe_close(pair[1]);
	r->vmm.fd = safe_close(r->vmm.fd);
	qmp_helper_ready(&r->helper);
}

static void end(struct run *r, unsigned int seconds, enum qmp_status status, const char *text,
	enum fake_vmm_end vmm)
{
	struct worker_qmp result;

	qmp_helper_finish(&r->helper, seconds, &result);
	assert_string_equal(qmp_status_name(result.status), qmp_status_name(status));
	assert_string_equal(result.text, text);
	assert_int_equal(fake_vmm_wait(&r->vmm), vmm);
	safe_close(r->stream);
}

#define BEGIN(r, op, ...)                                                   \
	do {                                                                \
		static const struct fake_vmm_step steps_[] = {__VA_ARGS__}; \
		begin(r, op, steps_, ARRAY_SIZE(steps_));                   \
	} while (0)

/* Nobody holds the other end any more. */
static void assert_stream_closed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &c, 1), 0);
}

static void plugs_and_hands_the_stream_over(void **state)
{
	char hello[6] = "";
	struct run r;

	BEGIN(&r, "attach", PLUGGING, SAY(EVENT), SAY(FAKE_VMM_OK), {FAKE_VMM_STREAM, "hello"});
	assert_int_equal(recv(r.stream, hello, 5, MSG_WAITALL), 5);
	assert_string_equal(hello, "hello");
	assert_stream_closed(r.stream);
	end(&r, 5, QMP_STATUS_OK, "", FAKE_VMM_PLAYED);
}

static void unplugs_and_waits(void **state)
{
	struct run r;

	BEGIN(&r, "detach", OPENING, EXPECT("device_del"), {FAKE_VMM_TRICKLE, FAKE_VMM_OK},
		{FAKE_VMM_TRICKLE, DELETED}, EXPECT("chardev-remove"),
		SAY(FAKE_VMM_ERROR("Chardev 'dbk1-c' not found")));
	end(&r, 5, QMP_STATUS_OK, "", FAKE_VMM_PLAYED);
}

static void undoes_what_failed(void **state)
{
	struct run r;

	BEGIN(&r, "attach", PLUGGING, SAY(FAKE_VMM_ERROR("Bus 'xhci.0' not found")),
		EXPECT("chardev-remove"), SAY(FAKE_VMM_OK));
	end(&r, 5, QMP_STATUS_REFUSED, "Bus 'xhci.0' not found", FAKE_VMM_PLAYED);

	BEGIN(&r, "attach", OPENING, EXPECT("getfd"), SAY(FAKE_VMM_OK), EXPECT("chardev-add"),
		SAY(FAKE_VMM_ERROR("no\\u001b[31m")), EXPECT("closefd"), SAY(FAKE_VMM_OK));
	end(&r, 5, QMP_STATUS_REFUSED, "no?[31m", FAKE_VMM_PLAYED);
}

static void a_vmm_that_closes_is_reported(void **state)
{
	static const struct fake_vmm_step all[] = {PLUGGING, {FAKE_VMM_CLOSE, NULL}};
	struct fake_vmm_step steps[ARRAY_SIZE(all)];

	/* After each of its steps. */
	for (size_t n = 0; n < ARRAY_SIZE(all); n++) {
		struct run r;

		memcpy(steps, all, n * sizeof(steps[0]));
		steps[n] = all[ARRAY_SIZE(all) - 1];
		begin(&r, "attach", steps, n + 1);
		end(&r, 5, QMP_STATUS_CLOSED, "the VMM closed the connection", FAKE_VMM_PLAYED);
	}
}

static void what_is_no_qmp_is_reported(void **state)
{
	struct run r;

	BEGIN(&r, "probe", SAY("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"));
	end(&r, 5, QMP_STATUS_BAD_REPLY, "a line that is no JSON object", FAKE_VMM_PLAYED);

	BEGIN(&r, "probe", {FAKE_VMM_BIG_LINE, NULL});
	end(&r, 5, QMP_STATUS_BAD_REPLY, "a line is too long", FAKE_VMM_CLOSED);

	BEGIN(&r, "probe", OPENING, EXPECT("query-chardev"), SAY("{\"return\": []}\r\n"),
		EXPECT("x"));
	end(&r, 5, QMP_STATUS_OK, "", FAKE_VMM_CLOSED);

	BEGIN(&r, "detach", OPENING, EXPECT("device_del"), {FAKE_VMM_FLOOD_EVENTS, NULL});
	end(&r, 5, QMP_STATUS_BAD_REPLY, "too many lines", FAKE_VMM_PLAYED);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* All of them wait at the same time. */
static void silence_ends(void **state)
{
	struct run greeting, answer, deleted;
	double begun = now();

	BEGIN(&greeting, "attach", {FAKE_VMM_SILENT, NULL});
	BEGIN(&answer, "attach", OPENING, {FAKE_VMM_SILENT, NULL});
	BEGIN(&deleted, "detach", OPENING, EXPECT("device_del"), SAY(FAKE_VMM_OK),
		{FAKE_VMM_SILENT, NULL});
	end(&greeting, 7, QMP_STATUS_NO_GREETING, "no greeting", FAKE_VMM_PLAYED);
	assert_true(now() - begun > 4.5);
	end(&answer, 7, QMP_STATUS_TIMEOUT, "no answer in time", FAKE_VMM_PLAYED);
	end(&deleted, 7, QMP_STATUS_TIMEOUT, "no DEVICE_DELETED in time", FAKE_VMM_PLAYED);
	assert_true(now() - begun < 14);
}

static void it_answers_pings_meanwhile(void **state)
{
	union worker_msg m, out;
	size_t size = worker_msg_init(&m, WORKER_MSG_PING), n_fds;
	struct run r;

	BEGIN(&r, "probe", SAY(FAKE_VMM_GREETING), EXPECT("qmp_capabilities"),
		{FAKE_VMM_SILENT, NULL});
	for (uint64_t seq = 1; seq < 100; seq++) {
		ssize_t n;

		m.ping.seq = seq;
		assert_int_equal(fd_send(r.helper.control, &m, size, NULL, 0), 0);
		n = fd_recv(r.helper.control, &out, sizeof(out), NULL, 0, &n_fds);
		assert_int_equal(n, sizeof(out.pong));
		assert_int_equal(out.header.type, WORKER_MSG_PONG);
		assert_int_equal(out.pong.seq, seq);
	}
	/* Nobody is there for the result: that must not keep it. */
	r.helper.control = safe_close(r.helper.control);
	fake_vmm_stop(&r.vmm);
	assert_int_equal(qmp_helper_exit(&r.helper, 5), 1);
}

static void an_attach_is_taken_back_when_the_broker_goes(void **state)
{
	struct run r;
	char c;

	BEGIN(&r, "attach", PLUGGING, {FAKE_VMM_STREAM, "x"}, {FAKE_VMM_PAUSE, NULL},
		SAY(FAKE_VMM_OK), EXPECT("device_del"), SAY(FAKE_VMM_OK), SAY(DELETED),
		EXPECT("chardev-remove"), SAY(FAKE_VMM_OK));
	/* The VMM has device_add in hand. */
	assert_int_equal(recv(r.stream, &c, 1, MSG_WAITALL), 1);
	r.helper.control = safe_close(r.helper.control);
	assert_int_equal(qmp_helper_exit(&r.helper, 5), 1);
	assert_int_equal(fake_vmm_wait(&r.vmm), FAKE_VMM_PLAYED);
	assert_stream_closed(r.stream);
	safe_close(r.stream);
}

static void bad_messages_of_the_broker_end_it(void **state)
{
	struct run r;

	BEGIN(&r, "probe", {FAKE_VMM_SILENT, NULL});
	assert_int_equal(fd_send(r.helper.control, "garbage", 7, NULL, 0), 0);
	assert_int_equal(qmp_helper_exit(&r.helper, 5), 1);
	assert_int_equal(fake_vmm_wait(&r.vmm), FAKE_VMM_PLAYED);
}

static void wrong_arguments_are_usage(void **state)
{
	static const struct {
		const char *op, *id, *bus;
		bool stream;
	} wrong[] = {
		{"plug", "dbk1", NULL, false},
		{"probe", "", NULL, false},
		{"probe", "a\"b", NULL, false},
		{"probe", "dbk1", "a b", false},
		{"attach", "dbk1", NULL, false},
		{"detach", "dbk1", NULL, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct qmp_helper h = {.op = wrong[i].op,
			.id = wrong[i].id,
			.bus = wrong[i].bus,
			.qmp_fd = STDIN_FILENO,
			.stream_fd = wrong[i].stream ? STDIN_FILENO : -1};

		qmp_helper_start(&h);
		assert_int_equal(qmp_helper_exit(&h, 5), 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plugs_and_hands_the_stream_over),
		cmocka_unit_test(unplugs_and_waits),
		cmocka_unit_test(undoes_what_failed),
		cmocka_unit_test(a_vmm_that_closes_is_reported),
		cmocka_unit_test(what_is_no_qmp_is_reported),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(it_answers_pings_meanwhile),
		cmocka_unit_test(an_attach_is_taken_back_when_the_broker_goes),
		cmocka_unit_test(bad_messages_of_the_broker_end_it),
		cmocka_unit_test(wrong_arguments_are_usage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
