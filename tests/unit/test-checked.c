/* SPDX-License-Identifier: MIT */
#include "base/checked.h"

#include <errno.h>

#include "tests/unit/test.h"

static void numbers(void **state)
{
	uint64_t n = 7;

	assert_int_equal(parse_u64("42", 0, 100, &n), 0);
	assert_int_equal(n, 42);
	assert_int_equal(parse_u64("101", 0, 100, &n), -ERANGE);
	assert_int_equal(parse_u64("18446744073709551615", 0, UINT64_MAX, &n), 0);
	assert_true(n == UINT64_MAX);
	assert_int_equal(parse_u64("18446744073709551616", 0, UINT64_MAX, &n), -ERANGE);
	assert_int_equal(parse_u64("", 0, 100, &n), -EINVAL);
	assert_int_equal(parse_u64("-1", 0, 100, &n), -EINVAL);
	assert_int_equal(parse_u64(" 1", 0, 100, &n), -EINVAL);
	assert_int_equal(parse_u64("1x", 0, 100, &n), -EINVAL);
	assert_true(n == UINT64_MAX);
}

static void byte_counts(void **state)
{
	uint64_t n = 0;

	assert_int_equal(parse_bytes("4K", 0, UINT64_MAX, &n), 0);
	assert_int_equal(n, 4096);
	assert_int_equal(parse_bytes("3G", 0, UINT64_MAX, &n), 0);
	assert_true(n == UINT64_C(3) << 30);
	assert_int_equal(parse_bytes("4KB", 0, UINT64_MAX, &n), -EINVAL);
	assert_int_equal(parse_bytes("99999999999T", 0, UINT64_MAX, &n), -ERANGE);
}

static void booleans(void **state)
{
	bool b = false;

	assert_int_equal(parse_bool("Yes", &b), 0);
	assert_true(b);
	assert_int_equal(parse_bool("off", &b), 0);
	assert_false(b);
	assert_int_equal(parse_bool("maybe", &b), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(byte_counts),
		cmocka_unit_test(booleans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
