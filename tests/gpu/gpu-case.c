/* SPDX-License-Identifier: MIT */
#include "tests/gpu/gpu-case.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "tests/gpu/sim-3d.h"
#include "tests/unit/test.h"

const struct virtio_gpu_rect case_all = {0, 0, CASE_WIDTH, CASE_HEIGHT};

static void nap(void)
{
	nanosleep(&(struct timespec){0, 5000000}, NULL);
}

pid_t case_renderer(struct gpu_case *c, pid_t not )
{
	int64_t end = now_ms() + 20000;

	while (now_ms() < end) {
		pid_t pid = sim_backend_find(&c->sim.backend, "--renderer");

		if (pid > 0 && pid != not ) {
			return pid;
		}
		nap();
	}
	return -1;
}

int case_begin(struct gpu_case **out, uint64_t features, const char *option, const char *another)
{
	const char *argv[] = {getenv("DEVBROKER_GPU"), option, another, NULL};
	const struct sim_options o = {.argv = argv,
		.cpu = -1,
		.memory = CASE_MEMORY,
		.width = CASE_WIDTH,
		.height = CASE_HEIGHT,
		.quiet = getenv("GPU_CASE_QUIET") != NULL};
	struct gpu_case *c = calloc(1, sizeof(*c));
	int r = sim_connect(&c->sim, &o);

	if (r == 0 && features) {
		r = sim_driver_ok(&c->sim, features);
	}
	if (r < 0) {
		free(c);
		return r;
	}
	c->renderer = case_renderer(c, 0);
	c->n_pids = sim_backend_processes(&c->sim.backend, c->pids);
	*out = c;
	/* The parent, the front, the renderer. */
	return c->renderer > 0 && c->n_pids >= 3 ? 0 : -ECHILD;
}

int case_start(struct gpu_case **out, uint64_t features)
{
	return case_begin(out, features, NULL, NULL);
}

int case_setup(void **state)
{
	return case_begin((struct gpu_case **)state, SIM_FEATURES, NULL, NULL);
}

int case_setup_blob(void **state)
{
	return case_begin((struct gpu_case **)state, SIM_FEATURES_BLOB, NULL, NULL);
}

int case_setup_3d(void **state)
{
	return case_begin((struct gpu_case **)state, SIM_FEATURES_3D, "--virgl", NULL);
}

int case_setup_hasty(void **state)
{
	return case_begin(
		(struct gpu_case **)state, SIM_FEATURES_3D, "--virgl", "--hang-timeout=2");
}

int case_setup_connected(void **state)
{
	return case_begin((struct gpu_case **)state, 0, NULL, NULL);
}

void case_check_ended(struct gpu_case *c, int exit_code)
{
	int status = sim_backend_wait(&c->sim.backend, 5000);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), exit_code);
	for (size_t i = 0; i < c->n_pids; i++) {
		assert_true(kill(c->pids[i], 0) < 0 && errno == ESRCH);
	}
	c->renderer = -1;
}

int case_teardown(void **state)
{
	struct gpu_case *c = *state;
	struct sim_backend *b = &c->sim.backend;

	if (b->pid >= 0) {
		if (c->renderer > 0) {
			assert_int_equal(sim_backend_find(b, "--renderer"), c->renderer);
		}
		assert_string_equal(c->sim.screen.wrong, "");
		c->n_pids = sim_backend_processes(b, c->pids);
		b->vhost = safe_close(b->vhost);
		case_check_ended(c, 0);
	}
	sim_stop(&c->sim);
	free(c);
	return 0;
}

const uint32_t *case_paint(struct gpu_case *c, uint64_t at, uint32_t seed)
{
	uint32_t *pixels = sim_memory_at(&c->sim.vmm.memory, at);

	for (uint32_t i = 0; i < CASE_WIDTH * CASE_HEIGHT; i++) {
		pixels[i] = (i * 2654435761u) ^ (seed * 40503u);
	}
	return pixels;
}

void case_check_picture(struct gpu_case *c, uint32_t scanout, const uint32_t *pixels)
{
	const struct sim_scanout *o = &c->sim.screen.scanouts[scanout];
	int64_t end = now_ms() + 1000;

	while (now_ms() < end &&
		!(o->pixels && o->width == CASE_WIDTH && o->height == CASE_HEIGHT &&
			memcmp(o->pixels, pixels, CASE_BYTES) == 0)) {
		sim_wait(&c->sim, 10);
	}
	assert_string_equal(c->sim.screen.wrong, "");
	assert_non_null(o->pixels);
	assert_int_equal(o->width, CASE_WIDTH);
	assert_memory_equal(o->pixels, pixels, CASE_BYTES);
}

void case_check_serves(struct gpu_case *c, uint32_t id)
{
	const uint32_t *pixels = case_paint(c, SIM_PIXELS, id + 17);

	assert_int_equal(sim_show(&c->sim, id, 0, CASE_WIDTH, CASE_HEIGHT, SIM_PIXELS), 0);
	assert_int_equal(sim_transfer(&c->sim, id, &case_all, 0), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, id, &case_all), CASE_OK);
	case_check_picture(c, 0, pixels);
}
