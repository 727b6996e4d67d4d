/* SPDX-License-Identifier: MIT
 * Fdinfo of the broker's own files, and what of it decides who counts a GPU's time. No driver here
 * counts engines: where one would write, a memfd with its text is put in the place of /proc's file.
 */
#include "broker/gpu-fdinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/gpu-internal.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "protocol/allowance.h"
#include "tests/unit/fake-spawner.h"
#include "tests/unit/test.h"

#define MS    UINT64_C(1000000)
#define READS 20000
#define NODE  "/dev/dri/renderD128"

static void write_text(int fd, const char *text)
{
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), strlen(text));
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1000; fd++) {
		n += fcntl(fd, F_GETFD) >= 0;
	}
	return n;
}

/* The kernel's own text, as it is now and of that file: an eventfd shows its counter there. */
static void test_own_file(void **state)
{
	_cleanup_close_ int fd = eventfd(4711, EFD_CLOEXEC);
	struct gpu_fdinfo f;
	struct drm_usage u;
	char text[512];
	ssize_t n;
	int before = count_fds();

	gpu_fdinfo_init(&f);
	assert_int_equal(gpu_fdinfo_read(&f, true, &u), -EBADF);
	assert_int_equal(gpu_fdinfo_open(&f, fd), 0);
	assert_int_equal(count_fds(), before + 2);
	fd = safe_close(fd);
	assert_int_equal(gpu_fdinfo_read(&f, true, &u), 0);
	assert_false(u.counts_time || u.counts_memory);
	n = pread(f.text, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "1267")); /* 4711 in hexadecimal */
	assert_true(eventfd_write(f.node, 1) == 0);
	n = pread(f.text, text, sizeof(text) - 1, 0);
	text[MAX(n, 0)] = '\0';
	assert_non_null(strstr(text, "1268"));
	gpu_fdinfo_close(&f);
	gpu_fdinfo_close(&f);
	assert_int_equal(count_fds(), before - 1);
	assert_int_equal(gpu_fdinfo_read(&f, true, &u), -EBADF);
	assert_int_equal(gpu_fdinfo_open(&f, 999), -EBADF);
}

static void test_pace(void **state)
{
	struct gpu_fdinfo f = {.node = -1, .text = memfd_create("fdinfo", MFD_CLOEXEC)};
	struct drm_usage u;
	uint64_t before = now_ns(), took;

	write_text(f.text, "drm-engine-gfx:\t1 ns\n");
	assert_int_equal(gpu_fdinfo_read(&f, false, &u), 0);
	took = now_ns() - before;
	/* At most 100 times as long as all of that took. */
	assert_in_range(f.next_ns, before, before + 101 * took);
	f.next_ns = UINT64_MAX;
	assert_int_equal(gpu_fdinfo_read(&f, false, &u), -EAGAIN);
	assert_int_equal(gpu_fdinfo_read(&f, true, &u), 0);
	f.next_ns = now_ns() + 1000;
	while (now_ns() < f.next_ns) {
	}
	assert_int_equal(gpu_fdinfo_read(&f, false, &u), 0);
	/* More than is looked at: none of it is. */
	assert_int_equal(ftruncate(f.text, 1 << 20), 0);
	assert_int_equal(gpu_fdinfo_read(&f, true, &u), -E2BIG);
	gpu_fdinfo_close(&f);
}

/* What a tick of the arbiter costs of it. */
static void test_cost(void **state)
{
	struct gpu_fdinfo f;
	struct drm_usage u;
	uint64_t begin;
	int fd = eventfd(0, EFD_CLOEXEC), text;

	gpu_fdinfo_init(&f);
	assert_int_equal(gpu_fdinfo_open(&f, fd), 0);
	begin = now_ns();
	for (int i = 0; i < READS; i++) {
		assert_int_equal(gpu_fdinfo_read(&f, true, &u), 0);
	}
	print_message("a read of /proc: %.2f us\n", (double)(now_ns() - begin) / READS / 1e3);
	gpu_fdinfo_close(&f);
	text = memfd_create("fdinfo", MFD_CLOEXEC);
	for (int i = 0; i < 40; i++) {
		dprintf(text, "drm-%s-number%d:\t%d000000 %s\n", i % 2 ? "engine" : "resident", i,
			i, i % 2 ? "ns" : "KiB");
	}
	f.text = text;
	begin = now_ns();
	for (int i = 0; i < READS; i++) {
		assert_int_equal(gpu_fdinfo_read(&f, true, &u), 0);
	}
	print_message("40 keys: %.2f us\n", (double)(now_ns() - begin) / READS / 1e3);
	gpu_fdinfo_close(&f);
	safe_close(fd);
}

struct lab {
	struct broker broker;
	struct spawner spawner;
	struct vm *vm;
	struct gpu *gpu;
	char dir[32];
	int text; /* what the kernel would write; borrowed by the GPU, which closes it */
};

static int set_up(void **state)
{
	static struct lab t;
	struct config config = {.sandbox = strdup("full")};
	struct vm_options options = {
		.name = "win", .qmp = "/nonexistent/qmp", .gpu_memory = UINT64_C(64) << 20};
	struct refusal_text text = {0};

	t = (struct lab){.dir = "/tmp/test-fdinfo-XXXXXX"};
	log_set_level(LOG_LEVEL_ERROR);
	assert_non_null(mkdtemp(t.dir));
	list_init(&config.vms);
	list_init(&config.disks);
	assert_int_equal(broker_init(&t.broker, &config, &t.spawner), 0);
	t.broker.run_dir = t.dir;
	t.spawner = (struct spawner){.event = t.broker.event};
	assert_int_equal(vm_add(&t.broker, &options, &t.vm, &text), 0);
	t.gpu = t.vm->gpu;
	t.vm->gpu_limits = (struct gpu_limits){.share = GPU_SHARE_FIXED, .percent = 50};
	assert_int_equal(gpu_allowance_create(&t.gpu->allowance), 0);
	*state = &t;
	return 0;
}

static int tear_down(void **state)
{
	struct lab *t = *state;
	struct refusal_text text = {0};
	static const char *const folders[] = {"/vm/win", "/vm", "/vms", ""};
	char path[80];

	assert_int_equal(vm_remove(t->vm, &text), 0);
	broker_finish(&t->broker);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s%s", t->dir, folders[i]);
		assert_int_equal(rmdir(path), 0);
	}
	return 0;
}

/* Another renderer on the node, of which the kernel would write text. */
static void begin_renderer(struct lab *t, const char *text)
{
	assert_int_equal(gpu_arbiter_join(t->gpu, NODE, true), 0);
	t->text = memfd_create("fdinfo", MFD_CLOEXEC);
	t->gpu->fdinfo.text = t->text;
	write_text(t->text, text);
}

static struct gpu_status look(struct lab *t)
{
	struct gpu_status s;

	t->gpu->fdinfo.next_ns = 0;
	gpu_arbiter_look(t->gpu);
	gpu_status(t->gpu, &s);
	return s;
}

static void test_kernel_counts(void **state)
{
	struct lab *t = *state;
	struct allowance_page *page = t->gpu->allowance.page;
	struct gpu_status s;
	uint64_t granted;

	begin_renderer(t, "drm-engine-gfx:\t0 ns\n");
	s = look(t);
	assert_string_equal(s.time_from, "renderer");
	/* It draws, and says that it does not. */
	write_text(t->text, "drm-engine-gfx:\t40000000 ns\ndrm-memory-vram:\t3 MiB\n");
	s = look(t);
	assert_string_equal(s.time_from, "kernel");
	assert_int_equal(s.used_ns, 40 * MS);
	assert_int_equal(s.device_memory, 3 << 20);
	/* One that says more than it does is not held to it either. */
	atomic_store(&page->used_ns, 5000 * MS);
	s = look(t);
	assert_int_equal(s.used_ns, 40 * MS);
	/* What it may use is said by its own clock. */
	gpu_arbiter_changed(t->gpu);
	granted = atomic_load(&page->granted_ns);
	assert_in_range(granted, 5000 * MS, 5100 * MS);
}

/* What the kernel says after a renderer's end is counted; the next one begins anew. */
static void test_replacement(void **state)
{
	struct lab *t = *state;
	struct gpu_status s;
	int fds;

	begin_renderer(t, "drm-engine-gfx:\t40000000 ns\ndrm-memory-vram:\t3 MiB\n");
	look(t);
	fds = count_fds();
	write_text(t->text, "drm-engine-gfx:\t70000000 ns\ndrm-memory-vram:\t3 MiB\n");
	t->gpu->fdinfo.next_ns = UINT64_MAX;
	gpu_arbiter_renderer_ended(t->gpu);
	/* It does not keep a dead renderer's memory. */
	assert_int_equal(count_fds(), fds - 1);
	s = look(t);
	assert_int_equal(s.used_ns, 70 * MS);
	assert_int_equal(s.device_memory, 0);
	begin_renderer(t, "drm-engine-gfx:\t1000000 ns\n");
	s = look(t);
	assert_int_equal(s.used_ns, 71 * MS);
	assert_string_equal(s.time_from, "kernel");
	/* A text that is none: nothing is made of it, and the renderer's word counts. */
	write_text(t->text, "drm-engine-gfx:\t90000000\n");
	atomic_store(&t->gpu->allowance.page->used_ns, 2 * MS);
	s = look(t);
	assert_string_equal(s.time_from, "renderer");
	assert_int_equal(s.used_ns, 73 * MS);
	gpu_arbiter_leave(t->gpu);
	assert_int_equal(t->gpu->fdinfo.text, -1);
	gpu_status(t->gpu, &s);
	assert_string_equal(s.time_from, "");
}

/* As of xe: every second cycle, in the time that there was. */
static void test_kernel_counts_cycles(void **state)
{
	struct lab *t = *state;
	struct gpu_status s;
	uint64_t begin = now_ns();

	begin_renderer(t, "drm-cycles-rcs:\t500\ndrm-total-cycles-rcs:\t1000\n");
	s = look(t);
	assert_string_equal(s.time_from, "renderer");
	usleep(30000);
	write_text(t->text, "drm-cycles-rcs:\t600\ndrm-total-cycles-rcs:\t1200\n");
	s = look(t);
	assert_string_equal(s.time_from, "kernel");
	assert_in_range(s.used_ns, 15 * MS, (now_ns() - begin) / 2);
}

/* What was counted of one file is nothing of the next. */
static void test_cycles_begin_anew(void **state)
{
	_cleanup_close_ int fd = eventfd(0, EFD_CLOEXEC);
	struct gpu_fdinfo f = {.node = -1, .text = -1, .cycles = {1, 2, 3, 4}};

	assert_int_equal(gpu_fdinfo_open(&f, fd), 0);
	assert_true(f.cycles.own == 0 && f.cycles.at_ns == 0 && f.cycles.busy_ns == 0);
	gpu_fdinfo_close(&f);
}

/* No engines, as of vgem. */
static void test_renderer_counts(void **state)
{
	struct lab *t = *state;
	struct gpu_status s;

	begin_renderer(t, "pos:\t0\nflags:\t02\n");
	atomic_store(&t->gpu->allowance.page->used_ns, 12 * MS);
	s = look(t);
	assert_string_equal(s.time_from, "renderer");
	assert_int_equal(s.used_ns, 12 * MS);
	assert_int_equal(s.device_memory, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_file),
		cmocka_unit_test(test_pace),
		cmocka_unit_test(test_cost),
		cmocka_unit_test_setup_teardown(test_kernel_counts, set_up, tear_down),
		cmocka_unit_test(test_cycles_begin_anew),
		cmocka_unit_test_setup_teardown(test_replacement, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_kernel_counts_cycles, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_renderer_counts, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
