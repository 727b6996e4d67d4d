/* SPDX-License-Identifier: MIT
 * Patterns, and texts that are meant to make them slow.
 */
#include "base/glob.h"

#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "tests/unit/test.h"

static void what_matches(void **state)
{
	static const struct {
		const char *pattern;
		const char *text;
		bool match;
	} all[] = {{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true},
		{"*", "abc", true}, {"?", "", false}, {"?", "a", true}, {"??", "a", false},
		{"a*c", "abbbc", true}, {"a*c", "abbb", false}, {"*a*", "bab", true},
		{"*ab", "aab", true}, {"a*b*c", "axbxbxc", true}, {"a*b*c", "axbxbx", false},
		{"**", "x", true}, {"a?c*", "abc", true}, {"[a]", "a", false}, {"A", "a", false}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		assert_int_equal(glob_match(all[i].pattern, all[i].text), all[i].match);
	}
	assert_true(glob_match_nocase("0ABc:*", "0abC:1"));
	assert_true(glob_is_pattern("a*") && glob_is_pattern("?") && !glob_is_pattern("a.b"));
}

/* Thirty stars against a text that never ends as they want. */
static void bounded_time(void **state)
{
	char pattern[128] = "", text[4096];
	clock_t begin = clock();

	for (size_t i = 0; i < 30; i++) {
		strcat(pattern, "*a"); // NOLINT(clang-analyzer-security.insecureAPI.strcpy)
	}
	strcat(pattern, "b"); // NOLINT(clang-analyzer-security.insecureAPI.strcpy)
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_false(glob_match(pattern, text));
	assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_matches),
		cmocka_unit_test(bounded_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
