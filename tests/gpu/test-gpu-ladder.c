/* SPDX-License-Identifier: MIT
 * What is said when a guest comes near its limits and goes over them: a warning at 80 % once, one
 * line for each refusal and each context that is given up, with what an administrator asks for, and
 * not more lines than somebody reads however long the guest goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/gpu/gpu-case.h"
#include "tests/gpu/sim-draw.h"
#include "tests/unit/test.h"

#define R8        64
#define RGBA      VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM
#define MIB       (1u << 20)
#define COMMANDS  0x1000000u
#define LINES_MAX 20 /* in a minute */

struct ladder {
	struct gpu_case *c;
	int log; /* what the backend has said */
};

static int setup(void **state)
{
	struct ladder *l = calloc(1, sizeof(*l));
	int ours = dup(STDERR_FILENO), r;

	l->log = memfd_create("log", MFD_CLOEXEC);
	/* It inherits this one. */
	dup2(l->log, STDERR_FILENO);
	r = case_begin(&l->c, SIM_FEATURES_3D, "--virgl", "--max-memory=100M");
	dup2(ours, STDERR_FILENO);
	safe_close(ours);
	*state = l;
	return r;
}

static int teardown(void **state)
{
	struct ladder *l = *state;
	int r = case_teardown((void **)&l->c);

	safe_close(l->log);
	free(l);
	return r;
}

/* How many lines there are with this in them; the last of them goes to line_out. */
static uint32_t said(struct ladder *l, const char *what, char *line_out, size_t size)
{
	static char text[1 << 20];
	ssize_t n = pread(l->log, text, sizeof(text) - 1, 0);
	uint32_t lines = 0;

	assert_true(n >= 0);
	text[n] = '\0';
	line_out[0] = '\0';
	for (char *at = strtok(text, "\n"); at; at = strtok(NULL, "\n")) {
		if (strstr(at, what)) {
			snprintf(line_out, size, "%s", at);
			lines++;
		}
	}
	return lines;
}

static uint32_t buffer(struct ladder *l, uint32_t id, uint32_t bytes)
{
	return sim_create_3d(&l->c->sim, &(struct virtio_gpu_resource_create_3d){{0}, id, 0, R8,
						 1 << 4, bytes, 1, 1, 1, 0, 0, 0, 0});
}

static void warned_once(void **state)
{
	struct ladder *l = *state;
	char line[512];

	assert_int_equal(buffer(l, 1, 80 * MIB), CASE_OK);
	assert_int_equal(said(l, "over 80 %", line, sizeof(line)), 0);
	assert_int_equal(buffer(l, 2, 1), CASE_OK);
	assert_int_equal(said(l, "over 80 %", line, sizeof(line)), 1);
	printf("%s\n", line);
	assert_non_null(strstr(line, "81920 of 102400 KiB"));
	/* Up and down about it: nothing more. */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(sim_unref(&l->c->sim, 2), CASE_OK);
		assert_int_equal(buffer(l, 2, 10 * MIB), CASE_OK);
	}
	assert_int_equal(said(l, "over 80 %", line, sizeof(line)), 1);
	/* Below 70 %, and again. */
	assert_int_equal(sim_unref(&l->c->sim, 1), CASE_OK);
	assert_int_equal(buffer(l, 1, 80 * MIB), CASE_OK);
	assert_int_equal(said(l, "over 80 %", line, sizeof(line)), 2);
	for (int i = 0; i < 25; i++) {
		assert_int_equal(sim_unref(&l->c->sim, 1), CASE_OK);
		assert_int_equal(buffer(l, 1, 80 * MIB), CASE_OK);
	}
	assert_int_equal(said(l, "over 80 %", line, sizeof(line)), LINES_MAX);
}

static void named(void **state)
{
	struct ladder *l = *state;
	struct sim *s = &l->c->sim;
	const struct virtio_gpu_ctx_create c = {
		{.type = VIRTIO_GPU_CMD_CTX_CREATE, .ctx_id = 12}, 9, 0, "bo\nmb\x1b[1m"};
	char line[512];

	assert_int_equal(sim_command(s, &c, sizeof(c)), CASE_OK);
	assert_int_equal(sim_texture(s, 5, RGBA, 16384, 16384), CASE_NO_MEMORY);
	assert_int_equal(said(l, "refused", line, sizeof(line)), 1);
	printf("%s\n", line);
	assert_non_null(strstr(line, "vm devbroker-gpu: refused resource 5 (16384x16384x1, format "
				     "67): 1048576 KiB, with 3072 of 102400 KiB"));
	assert_int_equal(
		sim_create(s, 6, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, 16384, 16384), CASE_NO_MEMORY);
	assert_int_equal(
		said(l, "refused image 6 (16384x16384): 1048576 KiB", line, sizeof(line)), 1);
	/* It is told, and goes on. */
	assert_int_equal(sim_join(s, 12, 5), CASE_NO_MEMORY);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(
			sim_submit(s, 12, (uint32_t[]){0}, 1, COMMANDS, true), CASE_NO_MEMORY);
	}
	assert_int_equal(said(l, "draws nothing more", line, sizeof(line)), 1);
	printf("%s\n", line);
	assert_non_null(strstr(line,
		"vm devbroker-gpu: context 12 (bo?mb?[1m) draws nothing more: it goes on without 1 "
		"resources of 1048576 KiB that were refused; its GPU memory: 3072 of 102400 KiB"));
	assert_int_equal(sim_context_end(s, 12), CASE_OK);
	assert_int_equal(sim_unref(s, 5), CASE_OK);
}

/* However often it is tried. */
static void few_lines(void **state)
{
	struct ladder *l = *state;
	struct sim *s = &l->c->sim;
	char line[512];

	for (uint32_t i = 1; i <= 500; i++) {
		assert_int_equal(sim_texture(s, i, RGBA, 16384, 16384), CASE_NO_MEMORY);
		assert_int_equal(sim_unref(s, i), CASE_OK);
	}
	assert_int_equal(said(l, "vm devbroker-gpu: refused", line, sizeof(line)), LINES_MAX);
	/* All the others are as quiet then. */
	for (uint32_t i = 1; i <= 30; i++) {
		assert_int_equal(sim_context(s, 1), CASE_OK);
		assert_int_equal(sim_submit(s, 1, (uint32_t[]){0xffff0000}, 1, COMMANDS, true),
			CASE_BAD_PARAMETER);
		assert_int_equal(sim_context_end(s, 1), CASE_OK);
	}
	assert_int_equal(said(l, "draws nothing more", line, sizeof(line)), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(warned_once),
		TEST(named),
		TEST(few_lines),
	};

	return cmocka_run_group_tests_name("gpu-ladder", tests, NULL, NULL);
}
