/* SPDX-License-Identifier: MIT
 * Charges against quotas, and the limits that a request may ask for.
 */
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "broker/config.h"
#include "broker/quota.h"
#include "tests/unit/test.h"

static void test_up_to_the_limit(void **state)
{
	struct quota q = {.name = "devices", .limit = 3};
	struct charge a = {0}, b = {0}, c = {0};
	struct refusal_text text = {0};

	assert_int_equal(charge_take(&a, &q, 2, "win", &text), 0);
	assert_int_equal(charge_take(&b, &q, 2, "win", &text), REFUSAL_QUOTA);
	assert_non_null(strstr(text.sentence, "win"));
	assert_non_null(strstr(text.sentence, "devices"));
	assert_non_null(strstr(text.sentence, "2 of 3"));
	/* What was refused is not charged, and can be tried again. */
	assert_int_equal(q.used, 2);
	charge_return(&b);
	assert_int_equal(q.used, 2);
	assert_int_equal(charge_take(&b, &q, 1, "win", &text), 0);
	assert_int_equal(charge_take(&c, &q, 1, "win", &text), REFUSAL_QUOTA);
	charge_return(&a);
	charge_return(&a); /* once is enough */
	assert_int_equal(q.used, 1);
	charge_return(&b);
	assert_int_equal(q.used, 0);
}

static void test_no_wrap(void **state)
{
	struct quota q = {.name = "bytes", .limit = 10};
	struct charge a = {0}, b = {0};

	assert_int_equal(charge_take(&a, &q, 8, "win", NULL), 0);
	assert_int_equal(charge_take(&b, &q, UINT64_MAX, "win", NULL), REFUSAL_QUOTA);
	assert_int_equal(charge_take(&b, &q, UINT64_MAX - 7, "win", NULL), REFUSAL_QUOTA);
	assert_int_equal(q.used, 8);
	charge_return(&a);
}

static void test_none_allowed(void **state)
{
	struct quota q = {.name = "devices", .limit = 0};
	struct charge a = {0};

	assert_int_equal(charge_take(&a, &q, 1, "win", NULL), REFUSAL_QUOTA);
	assert_int_equal(charge_take(&a, &q, 0, "win", NULL), 0);
	charge_return(&a);
}

/* What is there stays, and nothing more is given. */
static void test_resized(void **state)
{
	struct quota q = {.name = "gpu-memory", .limit = 100};
	struct charge a = {0}, b = {0};

	assert_int_equal(charge_take(&a, &q, 60, "vm", NULL), 0);
	charge_resize(&a, 120);
	assert_int_equal(q.used, 120);
	assert_int_equal(charge_take(&b, &q, 1, "vm", NULL), REFUSAL_QUOTA);
	charge_resize(&a, 99);
	assert_int_equal(charge_take(&b, &q, 1, "vm", NULL), 0);
	charge_return(&a);
	charge_return(&b);
	assert_int_equal(q.used, 0);
}

static void test_limits(void **state)
{
	static const struct {
		struct quota_limits limits;
		int result;
	} cases[] = {
		{{0, QUOTA_BYTES_MIN, 1, 0, 0}, 0},
		{{QUOTA_DEVICES_MAX, QUOTA_BYTES_MAX, QUOTA_TRANSFERS_MAX, 0, 0}, 0},
		{{QUOTA_DEVICES_MAX + 1, QUOTA_BYTES_MIN, 1, 0, 0}, REFUSAL_INVALID},
		{{UINT32_MAX, QUOTA_BYTES_MIN, 1, 0, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN - 1, 1, 0, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MAX + 1, 1, 0, 0}, REFUSAL_INVALID},
		{{1, UINT64_MAX, 1, 0, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, 0, 0, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, QUOTA_TRANSFERS_MAX + 1, 0, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, 1, QUOTA_BANDWIDTH_MIN, QUOTA_RATE_MAX}, 0},
		{{1, QUOTA_BYTES_MIN, 1, QUOTA_BANDWIDTH_MIN - 1, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, 1, QUOTA_BANDWIDTH_MAX + 1, 0}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, 1, 0, QUOTA_RATE_MIN - 1}, REFUSAL_INVALID},
		{{1, QUOTA_BYTES_MIN, 1, 0, QUOTA_RATE_MAX + 1}, REFUSAL_INVALID},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(quota_limits_check(&cases[i].limits, NULL), cases[i].result);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_up_to_the_limit),
		cmocka_unit_test(test_no_wrap),
		cmocka_unit_test(test_none_allowed),
		cmocka_unit_test(test_resized),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
