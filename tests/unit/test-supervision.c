/* SPDX-License-Identifier: MIT
 * Workers good and bad as the broker sees them: heard, pinged, ended, reaped.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "broker/broker.h"
#include "broker/worker.h"
#include "tests/unit/fake-spawner.h"
#include "tests/unit/test.h"

#define USEC_PER_SEC UINT64_C(1000000)

struct watch {
	struct broker broker;
	struct spawner spawner;
	struct worker *worker;
	unsigned int n_ready;
	uint32_t stages;
	unsigned int n_messages;
	bool ended;
	enum worker_end end;
	int status;
	bool destroy_on_message;
};

static void on_ready(void *userdata, uint32_t stages)
{
	struct watch *t = userdata;

	t->n_ready++;
	t->stages = stages;
}

static void on_message(void *userdata, const union worker_msg *m)
{
	struct watch *t = userdata;

	t->n_messages++;
	if (t->destroy_on_message) {
		worker_destroy(t->worker);
		t->worker = NULL;
	}
}

static void on_ended(void *userdata, enum worker_end end, int status)
{
	struct watch *t = userdata;

	assert_false(t->ended);
	t->ended = true;
	t->end = end;
	t->status = status;
}

static const struct worker_ops ops = {
	.ready = on_ready,
	.message = on_message,
	.ended = on_ended,
};

static int set_up(void **state)
{
	static struct watch t;
	struct config config = {0};

	t = (struct watch){0};
	list_init(&config.vms);
	list_init(&config.disks);
	assert_int_equal(broker_init(&t.broker, &config, &t.spawner), 0);
	t.broker.uid_count = 4;
	t.spawner.event = t.broker.event;
	*state = &t;
	return 0;
}

static int tear_down(void **state)
{
	struct watch *t = *state;

	worker_destroy(t->worker);
	assert_int_equal(t->broker.n_workers, 0);
	for (size_t i = 0; i < sizeof(t->broker.uid_used); i++) {
		assert_int_equal(t->broker.uid_used[i], 0);
	}
	/* No zombie either. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	broker_finish(&t->broker);
	return 0;
}

static void start(struct watch *t, fake_program program)
{
	const char *args[] = {"--name=x"};

	t->spawner.programs[SPAWNER_USB] = t->spawner.programs[SPAWNER_QMP] = program;
	assert_int_equal(worker_start(&t->broker, SPAWNER_USB, "test", args, 1, NULL, 0, &ops, t,
				 &t->worker),
		0);
}

/* Returns the µs that it took. */
static uint64_t run_until(struct watch *t, bool (*reached)(struct watch *t), unsigned int seconds)
{
	uint64_t begin = now_usec();

	while (!reached(t)) {
		assert_true(now_usec() - begin < seconds * USEC_PER_SEC);
		assert_true(sd_event_run(t->broker.event, 50000) >= 0);
	}
	return now_usec() - begin;
}

static bool has_ended(struct watch *t)
{
	return t->ended;
}

static bool is_ready(struct watch *t)
{
	return t->n_ready > 0;
}

static bool none_left(struct watch *t)
{
	return t->broker.n_workers == 0;
}

static int good(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_ATTACHED);
	fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_CONFIGURED);
	if (fake_serve(fds[0]) == 0) {
		fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DETACHED);
	}
	return 0;
}

static void test_good(void **state)
{
	struct watch *t = *state;

	start(t, good);
	assert_true(fake_spawner_has_arg(&t->spawner, "--control-fd=3"));
	assert_true(fake_spawner_has_arg(&t->spawner, "--name=x"));
	run_until(t, is_ready, 5);
	assert_int_equal(t->stages, 7);
	/* Long enough for several pings. */
	for (uint64_t end = now_usec() + 2 * USEC_PER_SEC; now_usec() < end;) {
		assert_true(sd_event_run(t->broker.event, 50000) >= 0);
	}
	assert_false(t->ended);
	assert_int_equal(t->n_messages, 2);
	assert_true(t->broker.ping_seq >= 3);
	worker_detach(t->worker);
	assert_true(run_until(t, has_ended, 5) < USEC_PER_SEC);
	assert_int_equal(t->end, WORKER_END_DONE);
	assert_int_equal(t->status, 0);
	assert_int_equal(t->worker->done.reason, WORKER_DONE_DETACHED);
}

static int has_no_device(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DEVICE_BUSY);
	return 6;
}

static void test_done_instead_of_ready(void **state)
{
	struct watch *t = *state;

	start(t, has_no_device);
	run_until(t, has_ended, 5);
	assert_int_equal(t->n_ready, 0);
	assert_int_equal(t->end, WORKER_END_DONE);
	assert_int_equal(t->worker->done.reason, WORKER_DONE_DEVICE_BUSY);
}

static int ends_with_unread_ping(int argc, char **argv, const int *fds, size_t n_fds)
{
	struct pollfd ping = {.fd = fds[0], .events = POLLIN};

	fake_say(fds[0], WORKER_MSG_READY, 7);
	poll(&ping, 1, 5000);
	fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_PEER_CLOSED);
	return 0;
}

static void test_last_words_behind_a_ping(void **state)
{
	struct watch *t = *state;
	siginfo_t info;

	start(t, ends_with_unread_ping);
	run_until(t, is_ready, 5);
	while (t->broker.ping_seq == 0) {
		assert_true(sd_event_run(t->broker.event, 50000) >= 0);
	}
	/* Before anything is read of it. */
	waitid(P_PID, (id_t)worker_pid(t->worker), &info, WEXITED | WNOWAIT);
	run_until(t, has_ended, 5);
	assert_int_equal(t->end, WORKER_END_DONE);
	assert_int_equal(t->worker->done.reason, WORKER_DONE_PEER_CLOSED);
}

static int exits(int argc, char **argv, const int *fds, size_t n_fds)
{
	return 42;
}

static int dies(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	raise(SIGKILL);
	return 0;
}

static void test_ends_without_a_word(void **state)
{
	struct watch *t = *state;

	start(t, exits);
	run_until(t, has_ended, 5);
	assert_int_equal(t->end, WORKER_END_EXITED);
	assert_int_equal(t->status, 42);
	assert_int_equal(t->n_ready, 0);
}

static void test_dies(void **state)
{
	struct watch *t = *state;

	start(t, dies);
	run_until(t, has_ended, 5);
	assert_int_equal(t->end, WORKER_END_EXITED);
	assert_int_equal(t->status, -SIGKILL);
	/* What it said before is heard before its death is. */
	assert_int_equal(t->n_ready, 1);
}

static void send_raw(int control, const void *data, size_t size)
{
	if (fd_send(control, data, size, NULL, 0) < 0) {
		_exit(98);
	}
	pause();
}

static int too_short(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	send_raw(fds[0], "xyz", 3);
	return 0;
}

static int too_long(int argc, char **argv, const int *fds, size_t n_fds)
{
	char big[4096] = {0};

	fake_say(fds[0], WORKER_MSG_READY, 7);
	send_raw(fds[0], big, sizeof(big));
	return 0;
}

static int state_before_ready(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_CONFIGURED);
	pause();
	return 0;
}

static int ready_twice(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	fake_say(fds[0], WORKER_MSG_READY, 7);
	pause();
	return 0;
}

static int other_version(int argc, char **argv, const int *fds, size_t n_fds)
{
	union worker_msg m;
	size_t size = worker_msg_init(&m, WORKER_MSG_READY);

	m.ready.version = WORKER_PROTOCOL_VERSION + 1;
	send_raw(fds[0], &m, size);
	return 0;
}

static int wrong_direction(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	fake_say(fds[0], WORKER_MSG_DETACH, 0);
	pause();
	return 0;
}

static int unknown_state(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_COUNT_);
	pause();
	return 0;
}

static int smuggles_fd(int argc, char **argv, const int *fds, size_t n_fds)
{
	union worker_msg m;
	size_t size = worker_msg_init(&m, WORKER_MSG_PONG);
	int zero = 0;

	fake_say(fds[0], WORKER_MSG_READY, 7);
	if (fd_send(fds[0], &m, size, &zero, 1) < 0) {
		_exit(98);
	}
	pause();
	return 0;
}

static int floods(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	if (fd_set_nonblock(fds[0], false) < 0) {
		return 9;
	}
	while (getppid() != 1) {
		fake_say(fds[0], WORKER_MSG_PONG, 0);
	}
	return 0;
}

static void test_malformed(void **state)
{
	static const fake_program bad[] = {too_short, too_long, state_before_ready, ready_twice,
		other_version, wrong_direction, unknown_state, smuggles_fd, floods};
	struct watch *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		t->ended = false;
		t->n_ready = t->n_messages = 0;
		start(t, bad[i]);
		run_until(t, has_ended, 5);
		if (t->end != WORKER_END_BAD || t->status != -SIGKILL || t->n_messages != 0) {
			fail_msg("bad program %zu: end %d, status %d, %u messages", i, (int)t->end,
				t->status, t->n_messages);
		}
		worker_destroy(t->worker);
		t->worker = NULL;
	}
}

static int silent(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	while (getppid() != 1) {
		pause();
	}
	return 0;
}

static void test_silent(void **state)
{
	struct watch *t = *state;

	start(t, silent);
	run_until(t, is_ready, 5);
	assert_true(run_until(t, has_ended, 5) < 2 * USEC_PER_SEC);
	assert_int_equal(t->end, WORKER_END_HUNG);
	assert_int_equal(t->status, -SIGKILL);
}

static int stays(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	while (fake_serve(fds[0]) == 0) {
	}
	return 0;
}

static void test_stays_after_detach(void **state)
{
	struct watch *t = *state;
	uint64_t took;

	start(t, stays);
	run_until(t, is_ready, 5);
	worker_detach(t->worker);
	took = run_until(t, has_ended, 10);
	assert_true(took > 4 * USEC_PER_SEC && took < 7 * USEC_PER_SEC);
	assert_int_equal(t->end, WORKER_END_HUNG);
}

static int flushes(int argc, char **argv, const int *fds, size_t n_fds)
{
	fake_say(fds[0], WORKER_MSG_READY, 7);
	if (fake_serve(fds[0]) == 0) {
		fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_FLUSHING);
		for (unsigned int left = 7; left > 0;) {
			left = sleep(left);
		}
		fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DETACHED);
	}
	return 0;
}

static int flushes_and_answers(int argc, char **argv, const int *fds, size_t n_fds)
{
	pid_t pid;

	fake_say(fds[0], WORKER_MSG_READY, 7);
	if (fake_serve(fds[0]) != 0) {
		return 1;
	}
	fake_say(fds[0], WORKER_MSG_STATE, WORKER_STATE_FLUSHING);
	/* The disk thread, so to say. */
	pid = fork();
	if (pid == 0) {
		fake_serve(fds[0]);
		_exit(0);
	}
	for (unsigned int left = 7; left > 0;) {
		left = sleep(left);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fake_say(fds[0], WORKER_MSG_DONE, WORKER_DONE_DETACHED);
	return 0;
}

/* A long flush is waited for as long as the heartbeat goes on, and not without it. */
static void test_flushing(void **state)
{
	struct watch *t = *state;

	start(t, flushes_and_answers);
	run_until(t, is_ready, 5);
	worker_detach(t->worker);
	assert_true(run_until(t, has_ended, 10) > 6 * USEC_PER_SEC);
	assert_int_equal(t->end, WORKER_END_DONE);
	worker_destroy(t->worker);
	t->ended = false;
	t->n_ready = 0;
	start(t, flushes);
	run_until(t, is_ready, 5);
	worker_detach(t->worker);
	assert_true(run_until(t, has_ended, 5) < 3 * USEC_PER_SEC);
	assert_int_equal(t->end, WORKER_END_HUNG);
}

static void test_can_not_be_spawned(void **state)
{
	struct watch *t = *state;

	t->spawner.result = -EPIPE;
	start(t, good);
	assert_false(t->ended); /* never from within */
	run_until(t, has_ended, 5);
	assert_int_equal(t->end, WORKER_END_SPAWN);
	assert_int_equal(t->status, EPIPE);
}

/* Destroyed at each moment of its life, it is killed and reaped, and nobody is called. */
static void test_destroyed(void **state)
{
	struct watch *t = *state;

	start(t, silent);
	worker_destroy(t->worker);
	t->worker = NULL;
	run_until(t, none_left, 5);
	start(t, silent);
	run_until(t, is_ready, 5);
	worker_destroy(t->worker);
	t->worker = NULL;
	run_until(t, none_left, 5);
	t->destroy_on_message = true;
	start(t, good);
	run_until(t, none_left, 5);
	assert_int_equal(t->n_messages, 1);
	assert_false(t->ended);
	t->destroy_on_message = false;
	start(t, good);
	worker_kill(t->worker);
	run_until(t, has_ended, 5);
}

static void test_uids(void **state)
{
	struct watch *t = *state;
	struct worker *others[4] = {0};
	uint32_t seen = 0;

	t->spawner.programs[SPAWNER_USB] = silent;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		assert_int_equal(worker_start(&t->broker, SPAWNER_USB, "test", NULL, 0, NULL, 0,
					 &ops, t, &others[i]),
			0);
		assert_true(t->spawner.last.uid_slot < 4);
		seen |= 1U << t->spawner.last.uid_slot;
	}
	assert_int_equal(seen, 15);
	/* No two living workers share one. */
	assert_int_equal(worker_start(&t->broker, SPAWNER_USB, "test", NULL, 0, NULL, 0, &ops, t,
				 &t->worker),
		-EAGAIN);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		worker_destroy(others[i]);
	}
	run_until(t, none_left, 5);
}

/* One that answers pings and does nothing else does not hold its VM for ever. */
static void test_qmp_helper_has_a_deadline(void **state)
{
	struct watch *t = *state;

	t->spawner.programs[SPAWNER_QMP] = stays;
	assert_int_equal(worker_start(&t->broker, SPAWNER_QMP, "test", NULL, 0, NULL, 0, &ops, t,
				 &t->worker),
		0);
	run_until(t, is_ready, 5);
	assert_true(t->worker->end_deadline > now_usec() &&
		    t->worker->end_deadline < now_usec() + 31 * USEC_PER_SEC);
	t->worker->end_deadline = now_usec();
	run_until(t, has_ended, 5);
	assert_int_equal(t->end, WORKER_END_HUNG);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_good),
		TEST(test_done_instead_of_ready),
		TEST(test_last_words_behind_a_ping),
		TEST(test_ends_without_a_word),
		TEST(test_dies),
		TEST(test_malformed),
		TEST(test_silent),
		TEST(test_stays_after_detach),
		TEST(test_flushing),
		TEST(test_can_not_be_spawned),
		TEST(test_destroyed),
		TEST(test_uids),
		TEST(test_qmp_helper_has_a_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
