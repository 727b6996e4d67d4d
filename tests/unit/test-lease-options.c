/* SPDX-License-Identifier: MIT
 * Lists of interfaces, as people write them and as they are shown again.
 */
#include "broker/lease-options.h"

#include <errno.h>

#include "tests/unit/test.h"

static void interfaces_there_and_back(void **state)
{
	static const struct {
		const char *text;
		uint32_t mask;
		const char *shown;
	} all[] = {
		{"0", 1, "0"},
		{"0,2", 5, "0,2"},
		{"31", 1u << 31, "31"},
		{"7,3,3", 0x88, "3,7"},
		{"007", 0x80, "7"},
	};
	char out[LEASE_INTERFACES_TEXT];
	uint32_t mask;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		assert_int_equal(lease_interfaces_parse(all[i].text, &mask), 0);
		assert_int_equal(mask, all[i].mask);
		assert_string_equal(lease_interfaces_print(mask, out), all[i].shown);
	}
	assert_string_equal(lease_interfaces_print(0, out), "");
	assert_int_equal(lease_interfaces_parse(lease_interfaces_print(UINT32_MAX, out), &mask), 0);
	assert_int_equal(mask, UINT32_MAX);
}

static void what_is_no_list(void **state)
{
	static const char *const all[] = {"", ",", "0,", ",0", "32", "0 ,1", "-1", "+1", "0x1",
		"1-2", "all", "99999999999", "0000"};
	uint32_t mask = 42;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		assert_int_equal(lease_interfaces_parse(all[i], &mask), -EINVAL);
	}
	assert_int_equal(mask, 42);
}

static void what_a_vm_sees(void **state)
{
	const struct lease_options all[] = {{.interfaces = 1}, {.read_only = true},
		{.allow_firmware = true}, {.no_reset = true}};
	const struct lease_options none = {0};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		assert_int_equal(lease_options_same_view(&all[i], &none), all[i].no_reset);
		assert_false(lease_options_equal(&all[i], &none));
		assert_true(lease_options_equal(&all[i], &all[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(interfaces_there_and_back),
		cmocka_unit_test(what_is_no_list),
		cmocka_unit_test(what_a_vm_sees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
