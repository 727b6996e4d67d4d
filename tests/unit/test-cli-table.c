/* SPDX-License-Identifier: MIT */
#include "broker/cli/table.h"

#include <locale.h>
#include <stdlib.h>

#include "tests/unit/test.h"

static const char *const columns[] = {"NAME", "SIZE", "NOTE"};

static void check(const struct table *t, size_t width, bool colour, const char *expected)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	table_print(t, f, width, colour);
	fclose(f);
	assert_string_equal(text, expected);
	free(text);
}

static struct table *two_rows(void)
{
	struct table *t = table_create(columns, ARRAY_SIZE(columns));

	table_cell(t, "stick");
	table_cell_bytes(t, 1536);
	table_cell(t, "waits for its VM");
	table_cell_style(t, "b", TEXT_GOOD);
	table_cell(t, "");
	table_cell(t, NULL);
	return t;
}

static void test_aligned(void **state)
{
	struct table *t = two_rows();

	check(t, 0, false,
		"NAME   SIZE     NOTE\n"
		"stick  1.5 KiB  waits for its VM\n"
		"b      -        -\n");
	table_destroy(t);
}

static void test_only_titles(void **state)
{
	struct table *t = table_create(columns, ARRAY_SIZE(columns));

	check(t, 0, false, "NAME  SIZE  NOTE\n");
	/* A row that is not whole is not printed. */
	table_cell(t, "half");
	check(t, 0, false, "NAME  SIZE  NOTE\n");
	table_destroy(t);
	table_destroy(NULL);
}

static void test_ends_at_the_edge(void **state)
{
	struct table *t = two_rows();

	check(t, 32, false,
		"NAME   SIZE     NOTE\n"
		"stick  1.5 KiB  waits for its VM\n"
		"b      -        -\n");
	check(t, 31, false,
		"NAME   SIZE     NOTE\n"
		"stick  1.5 KiB  waits for its …\n"
		"b      -        -\n");
	check(t, 12, false,
		"NAME   SIZE\n"
		"stick  1.5 …\n"
		"b      -\n");
	/* No column without a character of it. */
	check(t, 7, false, "NAME\nstick\nb\n");
	check(t, 3, false, "NA…\nst…\nb\n");
	check(t, 1, false, "…\n…\nb\n");
	table_destroy(t);
}

static void test_wide_characters(void **state)
{
	struct table *t = table_create(columns, ARRAY_SIZE(columns));

	table_cell(t, "日本");
	table_cell(t, "größe");
	table_cell(t, "e\xcc\x81");
	check(t, 0, false,
		"NAME  SIZE   NOTE\n"
		"日本  größe  e\xcc\x81\n");
	check(t, 3, false, "NA…\n日…\n");
	table_destroy(t);
}

static void test_harmless(void **state)
{
	struct table *t = table_create(columns, 1);

	table_cell(t, "\033[2J\n\xff");
	check(t, 0, true, "\033[1mNAME\033[0m\n?[2J??\n");
	table_destroy(t);
}

static void test_colour_takes_no_room(void **state)
{
	struct table *t = two_rows();

	check(t, 12, true,
		"\033[1mNAME\033[0m   \033[1mSIZE\033[0m\n"
		"stick  1.5 …\n"
		"\033[32mb\033[0m      -\n");
	table_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_aligned),
		cmocka_unit_test(test_only_titles),
		cmocka_unit_test(test_ends_at_the_edge),
		cmocka_unit_test(test_wide_characters),
		cmocka_unit_test(test_harmless),
		cmocka_unit_test(test_colour_takes_no_room),
	};

	if (!setlocale(LC_CTYPE, "C.UTF-8")) {
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
