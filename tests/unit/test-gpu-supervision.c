/* SPDX-License-Identifier: MIT
 * Fronts good and bad as the broker sees them. They and the renderers are functions of this test
 * behind the spawner; the VMM is one that connects and says nothing.
 */
#include "broker/gpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/process.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "tests/unit/fake-spawner.h"
#include "tests/unit/test.h"

#define USEC_PER_SEC UINT64_C(1000000)
#define STAGES       7
#define MEMORY       (UINT64_C(64) << 20)

/* What a front does. It is forked, so it sees it as it was then. */
enum act {
	SERVES,
	TALKS, /* each answer comes many times */
	FLOODS_PONGS,
	FLOODS_PICTURES,
	READY_TWICE,
	NOT_A_MESSAGE,
	WITH_FD, /* where none belongs */
	FROM_THE_PARENT,
	SILENT,
};

static enum act plot;

struct lab {
	struct broker broker;
	struct spawner spawner;
	struct vm *vm;
	int vmm; /* -1: not connected */
	char dir[32];
};

static void say(int control, uint32_t type, uint64_t seq, int fd)
{
	const struct parent_msg m = {.type = type,
		.version = type == PARENT_READY ? PARENT_VERSION : 0,
		.sandbox_stages = type == PARENT_READY ? STAGES : 0,
		.error = type == PARENT_PICTURE && fd < 0 ? -ENOENT : 0,
		.width = fd < 0 ? 0 : 1,
		.height = fd < 0 ? 0 : 1,
		.seq = seq};

	if (fd_send(control, &m, sizeof(m), &fd, fd >= 0 ? 1 : 0) < 0) {
		_exit(98);
	}
}

static void serve(int control)
{
	for (;;) {
		struct parent_msg m;
		int fd = -1;
		size_t n;
		ssize_t got = fd_recv(control, &m, sizeof(m), &fd, 1, &n);

		safe_close(fd);
		if (got <= 0) {
			_exit(0);
		}
		if (m.type == PARENT_PING || m.type == PARENT_SCREENSHOT) {
			uint32_t type = m.type == PARENT_PING ? PARENT_PONG : PARENT_PICTURE;

			for (int i = 0; i < (plot == TALKS ? 100 : 1); i++) {
				say(control, type, m.seq, -1);
			}
		}
	}
}

static int run_gpu(int argc, char **argv, const int *fds, size_t n_fds)
{
	bool front = false;

	for (int i = 0; i < argc; i++) {
		front |= strcmp(argv[i], "--front") == 0;
	}
	if (!front) {
		for (;;) {
			pause();
		}
	}
	if (fd_set_nonblock(fds[0], false) < 0) {
		return 9;
	}
	say(fds[0], PARENT_READY, 0, -1);
	switch (plot) {
	case FLOODS_PICTURES:
	case FLOODS_PONGS:
		for (;;) {
			say(fds[0], plot == FLOODS_PONGS ? PARENT_PONG : PARENT_PICTURE, 1000, -1);
		}
	case READY_TWICE:
		say(fds[0], PARENT_READY, 0, -1);
		break;
	case NOT_A_MESSAGE:
		if (write(fds[0], "hello", 5) != 5) {
			return 9;
		}
		break;
	case WITH_FD:
		say(fds[0], PARENT_PONG, 0, memfd_create("x", MFD_CLOEXEC));
		break;
	case FROM_THE_PARENT:
		say(fds[0], PARENT_PING, 0, -1);
		break;
	case SILENT:
		for (;;) {
			pause();
		}
	default:
		break;
	}
	serve(fds[0]);
	return 0;
}

static int set_up(void **state)
{
	static struct lab t;
	struct config config = {.sandbox_stages = STAGES, .sandbox = strdup("full")};
	struct vm_options vm = {.name = "win", .qmp = "/nonexistent/qmp", .gpu_memory = MEMORY};
	struct refusal_text text = {0};

	t = (struct lab){.dir = "/tmp/test-gpu-XXXXXX", .vmm = -1};
	log_set_level(LOG_LEVEL_ERROR);
	assert_non_null(mkdtemp(t.dir));
	list_init(&config.vms);
	list_init(&config.disks);
	assert_int_equal(broker_init(&t.broker, &config, &t.spawner), 0);
	t.broker.run_dir = t.dir;
	t.spawner = (struct spawner){.event = t.broker.event};
	t.spawner.programs[SPAWNER_GPU] = run_gpu;
	assert_int_equal(vm_add(&t.broker, &vm, &t.vm, &text), 0);
	*state = &t;
	return 0;
}

static void turn(struct lab *t)
{
	assert_true(sd_event_run(t->broker.event, 20000) >= 0);
}

static enum gpu_state now_in(struct lab *t, struct gpu_status *out)
{
	gpu_status(t->vm->gpu, out);
	return out->state;
}

static void run_to(struct lab *t, enum gpu_state state)
{
	uint64_t begin = now_usec();
	struct gpu_status status;

	while (now_in(t, &status) != state) {
		if (now_usec() - begin > 10 * USEC_PER_SEC) {
			fail_msg("%s (%s)", gpu_state_name(status.state), status.detail);
		}
		turn(t);
	}
}

/* Nothing is left of it: no process, no charge. */
static void check_ended(struct lab *t, const char *detail)
{
	struct gpu_status status;

	run_to(t, GPU_WAITING);
	gpu_status(t->vm->gpu, &status);
	if (strcmp(status.detail, detail) != 0) {
		fail_msg("\"%s\", not \"%s\"", status.detail, detail);
	}
	assert_int_equal(t->vm->gpu_memory.used, 0);
	assert_int_equal(t->broker.n_processes, 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	t->vmm = safe_close(t->vmm);
}

static int tear_down(void **state)
{
	struct lab *t = *state;
	struct refusal_text text = {0};
	uint64_t begin = now_usec();
	char path[80];

	safe_close(t->vmm);
	assert_int_equal(vm_remove(t->vm, &text), 0);
	while (t->broker.n_processes > 0) {
		assert_true(now_usec() - begin < 10 * USEC_PER_SEC);
		turn(t);
	}
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	broker_finish(&t->broker);
	for (int n = 0; n < 2; n++) {
		snprintf(path, sizeof(path), "%s/vm%s", t->dir, n == 0 ? "/win" : "");
		assert_int_equal(rmdir(path), 0);
	}
	rmdir(t->dir);
	return 0;
}

static void connect_vmm(struct lab *t, enum act act)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct gpu_status status;

	plot = act;
	gpu_status(t->vm->gpu, &status);
	assert_true(strlen(status.socket) < sizeof(addr.sun_path));
	memcpy(addr.sun_path, status.socket, strlen(status.socket) + 1);
	t->vmm = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(t->vmm, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	while (now_in(t, &status) == GPU_WAITING) {
		turn(t);
	}
}

static void count_picture(struct gpu_waiter *w, const struct gpu_picture *picture)
{
	unsigned int *n = w->userdata;

	assert_int_equal(picture->error, -ENOENT);
	++*n;
}

static void check_connected(struct lab *t)
{
	struct gpu_status status;

	assert_int_equal(now_in(t, &status), GPU_CONNECTED);
}

/* As many pictures as anybody asks for. */
static void test_serves(void **state)
{
	struct lab *t = *state;
	uint64_t begin = now_usec();

	connect_vmm(t, SERVES);
	run_to(t, GPU_CONNECTED);
	for (unsigned int n = 0; n < 2000;) {
		struct gpu_waiter w = {.done = count_picture, .userdata = &n};
		struct refusal_text text = {0};
		unsigned int before = n;

		assert_int_equal(gpu_screenshot(t->vm->gpu, 0, &w, &text), 0);
		while (n == before) {
			assert_true(now_usec() - begin < 60 * USEC_PER_SEC);
			turn(t);
		}
	}
	check_connected(t);
}

/* A word now and then that nobody asked for is none too many. */
static void test_talks(void **state)
{
	struct lab *t = *state;
	uint64_t begin = now_usec();

	connect_vmm(t, TALKS);
	run_to(t, GPU_CONNECTED);
	while (now_usec() - begin < 3 * USEC_PER_SEC) {
		turn(t);
	}
	check_connected(t);
}

/* Where the broker itself is not run in time, a front may need longer, too; not for ever. */
static void test_busy_host(void **state)
{
	struct lab *t = *state;
	uint64_t begin = now_usec();

	connect_vmm(t, SILENT);
	run_to(t, GPU_CONNECTED);
	while (now_usec() - begin < 4 * USEC_PER_SEC) {
		usleep(700000);
		turn(t);
	}
	check_connected(t);
	check_ended(t, "its front does not answer");
}

static void test_bad(void **state)
{
	static const struct {
		enum act act;
		const char *detail;
	} bad[] = {
		{FLOODS_PONGS, "its front sent too many messages"},
		{FLOODS_PICTURES, "its front sent too many messages"},
		{READY_TWICE, "its front was ready twice"},
		{NOT_A_MESSAGE, "its front sent a malformed message"},
		{WITH_FD, "its front sent a malformed message"},
		{FROM_THE_PARENT, "its front sent a malformed message"},
		{SILENT, "its front does not answer"},
	};
	struct lab *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		connect_vmm(t, bad[i].act);
		check_ended(t, bad[i].detail);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_serves),
		TEST(test_talks),
		TEST(test_busy_host),
		TEST(test_bad),
	};

	return cmocka_run_group_tests_name("gpu-supervision", tests, NULL, NULL);
}
