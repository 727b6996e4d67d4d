/* SPDX-License-Identifier: MIT
 *
 * Image locks against a real QEMU, both ways: what QEMU holds is refused with QEMU's pid, and what
 * we hold QEMU refuses; two readers are welcome together.
 */
#include "broker/image.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

#define QEMU "qemu-system-x86_64"

struct qemu {
	pid_t pid;
	int out; /* its QMP on stdio: an answer once it has opened the image, or end of file */
	int err;
	int in;
};

static char image[] = "/tmp/devbroker-test-image-qemu-XXXXXX";

static void start(struct qemu *q, bool read_only)
{
	static const char hello[] = "{\"execute\":\"qmp_capabilities\"}\n";
	int in[2], out[2], err[2];
	char drive[160];

	snprintf(drive, sizeof(drive), "file=%s,format=raw,if=virtio%s", image,
		read_only ? ",readonly=on" : "");
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	assert_int_equal(write(in[1], hello, sizeof(hello) - 1), sizeof(hello) - 1);
	q->pid = fork();
	assert_true(q->pid >= 0);
	if (q->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(err[1], STDERR_FILENO);
		execlp(QEMU, QEMU, "-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none",
			"-S", "-qmp", "stdio", "-drive", drive, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	q->in = in[1];
	q->out = out[0];
	q->err = err[0];
}

/* Waits until QEMU has the image (true), or has given up. The greeting alone says nothing: it is
 * sent before the image is opened. */
static bool is_up(struct qemu *q)
{
	char text[4096];
	size_t at = 0;
	ssize_t n;

	alarm(30); /* not for ever */
	do {
		n = read(q->out, text + at, sizeof(text) - 1 - at);
		at += n > 0 ? (size_t)n : 0;
		text[at] = '\0';
	} while (n > 0 && !strstr(text, "\"return\""));
	alarm(0);
	return n > 0;
}

static void close_pipes(struct qemu *q)
{
	close(q->in);
	close(q->out);
	close(q->err);
}

static void stop(struct qemu *q)
{
	kill(q->pid, SIGKILL);
	assert_int_equal(waitpid(q->pid, NULL, 0), q->pid);
	close_pipes(q);
}

static void assert_gave_up_for_the_lock(struct qemu *q)
{
	char text[1024] = "";
	size_t at = 0;
	ssize_t n;
	int status;

	while (at < sizeof(text) - 1 && (n = read(q->err, text + at, sizeof(text) - 1 - at)) > 0) {
		at += (size_t)n;
	}
	assert_non_null(strstr(text, "lock"));
	assert_int_equal(waitpid(q->pid, &status, 0), q->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	close_pipes(q);
}

static int open_image(bool read_only)
{
	int fd = open(image, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void qemu_comes_first(void **state)
{
	for (int i = 0; i < 4; i++) {
		bool qemu_reads = i & 1, we_read = i & 2, fine = qemu_reads && we_read;
		struct refusal_text text = {.sentence = ""};
		int fd = open_image(we_read);
		char want[64];
		struct qemu q;

		start(&q, qemu_reads);
		assert_true(is_up(&q));
		assert_int_equal(
			image_lock(fd, we_read, image, &text), fine ? 0 : REFUSAL_IMAGE_BUSY);
		snprintf(want, sizeof(want), "in use by qemu-system-x86 (pid %d).", (int)q.pid);
		assert_true(fine || strstr(text.sentence, want));
		stop(&q);
		/* It is free with QEMU's end. */
		assert_int_equal(image_lock(fd, we_read, image, &text), 0);
		close(fd);
	}
}

static void we_come_first(void **state)
{
	for (int i = 0; i < 4; i++) {
		bool qemu_reads = i & 1, we_read = i & 2;
		int fd = open_image(we_read);
		struct qemu q;

		assert_int_equal(image_lock(fd, we_read, image, NULL), 0);
		start(&q, qemu_reads);
		assert_int_equal(is_up(&q), qemu_reads && we_read);
		if (qemu_reads && we_read) {
			stop(&q);
		} else {
			assert_gave_up_for_the_lock(&q);
		}
		close(fd);
	}
}

static int set_up(void **state)
{
	int fd = mkostemp(image, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1024 * 1024), 0);
	close(fd);
	return 0;
}

static int tear_down(void **state)
{
	unlink(image);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(qemu_comes_first),
		cmocka_unit_test(we_come_first),
	};

	if (system(QEMU " --version >/dev/null 2>&1") != 0) {
		printf("skipped: there is no " QEMU "\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
