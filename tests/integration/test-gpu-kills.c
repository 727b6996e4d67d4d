/* SPDX-License-Identifier: MIT
 * Renderers that are killed at any instant: each request is answered exactly once, and as if
 * nothing had happened. GPU_NO_STEPS in the environment leaves out what single-steps them.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/integration/gpu-guest.h"
#include "tests/unit/test.h"

/* 8 MiB, to be copied in slices. */
static void offer_large(struct rig *r)
{
	const struct virtio_gpu_rect all = {0, 0, 2048, 1024};

	OFFER(r, OK, create, {{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, 500, BGRX, 2048, 1024});
	OFFER(r, OK, attach,
		{{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, 500, 1}, {AREA, 8 << 20, 0}});
	OFFER(r, OK, transfer, {{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, 500, 0});
	OFFER(r, OK, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, 500, 0});
	OFFER(r, OK, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, 500, 0});
}

/* In the middle of a copy that the cursor's requests interrupt. */
static void killed_in_a_pause(void **state)
{
	struct rig *r = *state;
	uint32_t paused = 0;

	for (int i = 0; i < guest_kills(); i++) {
		const struct timespec t = {.tv_nsec = 100000};

		offer_large(r);
		fake_ring_kick(r->f, CONTROL);
		for (int k = rand() % 20; k >= 0; k--) {
			guest_move_cursor(r);
			nanosleep(&t, NULL);
		}
		fake_front_kill(r->f);
		for (uint32_t h = 0; h < RING_SIZE; h++) {
			paused += r->f->journal->queues[CONTROL].heads[h].order != 0 &&
				  r->f->journal->queues[CONTROL].heads[h].state == JOURNAL_PAUSED;
		}
		fake_front_start(r->f, "64M");
		guest_take_all(r);
	}
	assert_true(paused > 0);
}

/* At random times, while a guest has its ring full. */
static void killed_at_work(void **state)
{
	struct rig *r = *state;
	uint32_t id = 0;

	for (int i = 0; i < guest_kills(); i++) {
		const struct timespec t = {.tv_nsec = rand() % 400000};

		while (r->n_waiting + 11 <= RING_HEADS) {
			guest_offer_life(r, 1 + id++ % 100);
		}
		fake_ring_kick(r->f, CONTROL);
		while (rand() % 4 && guest_take(r, 0)) {
		}
		nanosleep(&t, NULL);
		guest_replace(r);
		if (i % 5 == 0) {
			guest_take_all(r);
		}
	}
	guest_take_all(r);
	assert_true(r->answered >= 11U * (uint32_t)guest_kills() / 5);
}

/* Whether the renderer waits in the kernel: on a busy machine it may just not have had its turn. */
static bool sleeps(const struct rig *r)
{
	char path[32], text[256] = "";
	const char *state;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", r->f->pid);
	f = fopen(path, "re");
	assert_non_null(f);
	if (!fgets(text, sizeof(text), f)) {
		text[0] = '\0';
	}
	fclose(f);
	state = strrchr(text, ')');
	return state && strncmp(state, ") S", 3) == 0;
}

/* Runs the renderer for a number of instructions. false: it went to sleep before. */
static bool step(const struct rig *r, long n)
{
	int status;

	for (long i = 0; i < n; i++) {
		if (ptrace(PTRACE_SINGLESTEP, r->f->pid, NULL, NULL) < 0) {
			return false;
		}
		/* Nobody steps a system call that waits: epoll_wait returns only when kicked. */
		for (int spins = 0;; spins++) {
			pid_t got = waitpid(r->f->pid, &status, __WALL | WNOHANG);

			assert_true(got >= 0);
			if (got > 0) {
				break;
			}
			if (spins > 2000000 || (spins > 20000 && spins % 1000 == 0 && sleeps(r))) {
				return false;
			}
			sched_yield();
		}
	}
	return true;
}

static void hold(const struct rig *r)
{
	assert_int_equal(ptrace(PTRACE_SEIZE, r->f->pid, NULL, NULL), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, r->f->pid, NULL, NULL), 0);
	assert_true(waitpid(r->f->pid, &(int){0}, __WALL) > 0);
}

/* Exactly behind an instruction, from the kick on, further on each time; not only where a random
 * time falls, which is mostly a copy. */
static void killed_at_each_step(void **state)
{
	struct rig *r = *state;
	long at = 0, stride, length = 0;
	bool asleep = false;
	int n = 0;

	if (getenv("GPU_NO_STEPS")) {
		skip();
	}
	r->f->stages = 0;
	guest_replace(r);
	/* How long it is altogether: once without a kill. */
	for (int i = 0; !asleep; i++) {
		if (i == 0) {
			guest_offer_life(r, 1);
			hold(r);
			fake_ring_kick(r->f, CONTROL);
		}
		asleep = !step(r, 100);
		length += 100;
	}
	guest_replace(r);
	guest_take_all(r);
	assert_in_range(length, 1000, 1000000);
	stride = length / (guest_kills() / 3 + 1) + 1; /* each takes its time */
	for (at = rand() % stride; at < length; at += stride, n++) {
		guest_offer_life(r, 1 + (uint32_t)n % 100);
		hold(r);
		fake_ring_kick(r->f, CONTROL);
		step(r, at);
		guest_replace(r);
		guest_take_all(r);
	}
	print_message("%d kills, one each %ld of %ld instructions\n", n, stride, length);
}

/* Three requests in one batch, for a renderer that is held. */
static void offer_three(struct rig *r)
{
	for (uint32_t id = 200; id < 203; id++) {
		OFFER(r, BAD_RESOURCE, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
	}
	hold(r);
	fake_ring_kick(r->f, CONTROL);
}

/* The same, until the guest has been shown the answers. Returns the number of steps. */
static long step_until_shown(struct rig *r)
{
	uint16_t before = r->f->rings[CONTROL].seen;
	long n = 0;

	offer_three(r);
	while (fake_ring_used(r->f, CONTROL) == before) {
		assert_true(step(r, 1));
		n++;
	}
	return n;
}

/* Behind each instruction of the few around the store that shows the guest its answers. */
static void killed_while_publishing(void **state)
{
	struct rig *r = *state;
	long n;

	if (getenv("GPU_NO_STEPS")) {
		skip();
	}
	r->f->stages = 0;
	guest_replace(r);
	n = step_until_shown(r);
	guest_replace(r);
	guest_take_all(r);
	for (long k = -25; k < 60; k++) {
		if (k < 0) {
			offer_three(r);
			step(r, n + k);
		} else {
			n = step_until_shown(r);
			step(r, k);
		}
		guest_replace(r);
		guest_take_all(r);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, guest_setup, guest_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(killed_at_work),
		TEST(killed_in_a_pause),
		TEST(killed_at_each_step),
		TEST(killed_while_publishing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
