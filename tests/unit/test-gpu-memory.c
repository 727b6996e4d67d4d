/* SPDX-License-Identifier: MIT
 * Translation of a guest's addresses over several regions, and a file that is cut behind our back.
 */
#include "gpu/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

#define PAGE 4096

static int file_of(size_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void finds(void **state)
{
	_cleanup_close_ int fd = file_of(8 * PAGE);
	const struct memory_region low = {0x1000, 0x7f0000000000, 2 * PAGE, 0};
	/* Not at a page of the file, and above 4 GiB. */
	const struct memory_region high = {0x100000000, 0x7f0000010000, PAGE, 3 * PAGE + 512};
	struct memory m;
	uint64_t n = 0, guest = 0;
	uint8_t *p;

	memory_init(&m);
	assert_int_equal(pwrite(fd, "low", 3, 16), 3);
	assert_int_equal(pwrite(fd, "high", 4, 3 * PAGE + 512), 4);
	assert_int_equal(memory_add(&m, &low, fd), 0);
	assert_int_equal(memory_add(&m, &high, fd), 0);
	assert_memory_equal(memory_whole(&m, 0x1010, 3), "low", 3);
	assert_memory_equal(memory_whole(&m, 0x100000000, 4), "high", 4);

	/* Up to the end, and no byte further. */
	assert_non_null(memory_whole(&m, 0x1000, 2 * PAGE));
	assert_null(memory_whole(&m, 0x1000, 2 * PAGE + 1));
	assert_null(memory_whole(&m, 0x1000 + 2 * PAGE, 1));
	assert_null(memory_whole(&m, 0xfff, 1));
	assert_null(memory_whole(&m, 0, UINT64_MAX));
	assert_null(memory_whole(&m, UINT64_MAX, 2));
	assert_null(memory_whole(&m, 0x100000000 + PAGE - 1, 2));
	p = memory_piece(&m, 0x1000 + 2 * PAGE - 8, UINT64_MAX, &n);
	assert_non_null(p);
	assert_int_equal(n, 8);

	assert_true(memory_from_user(&m, 0x7f0000010003, &guest));
	assert_true(guest == 0x100000003);
	assert_false(memory_from_user(&m, 0x7f0000010000 + PAGE, &guest));
	assert_false(memory_from_user(&m, 0x7effffffffff, &guest));
	memory_finish(&m);
	assert_null(memory_whole(&m, 0x1010, 3));
}

static void refuses(void **state)
{
	static const struct memory_region bad[] = {
		{0, 0, 0, 0},
		{UINT64_MAX - PAGE + 2, 0, PAGE, 0},
		{0, UINT64_MAX - PAGE + 2, PAGE, 0},
		{0, 0, PAGE, UINT64_MAX - PAGE + 2},
		{0, 0, PAGE, INT64_MAX - PAGE},
		{0x10000 + PAGE - 1, 0, PAGE, 0}, /* the last byte of what is there */
		{0x10000 - PAGE + 1, 0, PAGE, 0},
		{0x10000 - PAGE, 0, 3 * PAGE, 0},
	};
	_cleanup_close_ int fd = file_of(PAGE);
	struct memory_region r = {0x10000, 0, PAGE, 0};
	int pipes[2];
	struct memory m;

	memory_init(&m);
	assert_int_equal(memory_add(&m, &r, fd), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(memory_add(&m, &bad[i], fd), -EINVAL);
	}
	assert_int_equal(pipe(pipes), 0);
	r.guest = 0;
	assert_true(memory_add(&m, &r, pipes[0]) < 0);
	close(pipes[0]);
	close(pipes[1]);
	for (size_t i = m.n; i < MEMORY_REGIONS_MAX; i++) {
		r.guest = 0x100000 * i;
		assert_int_equal(memory_add(&m, &r, fd), 0);
	}
	r.guest = 0x100000 * MEMORY_REGIONS_MAX;
	assert_int_equal(memory_add(&m, &r, fd), -E2BIG);
	memory_finish(&m);
}

static void survives_truncation(void **state)
{
	_cleanup_close_ int fd = file_of(64 * PAGE), other_fd = file_of(PAGE);
	const struct memory_region cut = {0x100000, 0, 64 * PAGE, 0}, whole = {0, 0, PAGE, 0};
	uint64_t guest = 0;
	struct memory m;
	uint8_t *p, *q;

	memory_init(&m);
	assert_int_equal(memory_add(&m, &whole, other_fd), 0);
	assert_int_equal(memory_add(&m, &cut, fd), 0);
	assert_int_equal(memory_guard(&m), 0);
	p = memory_whole(&m, 0x100000, 64 * PAGE);
	q = memory_whole(&m, 0, PAGE);
	p[0] = q[0] = 1;
	assert_false(memory_take_loss(&m, &guest));
	assert_int_equal(ftruncate(fd, PAGE), 0);
	/* The copy that runs into it ends, and writing there does nothing bad. */
	memset(p + 32 * PAGE, 0xa5, 4 * PAGE);
	assert_int_equal(p[0], 0);
	assert_true(memory_take_loss(&m, &guest));
	assert_true(guest == 0x100000);
	assert_false(memory_take_loss(&m, &guest));
	/* Lost for good, the other one is as it was. */
	assert_null(memory_whole(&m, 0x100000, 1));
	assert_ptr_equal(memory_whole(&m, 0, PAGE), q);
	assert_int_equal(q[0], 1);
	assert_int_equal(memory_guard(NULL), 0);
	memory_finish(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds),
		cmocka_unit_test(refuses),
		cmocka_unit_test(survives_truncation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
