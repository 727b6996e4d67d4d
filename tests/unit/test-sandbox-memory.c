/* SPDX-License-Identifier: MIT
 * How much memory a worker may be allowed beyond its kind's bound. The limits are this process's.
 */
#include "base/sandbox.h"

#include <errno.h>
#include <sys/resource.h>

#include "base/sandbox-internal.h"
#include "tests/unit/test.h"

#define MIB ((rlim_t)1 << 20)

static void set(rlim_t soft, rlim_t hard)
{
	struct rlimit l = {.rlim_cur = soft, .rlim_max = hard};

	assert_int_equal(setrlimit(RLIMIT_DATA, &l), 0);
}

static rlim_t soft(void)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_DATA, &l), 0);
	return l.rlim_cur;
}

/* One test, because a hard limit that was lowered stays so. */
static void test_allow_memory(void **state)
{
	struct rlimit l;

	if (SANDBOX_SANITIZERS) {
		/* Their shadow is larger than any bound. */
		skip();
	}
	assert_int_equal(getrlimit(RLIMIT_DATA, &l), 0);
	if (l.rlim_cur == RLIM_INFINITY) {
		/* Nothing is bounded: nothing to allow, and nothing changes. */
		assert_int_equal(sandbox_allow_memory(64 * MIB), 0);
		assert_true(soft() == RLIM_INFINITY);
	}
	set(512 * MIB, 576 * MIB);
	assert_int_equal(sandbox_allow_memory(0), 0);
	assert_true(soft() == 512 * MIB);
	assert_int_equal(sandbox_allow_memory(24 * MIB), 0);
	assert_true(soft() == 536 * MIB);
	assert_int_equal(sandbox_allow_memory(40 * MIB + 1), -ERANGE);
	assert_int_equal(sandbox_allow_memory(UINT64_MAX), -ERANGE);
	assert_true(soft() == 536 * MIB);
	assert_int_equal(sandbox_allow_memory(40 * MIB), 0);
	assert_true(soft() == 576 * MIB);
	/* Locking takes back the room that was not used. */
	set(256 * MIB, 576 * MIB);
	assert_int_equal(sandbox_lock(SANDBOX_DISK, SANDBOX_FDS), 0);
	assert_int_equal(sandbox_allow_memory(1), -ERANGE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allow_memory),
	};

	return cmocka_run_group_tests_name("sandbox-memory", tests, NULL, NULL);
}
