/* SPDX-License-Identifier: MIT
 *
 * spawn_process and spawn_self: which fds, ids and namespaces a program gets, and who ends with
 * whom.
 */
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

static int child_program(void)
{
	int fd = open(getenv("SPAWN_CHILD"), O_PATH | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int wait_status(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void read_all(int fd, char *text, size_t size)
{
	size_t at = 0;
	ssize_t n;

	while ((n = read(fd, text + at, size - 1 - at)) > 0) {
		at += (size_t)n;
	}
	assert_true(n == 0);
	text[at] = '\0';
}

/* Pipes whose write ends have exactly the numbers that they must move over. */
static void test_fds_that_overlap(void **state)
{
	static const char *const argv[] = {"child", "number", "3", NULL};
	/* 4 becomes 3, 5 becomes 4, 3 becomes 5; and again as spawned with the program in the way.
	 */
	int fds[] = {4, 5, 3}, saved[3], reads[3], program, pidfd = -1;
	struct spawn_spec spec = {.argv = argv,
		.fds = fds,
		.n_fds = 3,
		.stderr_fd = STDERR_FILENO,
		.namespaces = true};
	char text[8];
	pid_t pid;

	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 40);
	}
	program = child_program();
	spec.program_fd = fcntl(program, F_DUPFD_CLOEXEC, 6);
	close(program);
	for (int i = 0; i < 3; i++) {
		int pipefd[2];

		assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
		reads[i] = fcntl(pipefd[0], F_DUPFD_CLOEXEC, 50);
		close(pipefd[0]);
		/* Out of the way first: the next pipe may get these numbers. */
		fds[i] = fcntl(pipefd[1], F_DUPFD_CLOEXEC, 60);
		close(pipefd[1]);
	}
	for (int i = 0; i < 3; i++) {
		static const int numbers[] = {4, 5, 3};

		assert_int_equal(dup3(fds[i], numbers[i], O_CLOEXEC), numbers[i]);
		close(fds[i]);
		fds[i] = numbers[i];
	}
	assert_int_equal(spawn_process(&spec, &pid, &pidfd), 0);
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
	}
	assert_int_equal(wait_status(pid), 0);
	for (int i = 0; i < 3; i++) {
		char number[2] = {(char)('3' + i), '\0'};

		read_all(reads[i], text, sizeof(text));
		assert_string_equal(text, number);
		close(reads[i]);
		if (saved[i] >= 0) {
			dup3(saved[i], 3 + i, O_CLOEXEC);
			close(saved[i]);
		}
	}
	close(spec.program_fd);
	close(pidfd);
}

static void spawn_report(struct spawn_spec *spec, char *text, size_t size)
{
	static const char *const argv[] = {"child", "report", NULL};
	_cleanup_close_ int program = child_program(), pidfd = -1;
	int pipefd[2];
	pid_t pid;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	spec->program_fd = program;
	spec->argv = argv;
	spec->fds = &pipefd[1];
	spec->n_fds = 1;
	spec->stderr_fd = STDERR_FILENO;
	assert_int_equal(spawn_process(spec, &pid, &pidfd), 0);
	close(pipefd[1]);
	read_all(pipefd[0], text, size);
	close(pipefd[0]);
	assert_int_equal(wait_status(pid), 0);
}

static void test_own_ids(void **state)
{
	struct spawn_spec spec = {.namespaces = true};
	char text[1024];

	spawn_report(&spec, text, sizeof(text));
	assert_non_null(strstr(text, "pid=1 uid=0 gid=0 "));
}

static void test_other_ids_without_namespaces(void **state)
{
	struct spawn_spec spec = {.host_id = 61005};
	char text[1024];

	if (geteuid() != 0) {
		skip();
	}
	spawn_report(&spec, text, sizeof(text));
	assert_null(strstr(text, "pid=1 "));
	assert_non_null(strstr(text, " uid=61005 gid=61005 groups=0 "));
}

static void test_other_ids_are_refused_to_nobody(void **state)
{
	static const char *const argv[] = {"child", "report", NULL};
	_cleanup_close_ int program = child_program(), pidfd = -1;
	struct spawn_spec spec = {
		.program_fd = program, .argv = argv, .host_id = 61005, .namespaces = true};
	pid_t pid = -1;

	spec.stderr_fd = -1;
	if (geteuid() == 0) {
		skip();
	}
	assert_int_equal(spawn_process(&spec, &pid, &pidfd), -EPERM);
	assert_int_equal(pidfd, -1);
	/* It was killed and reaped. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_bad_specs(void **state)
{
	static const char *const argv[] = {"child", "report", NULL};
	static const int fds[SPAWN_FDS_MAX + 1];
	struct spawn_spec spec = {.program_fd = -1, .argv = argv, .fds = fds, .stderr_fd = -1};
	pid_t pid = -1;
	int pidfd = -1;

	spec.n_fds = SPAWN_FDS_MAX + 1;
	assert_int_equal(spawn_process(&spec, &pid, &pidfd), -EINVAL);
	spec.n_fds = 0;
	spec.host_id = geteuid() + 1;
	spec.die_with_caller = true;
	assert_int_equal(spawn_process(&spec, &pid, &pidfd), -EINVAL);
	assert_int_equal(pid, -1);
	assert_int_equal(pidfd, -1);
}

/* A host, or a container, that allows no more user namespaces. */
static void test_no_user_namespaces(void **state)
{
	static const char *const argv[] = {"child", "report", NULL};
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct spawn_spec spec = {
			.program_fd = child_program(), .argv = argv, .stderr_fd = -1};
		int pidfd = -1, fd;

		spec.namespaces = true;
		if (unshare(CLONE_NEWUSER) < 0) {
			_exit(77);
		}
		fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1) {
			_exit(77);
		}
		_exit(spawn_process(&spec, &pid, &pidfd) == -ENOSPC && pidfd == -1 ? 0 : 1);
	}
	status = wait_status(pid);
	if (status == 77) {
		skip();
	}
	assert_int_equal(status, 0);
}

/* The failing step and its errno reach the stderr that the child was given. */
static void test_failure_is_told(void **state)
{
	static const char *const argv[] = {"child", NULL};
	_cleanup_close_ int program = open("/dev/null", O_PATH | O_CLOEXEC), pidfd = -1;
	struct spawn_spec spec = {.program_fd = program, .argv = argv, .namespaces = true};
	char text[128];
	int pipefd[2];
	pid_t pid;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	spec.stderr_fd = pipefd[1];
	assert_int_equal(spawn_process(&spec, &pid, &pidfd), 0);
	close(pipefd[1]);
	assert_int_equal(wait_status(pid), SPAWN_EXIT_FAILED);
	read_all(pipefd[0], text, sizeof(text));
	close(pipefd[0]);
	assert_string_equal(text, "<3>spawn: exec: errno 13\n");
}

/* Runs spawn_self with mode in a process of its own; fd becomes the program's 3. */
static pid_t fork_self(const char *mode, int fd)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		const char *const argv[] = {"self", mode, NULL};
		int status = -1;

		_exit(spawn_self(argv, &fd, 1, &status) < 0 ? 100 : status);
	}
	close(fd);
	return pid;
}

static void wait_byte(int fd)
{
	char byte;

	assert_int_equal(read(fd, &byte, 1), 1);
}

static void test_self_status(void **state)
{
	int pipefd[2];

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	assert_int_equal(wait_status(fork_self("self-exit", pipefd[1])), 42);
	wait_byte(pipefd[0]);
	close(pipefd[0]);
}

static void test_self_crash(void **state)
{
	int pipefd[2];
	pid_t pid;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	pid = fork_self("self-crash", pipefd[1]);
	close(pipefd[0]);
	assert_int_equal(wait_status(pid), 128 + SIGSEGV);
}

static void test_self_forwards_sigterm(void **state)
{
	int pipefd[2];
	pid_t pid;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	pid = fork_self("self-wait", pipefd[1]);
	wait_byte(pipefd[0]);
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(wait_status(pid), 43);
	close(pipefd[0]);
}

static void test_self_dies_with_caller(void **state)
{
	struct pollfd p = {.events = POLLIN};
	int pipefd[2];
	pid_t pid;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	pid = fork_self("self-wait", pipefd[1]);
	wait_byte(pipefd[0]);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(wait_status(pid), 128 + SIGKILL);
	p.fd = pipefd[0];
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_true(p.revents & POLLHUP);
	close(pipefd[0]);
}

static void on_term(int sig)
{
	_exit(43);
}

/* Life as the program that spawn_self starts. */
static int self_main(const char *mode)
{
	signal(SIGTERM, on_term);
	_unused_ ssize_t n = write(3, "x", 1);
	if (strcmp(mode, "self-wait") == 0) {
		for (;;) {
			pause();
		}
	}
	if (strcmp(mode, "self-crash") == 0) {
		/* pid 1 survives its own abort's SIGABRT, not what follows. */
		signal(SIGSEGV, SIG_DFL);
		abort();
	}
	return getpid() == 1 ? 42 : 1;
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fds_that_overlap),
		cmocka_unit_test(test_own_ids),
		cmocka_unit_test(test_other_ids_without_namespaces),
		cmocka_unit_test(test_other_ids_are_refused_to_nobody),
		cmocka_unit_test(test_bad_specs),
		cmocka_unit_test(test_no_user_namespaces),
		cmocka_unit_test(test_failure_is_told),
		cmocka_unit_test(test_self_status),
		cmocka_unit_test(test_self_crash),
		cmocka_unit_test(test_self_forwards_sigterm),
		cmocka_unit_test(test_self_dies_with_caller),
	};

	if (argc > 1) {
		return self_main(argv[1]);
	}
	return cmocka_run_group_tests_name("spawn", tests, NULL, NULL);
}
