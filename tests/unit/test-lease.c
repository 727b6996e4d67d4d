/* SPDX-License-Identifier: MIT
 * The life of a lease: what the worker, the VMM and the user do, how it ends, what is left. The
 * worker and the QMP helper are functions of this test behind the spawner; the VMM is a process
 * that listens.
 */
#include "broker/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device-disk.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "broker/worker.h"
#include "tests/unit/fake-spawner.h"
#include "tests/unit/test.h"

#define USEC_PER_SEC UINT64_C(1000000)
#define STAGES       7
#define BYTES        (UINT64_C(2) << 20)
#define TRANSFERS    16

static const struct lease_options options;

enum act {
	CONFIGURES, /* and serves until it is told to go */
	CONFIGURED_THEN_DIES,
	EJECTS,       /* after that */
	SEES_CLOSED,  /* its guest's side closes the stream */
	SEES_BAD,     /* it breaks the protocol */
	LOSES_DEVICE, /* I/O errors that do not end */
	LEAVES,       /* ends before it is ready */
	HALF_JAILED,  /* ready, but a stage of its sandbox is open */
	FLUSH_FAILS,  /* at the end */
};

/* What the programs do. They are forked, so they see it as it was then. */
static struct {
	enum act act;
	uint32_t attach; /* enum qmp_status */
	uint32_t detach;
} plot;

struct lab {
	struct broker broker;
	struct spawner spawner;
	struct vm *vm;
	struct device *device;
	char dir[32];
	char qmp[64];
	pid_t vmm;
};

static int usb_after_ready(int control)
{
	fake_say(control, WORKER_MSG_STATE, WORKER_STATE_ATTACHED);
	switch (plot.act) {
	case SEES_BAD:
		fake_say(control, WORKER_MSG_DONE, WORKER_DONE_PEER_BAD);
		return 0;
	case LOSES_DEVICE:
		fake_say(control, WORKER_MSG_DONE, WORKER_DONE_DEVICE_LOST);
		return 0;
	default:
		fake_say(control, WORKER_MSG_STATE, WORKER_STATE_CONFIGURED);
	}
	switch (plot.act) {
	case CONFIGURED_THEN_DIES:
		raise(SIGKILL);
		return 0;
	case SEES_CLOSED:
		fake_say(control, WORKER_MSG_DONE, WORKER_DONE_PEER_CLOSED);
		return 0;
	case EJECTS:
		fake_say(control, WORKER_MSG_STATE, WORKER_STATE_EJECTED);
		break;
	default:
		break;
	}
	return fake_serve(control);
}

static int run_usb(int argc, char **argv, const int *fds, size_t n_fds)
{
	struct pollfd stream = {.fd = fds[1], .events = POLLIN};
	char byte;

	if (n_fds != 3 || plot.act == LEAVES) {
		return 9;
	}
	fake_say(fds[0], WORKER_MSG_READY, plot.act == HALF_JAILED ? STAGES - 1 : STAGES);
	/* The hello of the VMM, which got the other end from the helper. */
	while (poll(&stream, 1, 20) == 0) {
		struct pollfd control = {.fd = fds[0], .events = POLLIN};

		if (poll(&control, 1, 0) > 0) {
			union worker_msg m;
			size_t n;

			if (fd_recv(fds[0], &m, sizeof(m), NULL, 0, &n) <= 0) {
				return 0;
			}
			if (m.header.type == WORKER_MSG_DETACH) {
				fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DETACHED);
				return 0;
			}
			fake_say(fds[0], WORKER_MSG_PONG, 0);
		}
	}
	if (read(fds[1], &byte, 1) != 1) {
		fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_PEER_CLOSED);
		return 0;
	}
	if (usb_after_ready(fds[0]) == 0 && (plot.act == CONFIGURES || plot.act == EJECTS)) {
		fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DETACHED);
	} else if (plot.act == FLUSH_FAILS) {
		union worker_msg m;
		size_t size = worker_msg_init(&m, WORKER_MSG_DONE);

		m.done.error = EIO;
		return fd_send(fds[0], &m, size, NULL, 0);
	}
	return 0;
}

static int run_qmp(int argc, char **argv, const int *fds, size_t n_fds)
{
	uint32_t status = QMP_STATUS_OK;

	fake_say(fds[0], WORKER_MSG_READY, STAGES);
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--op=attach") == 0) {
			status = plot.attach;
			/* The worker has its end as well, so the byte outlives this process. */
			if (status == QMP_STATUS_OK && (n_fds != 3 || write(fds[2], "h", 1) != 1)) {
				return 9;
			}
			if (status != QMP_STATUS_OK) {
				/* The worker's end of the stream closes before anybody says why. */
				close(fds[2]);
				usleep(100000);
			}
		} else if (strcmp(argv[i], "--op=detach") == 0) {
			status = plot.detach;
		}
	}
	fake_say(fds[0], WORKER_MSG_QMP, status);
	return 0;
}

static void start_vmm(struct lab *t)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int up[2], listener;
	char byte;

	unlink(t->qmp);
	assert_int_equal(pipe2(up, O_CLOEXEC), 0);
	t->vmm = fork();
	if (t->vmm == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listener = socket(AF_UNIX, SOCK_STREAM, 0);
		memcpy(addr.sun_path, t->qmp, strlen(t->qmp) + 1);
		if (bind(listener, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
			listen(listener, 4096) < 0 || write(up[1], "u", 1) != 1) {
			_exit(1);
		}
		for (;;) {
			pause();
		}
	}
	close(up[1]);
	assert_int_equal(read(up[0], &byte, 1), 1);
	close(up[0]);
}

static void kill_vmm(struct lab *t)
{
	if (t->vmm > 0) {
		kill(t->vmm, SIGKILL);
		waitpid(t->vmm, NULL, 0);
	}
	t->vmm = 0;
}

static int set_up(void **state)
{
	static struct lab t;
	struct config config = {.sandbox_stages = STAGES, .sandbox = strdup("full")};
	struct device_disk_options disk = {.name = "stick", .speed = "super"};
	struct vm_options vm = {.name = "win", .limits = {2, BYTES, TRANSFERS, 0, 0}, .qmp = t.qmp};
	struct refusal_text text = {0};

	t = (struct lab){.dir = "/tmp/test-lease-XXXXXX"};
	memset(&plot, 0, sizeof(plot));
	log_set_level(LOG_LEVEL_ERROR);
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.qmp, sizeof(t.qmp), "%s/qmp", t.dir);
	list_init(&config.vms);
	list_init(&config.disks);
	assert_int_equal(broker_init(&t.broker, &config, &t.spawner), 0);
	t.broker.run_dir = "/nonexistent"; /* nothing here outlives its broker */
	t.spawner = (struct spawner){.event = t.broker.event, .programs = {run_usb, run_qmp}};
	start_vmm(&t);
	assert_int_equal(vm_add(&t.broker, &vm, &t.vm, &text), 0);
	disk.image_fd = memfd_create("stick", MFD_CLOEXEC);
	assert_int_equal(ftruncate(disk.image_fd, 1 << 20), 0);
	assert_int_equal(device_add_disk(&t.broker, &disk, &t.device, &text), 0);
	*state = &t;
	return 0;
}

static void turn(struct lab *t, uint64_t usec)
{
	assert_true(sd_event_run(t->broker.event, usec) >= 0);
}

static bool in_state(struct lab *t, enum lease_state state)
{
	return device_state(t->device) == state;
}

static void run_to(struct lab *t, enum lease_state state, const char *reason)
{
	uint64_t begin = now_usec();

	while (!in_state(t, state) || (state == LEASE_PRESENT && t->broker.n_workers > 0)) {
		if (now_usec() - begin > 10 * USEC_PER_SEC) {
			fail_msg("%s (%s), not %s", lease_state_name(device_state(t->device)),
				device_reason(t->device), lease_state_name(state));
		}
		turn(t, 20000);
	}
	if (strcmp(device_reason(t->device), reason) != 0) {
		fail_msg("%s because of %s, not %s", lease_state_name(state),
			device_reason(t->device), reason);
	}
}

static void run_to_up(struct lab *t)
{
	while (t->vm->state != VM_UP) {
		turn(t, 20000);
	}
}

/* Nothing of it is held any more but, if it is decided, its place. */
static void check_nothing_left(struct lab *t, uint64_t devices)
{
	struct refusal_text text = {0};

	assert_int_equal(t->vm->devices.used, devices);
	assert_int_equal(t->vm->bytes.used, 0);
	assert_int_equal(t->vm->transfers.used, 0);
	assert_int_equal(image_probe(device_disk(t->device)->image_fd, false, "stick", &text), 0);
	while (t->broker.n_workers > 0) {
		turn(t, 20000);
	}
}

static int tear_down(void **state)
{
	struct lab *t = *state;
	uint64_t begin = now_usec();

	if (t->device->lease) {
		lease_release(t->device->lease, LEASE_REASON_SHUTDOWN);
	}
	while (t->device->lease || t->broker.n_workers > 0) {
		assert_true(now_usec() - begin < 10 * USEC_PER_SEC);
		turn(t, 20000);
	}
	check_nothing_left(t, 0);
	kill_vmm(t);
	broker_finish(&t->broker);
	unlink(t->qmp);
	rmdir(t->dir);
	/* No process, not even a zombie. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	return 0;
}

static void attach(struct lab *t)
{
	struct refusal_text text = {0};

	assert_int_equal(lease_create(t->device, t->vm, &options, &text), 0);
}

static void test_good(void **state)
{
	struct lab *t = *state;
	struct refusal_text text = {0};

	run_to_up(t);
	attach(t);
	assert_true(in_state(t, LEASE_CLAIMING));
	/* Charged and locked before the worker is. */
	assert_int_equal(t->vm->devices.used, 1);
	assert_int_equal(t->vm->bytes.used, BYTES);
	assert_int_equal(t->vm->transfers.used, TRANSFERS);
	assert_true(t->device->lease->taken);
	assert_true(fake_spawner_has_arg(&t->spawner, "--speed=super"));
	assert_true(fake_spawner_has_arg(&t->spawner, "--max-transfers=16"));
	assert_true(fake_spawner_has_arg(&t->spawner, "--max-bytes=2097152"));
	assert_true(fake_spawner_has_arg(&t->spawner, "--sandbox=full"));
	assert_false(fake_spawner_has_arg(&t->spawner, "--read-only"));
	run_to(t, LEASE_CONFIGURED, "");
	assert_true(t->device->lease->connect_usec > 0);
	assert_int_equal(strncmp(t->device->lease->qmp_id, "devbroker-", 10), 0);
	assert_int_equal(strlen(t->device->lease->qmp_id), 26);
	/* Asked for again, it is as it is; another VM can't have it. */
	assert_int_equal(lease_create(t->device, t->vm, &options, &text), 0);
	assert_true(in_state(t, LEASE_CONFIGURED));
	lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
	assert_true(in_state(t, LEASE_RELEASING));
	run_to(t, LEASE_PRESENT, "user-detach");
}

/* How each way to end is told, and whether it is tried again. */
static void test_ends(void **state)
{
	static const struct {
		enum act act;
		uint32_t attach;
		enum lease_state state;
		const char *reason;
	} cases[] = {
		{EJECTS, QMP_STATUS_OK, LEASE_PRESENT, "guest-ejected"},
		{SEES_CLOSED, QMP_STATUS_OK, LEASE_PRESENT, "vmm-unplugged"},
		{SEES_BAD, QMP_STATUS_OK, LEASE_PRESENT, "peer-violation"},
		{LOSES_DEVICE, QMP_STATUS_OK, LEASE_PRESENT, "io-error"},
		{LEAVES, QMP_STATUS_OK, LEASE_PRESENT, "worker-failed"},
		{HALF_JAILED, QMP_STATUS_OK, LEASE_PRESENT, "worker-failed"},
		{CONFIGURES, QMP_STATUS_REFUSED, LEASE_PRESENT, "vmm-refused"},
		{CONFIGURED_THEN_DIES, QMP_STATUS_OK, LEASE_DECIDED, "worker-died"},
		{CONFIGURES, QMP_STATUS_BAD_REPLY, LEASE_DECIDED, "qmp-failed"},
		{CONFIGURES, QMP_STATUS_TIMEOUT, LEASE_DECIDED, "qmp-failed"},
		{CONFIGURES, QMP_STATUS_NO_GREETING, LEASE_DECIDED, "vm-busy"},
	};
	struct lab *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		run_to_up(t);
		plot.act = cases[i].act;
		plot.attach = cases[i].attach;
		attach(t);
		run_to(t, cases[i].state, cases[i].reason);
		check_nothing_left(t, cases[i].state == LEASE_DECIDED ? 1 : 0);
		assert_true(device_detail(t->device)[0]);
		plot.act = CONFIGURES;
		plot.attach = QMP_STATUS_OK;
		if (cases[i].state == LEASE_DECIDED) {
			/* It comes back by itself. */
			run_to(t, LEASE_CONFIGURED, "");
			lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
			run_to(t, LEASE_PRESENT, "user-detach");
		}
	}
}

static void test_gives_up(void **state)
{
	struct lab *t = *state;
	uint64_t begin = now_usec();
	unsigned int forked;

	run_to_up(t);
	forked = t->spawner.n_forked;
	plot.act = CONFIGURED_THEN_DIES;
	attach(t);
	run_to(t, LEASE_PRESENT, "worker-died");
	/* After 1, 2 and 4 s; a worker, an attach and a detach each time. */
	assert_true(now_usec() - begin > 7 * USEC_PER_SEC);
	assert_int_equal(t->spawner.n_forked - forked, 12);
}

static void test_can_not_spawn(void **state)
{
	struct lab *t = *state;

	run_to_up(t);
	t->spawner.result = -EPIPE;
	attach(t);
	run_to(t, LEASE_DECIDED, "worker-failed");
	check_nothing_left(t, 1);
}

static void test_flush_fails(void **state)
{
	struct lab *t = *state;

	run_to_up(t);
	plot.act = FLUSH_FAILS;
	attach(t);
	run_to(t, LEASE_CONFIGURED, "");
	lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
	/* Not "user-detach": that would say that all is well. */
	run_to(t, LEASE_PRESENT, "io-error");
}

/* A VMM that does not confirm the unplug holds nothing of ours. */
static void test_detach_unconfirmed(void **state)
{
	static const uint32_t statuses[] = {QMP_STATUS_TIMEOUT, QMP_STATUS_BAD_REPLY,
		QMP_STATUS_REFUSED, QMP_STATUS_NO_GREETING, QMP_STATUS_CLOSED};
	struct lab *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		run_to_up(t);
		plot.detach = statuses[i];
		attach(t);
		run_to(t, LEASE_CONFIGURED, "");
		lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
		run_to(t, LEASE_PRESENT, "user-detach");
		check_nothing_left(t, 0);
		plot.detach = QMP_STATUS_OK;
		assert_int_equal(vm_probe(t->vm, NULL), 0);
	}
}

static void test_vm_comes_back(void **state)
{
	struct lab *t = *state;

	run_to_up(t);
	attach(t);
	run_to(t, LEASE_CONFIGURED, "");
	kill_vmm(t);
	run_to(t, LEASE_DECIDED, "vm-gone");
	assert_int_equal(t->vm->state, VM_GONE);
	check_nothing_left(t, 1);
	start_vmm(t);
	run_to(t, LEASE_CONFIGURED, "");
}

/* Told to let go after any number of turns of the loop, it ends, and leaves nothing. */
static void test_release_at_any_moment(void **state)
{
	struct lab *t = *state;
	unsigned int configured = 0;

	for (unsigned int turns = 0; turns < 60; turns++) {
		run_to_up(t);
		attach(t);
		for (unsigned int i = 0; i < turns; i++) {
			turn(t, 1000);
		}
		configured += in_state(t, LEASE_CONFIGURED);
		lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
		run_to(t, LEASE_PRESENT, "user-detach");
		check_nothing_left(t, 0);
	}
	/* The sweep went over the whole way. */
	assert_true(configured > 0);
}

static void test_vm_dies_at_any_moment(void **state)
{
	struct lab *t = *state;
	unsigned int configured = 0;

	run_to_up(t);
	attach(t);
	for (unsigned int turns = 0; turns < 60; turns += 2) {
		for (unsigned int i = 0; i < turns; i++) {
			turn(t, 1000);
		}
		configured += in_state(t, LEASE_CONFIGURED);
		kill_vmm(t);
		run_to(t, LEASE_DECIDED, "vm-gone");
		check_nothing_left(t, 1);
		start_vmm(t);
		run_to_up(t);
	}
	assert_true(configured > 0);
	run_to(t, LEASE_CONFIGURED, "");
}

static void test_waits_for_vm(void **state)
{
	struct lab *t = *state;

	run_to_up(t);
	kill_vmm(t);
	while (t->vm->state != VM_GONE) {
		turn(t, 20000);
	}
	attach(t);
	run_to(t, LEASE_DECIDED, "vm-gone");
	/* Let go, it is gone at once: nothing was going on. */
	lease_release(t->device->lease, LEASE_REASON_USER_DETACH);
	assert_null(t->device->lease);
	attach(t);
	start_vmm(t);
	run_to(t, LEASE_CONFIGURED, "");
}

static void test_refused_at_once(void **state)
{
	struct lab *t = *state;
	struct refusal_text text = {0};

	t->vm->devices.limit = 0;
	assert_int_equal(lease_create(t->device, t->vm, &options, &text), REFUSAL_QUOTA);
	assert_null(t->device->lease);
	assert_int_equal(t->vm->n_leases, 0);
	t->vm->devices.limit = 2;
	t->broker.stopping = true;
	assert_int_equal(lease_create(t->device, t->vm, &options, &text), REFUSAL_BUSY);
	t->broker.stopping = false;
	attach(t);
	assert_int_equal(device_remove(t->device, &text), REFUSAL_BUSY);
	assert_int_equal(vm_remove(t->vm, &text), REFUSAL_BUSY);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_good),
		TEST(test_ends),
		TEST(test_gives_up),
		TEST(test_can_not_spawn),
		TEST(test_flush_fails),
		TEST(test_detach_unconfirmed),
		TEST(test_vm_comes_back),
		TEST(test_release_at_any_moment),
		TEST(test_vm_dies_at_any_moment),
		TEST(test_waits_for_vm),
		TEST(test_refused_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
