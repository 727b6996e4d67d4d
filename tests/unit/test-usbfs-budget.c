/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"

#include <stdbool.h>

#include "usb/usbfs-budget.h"

static void test_shares(void **state)
{
	struct usbfs_budget b = {.limit = 1000};

	assert_true(usbfs_budget_take(&b, USBFS_SHARE_IN, 300));
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_IN, 200));
	assert_false(usbfs_budget_take(&b, USBFS_SHARE_IN, 1));
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_OUT, 500));
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_CONTROL, USBFS_RESERVE));
	assert_false(usbfs_budget_take(&b, USBFS_SHARE_CONTROL, 1));
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_INTERRUPT, USBFS_RESERVE));
	assert_false(usbfs_budget_take(&b, USBFS_SHARE_INTERRUPT, 1));
	usbfs_budget_give(&b, USBFS_SHARE_IN, 200);
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_IN, 200));
}

static void test_larger_goes_alone(void **state)
{
	struct usbfs_budget b = {.limit = 1000};

	assert_true(usbfs_budget_take(&b, USBFS_SHARE_OUT, 800));
	assert_false(usbfs_budget_take(&b, USBFS_SHARE_OUT, 1));
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_IN, 1));
	usbfs_budget_give(&b, USBFS_SHARE_OUT, 800);
	assert_true(usbfs_budget_take(&b, USBFS_SHARE_OUT, 1));
	assert_false(usbfs_budget_take(&b, USBFS_SHARE_OUT, 800));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_larger_goes_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
