/* SPDX-License-Identifier: MIT
 *
 * devbroker-qmp, sandboxed, against a real QEMU without a guest (its firmware finds nothing to
 * boot): what QEMU really answers, and that nothing is left in it.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/integration/qmp-helper.h"
#include "tests/unit/test.h"

#define HELLO_SIZE 80 /* of QEMU 7.2: usb_redir_hello with one word of capabilities */
#define PORTS      4

struct qemu {
	char dir[64];
	pid_t pid;
	int qmp; /* the test's own connection */
	char reply[65536];
};

static void path_of(const struct qemu *q, const char *name, struct sockaddr_un *out)
{
	out->sun_family = AF_UNIX;
	snprintf(out->sun_path, sizeof(out->sun_path), "%s/%s", q->dir, name);
}

/* Retries for 10 s: QEMU may not listen yet. */
static int connect_to(const struct qemu *q, const char *name)
{
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	path_of(q, name, &addr);
	for (int i = 0; i < 200; i++) {
		if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0) {
			return fd;
		}
		usleep(50 * 1000);
	}
	fail_msg("can't connect to %s: %s", addr.sun_path, strerror(errno));
	return -1;
}

/* The next line into q->reply. */
static void read_line(struct qemu *q)
{
	size_t at = 0;

	for (;;) {
		struct pollfd p = {.fd = q->qmp, .events = POLLIN};

		assert_int_equal(poll(&p, 1, 20000), 1);
		assert_true(at + 1 < sizeof(q->reply));
		assert_int_equal(read(q->qmp, q->reply + at, 1), 1);
		if (q->reply[at] == '\n') {
			q->reply[at] = '\0';
			return;
		}
		at++;
	}
}

static const char *ask(struct qemu *q, const char *command)
{
	assert_int_equal(
		send(q->qmp, command, strlen(command), MSG_NOSIGNAL), (ssize_t)strlen(command));
	do {
		read_line(q);
	} while (strncmp(q->reply, "{\"event\"", 8) == 0 ||
		 strncmp(q->reply, "{\"timestamp\"", 12) == 0);
	assert_non_null(strstr(q->reply, "\"return\""));
	return q->reply;
}

static const char *chardevs(struct qemu *q)
{
	return ask(q, "{\"execute\":\"query-chardev\"}\n");
}

static const char *devices(struct qemu *q)
{
	return ask(
		q, "{\"execute\":\"qom-list\",\"arguments\":{\"path\":\"/machine/peripheral\"}}\n");
}

static _Noreturn void exec_qemu(const struct qemu *q)
{
	char own[128], helper[128];

	snprintf(own, sizeof(own), "unix:%s/own,server=on,wait=off", q->dir);
	snprintf(helper, sizeof(helper), "unix:%s/helper,server=on,wait=off", q->dir);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execlp("qemu-system-x86_64", "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg",
		"-nodefaults", "-no-user-config", "-display", "none", "-m", "32", "-device",
		"nec-usb-xhci,id=xhci,p2=4,p3=4", "-qmp", own, "-qmp", helper, NULL);
	_exit(127);
}

static int start_qemu(void **state)
{
	struct qemu *q = calloc(1, sizeof(*q));

	strcpy(q->dir, "/tmp/devbroker-qemu-XXXXXX");
	if (!mkdtemp(q->dir)) {
		return -1;
	}
	q->pid = fork();
	if (q->pid == 0) {
		exec_qemu(q);
	}
	q->qmp = connect_to(q, "own");
	read_line(q);
	ask(q, "{\"execute\":\"qmp_capabilities\"}\n");
	*state = q;
	return 0;
}

static int stop_qemu(void **state)
{
	struct qemu *q = *state;
	struct sockaddr_un addr;

	kill(q->pid, SIGKILL);
	waitpid(q->pid, NULL, 0);
	close(q->qmp);
	path_of(q, "own", &addr);
	unlink(addr.sun_path);
	path_of(q, "helper", &addr);
	unlink(addr.sun_path);
	rmdir(q->dir);
	free(q);
	return 0;
}

static void run(struct qemu *q, const char *op, const char *id, const char *bus, int stream_fd,
	struct worker_qmp *out)
{
	struct qmp_helper h = {.op = op,
		.id = id,
		.bus = bus,
		.qmp_fd = connect_to(q, "helper"),
		.stream_fd = stream_fd};

	qmp_helper_start(&h);
	safe_close(h.qmp_fd);
	safe_close(stream_fd);
	qmp_helper_ready(&h);
	qmp_helper_finish(&h, 15, out);
}

static void expect(const struct worker_qmp *result, enum qmp_status status, const char *text)
{
	if (result->status != status || strcmp(result->text, text) != 0) {
		fail_msg("%s \"%s\" instead of %s \"%s\"", qmp_status_name(result->status),
			result->text, qmp_status_name(status), text);
	}
}

/* Returns our end of the stream. */
static int attach(struct qemu *q, const char *id)
{
	struct worker_qmp result;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	run(q, "attach", id, NULL, pair[1], &result);
	expect(&result, QMP_STATUS_OK, "");
	return pair[0];
}

static void detach(struct qemu *q, const char *id)
{
	struct worker_qmp result;

	run(q, "detach", id, NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "");
}

/* Bytes that come within ms, at most size. */
static size_t receive(int fd, char *data, size_t size, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t at = 0;

	while (at < size && poll(&p, 1, ms) == 1) {
		ssize_t n = read(fd, data + at, size - at);

		if (n <= 0) {
			break;
		}
		at += (size_t)n;
	}
	return at;
}

static void assert_closed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char rest[256];

	do {
		assert_int_equal(poll(&p, 1, 5000), 1);
	} while (read(fd, rest, sizeof(rest)) > 0);
	close(fd);
}

static unsigned int count_fds(const struct qemu *q)
{
	char path[64];
	unsigned int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)q->pid);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

/* A monitor's connection is closed a moment after its client. */
static void assert_fds(const struct qemu *q, unsigned int want)
{
	for (int i = 0; i < 100 && count_fds(q) != want; i++) {
		usleep(20 * 1000);
	}
	assert_int_equal(count_fds(q), want);
}

static void a_device_comes_and_goes(void **state)
{
	struct qemu *q = *state;
	char hello[HELLO_SIZE + 1];
	int stream = attach(q, "dbk1");

	assert_non_null(strstr(chardevs(q), "\"dbk1-c\""));
	assert_non_null(strstr(devices(q), "\"dbk1\""));
	/* Type usb_redir_hello (0), little endian, and the version's text. */
	assert_int_equal(receive(stream, hello, HELLO_SIZE, 5000), HELLO_SIZE);
	assert_memory_equal(hello, "\0\0\0\0", 4);
	assert_non_null(strstr(hello + 12, "qemu"));

	detach(q, "dbk1");
	assert_null(strstr(chardevs(q), "dbk1"));
	assert_null(strstr(devices(q), "dbk1"));
	assert_closed(stream);
}

static void fifty_cycles_leave_nothing(void **state)
{
	struct qemu *q = *state;
	unsigned int before;
	int stream = attach(q, "dbk1");

	detach(q, "dbk1");
	assert_closed(stream);
	usleep(200 * 1000);
	before = count_fds(q);
	for (int i = 0; i < 50; i++) {
		stream = attach(q, "dbk1");
		detach(q, "dbk1");
		assert_closed(stream);
	}
	assert_null(strstr(chardevs(q), "dbk1"));
	assert_null(strstr(devices(q), "dbk1"));
	assert_fds(q, before);
}

static void a_full_controller_is_refused_without_a_hub(void **state)
{
	struct qemu *q = *state;
	int streams[PORTS], pair[2];
	struct worker_qmp result;
	char id[16];

	for (int i = 0; i < PORTS; i++) {
		snprintf(id, sizeof(id), "dbk%d", i);
		streams[i] = attach(q, id);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	run(q, "attach", "dbkx", NULL, pair[1], &result);
	expect(&result, QMP_STATUS_REFUSED, "USB controller xhci.0 has no free port");
	assert_closed(pair[0]);
	assert_null(strstr(chardevs(q), "dbkx"));
	assert_null(strstr(ask(q, "{\"execute\":\"qom-list\",\"arguments\":{\"path\":\"/machine/"
				  "unattached\"}}\n"),
		"usb-hub"));
	for (int i = 0; i < PORTS; i++) {
		snprintf(id, sizeof(id), "dbk%d", i);
		detach(q, id);
		assert_closed(streams[i]);
	}
}

static void refusals_leave_nothing(void **state)
{
	struct qemu *q = *state;
	struct worker_qmp result;
	unsigned int before;
	int pair[2], stream;

	run(q, "detach", "dbk7", NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "");
	usleep(200 * 1000);
	before = count_fds(q);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	run(q, "attach", "dbk1", "nosuch.0", pair[1], &result);
	expect(&result, QMP_STATUS_REFUSED, "Bus 'nosuch.0' not found");
	assert_closed(pair[0]);
	assert_null(strstr(chardevs(q), "dbk1"));
	assert_fds(q, before);

	/* The same id again: the first one must not suffer. */
	stream = attach(q, "dbk1");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	run(q, "attach", "dbk1", NULL, pair[1], &result);
	assert_int_equal(result.status, QMP_STATUS_REFUSED);
	assert_closed(pair[0]);
	assert_non_null(strstr(chardevs(q), "\"dbk1-c\""));
	assert_non_null(strstr(devices(q), "\"dbk1\""));
	detach(q, "dbk1");
	assert_closed(stream);
	assert_fds(q, before);
}

static void a_probe_takes_a_dead_brokers_devices_away(void **state)
{
	struct qemu *q = *state;
	struct worker_qmp result;
	unsigned int before = count_fds(q);
	int living = attach(q, "devbroker-00112233445566aa");

	for (int i = 0; i < 3; i++) {
		char id[] = "devbroker-00112233445566b0";

		id[sizeof(id) - 2] = (char)('0' + i);
		close(attach(q, id));
	}
	run(q, "probe", "probe", NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "took away 3 USB devices that nobody served any more");
	assert_null(strstr(devices(q), "5566b"));
	assert_null(strstr(chardevs(q), "5566b"));
	assert_non_null(strstr(devices(q), "\"devbroker-00112233445566aa\""));
	run(q, "probe", "probe", NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "");
	detach(q, "devbroker-00112233445566aa");
	assert_closed(living);
	assert_fds(q, before);
}

static void a_paused_vm_is_told_apart(void **state)
{
	struct qemu *q = *state;
	struct worker_qmp result;

	run(q, "probe", "probe", NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "");
	assert_int_equal(result.vm_state, QMP_VM_RUNNING);

	ask(q, "{\"execute\":\"stop\"}\n");
	run(q, "probe", "probe", NULL, -1, &result);
	expect(&result, QMP_STATUS_OK, "");
	assert_int_equal(result.vm_state, QMP_VM_PAUSED);
	ask(q, "{\"execute\":\"cont\"}\n");
}

static void a_second_client_is_busy(void **state)
{
	struct qemu *q = *state;
	struct worker_qmp result;
	int first = connect_to(q, "helper");
	char greeting[4];

	assert_int_equal(receive(first, greeting, 1, 5000), 1);
	run(q, "probe", "probe", NULL, -1, &result);
	expect(&result, QMP_STATUS_NO_GREETING, "no greeting");
	close(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_comes_and_goes),
		cmocka_unit_test(fifty_cycles_leave_nothing),
		cmocka_unit_test(a_full_controller_is_refused_without_a_hub),
		cmocka_unit_test(refusals_leave_nothing),
		cmocka_unit_test(a_probe_takes_a_dead_brokers_devices_away),
		cmocka_unit_test(a_paused_vm_is_told_apart),
		cmocka_unit_test(a_second_client_is_busy),
	};

	if (system("command -v qemu-system-x86_64 >/dev/null") != 0) {
		print_message("qemu-system-x86_64 is not installed\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, start_qemu, stop_qemu);
}
