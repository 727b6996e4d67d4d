/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"

#include "protocol/pace.h"

#define SEC UINT64_C(1000000000)
#define NOW (1000 * SEC)

static void test_none(void **state)
{
	struct pace_page p = {0};

	pace_spend(&p, NOW, UINT32_MAX);
	assert_int_equal(pace_wait(&p, NOW), 0);
	assert_int_equal(p.bytes.at, 0);
}

/* Over ten seconds what goes is the rate, and what was saved up; wakes may come late. */
static void test_rate(void **state)
{
	struct pace_page p = {0};
	uint64_t now = NOW, bytes = 0, wait;

	pace_set(&p, 1000000, 0);
	for (int i = 0; now < NOW + 10 * SEC; i++) {
		wait = pace_wait(&p, now);
		now += wait > 0 ? wait + (i % 3) * SEC / 100 : 0;
		pace_spend(&p, now, 5000);
		bytes += 5000;
	}
	assert_in_range(bytes, 10000000, 10000000 + 100000 + 5000 + 20000);
}

static void test_larger_than_saved_up(void **state)
{
	struct pace_page p = {0};

	pace_set(&p, 1000000, 0);
	pace_spend(&p, NOW, 1100000);
	assert_int_equal(pace_wait(&p, NOW), SEC);
	assert_int_equal(pace_wait(&p, NOW + SEC), 0);
	/* Half of it did not come. */
	pace_refund(&p, 550000);
	assert_int_equal(pace_wait(&p, NOW), 450000 * 1000);
}

static void test_transfers(void **state)
{
	struct pace_page p = {0};

	pace_set(&p, 0, 10);
	pace_spend(&p, NOW, UINT32_MAX);
	assert_int_equal(pace_wait(&p, NOW), 0);
	pace_spend(&p, NOW, 0);
	assert_int_equal(pace_wait(&p, NOW), SEC / 10);
	/* Another limit: what is owed is forgotten. The same: it isn't. */
	pace_set(&p, 0, 10);
	assert_int_equal(pace_wait(&p, NOW), SEC / 10);
	pace_set(&p, 0, 20);
	assert_int_equal(pace_wait(&p, NOW), 0);
}

/* Whatever a worker wrote there, it passes. */
static void test_lies(void **state)
{
	struct pace_page p = {0};

	pace_set(&p, 1000000, 10);
	p.bytes.at = UINT64_MAX;
	p.transfers.at = NOW + 100 * SEC;
	assert_int_equal(pace_wait(&p, NOW), 0);
	pace_spend(&p, NOW, 1000);
	pace_refund(&p, UINT32_MAX);
	assert_int_equal(pace_wait(&p, NOW), 0);
	p.bytes.limit = 1;
	pace_spend(&p, NOW, UINT32_MAX);
	pace_spend(&p, NOW, UINT32_MAX);
	assert_in_range(pace_wait(&p, NOW), 0, PACE_WAIT_MAX_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_larger_than_saved_up),
		cmocka_unit_test(test_transfers),
		cmocka_unit_test(test_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
