/* SPDX-License-Identifier: MIT */
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

static void check(const char *text, size_t max, const char *expected)
{
	char *out = utf8_escape(text, max);

	assert_non_null(out);
	assert_string_equal(out, expected);
	free(out);
}

static void test_escape(void **state)
{
	check("", 3, "");
	check("größe 日本 😀 \\x41", 100, "größe 日本 😀 \\x41");
	check("a\nb\x7f\x1b[0m", 100, "a\\x0ab\\x7f\\x1b[0m");
	check("\xc2\x9b", 100, "\\xc2\\x9b");
	check("\xc3", 100, "\\xc3");
	check("\xe2\x82z", 100, "\\xe2\\x82z");
}

static void test_escape_cuts(void **state)
{
	check("abc", 3, "abc");
	check("abcd", 3, "...");
	check("abcdef", 6, "abcdef");
	check("abcdefg", 6, "abc...");
	/* Never in the middle of a character or of what stands for one. */
	check("äöü", 6, "äöü");
	check("äöüx", 6, "ä...");
	check("a\x01\x02", 9, "a\\x01\\x02");
	check("a\x01\x02", 8, "a\\x01...");
	check("a\x01\x02", 7, "a...");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_escape_cuts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
