/* SPDX-License-Identifier: MIT
 * Renderers that are killed at any instant: each request is answered exactly once and as if nothing
 * had happened, the picture is back, and a journal full of nonsense harms nobody.
 *
 * GPU_KILLS in the environment: how many of each kind, default 60.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/integration/fake-front.h"
#include "tests/unit/test.h"

#define BGRX  VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define SIDE  64
#define BYTES (SIDE * SIDE * 4)
#define AREA  (8U << 20) /* where the guest has its pixels */

enum {
	OK = VIRTIO_GPU_RESP_OK_NODATA,
	UNSPEC = VIRTIO_GPU_RESP_ERR_UNSPEC,
	BAD_RESOURCE = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
};

struct expected {
	uint32_t type;
	uint64_t fence;
};

struct rig {
	struct fake_front *f;
	struct expected expected[RING_SIZE]; /* by head, of the control ring */
	uint32_t n_waiting;
	uint64_t fence;
	uint64_t answered;
};

static int kills(void)
{
	const char *text = getenv("GPU_KILLS");

	return text ? atoi(text) : 60;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	srand(11);
	r->f = fake_front_create();
	fake_front_start(r->f, "64M");
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	fake_front_destroy(r->f);
	free(r);
	return 0;
}

union command {
	struct virtio_gpu_ctrl_hdr hdr;
	struct virtio_gpu_resource_create_2d create;
	struct virtio_gpu_resource_unref unref;
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e;
	} attach;
	struct virtio_gpu_resource_detach_backing detach;
	struct virtio_gpu_transfer_to_host_2d transfer;
	struct virtio_gpu_set_scanout scanout;
	struct virtio_gpu_resource_flush flush;
};

static void offer(struct rig *r, union command *c, size_t size, uint32_t type)
{
	uint16_t head;

	c->hdr.flags = VIRTIO_GPU_FLAG_FENCE;
	c->hdr.fence_id = ++r->fence;
	head = fake_ring_offer(r->f, CONTROL, c, size, ANSWER_ROOM);
	r->expected[head] = (struct expected){type, r->fence};
	r->n_waiting++;
}

#define OFFER(r, want, member, ...)                         \
	do {                                                \
		union command c_ = {.member = __VA_ARGS__}; \
		offer(r, &c_, sizeof(c_.member), want);     \
	} while (0)

/* Everything that can be done to a resource, in an order in which each command has one right
 * answer, and a second execution of nearly each of them another. */
static void offer_life(struct rig *r, uint32_t id)
{
	const struct virtio_gpu_rect all = {0, 0, SIDE, SIDE};
	const uint64_t addr = AREA + id * BYTES;

	OFFER(r, OK, create, {{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, BGRX, SIDE, SIDE});
	OFFER(r, UNSPEC, transfer, {{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	OFFER(r, OK, attach,
		{{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 1}, {addr, BYTES, 0}});
	OFFER(r, VIRTIO_GPU_RESP_OK_DISPLAY_INFO, hdr, {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO});
	OFFER(r, OK, transfer, {{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, id % 2, id});
	OFFER(r, OK, flush, {{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, all, id, 0});
	OFFER(r, OK, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
	OFFER(r, UNSPEC, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
	OFFER(r, OK, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
	OFFER(r, BAD_RESOURCE, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
}

/* Takes one answer; false if none comes in ms. */
static bool take(struct rig *r, int ms)
{
	const struct virtio_gpu_ctrl_hdr *a;
	uint32_t written;
	int head = fake_ring_next(r->f, CONTROL, ms, &written);

	if (head < 0) {
		return false;
	}
	a = fake_answer(r->f, CONTROL, (uint16_t)head);
	assert_int_equal(a->type, r->expected[head].type);
	assert_int_equal(a->flags, VIRTIO_GPU_FLAG_FENCE);
	assert_true(a->fence_id == r->expected[head].fence);
	assert_int_equal(written, a->type == VIRTIO_GPU_RESP_OK_DISPLAY_INFO
					  ? sizeof(struct virtio_gpu_resp_display_info)
					  : sizeof(*a));
	r->n_waiting--;
	r->answered++;
	return true;
}

static void take_all(struct rig *r)
{
	while (r->n_waiting > 0) {
		assert_true(take(r, 5000));
	}
	/* And nothing more. */
	assert_false(take(r, 1));
}

static void replace(struct rig *r)
{
	fake_front_kill(r->f);
	fake_front_start(r->f, "64M");
}

/* At random times, while a guest has its ring full. */
static void killed_at_work(void **state)
{
	struct rig *r = *state;
	uint32_t id = 0;

	for (int i = 0; i < kills(); i++) {
		const struct timespec t = {.tv_nsec = rand() % 400000};

		while (r->n_waiting + 11 <= RING_HEADS) {
			offer_life(r, 1 + id++ % 100);
		}
		fake_ring_kick(r->f, CONTROL);
		while (rand() % 4 && take(r, 0)) {
		}
		nanosleep(&t, NULL);
		replace(r);
		if (i % 5 == 0) {
			take_all(r);
		}
	}
	take_all(r);
	assert_true(r->answered >= 11U * (uint32_t)kills() / 5);
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
			if (spins > 20000) {
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
	replace(r);
	/* How long it is altogether: once without a kill. */
	for (int i = 0; !asleep; i++) {
		if (i == 0) {
			offer_life(r, 1);
			hold(r);
			fake_ring_kick(r->f, CONTROL);
		}
		asleep = !step(r, 100);
		length += 100;
	}
	replace(r);
	take_all(r);
	assert_in_range(length, 1000, 1000000);
	stride = length / (kills() / 3 + 1) + 1; /* each takes its time */
	for (at = rand() % stride; at < length; at += stride, n++) {
		offer_life(r, 1 + (uint32_t)n % 100);
		hold(r);
		fake_ring_kick(r->f, CONTROL);
		step(r, at);
		replace(r);
		take_all(r);
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
	replace(r);
	n = step_until_shown(r);
	replace(r);
	take_all(r);
	for (long k = -25; k < 60; k++) {
		if (k < 0) {
			offer_three(r);
			step(r, n + k);
		} else {
			n = step_until_shown(r);
			step(r, k);
		}
		replace(r);
		take_all(r);
	}
}

static void check_scanout(struct rig *r, uint32_t n, uint32_t id)
{
	union link_msg m;
	void *p;

	while (r->f->image_fds[n] < 0) {
		assert_true(fake_front_wait(r->f, LINK_SCANOUT, &m, 5000));
	}
	p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, r->f->image_fds[n], 0);
	assert_true(p != MAP_FAILED);
	assert_memory_equal(p, r->f->guest + AREA + id * BYTES, BYTES);
	munmap(p, BYTES);
}

static void brings_the_picture_back(void **state)
{
	const struct virtio_gpu_rect all = {0, 0, SIDE, SIDE}, half = {16, 8, 32, 16};
	const struct virtio_gpu_update_cursor cursor = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {1, 50, 60, 0}, 3, 4, 5, 0};
	struct virtio_gpu_update_cursor move = cursor;
	struct rig *r = *state;
	struct journal_cursor got;
	struct timespec start, end;
	bool fresh;
	uint32_t written;

	for (uint32_t i = 0; i < 4 * BYTES; i++) {
		r->f->guest[AREA + i] = (uint8_t)(i * 7 + i / 255);
	}
	for (uint32_t id = 1; id <= 3; id++) {
		OFFER(r, OK, create,
			{{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, BGRX, SIDE, SIDE});
		OFFER(r, OK, attach,
			{{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 1},
				{AREA + id * BYTES, BYTES, 0}});
		OFFER(r, OK, transfer,
			{{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	}
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, 0, 1});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, 0, 2});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, half, 1, 1});
	fake_ring_kick(r->f, CONTROL);
	take_all(r);
	fake_ring_offer(r->f, CURSOR, &cursor, sizeof(cursor), 0);
	fake_ring_kick(r->f, CURSOR);
	assert_true(fake_ring_next(r->f, CURSOR, 5000, &written) >= 0);
	for (int i = 0; i < 5; i++) {
		clock_gettime(CLOCK_MONOTONIC, &start);
		replace(r);
		memset(r->f->scanouts, 0, sizeof(r->f->scanouts));
		check_scanout(r, 0, 2);
		clock_gettime(CLOCK_MONOTONIC, &end);
		assert_true((end.tv_sec - start.tv_sec) * 1000 +
				    (end.tv_nsec - start.tv_nsec) / 1000000 <
			    1000);
		check_scanout(r, 1, 1);
		assert_int_equal(r->f->scanouts[1].x, 16);
		assert_int_equal(r->f->scanouts[1].scanout_height, 16);
		/* The cursor's image and hot spot are what they were when it moves on. */
		move.hdr.type = VIRTIO_GPU_CMD_MOVE_CURSOR;
		move.pos.x = 100 + (uint32_t)i;
		move.resource_id = 0;
		fake_ring_offer(r->f, CURSOR, &move, sizeof(move), 0);
		fake_ring_kick(r->f, CURSOR);
		assert_true(fake_ring_next(r->f, CURSOR, 5000, &written) >= 0);
		assert_true(journal_take_cursor(r->f->journal, &r->f->reader, 1, &got, &fresh));
		assert_int_equal(fresh, i == 0);
		assert_true(got.x == 100U + (uint32_t)i && got.hot_x == 4 && got.resource_id == 3);
	}
	/* All three are there, and still backed. */
	for (uint32_t id = 1; id <= 3; id++) {
		OFFER(r, OK, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
		OFFER(r, OK, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
	}
	fake_ring_kick(r->f, CONTROL);
	take_all(r);
}

/* Killed between STOP and STOPPED, or when it was stopped: the next one knows where. */
static void stopped(void **state)
{
	struct rig *r = *state;

	offer_life(r, 1);
	fake_ring_kick(r->f, CONTROL);
	take_all(r);
	assert_int_equal(fake_ring_stop(r->f, CONTROL), 11);
	replace(r); /* is sent the START of that run again */
	assert_int_equal(fake_ring_stop(r->f, CONTROL), 11);
	/* The VMM starts it anew, from zero. */
	fake_ring_reset(r->f, CONTROL);
	offer_life(r, 2);
	fake_ring_kick(r->f, CONTROL);
	take_all(r);
}

static void garble(struct rig *r, int kind)
{
	struct journal *j = r->f->journal;
	uint8_t *bytes = (uint8_t *)j->queues;
	size_t size = offsetof(struct journal, entries) - offsetof(struct journal, queues);

	for (int i = 0; i < 200; i++) {
		switch (kind) {
		case 0: /* any bytes anywhere */
			bytes[(size_t)rand() % size] = (uint8_t)rand();
			break;
		case 1: { /* resources that nearly can be */
			struct journal_resource *res = &j->resources[rand() % JOURNAL_RESOURCES];

			*res = (struct journal_resource){.created = 1,
				.attached = 1,
				.id = 1 + (uint32_t)rand() % 20,
				.format = rand() % 3 ? 1 : (uint32_t)rand(),
				.width = 1U << rand() % 32,
				.height = 1U << rand() % 16,
				.first_entry = (uint32_t)rand() % (2 * JOURNAL_ENTRIES),
				.n_entries = (uint32_t)rand() % 20000};
			j->done = 5;
			break;
		}
		case 2: /* scanouts of anything */
			j->scanouts[i % 2].versions[i / 2 % 2].order = (uint64_t)rand() % 4;
			j->scanouts[i % 2].versions[i / 2 % 2].resource_id = (uint32_t)rand() % 20;
			j->scanouts[i % 2].versions[i / 2 % 2].width = (uint32_t)rand();
			j->scanouts[i % 2].versions[i / 2 % 2].x = (uint32_t)rand();
			break;
		case 3: /* heads in flight that nobody offered */
			j->queues[i % 2].heads[rand() % JOURNAL_HEADS] =
				(struct journal_head){.order = (uint64_t)rand() % 100,
					.written = (uint32_t)rand(),
					.used_at = (uint16_t)rand(),
					.state = (uint16_t)(rand() % 4)};
			break;
		case 4:
			j->done = rand() % 2 ? UINT64_MAX : (uint64_t)rand() << 33;
			break;
		default:
			j->queues[i % 2].published = (uint16_t)rand();
			j->queues[i % 2].publishing = (uint16_t)rand();
			break;
		}
	}
}

static void hostile_journal(void **state)
{
	struct rig *r = *state;

	for (int i = 0; i < kills(); i++) {
		union link_msg m;

		offer_life(r, 1);
		fake_ring_kick(r->f, CONTROL);
		take_all(r);
		OFFER(r, OK, create,
			{{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, 7, BGRX, SIDE, SIDE});
		fake_ring_kick(r->f, CONTROL);
		take_all(r);
		fake_front_kill(r->f);
		garble(r, i % 6);
		fake_front_start(r->f, "64M");
		/* It lives, and a driver that resets the device has a working one. */
		for (uint32_t q = 0; q < LINK_QUEUES; q++) {
			fake_ring_stop(r->f, q);
		}
		link_init(&m, LINK_RESET);
		fake_front_send(r->f, &m, NULL, 0);
		assert_true(fake_front_wait(r->f, LINK_DONE, &m, 5000));
		fake_ring_reset(r->f, CONTROL);
		fake_ring_reset(r->f, CURSOR);
		link_init(&m, LINK_PING);
		fake_front_send(r->f, &m, NULL, 0);
		assert_true(fake_front_wait(r->f, LINK_PONG, &m, 5000));
		assert_int_equal(m.pong.resources, 0);
		assert_int_equal(m.pong.bytes, 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(killed_at_work),
		TEST(killed_at_each_step),
		TEST(killed_while_publishing),
		TEST(brings_the_picture_back),
		TEST(stopped),
		TEST(hostile_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
