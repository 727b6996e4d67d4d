/* SPDX-License-Identifier: MIT
 * The GPU's part of tests/bench quota: what counting and a share of GPU time cost.
 *
 *   gpu-bench-quota spend N    ns that counting adds to one command, N of them each
 *   gpu-bench-quota ROUNDS BACKEND [OPTION...]   through the simulated VM, with GPU_PAGED_BACKEND
 * in the environment: four renderers that are there at once, measured in turn: two without a page
 * (what they differ by is noise), one with a page that bounds nothing, and one whose owner grants
 * more than it uses, each 10 ms
 *
 * A line of JSON each. This process runs on one CPU and the renderers on the other.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "gpu/spend.h"
#include "tests/benches/gpu-bench.h"
#include "tests/gpu/gpu-paged.h"
#include "tests/gpu/sim-draw.h"

#define MEMORY   (64U << 20)
#define WIDTH    640u
#define HEIGHT   480u
#define OK       VIRTIO_GPU_RESP_OK_NODATA
#define COMMANDS 500
#define BATCHES  600
#define BATCH    32
#define FRAMES   80
#define DRAWS    150
#define CREDIT   UINT64_C(60000000)

enum { ALONE, TWIN, UNBOUNDED, BOUNDED, SIDES };

static const char *const names[SIDES] = {"alone", "twin", "unbounded", "bounded"};

struct side {
	struct paged paged; /* its page is NULL: without */
	struct sim_draw draw;
	pid_t renderer;
};

static void must(bool fine, const char *what)
{
	if (!fine) {
		bench_fail(what);
	}
}

/* What the broker does for a share that doesn't bind. */
static void *grant(void *data)
{
	struct allowance_page *p = data;

	for (;;) {
		atomic_store(&p->granted_ns, atomic_load(&p->used_ns) + CREDIT);
		nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
	return NULL;
}

static void begin(struct side *s, int which, const char *const *argv)
{
	const struct sim_options o = {.argv = argv,
		.cpu = BENCH_CPU_BACKEND,
		.quiet = true,
		.memory = MEMORY,
		.width = WIDTH,
		.height = HEIGHT,
		.features = SIM_FEATURES_3D};
	struct sim *sim = &s->paged.sim;
	pthread_t thread;

	if (which == ALONE || which == TWIN) {
		must(sim_start(sim, &o) == 0, "no backend");
	} else {
		must(paged_start(&s->paged, true, BENCH_CPU_BACKEND) == 0, "no backend");
	}
	if (which == BOUNDED) {
		must(pthread_create(&thread, NULL, grant, s->paged.page) == 0, "no thread");
	}
	sim->screen.drop_pixels = true;
	s->renderer = paged_renderer(&s->paged, -1);
	s->draw = (struct sim_draw){.context = 1,
		.texture = 2,
		.vertices = 3,
		.width = 64,
		.height = 64,
		.at = 0x1000000};
	must(sim_show(sim, 1, 0, WIDTH, HEIGHT, SIM_PIXELS) == 0 &&
			sim_draw_begin(sim, &s->draw) == OK,
		"it doesn't start");
}

static void take(struct sim *s, int n)
{
	uint32_t written;

	for (int i = 0; i < n; i++) {
		must(sim_take(s, SIM_CONTROL, 10000, &written) >= 0, "no answer");
	}
}

/* It succeeds, is heard by nobody, and costs next to nothing. */
static const struct virtio_gpu_transfer_to_host_2d tiny = {
	{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, {0, 0, 1, 1}, 0, 1, 0};

static void commands(struct sim *s)
{
	for (int i = 0; i < COMMANDS; i++) {
		must(sim_command(s, &tiny, sizeof(tiny)) == OK, "a command failed");
	}
}

static void batches(struct sim *s)
{
	for (int i = 0; i < BATCHES; i++) {
		for (int k = 0; k < BATCH; k++) {
			must(sim_offer(s, SIM_CONTROL, &tiny, sizeof(tiny), 24) >= 0, "no room");
		}
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		take(s, BATCH);
	}
}

static void frames(struct sim *s)
{
	static const struct virtio_gpu_rect all = {0, 0, WIDTH, HEIGHT};

	for (int i = 0; i < FRAMES; i++) {
		must(sim_transfer(s, 1, &all, 0) == OK && sim_flush(s, 1, &all) == OK,
			"a frame failed");
	}
}

static void draws(struct sim *s, const struct sim_draw *d)
{
	for (uint32_t i = 0; i < DRAWS; i++) {
		must(sim_draw_offer(s, d, i, 1, ++s->fence) >= 0, "no room");
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		take(s, 1);
	}
}

/* µs of time and of the renderer's CPU for one of n. */
static void tell(const char *name, const struct side *s, int n, uint64_t ns, uint64_t cpu)
{
	cpu = paged_cpu_ns(s->renderer) - cpu;
	ns = now_ns() - ns;
	printf(", \"%s_us\": %.4f, \"%s_cpu_us\": %.4f", name, (double)ns / n / 1e3, name,
		(double)cpu / n / 1e3);
}

static void measure(struct side *s, const char *name)
{
	struct sim *sim = &s->paged.sim;
	uint64_t cpu, at;

	printf("{\"side\": \"%s\"", name);
#define CELL(name, n, call)                      \
	do {                                     \
		cpu = paged_cpu_ns(s->renderer); \
		at = now_ns();                   \
		call;                            \
		tell(name, s, n, at, cpu);       \
	} while (0)
	CELL("command", COMMANDS, commands(sim));
	CELL("batched", BATCHES * BATCH, batches(sim));
	CELL("frame", FRAMES, frames(sim));
	CELL("draw", DRAWS, draws(sim, &s->draw));
	printf("}\n");
	fflush(stdout);
}

static void through_simulator(int rounds, const char *const *argv)
{
	static struct side sides[SIDES];

	for (int i = 0; i < SIDES; i++) {
		begin(&sides[i], i, argv);
		draws(&sides[i].paged.sim, &sides[i].draw);
	}
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < SIDES; i++) {
			int which = (round + i) % SIDES;

			measure(&sides[which], names[which]);
		}
	}
	for (int i = 0; i < SIDES; i++) {
		sim_stop(&sides[i].paged.sim);
	}
}

/* ns of CPU time for one command: every 64th is the last of its turn. */
static double spend_ns(struct spend *s, uint64_t n, uint32_t contexts)
{
	uint64_t begun = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

	for (uint64_t i = 0; i < n; i++) {
		must(spend_may(s), "no time");
		spend_on(s, 1 + (uint32_t)(i / 16) % contexts);
		if (i % 64 == 0) {
			spend_rest(s, SPEND_NOBODY);
		}
	}
	return (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begun) / (double)n;
}

static void by_itself(uint64_t n)
{
	static struct allowance_page page;
	static struct spend s;
	struct spend_clocks clocks;

	spend_clocks_init(&clocks);
	atomic_store(&page.granted_ns, ALLOWANCE_UNBOUNDED);
	spend_init(&s, &page, &clocks, false, 2);
	printf("{\"one_context_ns\": %.2f", spend_ns(&s, n, 1));
	printf(", \"two_contexts_ns\": %.2f", spend_ns(&s, n, 2));
	atomic_store(&page.granted_ns, ALLOWANCE_UNBOUNDED / 2);
	printf(", \"bounded_ns\": %.2f", spend_ns(&s, n, 1));
	/* What is left may be used up before the cheap clock goes on. */
	atomic_store(&page.granted_ns, atomic_load(&page.used_ns) + n * 1000);
	printf(", \"short_of_time_ns\": %.2f}\n", spend_ns(&s, n, 1));
}

int main(int argc, char **argv)
{
	uint64_t n = argc > 2 ? strtoull(argv[strcmp(argv[1], "spend") == 0 ? 2 : 1], NULL, 10) : 0;

	if (n == 0) {
		bench_fail("usage: gpu-bench-quota spend N | gpu-bench-quota ROUNDS BACKEND "
			   "[OPTION...]");
	}
	bench_pin(BENCH_CPU_VMM);
	if (strcmp(argv[1], "spend") == 0) {
		by_itself(n);
	} else {
		through_simulator((int)MIN(n, 1000U), (const char *const *)argv + 2);
	}
	return EXIT_SUCCESS;
}
