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

static struct table *that_gives_way(const char *note)
{
	const struct table_column all[] = {
		{.title = "NAME", .min = 5},
		{.title = "SIZE", .right = true},
		{.title = "STATE", .rank = 1},
		{.title = "NOTE", .if_any = true, .rank = 2},
		{.title = "N", .right = true, .rank = 2},
	};
	struct table *t = table_create_columns(all, ARRAY_SIZE(all));
	static const char *const rows[][3] = {
		{"usb:00:14.0-2.4", "1.5", "up"}, {"日本語", "1000.0", "gone"}};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(rows[i]); k++) {
			table_cell(t, rows[i][k]);
		}
		table_cell(t, note);
		table_cell(t, i ? "12" : "3");
	}
	return t;
}

static void test_numbers_to_the_right(void **state)
{
	struct table *t = that_gives_way("x");

	check(t, 0, false,
		"NAME               SIZE  STATE  NOTE   N\n"
		"usb:00:14.0-2.4     1.5  up     x      3\n"
		"日本語           1000.0  gone   x     12\n");
	table_destroy(t);
	t = that_gives_way("");
	check(t, 0, false,
		"NAME               SIZE  STATE   N\n"
		"usb:00:14.0-2.4     1.5  up      3\n"
		"日本語           1000.0  gone   12\n");
	table_destroy(t);
}

/* First a name's middle goes, then a column, and what is cut is whole again where it can be. */
static void test_gives_way(void **state)
{
	struct table *t = that_gives_way("x");

	check(t, 30, false,
		"NAME     SIZE  STATE  NOTE   N\n"
		"us….4     1.5  up     x      3\n"
		"日…語  1000.0  gone   x     12\n");
	check(t, 29, false,
		"NAME              SIZE  STATE\n"
		"usb:00…4.0-2.4     1.5  up\n"
		"日本語          1000.0  gone\n");
	check(t, 19, false,
		"NAME           SIZE\n"
		"usb:0…0-2.4     1.5\n"
		"日本語       1000.0\n");
	/* Where nothing more gives way it ends at the edge. */
	check(t, 10, false,
		"NAME     …\n"
		"us….4\n"
		"日…語  10…\n");
	check(t, 7, false, "NAME\nus….4\n日…語\n");
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
		cmocka_unit_test(test_numbers_to_the_right),
		cmocka_unit_test(test_gives_way),
	};

	if (!setlocale(LC_CTYPE, "C.UTF-8")) {
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
