/* SPDX-License-Identifier: MIT
 * The renderer is killed at any moment while a guest works: every request comes back exactly once
 * with its fence, resources, picture and cursor are there again within a second, and neither VMM
 * nor display notices. And: nothing grows, however often things come and go.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "tests/gpu/gpu-case.h"
#include "tests/unit/test.h"

#define BGRX       VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define KILLS      15 /* of one backend: a parent gives up when there are too many in 10 s */
#define BATCH      100
#define BACK_MS    1000
#define LARGE_SIDE 1024u
#define LARGE_AT   0x800000u
#define SETTLE_MS  200

/* Which requests are on their way, and which fence each must have. */
struct flight {
	uint64_t fences[SIM_RING_MAX]; /* 0: not on its way */
	unsigned int n;
	unsigned int cut; /* kills that there was something on its way for */
};

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)random() % n;
}

static void nap_us(uint32_t us)
{
	nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

/* Offers a fenced command; false if there is no room. */
static bool offer(struct gpu_case *c, struct flight *f, void *command, size_t size)
{
	struct virtio_gpu_ctrl_hdr *hdr = command;
	int head;

	hdr->flags = VIRTIO_GPU_FLAG_FENCE;
	hdr->fence_id = ++c->sim.fence;
	head = sim_offer(&c->sim, SIM_CONTROL, command, size, 512);
	if (head < 0) {
		return false;
	}
	f->fences[head] = hdr->fence_id;
	f->n++;
	return true;
}

/* A mixture of what guests do; ids from 100 on come and go. */
static void offer_batch(struct gpu_case *c, struct flight *f, uint32_t side, uint32_t id)
{
	for (uint32_t i = 0; i < BATCH; i++) {
		struct virtio_gpu_transfer_to_host_2d transfer = {
			{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, {0, 0, side, side}, 0, id, 0};
		struct virtio_gpu_resource_flush flush = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {0, 0, side, side}, id, 0};
		struct virtio_gpu_resource_create_2d create = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, 100 + i, BGRX, 16, 16};
		struct virtio_gpu_resource_unref unref = {
			{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, 100 + i - 1, 0};
		struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
		bool fits = false;

		switch (i % 5) {
		case 0:
			fits = offer(c, f, &transfer, sizeof(transfer));
			break;
		case 1:
			fits = offer(c, f, &flush, sizeof(flush));
			break;
		case 2:
			fits = offer(c, f, &create, sizeof(create));
			break;
		case 3:
			fits = offer(c, f, &unref, sizeof(unref));
			break;
		default:
			fits = offer(c, f, &info, sizeof(info));
		}
		if (!fits) {
			break;
		}
	}
}

/* Takes one that came back, within ms. What came must have been on its way, with its fence, and
 * must have been a success: what is killed and done again is not refused as done twice. */
static bool take(struct gpu_case *c, struct flight *f, int ms)
{
	const struct virtio_gpu_ctrl_hdr *answer;
	uint32_t written;
	int head = sim_take(&c->sim, SIM_CONTROL, ms, &written);

	if (head == -1) {
		return false;
	}
	assert_true(head >= 0);
	assert_true(f->fences[head] != 0);
	assert_in_range(written, sizeof(*answer), 512);
	answer = sim_answer(&c->sim, SIM_CONTROL, head);
	assert_int_equal(answer->flags & VIRTIO_GPU_FLAG_FENCE, VIRTIO_GPU_FLAG_FENCE);
	assert_int_equal(answer->fence_id, f->fences[head]);
	assert_in_range(answer->type, VIRTIO_GPU_RESP_OK_NODATA, VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	f->fences[head] = 0;
	f->n--;
	return true;
}

static pid_t kill_renderer(struct gpu_case *c, pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	c->renderer = -1;
	return pid;
}

/* Kills while a batch is worked on; how long it took until all was back. */
static int64_t kill_in_flight(
	struct gpu_case *c, struct flight *f, pid_t *renderer, uint32_t after_us)
{
	struct sim_ring *ring = &c->sim.rings[SIM_CONTROL];
	int64_t start;

	sim_ring_kick(ring);
	nap_us(after_us);
	kill_renderer(c, *renderer);
	start = now_ms();
	f->cut += (uint16_t)(ring->used->idx - ring->last_used) < f->n;
	while (f->n > 0) {
		if (!take(c, f, 5000)) {
			fail_msg("%u requests never came back", f->n);
		}
	}
	/* Nothing comes a second time. */
	assert_false(take(c, f, 10));
	*renderer = case_renderer(c, *renderer);
	assert_true(*renderer > 0);
	return now_ms() - start;
}

static void kill_often(struct gpu_case *c, uint32_t side, uint64_t at, uint32_t max_us)
{
	struct sim *s = &c->sim;
	struct flight f = {0};
	pid_t renderer = c->renderer;
	int64_t longest = 0;
	int late = 0;
	const struct virtio_gpu_rect all = {0, 0, side, side};

	assert_int_equal(sim_show(s, 1, 0, side, side, at), 0);
	for (int i = 0; i < KILLS; i++) {
		const struct sim_scanout *o = &s->screen.scanouts[0];
		uint32_t *pixels = sim_memory_at(&s->vmm.memory, at);
		int64_t took;

		for (uint32_t k = 0; k < side * side; k++) {
			pixels[k] = (k * 40503u) ^ (uint32_t)random();
		}
		offer_batch(c, &f, side, 1);
		took = kill_in_flight(c, &f, &renderer, random_below(max_us));
		longest = MAX(longest, took);
		late += took >= BACK_MS;
		/* The resource is there and shown, without a word of the guest about it. */
		assert_int_equal(sim_transfer(s, 1, &all, 0), CASE_OK);
		assert_int_equal(sim_flush(s, 1, &all), CASE_OK);
		for (int k = 0; k < 200 && memcmp(o->pixels, pixels, (size_t)side * side * 4);
			k++) {
			sim_wait(s, 10);
		}
		assert_memory_equal(o->pixels, pixels, (size_t)side * side * 4);
		assert_string_equal(s->screen.wrong, "");
	}
	print_message("%d kills, %u of them with something on its way; the longest took %d ms\n",
		KILLS, f.cut, (int)longest);
	assert_true(f.cut >= 3);
	/* A machine that does much else makes one or the other wait. */
	assert_in_range(late, 0, KILLS / 3);
	/* To the display it is the same backend. */
	assert_int_equal(s->screen.n_messages[DISPLAY_GET_PROTOCOL_FEATURES], 1);
	assert_false(s->dead);
}

static void test_small(void **state)
{
	kill_often(*state, 64, SIM_PIXELS, 300);
}

static void test_large(void **state)
{
	kill_often(*state, LARGE_SIDE, LARGE_AT, 20000);
}

static void test_late(void **state)
{
	kill_often(*state, 256, SIM_PIXELS, 5000);
}

/* Killed while nothing is on its way: the picture, changed by nobody, stays what it was. */
static void test_idle(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const uint32_t *pixels;
	uint32_t *copy = malloc(CASE_BYTES);
	pid_t renderer = c->renderer;
	const struct virtio_gpu_rect one = {0, 0, 1, 1};

	assert_non_null(copy);
	case_check_serves(c, 1);
	pixels = case_paint(c, SIM_PIXELS, 18);
	memcpy(copy, pixels, CASE_BYTES);
	for (int i = 0; i < 5; i++) {
		renderer = case_renderer(c, kill_renderer(c, renderer));
		assert_true(renderer > 0);
		assert_int_equal(sim_flush(s, 1, &one), CASE_OK);
		case_check_picture(c, 0, copy);
	}
	free(copy);
	/* What was there is there: a second one of this id can't be. */
	assert_int_equal(sim_create(s, 1, BGRX, 8, 8), CASE_BAD_RESOURCE);
	assert_int_equal(sim_unref(s, 1), CASE_OK);
}

/* A broken queue stays broken in the next renderer, and works after the driver's reset. */
static void test_broken_queue(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	pid_t renderer = c->renderer;

	sim_ring_publish(&s->rings[SIM_CONTROL], UINT16_MAX);
	sim_ring_kick_always(&s->rings[SIM_CONTROL]);
	renderer = case_renderer(c, kill_renderer(c, renderer));
	assert_true(renderer > 0);
	assert_int_equal(sim_reboot(s), 0);
	case_check_serves(c, 1);
}

/* Stopped for a while, not killed: the front answers the VMM meanwhile, and nothing is lost. */
static void test_stopped(void **state)
{
	struct gpu_case *c = *state;
	struct flight f = {0};
	uint64_t features;

	assert_int_equal(sim_show(&c->sim, 1, 0, 64, 64, SIM_PIXELS), 0);
	assert_int_equal(kill(c->renderer, SIGSTOP), 0);
	offer_batch(c, &f, 64, 1);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	assert_false(take(c, &f, 300));
	assert_int_equal(sim_vmm_ask(&c->sim.vmm, VHOST_USER_GET_FEATURES, &features), 0);
	assert_int_equal(kill(c->renderer, SIGCONT), 0);
	while (f.n > 0) {
		assert_true(take(c, &f, 5000));
	}
	case_check_serves(c, 2);
}

/* Stopped for good, while it works and while it has nothing to do, and no VMM waits for anything:
 * another one does what is to be done. */
static void test_hangs(void **state)
{
	struct gpu_case *c = *state;
	struct sim_ring *ring = &c->sim.rings[SIM_CONTROL];
	pid_t renderer = c->renderer;
	struct flight f = {0};
	int64_t best = INT64_MAX;

	c->renderer = -1;
	assert_int_equal(sim_show(&c->sim, 1, 0, LARGE_SIDE, LARGE_SIDE, LARGE_AT), 0);
	for (int i = 0; i < 3; i++) {
		pid_t stopped = renderer;
		int64_t start;

		if (i == 0) {
			/* Longer than the front looks after it. */
			sim_wait(&c->sim, 1000);
			assert_int_equal(kill(stopped, SIGSTOP), 0);
		}
		offer_batch(c, &f, LARGE_SIDE, 1);
		sim_ring_kick(ring);
		if (i > 0) {
			nap_us(random_below(10000));
			assert_int_equal(kill(stopped, SIGSTOP), 0);
		}
		start = now_ms();
		f.cut += (uint16_t)(ring->used->idx - ring->last_used) < f.n;
		while (f.n > 0) {
			assert_true(take(c, &f, 10000));
		}
		if (kill(stopped, 0) < 0) {
			best = MIN(best, now_ms() - start);
			renderer = case_renderer(c, stopped);
		} else {
			assert_int_equal(kill(stopped, SIGCONT), 0);
		}
	}
	print_message(
		"%u hung with something on its way; back after %d ms at best\n", f.cut, (int)best);
	assert_true(f.cut >= 1);
	/* 2 s until it is noticed, 1 s as for any that ended. */
	assert_in_range(best, 0, 3000);
	case_check_serves(c, 2);
}

/* Killed again and again before it is up. */
static void test_in_a_row(void **state)
{
	struct gpu_case *c = *state;
	struct flight f = {0};
	pid_t renderer = c->renderer;

	assert_int_equal(sim_show(&c->sim, 1, 0, 64, 64, SIM_PIXELS), 0);
	offer_batch(c, &f, 64, 1);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	for (int i = 0; i < 8; i++) {
		kill_renderer(c, renderer);
		renderer = case_renderer(c, renderer);
		assert_true(renderer > 0);
		nap_us(random_below(3000));
	}
	while (f.n > 0) {
		assert_true(take(c, &f, 5000));
	}
	assert_false(take(c, &f, 10));
	case_check_serves(c, 2);
}

/* What a guest does that is rebooted for ever, with a display that comes and goes. */
static void come_and_go(struct gpu_case *c, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		for (uint32_t id = 1; id <= 8; id++) {
			assert_int_equal(
				sim_show(&c->sim, id, id % 4, CASE_WIDTH, CASE_HEIGHT, SIM_PIXELS),
				0);
			assert_int_equal(sim_transfer(&c->sim, id, &case_all, 0), CASE_OK);
			assert_int_equal(sim_flush(&c->sim, id, &case_all), CASE_OK);
		}
		for (uint32_t id = 1; id <= 8 && i % 2; id++) {
			assert_int_equal(sim_unref(&c->sim, id), CASE_OK);
		}
		assert_int_equal(sim_reboot(&c->sim), 0);
	}
	for (int64_t end = now_ms() + SETTLE_MS; now_ms() < end;) {
		sim_wait(&c->sim, 20);
	}
}

static void test_nothing_grows(void **state)
{
	struct gpu_case *c = *state;
	struct sim_backend *b = &c->sim.backend;
	unsigned int fds;
	uint64_t rss;

	come_and_go(c, 20);
	fds = sim_backend_fds(b);
	rss = sim_backend_rss(b);
	come_and_go(c, 200);
	print_message("%u fds and %llu KiB, before %u and %llu\n", sim_backend_fds(b),
		(unsigned long long)sim_backend_rss(b) >> 10, fds, (unsigned long long)rss >> 10);
	assert_int_equal(sim_backend_fds(b), fds);
	/* A sanitizer keeps what was freed for a while. */
	if (!getenv("GPU_CASE_SANITIZED")) {
		assert_true(sim_backend_rss(b) < rss + (1U << 20));
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, case_setup, case_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_small),
		TEST(test_late),
		TEST(test_large),
		TEST(test_idle),
		TEST(test_broken_queue),
		TEST(test_stopped),
		TEST(test_hangs),
		TEST(test_in_a_row),
		TEST(test_nothing_grows),
	};
	const unsigned int seed = (unsigned int)time(NULL);

	srandom(seed);
	print_message("seed %u\n", seed);
	return cmocka_run_group_tests_name("gpu-kills", tests, NULL, NULL);
}
