/* SPDX-License-Identifier: MIT */
#include "protocol/refusal.h"

#include <string.h>

#include "tests/unit/test.h"

/* Scripts tell refusals apart by code, D-Bus name and exit code: none may be shared or missing. */
static void all_distinct(void **state)
{
	for (int i = 1; i < REFUSAL_COUNT_; i++) {
		assert_true(refusal_exit_code(i) > 3);
		assert_true(strlen(refusal_sentence(i)) > 0);
		assert_true(strlen(refusal_remedy(i)) > 0);
		assert_int_equal(refusal_from_dbus_name(refusal_dbus_name(i)), i);
		for (int j = 1; j < i; j++) {
			assert_int_not_equal(refusal_exit_code(i), refusal_exit_code(j));
			assert_string_not_equal(refusal_code(i), refusal_code(j));
		}
	}
}

static void foreign_names(void **state)
{
	assert_int_equal(refusal_from_dbus_name("org.freedesktop.DBus.Error.Failed"), 0);
	assert_string_equal(refusal_code(-1), "unknown");
	assert_int_equal(refusal_exit_code(REFUSAL_COUNT_), 1);
}

static void long_text_is_cut(void **state)
{
	struct refusal_text t;
	char text[2000];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(refuse(&t, REFUSAL_BUSY, "%s", text), REFUSAL_BUSY);
	assert_int_equal(strlen(t.sentence), sizeof(t.sentence) - 1);
	assert_string_equal(t.remedy, refusal_remedy(REFUSAL_BUSY));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_distinct),
		cmocka_unit_test(foreign_names),
		cmocka_unit_test(long_text_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
