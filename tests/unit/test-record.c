/* SPDX-License-Identifier: MIT
 * Records of the run directory: written and read, strict, and whole whenever their writer is
 * killed.
 */
#include "broker/record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/lease-record.h"
#include "tests/unit/test.h"

#define ID     "0123456789abcdef"
#define COOKIE "000102030405060708090a0b0c0d0e0f"

static char dir[64];

static int setup(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	snprintf(dir, sizeof(dir), "/tmp/test-record-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command); // NOLINT(cert-env33-c): our own directory
}

static struct lease_record example(const char *state)
{
	struct lease_record r = {
		.id = ID,
		.device = "usb:0000:00:14.0-2.4",
		.vm = "win11",
		.qmp_id = "devbroker-" ID,
		.plugged = true,
		.worker = INT32_MAX,
		.cookie = COOKIE,
		.bytes = UINT64_MAX,
		.interfaces = UINT32_MAX,
		.options = {.interfaces = UINT32_MAX, .by_policy = true},
		.path = "/a path/with=signs and \xc3\xa4",
	};

	snprintf(r.state, sizeof(r.state), "%s", state);
	return r;
}

struct seen {
	unsigned int n;
	struct lease_record last;
};

static void on_record(void *userdata, const char *name, const void *record)
{
	struct seen *s = userdata;

	s->n++;
	memcpy(&s->last, record, sizeof(s->last));
	assert_string_equal(name, s->last.id);
}

static void read_all(struct seen *s)
{
	*s = (struct seen){0};
	assert_int_equal(record_each(dir, &lease_record_kind, on_record, s), 0);
}

static void written_and_read(void **state)
{
	struct lease_record r = example("attached");
	struct seen s;

	read_all(&s);
	assert_int_equal(s.n, 0);
	assert_int_equal(record_write(dir, &lease_record_kind, ID, &r), 0);
	r = example("configured");
	assert_int_equal(record_write(dir, &lease_record_kind, ID, &r), 0);
	read_all(&s);
	assert_int_equal(s.n, 1);
	assert_memory_equal(&s.last, &r, sizeof(r));
	record_remove(dir, &lease_record_kind, ID);
	record_remove(dir, &lease_record_kind, ID);
	read_all(&s);
	assert_int_equal(s.n, 0);
}

/* Sockets of workers stand beside it. */
static void a_socket_is_left_alone(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	struct seen s;

	assert_int_equal(record_make_directory(dir, &lease_record_kind), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.60s/workers/" ID ".sock", dir);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	read_all(&s);
	assert_int_equal(s.n, 0);
	assert_int_equal(access(addr.sun_path, F_OK), 0);
}

static void what_cannot_be_written(void **state)
{
	struct lease_record r = example("attached");

	assert_int_equal(record_write(dir, &lease_record_kind, "../" ID, &r), -EINVAL);
	assert_int_equal(record_write(dir, &lease_record_kind, ".new", &r), -EINVAL);
	assert_int_equal(record_write("/nowhere", &lease_record_kind, ID, &r), -ENOENT);
	snprintf(r.path, sizeof(r.path), "two\nlines");
	assert_int_equal(record_write(dir, &lease_record_kind, ID, &r), -EINVAL);
}

static size_t text_of(const struct lease_record *r, char *out)
{
	int n = record_format(&lease_record_kind, r, out, RECORD_FILE_MAX);

	assert_true(n > 0);
	return (size_t)n;
}

/* Cut anywhere, or with any byte more, it is none. */
static void nothing_but_a_whole_one(void **state)
{
	struct lease_record r = example("attached"), got;
	char text[RECORD_FILE_MAX + 2];
	size_t n = text_of(&r, text);

	assert_int_equal(record_parse(&lease_record_kind, text, n, &got), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(record_parse(&lease_record_kind, text, i, &got), -EBADMSG);
	}
	for (unsigned int c = 0; c < 256; c++) {
		text[n] = (char)c;
		assert_int_equal(record_parse(&lease_record_kind, text, n + 1, &got), -EBADMSG);
	}
	memset(text, 'a', sizeof(text));
	assert_int_equal(record_parse(&lease_record_kind, text, sizeof(text), &got), -EBADMSG);
}

/* Any byte changed gives another record or none, and never writes outside it (ASan). */
static void any_byte_changed(void **state)
{
	struct lease_record r = example("attached"), got;
	char text[RECORD_FILE_MAX];
	size_t n = text_of(&r, text);

	for (size_t i = 0; i < n; i++) {
		char was = text[i];

		for (unsigned int c = 0; c < 256; c += 5) {
			text[i] = (char)c;
			if (record_parse(&lease_record_kind, text, n, &got) == 0) {
				assert_true(strlen(got.device) < sizeof(got.device));
				assert_true(strlen(got.path) < sizeof(got.path));
			}
		}
		text[i] = was;
	}
}

static void put(const char *name, const char *text, size_t n)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/workers/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

/* Bad values, and another one's name: removed, and nothing is told. */
static void what_is_no_record(void **state)
{
	static const char *const swaps[][2] = {
		{"devbroker-lease 1\n", "devbroker-lease 2\n"},
		{"id=" ID "\n", "id=0123456789abcdeg\n"},
		{"device=usb:0000:00:14.0-2.4\n", "device=\n"},
		{"vm=win11\n", "vm=\n"},
		{"retry=no\n", "retry=maybe\n"},
		{"tries=0\n", "tries=4294967296\n"},
		{"tries=0\n", "tries=-1\n"},
		{"tries=0\n", "tries=\n"},
		{"worker=2147483647\n", "worker=2147483648\n"},
		{"cookie=" COOKIE "\n", "cookie=" COOKIE "00\n"},
		{"cookie=" COOKIE "\n", "cookie=00\n"},
	};
	struct lease_record r = example("attached");
	char text[RECORD_FILE_MAX], bad[RECORD_FILE_MAX + 32];
	size_t n = text_of(&r, text);
	struct seen s;

	assert_int_equal(record_make_directory(dir, &lease_record_kind), 0);
	for (size_t i = 0; i < ARRAY_SIZE(swaps); i++) {
		const char *at = strstr(text, swaps[i][0]);

		assert_non_null(at);
		snprintf(bad, sizeof(bad), "%.*s%s%.*s", (int)(at - text), text, swaps[i][1],
			(int)(n - (size_t)(at - text) - strlen(swaps[i][0])),
			at + strlen(swaps[i][0]));
		put(ID, bad, strlen(bad));
		read_all(&s);
		if (s.n != 0) {
			fail_msg("%s was read", swaps[i][1]);
		}
	}
	put("ffffffffffffffff", text, n);
	read_all(&s);
	assert_int_equal(s.n, 0);
	put(ID, text, n);
	read_all(&s);
	assert_int_equal(s.n, 1);
}

/* Lets the writer make n system calls of its writing, and kills it at the next one. False: it was
 * done before. */
static bool killed_at(unsigned int n, const struct lease_record *r)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(record_write(dir, &lease_record_kind, ID, r) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	/* Each call stops it twice: where it begins, and where it has ended. */
	for (unsigned int i = 0; i < n; i++) {
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			return false;
		}
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return true;
}

static void killed_at_every_call(void **state)
{
	const struct lease_record old = example("attached"), new = example("configured");
	unsigned int n_old = 0, n_new = 0, n = 0;
	struct seen s;
	bool killed;

	do {
		assert_int_equal(record_write(dir, &lease_record_kind, ID, &old), 0);
		killed = killed_at(n++, &new);
		read_all(&s);
		assert_int_equal(s.n, 1);
		if (memcmp(&s.last, &old, sizeof(old)) == 0) {
			n_old++;
		} else {
			assert_memory_equal(&s.last, &new, sizeof(new));
			n_new++;
		}
	} while (killed);
	print_message("killed at %u points: the old record %u times, the new one %u\n", n - 1,
		n_old, n_new);
	assert_true(n_old > 8 && n_new > 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(written_and_read, setup, teardown),
		cmocka_unit_test_setup_teardown(a_socket_is_left_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_written, setup, teardown),
		cmocka_unit_test(nothing_but_a_whole_one),
		cmocka_unit_test(any_byte_changed),
		cmocka_unit_test_setup_teardown(what_is_no_record, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_at_every_call, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
