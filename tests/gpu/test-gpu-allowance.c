/* SPDX-License-Identifier: MIT
 * Renderers that have a page to keep to, and guests in front of them: without time, granted again,
 * stopped meanwhile, with frames that come at a rate, with limits that change, with two contexts of
 * which one draws more, with nonsense on the page.
 */
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "tests/gpu/gpu-paged.h"
#include "tests/gpu/sim-draw.h"
#include "tests/unit/test.h"

#define MS       UINT64_C(1000000)
#define OK       VIRTIO_GPU_RESP_OK_NODATA
#define OVER     VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY
#define BGRX     VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define COMMANDS 0x1000000u

static const struct virtio_gpu_rect all = {0, 0, PAGED_WIDTH, PAGED_HEIGHT};

static int begin(void **state, bool virgl)
{
	struct paged *p = calloc(1, sizeof(*p));

	*state = p;
	return p ? paged_start(p, virgl, -1) : -1;
}

static int set_up(void **state)
{
	return begin(state, false);
}

static int set_up_3d(void **state)
{
	return begin(state, true);
}

static int tear_down(void **state)
{
	struct paged *p = *state;
	bool fine = paged_stop(p);

	free(p);
	return fine ? 0 : -1;
}

static int offer_flush(struct paged *p, uint32_t id)
{
	const struct virtio_gpu_resource_flush c = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, all, id, 0};

	return sim_offer(&p->sim, SIM_CONTROL, &c, sizeof(c), 24);
}

static void kick(struct paged *p)
{
	sim_ring_kick(&p->sim.rings[SIM_CONTROL]);
}

/* How many come back within ms. */
static int take(struct paged *p, int n, int ms)
{
	int64_t end = now_ms() + ms;
	uint32_t written;
	int got = 0;

	while (got < n && now_ms() < end &&
		sim_take(&p->sim, SIM_CONTROL, (int)MAX(end - now_ms(), 0), &written) >= 0) {
		got++;
	}
	return got;
}

static bool waits(struct paged *p, bool wanted)
{
	int64_t end = now_ms() + 5000;

	while (atomic_load(&p->page->waits) != wanted && now_ms() < end) {
		poll(NULL, 0, 1);
	}
	return atomic_load(&p->page->waits) == wanted;
}

static bool cursor_moves(struct paged *p)
{
	const struct virtio_gpu_update_cursor c = {
		{.type = VIRTIO_GPU_CMD_MOVE_CURSOR}, {0, 7, 7, 0}, 0, 0, 0, 0};
	int head = sim_offer(&p->sim, SIM_CURSOR, &c, sizeof(c), 24);
	uint32_t written;

	sim_ring_kick(&p->sim.rings[SIM_CURSOR]);
	return head >= 0 && sim_take(&p->sim, SIM_CURSOR, 2000, &written) == head;
}

static void without_time(void **state)
{
	struct paged *p = *state;
	pid_t renderer = paged_renderer(p, -1);
	uint64_t cpu, features;
	int64_t began;

	assert_int_equal(sim_show(&p->sim, 1, 0, PAGED_WIDTH, PAGED_HEIGHT, SIM_PIXELS), 0);
	assert_int_equal(paged_wanted(p), 0);
	atomic_store(&p->page->granted_ns, 1);
	for (int i = 0; i < 3; i++) {
		assert_true(offer_flush(p, 1) >= 0);
	}
	kick(p);
	assert_true(waits(p, true));
	assert_int_equal(take(p, 1, 100), 0);
	assert_int_equal(paged_wanted(p), 1);
	/* Longer than the front waits for one that hangs, and it costs nothing. */
	cpu = paged_cpu_ns(renderer);
	began = now_ms();
	while (now_ms() - began < 2500) {
		assert_true(cursor_moves(p));
		assert_int_equal(sim_vmm_ask(&p->sim.vmm, VHOST_USER_GET_FEATURES, &features), 0);
		poll(NULL, 0, 100);
	}
	assert_in_range(paged_cpu_ns(renderer) - cpu, 0, 50 * MS);
	assert_int_equal(sim_backend_find(&p->sim.backend, "--renderer"), renderer);
	/* A bell without a grant is none; it is not asked for again. */
	paged_ring(p);
	assert_int_equal(take(p, 1, 100), 0);
	assert_int_equal(paged_wanted(p), 0);
	paged_grant(p, ALLOWANCE_UNBOUNDED);
	assert_int_equal(take(p, 3, 5000), 3);
	assert_true(waits(p, false));
	assert_in_range(atomic_load(&p->page->waited_ns), 2400 * MS, 60000 * MS);
	/* What it used is what it took of the CPU. */
	assert_int_equal(sim_flush(&p->sim, 1, &all), OK);
	assert_true(cursor_moves(p));
	assert_in_range(atomic_load(&p->page->used_ns), 1, paged_cpu_ns(renderer));
}

/* Nothing of what waits was taken: the ring stops at once, and the VMM may go. */
static void stopped_without_time(void **state)
{
	struct paged *p = *state;
	uint32_t base;
	int64_t began;

	for (int i = 0; i < 3; i++) {
		atomic_store(&p->page->granted_ns, 1);
		assert_true(offer_flush(p, 1) >= 0);
		assert_true(offer_flush(p, 1) >= 0);
		kick(p);
		assert_true(waits(p, true));
		began = now_ms();
		assert_int_equal(sim_vmm_ring_stop(&p->sim.vmm, SIM_CONTROL, &base), 0);
		assert_in_range(now_ms() - began, 0, 1000);
		assert_int_equal(base, i);
		assert_true(waits(p, false));
		/* A guest's reboot: all over again. */
		assert_int_equal(sim_vmm_ring_stop(&p->sim.vmm, SIM_CURSOR, &base), 0);
		assert_int_equal(sim_driver_ok(&p->sim, p->sim.vmm.acked), 0);
		paged_grant(p, ALLOWANCE_UNBOUNDED);
		for (int n = 0; n <= i; n++) {
			assert_int_equal(
				sim_unref(&p->sim, 1), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
		}
	}
	atomic_store(&p->page->granted_ns, 1);
	assert_true(offer_flush(p, 1) >= 0);
	kick(p);
	assert_true(waits(p, true));
}

/* Another renderer goes on where the last one was killed, with time or without. */
static void replaced(void **state)
{
	struct paged *p = *state;
	pid_t renderer = paged_renderer(p, -1);
	uint64_t used;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(sim_show(&p->sim, 1, 0, PAGED_WIDTH, PAGED_HEIGHT, SIM_PIXELS), 0);
		for (int64_t end = now_ms() + 50; now_ms() < end;) {
			assert_int_equal(sim_flush(&p->sim, 1, &all), OK);
		}
		used = atomic_load(&p->page->used_ns);
		assert_in_range(used, 1, 60000 * MS);
		if (i == 1) {
			atomic_store(&p->page->granted_ns, 1);
			assert_true(offer_flush(p, 1) >= 0);
			kick(p);
			assert_true(waits(p, true));
		}
		kill(renderer, SIGKILL);
		renderer = paged_renderer(p, renderer);
		assert_true(renderer > 0);
		if (i == 1) {
			assert_int_equal(take(p, 1, 300), 0);
			assert_true(waits(p, true));
			paged_grant(p, ALLOWANCE_UNBOUNDED);
			assert_int_equal(take(p, 1, 5000), 1);
		}
		assert_int_equal(sim_unref(&p->sim, 1), OK);
		assert_in_range(atomic_load(&p->page->used_ns), used + 1, used + 60000 * MS);
	}
}

/* Frames a second within ns, as fast as they are answered; the first one begins it. */
static double rate(struct paged *p, uint64_t ns)
{
	uint64_t began = 0, now;
	uint32_t n = 0;

	do {
		assert_int_equal(sim_flush(&p->sim, 1, &all), OK);
		now = now_ns();
		began = n++ == 0 ? now : began;
	} while (now - began < ns);
	return (n - 1) * 1e9 / (double)(now - began);
}

static void frames_at_their_rate(void **state)
{
	static const uint32_t rates[] = {30, 60, 144};
	struct paged *p = *state;

	assert_int_equal(sim_show(&p->sim, 1, 0, PAGED_WIDTH, PAGED_HEIGHT, SIM_PIXELS), 0);
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		double fps = 0;

		atomic_store(&p->page->frames_per_sec, rates[i]);
		paged_ring(p);
		/* What it may do at once, first. Others may have the CPU for longer than what is
		 * made up for. */
		for (int attempt = 0; attempt < 5 && fabs(fps / rates[i] - 1) > 0.02; attempt++) {
			rate(p, 50 * MS);
			fps = rate(p, 1500 * MS);
			assert_true(fps < rates[i] * 1.02);
		}
		print_message("%u frames a second: %.2f\n", rates[i], fps);
		assert_true(fabs(fps / rates[i] - 1) <= 0.02);
	}
	assert_in_range(atomic_load(&p->page->frames_delayed), 100, 100000);
	atomic_store(&p->page->frames_per_sec, 0);
	paged_ring(p);
	assert_true(rate(p, 200 * MS) > 300);
}

static void only_frames_wait(void **state)
{
	struct paged *p = *state;
	uint64_t delayed;
	int64_t began;
	uint32_t base;

	assert_int_equal(sim_show(&p->sim, 1, 0, PAGED_WIDTH, PAGED_HEIGHT, SIM_PIXELS), 0);
	assert_int_equal(sim_create(&p->sim, 2, BGRX, PAGED_WIDTH, PAGED_HEIGHT), OK);
	atomic_store(&p->page->frames_per_sec, 1);
	/* Three may come at once after a while without any. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sim_flush(&p->sim, 1, &all), OK);
	}
	began = now_ms();
	for (int i = 0; i < 20; i++) {
		/* One that no scanout shows is no frame. */
		assert_int_equal(sim_flush(&p->sim, 2, &all), OK);
		assert_int_equal(sim_transfer(&p->sim, 1, &all, 0), OK);
	}
	assert_in_range(now_ms() - began, 0, 700);
	delayed = atomic_load(&p->page->frames_delayed);
	assert_true(offer_flush(p, 1) >= 0);
	kick(p);
	assert_int_equal(take(p, 1, 100), 0);
	assert_true(cursor_moves(p));
	assert_int_equal(atomic_load(&p->page->frames_delayed), delayed + 1);
	assert_int_equal(atomic_load(&p->page->waits), 0);
	/* Changed, it holds for what waits. */
	began = now_ms();
	atomic_store(&p->page->frames_per_sec, 0);
	paged_ring(p);
	assert_int_equal(take(p, 1, 5000), 1);
	assert_in_range(now_ms() - began, 0, 500);
	atomic_store(&p->page->frames_per_sec, 1);
	for (int i = 0; i < 4; i++) {
		assert_true(offer_flush(p, 1) >= 0);
	}
	kick(p);
	assert_int_equal(take(p, 4, 300), 3);
	began = now_ms();
	assert_int_equal(sim_vmm_ring_stop(&p->sim.vmm, SIM_CONTROL, &base), 0);
	assert_in_range(now_ms() - began, 0, 500);
}

static uint32_t megabytes_told(struct paged *p)
{
	const struct virtio_gpu_get_capset get = {{.type = VIRTIO_GPU_CMD_GET_CAPSET}, 2, 2};
	int head = sim_offer(&p->sim, SIM_CONTROL, &get, sizeof(get), SIM_SLOT - SIM_ANSWER_AT);
	const uint8_t *answer;
	uint32_t written, n;

	kick(p);
	assert_int_equal(sim_take(&p->sim, SIM_CONTROL, 5000, &written), head);
	answer = sim_answer(&p->sim, SIM_CONTROL, head);
	memcpy(&n, answer + sizeof(struct virtio_gpu_ctrl_hdr) + 692, 4);
	return n;
}

static void limits_that_change(void **state)
{
	struct paged *p = *state;

	assert_int_equal(megabytes_told(p), 512);
	assert_int_equal(sim_texture(&p->sim, 1, BGRX, 1024, 1024), OK);
	assert_int_equal(sim_create(&p->sim, 2, BGRX, 1024, 1024), OK);
	/* 8 MiB are in use: what is there stays, and nothing more is given. */
	atomic_store(&p->page->memory_max, 4 << 20);
	assert_int_equal(megabytes_told(p), 4);
	assert_int_equal(sim_texture(&p->sim, 3, BGRX, 16, 16), OVER);
	assert_int_equal(sim_create(&p->sim, 4, BGRX, 16, 16), OVER);
	assert_int_equal(sim_context(&p->sim, 1), OVER);
	assert_int_equal(sim_set_scanout(&p->sim, 0, 2, 1024, 1024), OK);
	atomic_store(&p->page->memory_max, 16 << 20);
	assert_int_equal(sim_context(&p->sim, 1), OK);
	/* The ghost is one, until it is tried again. */
	assert_int_equal(sim_join(&p->sim, 1, 3), OVER);
	assert_int_equal(sim_texture(&p->sim, 3, BGRX, 16, 16), OK);
	assert_int_equal(sim_texture(&p->sim, 5, BGRX, 2048, 1024), OVER);
	/* Never more than it was started with. */
	atomic_store(&p->page->memory_max, UINT64_MAX);
	assert_int_equal(megabytes_told(p), 512);
	assert_int_equal(sim_texture(&p->sim, 5, BGRX, 2048, 1024), OK);

	/* 1, 2, 3 and 5; that one of 3D is shown makes no more of them. */
	atomic_store(&p->page->resources_max, 5);
	assert_int_equal(sim_set_scanout(&p->sim, 0, 1, 1024, 1024), OK);
	assert_int_equal(sim_create(&p->sim, 6, BGRX, 16, 16), OK);
	assert_int_equal(sim_create(&p->sim, 7, BGRX, 16, 16), OVER);
	assert_int_equal(sim_texture(&p->sim, 8, BGRX, 16, 16), OVER);
	assert_int_equal(sim_join(&p->sim, 1, 8), OVER);
	assert_int_equal(sim_unref(&p->sim, 6), OK);
	assert_int_equal(sim_texture(&p->sim, 8, BGRX, 16, 16), OK);

	atomic_store(&p->page->contexts_max, 2);
	assert_int_equal(sim_context(&p->sim, 2), OK);
	assert_int_equal(sim_context(&p->sim, 3), OVER);
	atomic_store(&p->page->contexts_max, 0);
	assert_int_equal(sim_context(&p->sim, 3), OK);
}

/* A context that draws into a texture of its own; each has its pixels' loops turn so often. */
#define TURNS 80.0f

static struct sim_draw artist(uint32_t context)
{
	return (struct sim_draw){.context = context,
		.texture = 10 + context,
		.vertices = 20 + context,
		.width = 128,
		.height = 128,
		.at = COMMANDS + context * SIM_DRAW_BYTES};
}

static void make_artist(struct paged *p, uint32_t context)
{
	const struct sim_draw d = artist(context);

	assert_int_equal(sim_draw_begin(&p->sim, &d), OK);
}

static bool offer_drawing(struct paged *p, uint32_t context, float turns)
{
	const struct sim_draw d = artist(context);

	return sim_draw_offer(&p->sim, &d, 1, turns, ++p->sim.fence) >= 0;
}

/* Shaders are compiled for whoever uses them first. */
static void warm_up(struct paged *p, uint32_t context)
{
	make_artist(p, context);
	assert_true(offer_drawing(p, context, 1));
	kick(p);
	assert_int_equal(take(p, 1, 10000), 1);
}

static uint64_t used_by(struct paged *p, uint32_t id)
{
	for (uint32_t i = 0; i < ALLOWANCE_CONTEXTS; i++) {
		if (atomic_load(&p->page->contexts[i].id) == id) {
			assert_int_equal(strncmp(p->page->contexts[i].name, "sim", 4), 0);
			return atomic_load(&p->page->contexts[i].gpu_ns);
		}
	}
	fail_msg("there is no context %u on the page", id);
	return 0;
}

/* How much more of what was used is the first one's than the second one's. */
static double ratio_of(struct paged *p, pid_t renderer)
{
	uint64_t used, cpu, many, few;

	poll(NULL, 0, 20);
	assert_true(cursor_moves(p));
	many = used_by(p, 1);
	few = used_by(p, 2);
	used = atomic_load(&p->page->used_ns);
	cpu = paged_cpu_ns(renderer);
	for (int i = 0; i < 8; i++) {
		assert_true(offer_drawing(p, 1, 4 * TURNS));
		assert_true(offer_drawing(p, 2, TURNS));
		kick(p);
		assert_int_equal(take(p, 2, 20000), 2);
	}
	poll(NULL, 0, 20);
	assert_true(cursor_moves(p));
	used = atomic_load(&p->page->used_ns) - used;
	cpu = paged_cpu_ns(renderer) - cpu;
	many = used_by(p, 1) - many;
	few = used_by(p, 2) - few;
	print_message("used %.1f ms of %.1f ms CPU; contexts %.1f and %.1f ms: %.2f\n",
		(double)used / 1e6, (double)cpu / 1e6, (double)many / 1e6, (double)few / 1e6,
		(double)many / (double)few);
	assert_in_range(used, cpu * 9 / 10, cpu + 20 * MS);
	assert_in_range(many + few, used * 9 / 10, used + 50 * MS);
	return (double)many / (double)few;
}

static void one_draws_more(void **state)
{
	struct paged *p = *state;
	pid_t renderer = paged_renderer(p, -1);
	uint64_t few;
	double ratio = 0;

	warm_up(p, 1);
	warm_up(p, 2);
	/* Where others have the CPU it hears late that the first one's is done. */
	for (int attempt = 0; attempt < 4 && fabs(ratio - 4) > 0.8; attempt++) {
		ratio = ratio_of(p, renderer);
	}
	assert_true(fabs(ratio - 4) <= 0.8);
	few = used_by(p, 2);
	assert_int_equal(sim_context_end(&p->sim, 1), OK);
	for (uint32_t i = 0; i < ALLOWANCE_CONTEXTS; i++) {
		assert_int_not_equal(atomic_load(&p->page->contexts[i].id), 1);
	}
	assert_in_range(used_by(p, 2), few, UINT64_MAX);
}

#define DRAW (TURNS / 16) /* some 2 ms */

/* Draws until there is no time for more, with as many on their way as there is room for; how many
 * frames came of it. */
static uint32_t draw_until_it_waits(struct paged *p, uint64_t granted)
{
	int64_t end = now_ms() + 20000;
	uint32_t frames = 0, written;

	while (!atomic_load(&p->page->waits) || atomic_load(&p->page->used_ns) < granted) {
		while (p->sim.rings[SIM_CONTROL].n_free >= 100) {
			assert_true(offer_drawing(p, 1, DRAW));
			kick(p);
		}
		frames += sim_take(&p->sim, SIM_CONTROL, 5, &written) >= 0;
		assert_true(now_ms() < end);
	}
	return frames;
}

/* What was used when all that was begun is drawn. */
static uint64_t used_at_last(struct paged *p)
{
	uint64_t before, now = atomic_load(&p->page->used_ns);

	do {
		before = now;
		poll(NULL, 0, 50);
		assert_true(cursor_moves(p));
		now = atomic_load(&p->page->used_ns);
	} while (now > before + MS);
	return now;
}

/* A guest that draws as fast as it can gets what is granted, a slice at a time, however much of it
 * is on its way. */
static void a_slice_at_a_time(void **state)
{
	struct paged *p = *state;
	uint64_t used, most = 0, granted;
	uint32_t frames = 0, written;

	warm_up(p, 1);
	for (int i = 0; i < 20; i++) {
		assert_true(offer_drawing(p, 1, DRAW));
		kick(p);
		assert_int_equal(take(p, 1, 10000), 1);
	}
	atomic_store(&p->page->granted_ns, 1);
	draw_until_it_waits(p, 1);
	granted = used_at_last(p);
	for (int i = 0; i < 10; i++) {
		granted += 20 * MS;
		paged_grant(p, granted);
		frames += draw_until_it_waits(p, granted);
		used = used_at_last(p);
		while (sim_take(&p->sim, SIM_CONTROL, 0, &written) >= 0) {
			frames++;
		}
		assert_in_range(used, granted, granted + 100 * MS);
		most = MAX(most, used - granted);
	}
	print_message("%u draws in 200 ms; at most %.1f ms ahead\n", frames, (double)most / 1e6);
	assert_in_range(frames, 20, 2000);
	/* 100 ms are on their way. */
	assert_in_range(most, 0, 40 * MS);
	assert_in_range(atomic_load(&p->page->waited_ns), 1, 60000 * MS);
	paged_grant(p, ALLOWANCE_UNBOUNDED);
}

/* Whoever wrote it. */
static void nonsense_on_the_page(void **state)
{
	struct paged *p = *state;
	pid_t renderer = paged_renderer(p, -1), next;

	make_artist(p, 1);
	memset(p->page, 0xff, sizeof(*p->page));
	p->page->version = ALLOWANCE_VERSION;
	assert_int_equal(sim_texture(&p->sim, 9, BGRX, 16, 16), OK);
	assert_int_equal(sim_context(&p->sim, 2), OK);
	assert_int_equal(used_by(p, 2), 0);
	atomic_store(&p->page->granted_ns, 1);
	assert_true(offer_flush(p, 9) >= 0);
	kick(p);
	assert_true(waits(p, true));
	/* The next one finds names without an end, and that all time there is was used. */
	memset(p->page->contexts, 0xff, sizeof(p->page->contexts));
	atomic_store(&p->page->used_ns, UINT64_MAX);
	kill(renderer, SIGKILL);
	next = paged_renderer(p, renderer);
	assert_true(next > 0);
	assert_int_equal(take(p, 1, 500), 0);
	for (uint32_t i = 0; i < ALLOWANCE_CONTEXTS; i++) {
		assert_int_equal(atomic_load(&p->page->contexts[i].id), 0);
	}
	atomic_store(&p->page->memory_max, 1);
	paged_grant(p, ALLOWANCE_UNBOUNDED);
	assert_int_equal(take(p, 1, 10000), 1);
	assert_int_equal(sim_create(&p->sim, 20, BGRX, 16, 16), OVER);
	atomic_store(&p->page->memory_max, 0);
	assert_int_equal(sim_create(&p->sim, 20, BGRX, 16, 16), OK);
	assert_int_equal(sim_backend_find(&p->sim.backend, "--renderer"), next);
}

int main(void)
{
#define TEST(f)    cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define TEST_3D(f) cmocka_unit_test_setup_teardown(f, set_up_3d, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(without_time),
		TEST(stopped_without_time),
		TEST(replaced),
		TEST(frames_at_their_rate),
		TEST(only_frames_wait),
		TEST_3D(limits_that_change),
		TEST_3D(one_draws_more),
		TEST_3D(a_slice_at_a_time),
		TEST_3D(nonsense_on_the_page),
	};

	return cmocka_run_group_tests_name("gpu-allowance", tests, NULL, NULL);
}
