/* SPDX-License-Identifier: MIT
 *
 * The spawner with real workers: what a worker is given, that nothing is left behind, and what
 * happens when a program can't run, a request is forgotten, fds run out, and either side dies.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "broker/spawner.h"
#include "tests/unit/test.h"

#define UID_BASE 61000

struct fixture {
	char dir[64];
	sd_event *event;
	struct spawner *spawner;
	pid_t spawner_pid;
	/* of the last answer */
	unsigned int answers;
	int result;
	pid_t pid;
	int pidfd;
};

static unsigned int count_fds(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

/* The spawner closes what it has sent after it has sent it: its count is that of a quiet moment. */
static unsigned int count_fds_quiet(pid_t pid)
{
	unsigned int n = count_fds(pid), quiet = 0;

	for (int i = 0; i < 500 && quiet < 5; i++) {
		unsigned int now;

		usleep(10 * 1000);
		now = count_fds(pid);
		quiet = now == n ? quiet + 1 : 0;
		n = now;
	}
	return n;
}

/* Children of this process, zombies included; *last_out is one of them. */
static unsigned int count_children(pid_t *last_out)
{
	char path[64], text[4096];
	unsigned int n = 0;
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	len = read(fd, text, sizeof(text) - 1);
	assert_true(len >= 0);
	close(fd);
	text[len] = '\0';
	for (char *p = strtok(text, " \n"); p; p = strtok(NULL, " \n")) {
		*last_out = atoi(p);
		n++;
	}
	return n;
}

static void on_answer(void *userdata, int result, pid_t pid, int pidfd)
{
	struct fixture *f = userdata;

	f->answers++;
	f->result = result;
	f->pid = pid;
	f->pidfd = pidfd;
}

static void make_program(struct fixture *f, const char *name, const char *target)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_int_equal(symlink(target, path), 0);
}

static void start(struct fixture *f)
{
	const bool root = geteuid() == 0;
	const struct spawner_settings settings = {
		.uid_base = root ? UID_BASE : 0,
		.uid_count = root ? 16 : 0,
		.namespaces = true,
	};
	const char *missing;

	assert_int_equal(sd_event_new(&f->event), 0);
	assert_int_equal(spawner_create(f->dir, &f->spawner, &missing), 0);
	assert_null(missing);
	assert_int_equal(spawner_configure(f->spawner, &settings), 0);
	assert_int_equal(spawner_attach(f->spawner, f->event), 0);
	assert_int_equal(count_children(&f->spawner_pid), 1);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *child = getenv("SPAWN_CHILD");
	char script[128];
	int fd;

	assert_non_null(f);
	assert_non_null(child);
	f->pidfd = -1;
	snprintf(f->dir, sizeof(f->dir), "/tmp/devbroker-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	make_program(f, "devbroker-usb", child);
	/* An executable file that is no program: exec fails with ENOEXEC. */
	snprintf(script, sizeof(script), "%s/garbage", f->dir);
	fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "nothing", 7), 7);
	close(fd);
	make_program(f, "devbroker-qmp", script);
	make_program(f, "devbroker-claim", script);
	make_program(f, "devbroker-gpu", script);
	make_program(f, "devbroker-usb-nbd", script);
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"devbroker-usb", "devbroker-qmp", "devbroker-claim",
		"devbroker-gpu", "devbroker-usb-nbd", "garbage"};
	struct fixture *f = *state;
	char path[128];
	pid_t last;

	spawner_destroy(f->spawner);
	sd_event_unref(f->event);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->dir, names[i]);
		unlink(path);
	}
	rmdir(f->dir);
	free(f);
	/* Whatever a test did: not a child, not a zombie is left. */
	assert_int_equal(count_children(&last), 0);
	return 0;
}

static uint64_t request(struct fixture *f, enum spawner_program program, const char *const *args,
	size_t n_args, int fd)
{
	uint64_t id = 0;

	f->answers = 0;
	f->pidfd = -1;
	assert_int_equal(spawner_spawn(f->spawner, program, args, n_args, &fd, fd >= 0 ? 1 : 0, 3,
				 on_answer, f, &id),
		0);
	assert_int_not_equal(id, 0);
	return id;
}

static void wait_answer(struct fixture *f)
{
	for (int i = 0; i < 100 && f->answers == 0; i++) {
		assert_true(sd_event_run(f->event, 100 * 1000) >= 0);
	}
	assert_int_equal(f->answers, 1);
}

/* Waits for the worker's end and reaps it. Returns its exit status, -signal if one ended it. */
static int reap(struct fixture *f)
{
	struct pollfd p = {.fd = f->pidfd, .events = POLLIN};
	siginfo_t info = {0};

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(waitid(P_PIDFD, (id_t)f->pidfd, &info, WEXITED), 0);
	assert_int_equal(info.si_pid, f->pid);
	f->pidfd = safe_close(f->pidfd);
	return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

/* One worker that reports; its words in text. */
static void spawn_reporter(struct fixture *f, char *text, size_t size)
{
	static const char *const args[] = {"report", "", "two words"};
	int pipefd[2];
	ssize_t n;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	request(f, SPAWNER_USB, args, ARRAY_SIZE(args), pipefd[1]);
	close(pipefd[1]);
	wait_answer(f);
	assert_int_equal(f->result, 0);
	n = read(pipefd[0], text, size - 1);
	assert_true(n >= 0);
	text[n] = '\0';
	close(pipefd[0]);
	assert_int_equal(reap(f), 0);
}

static void test_what_a_worker_gets(void **state)
{
	struct fixture *f = *state;
	char text[1024];

	/* None of it may be inherited. */
	signal(SIGUSR1, SIG_IGN);
	spawn_reporter(f, text, sizeof(text));
	signal(SIGUSR1, SIG_DFL);
	assert_string_equal(text, "pid=1 uid=0 gid=0 groups=0 ignored=0 blocked=0 env=0 fds=f sid=1"
				  " [devbroker-usb] [report] [] [two words]");
}

static void test_host_ids(void **state)
{
	struct fixture *f = *state;
	static const char *const args[] = {"wait"};
	char path[64];
	struct stat st;

	request(f, SPAWNER_USB, args, 1, -1);
	wait_answer(f);
	assert_int_equal(f->result, 0);
	/* Until the exec it may still be ours. */
	for (int i = 0; i < 500; i++) {
		snprintf(path, sizeof(path), "/proc/%d", (int)f->pid);
		assert_int_equal(stat(path, &st), 0);
		if (st.st_uid == (geteuid() == 0 ? UID_BASE + 3 : geteuid())) {
			break;
		}
		usleep(10 * 1000);
	}
	assert_int_equal(st.st_uid, geteuid() == 0 ? UID_BASE + 3 : geteuid());
	assert_int_equal(st.st_gid, geteuid() == 0 ? UID_BASE + 3 : getegid());
	assert_int_equal(kill(f->pid, SIGKILL), 0);
	assert_int_equal(reap(f), -SIGKILL);
}

static void test_200_leave_nothing(void **state)
{
	struct fixture *f = *state;
	char text[1024];
	unsigned int ours, theirs;
	pid_t last;

	spawn_reporter(f, text, sizeof(text));
	ours = count_fds(getpid());
	theirs = count_fds_quiet(f->spawner_pid);
	for (int i = 0; i < 200; i++) {
		spawn_reporter(f, text, sizeof(text));
	}
	assert_int_equal(count_fds(getpid()), ours);
	assert_int_equal(count_fds_quiet(f->spawner_pid), theirs);
	assert_int_equal(count_children(&last), 1);
}

static void test_exec_failure_is_seen(void **state)
{
	struct fixture *f = *state;

	request(f, SPAWNER_QMP, NULL, 0, -1);
	wait_answer(f);
	assert_int_equal(f->result, 0);
	assert_int_equal(reap(f), SPAWN_EXIT_FAILED);
}

static void test_forget(void **state)
{
	struct fixture *f = *state;
	static const char *const args[] = {"wait"};
	struct pollfd p = {.events = POLLIN};
	int pipefd[2];
	uint64_t id;
	pid_t last;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	id = request(f, SPAWNER_USB, args, 1, pipefd[1]);
	close(pipefd[1]);
	spawner_forget(f->spawner, id);
	for (int i = 0; i < 100 && count_children(&last) > 1; i++) {
		assert_true(sd_event_run(f->event, 20 * 1000) >= 0);
	}
	assert_int_equal(f->answers, 0);
	/* The worker held the other end. */
	for (int i = 0; i < 100 && p.revents == 0; i++) {
		p.fd = pipefd[0];
		assert_true(poll(&p, 1, 10) >= 0);
		assert_true(sd_event_run(f->event, 10 * 1000) >= 0);
	}
	assert_true(p.revents & POLLHUP);
	for (int i = 0; i < 100 && count_children(&last) > 1; i++) {
		assert_true(sd_event_run(f->event, 20 * 1000) >= 0);
	}
	assert_int_equal(count_children(&last), 1);
	close(pipefd[0]);
}

static void test_no_fd_left(void **state)
{
	struct fixture *f = *state;
	static const char *const args[] = {"wait"};
	struct rlimit before, none;
	pid_t last;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	request(f, SPAWNER_USB, args, 1, -1);
	none = before;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	while (f->answers == 0) {
		assert_true(sd_event_run(f->event, 1000 * 1000) > 0);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(f->result, -EMFILE);
	assert_int_equal(f->pidfd, -1);
	assert_int_equal(count_children(&last), 1);
}

/* What the spawner itself is: as little as it can be, and hard to end by accident. */
static void test_the_spawner(void **state)
{
	struct fixture *f = *state;
	char path[64], line[128], text[1024];
	bool found = false;
	FILE *status;

	kill(f->spawner_pid, SIGINT);
	kill(f->spawner_pid, SIGTERM);
	kill(f->spawner_pid, SIGHUP);
	spawn_reporter(f, text, sizeof(text));
	/* ".", "..", 0, 1, 2, its socket and the programs. */
	assert_int_equal(count_fds_quiet(f->spawner_pid), 6 + SPAWNER_PROGRAM_COUNT_);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)f->spawner_pid);
	status = fopen(path, "re");
	assert_non_null(status);
	while (fgets(line, sizeof(line), status)) {
		unsigned long long caps;

		if (sscanf(line, "CapEff: %llx", &caps) == 1) {
			/* CAP_SETGID and CAP_SETUID; CAP_SYS_ADMIN where user namespaces need it.
			 */
			assert_int_equal(caps & ~(1ULL << 21), geteuid() == 0 ? 0xc0 : 0);
			found = true;
		}
	}
	fclose(status);
	assert_true(found);
}

static void test_bad_requests(void **state)
{
	struct fixture *f = *state;
	char *big = calloc(1, SPAWNER_ARGS_SIZE + 1);
	const char *many[SPAWNER_ARGV_MAX];
	const char *one[1] = {big};
	uint64_t id;

	assert_non_null(big);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = "x";
	}
	memset(big, 'x', SPAWNER_ARGS_SIZE);
	assert_int_equal(
		spawner_spawn(f->spawner, SPAWNER_USB, one, 1, NULL, 0, 0, on_answer, f, &id),
		-E2BIG);
	assert_int_equal(spawner_spawn(f->spawner, SPAWNER_USB, many, ARRAY_SIZE(many) - 1, NULL, 0,
				 0, on_answer, f, &id),
		-E2BIG);
	assert_int_equal(spawner_spawn(f->spawner, SPAWNER_PROGRAM_COUNT_, NULL, 0, NULL, 0, 0,
				 on_answer, f, &id),
		-EINVAL);
	/* The largest that fits arrives. */
	big[SPAWNER_ARGS_SIZE - 1] = '\0';
	request(f, SPAWNER_USB, one, 1, -1);
	wait_answer(f);
	assert_int_equal(f->result, 0);
	/* It has no fd 3 to report on. */
	assert_int_equal(reap(f), 1);
	free(big);
}

static void test_spawner_dies(void **state)
{
	struct fixture *f = *state;
	uint64_t id;

	assert_int_equal(kill(f->spawner_pid, SIGSTOP), 0);
	request(f, SPAWNER_USB, NULL, 0, -1);
	assert_int_equal(kill(f->spawner_pid, SIGKILL), 0);
	wait_answer(f);
	assert_int_equal(f->result, -EPIPE);
	assert_int_equal(f->pidfd, -1);
	assert_int_equal(
		spawner_spawn(f->spawner, SPAWNER_USB, NULL, 0, NULL, 0, 0, on_answer, f, &id),
		-EPIPE);
}

static void test_broker_dies(void **state)
{
	struct fixture *f = *state;
	int pipefd[2], status;
	pid_t broker, spawner = 0;

	/* Orphans come to us, so that their end can be waited for. */
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	broker = fork();
	assert_true(broker >= 0);
	if (broker == 0) {
		spawner_destroy(f->spawner);
		start(f);
		_unused_ ssize_t w = write(pipefd[1], &f->spawner_pid, sizeof(f->spawner_pid));
		for (;;) {
			pause();
		}
	}
	assert_int_equal(read(pipefd[0], &spawner, sizeof(spawner)), sizeof(spawner));
	assert_int_equal(kill(broker, SIGKILL), 0);
	assert_int_equal(waitpid(broker, &status, 0), broker);
	assert_int_equal(waitpid(spawner, &status, 0), spawner);
	assert_int_equal(status, 0);
	close(pipefd[0]);
	close(pipefd[1]);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void test_missing_program(void **state)
{
	struct fixture *f = *state;
	struct spawner *s = NULL;
	const char *missing = NULL;
	char path[128];
	pid_t last;

	snprintf(path, sizeof(path), "%s/garbage", f->dir);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(spawner_create(f->dir, &s, &missing), -EACCES);
	assert_string_equal(missing, "devbroker-qmp");
	assert_int_equal(spawner_create("/nonexistent", &s, &missing), -ENOENT);
	assert_string_equal(missing, "devbroker-usb");
	assert_null(s);
	assert_int_equal(count_children(&last), 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_a_worker_gets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_200_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exec_failure_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_fd_left, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_spawner, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_spawner_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broker_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing_program, setup, teardown),
	};

	return cmocka_run_group_tests_name("spawner", tests, NULL, NULL);
}
