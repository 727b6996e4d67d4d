/* SPDX-License-Identifier: MIT */
#include "broker/cli/text.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

static void check_harmless(const char *text, const char *expected)
{
	char *out = text_harmless(text);

	assert_non_null(out);
	assert_string_equal(out, expected);
	assert_true(text_is_utf8(out));
	free(out);
}

static void test_harmless_keeps_text(void **state)
{
	check_harmless("", "");
	check_harmless("stick-1.img", "stick-1.img");
	check_harmless("größe 日本 😀 e\xcc\x81", "größe 日本 😀 e\xcc\x81");
}

static void test_harmless_takes_control_characters(void **state)
{
	check_harmless("\033[31mred\033]0;t\007", "?[31mred?]0;t?");
	check_harmless("a\r\n\tb\x7f", "a???b?");
	/* C1: CSI in one character. */
	check_harmless("\xc2\x9b"
		       "31m",
		"?31m");
	check_harmless("\xc2\xa0", "\xc2\xa0");
	/* Right-to-left override and isolates, separators, byte order mark. */
	check_harmless("a\u202eb\u2066c\u2028d\ufeff", "a?b?c?d?");
}

static void test_harmless_takes_broken_utf8(void **state)
{
	check_harmless("\xff\xfe", "??");
	check_harmless("a\xc3", "a?");
	check_harmless("\xe2\x82", "??");
	check_harmless("\xf0\x9f\x98", "???");
	/* Longer than need be: ESC as two and three bytes; lax terminals take it for one. */
	check_harmless("\xc0\x9b\xe0\x80\x9b", "?????");
	/* Surrogates, and what lies beyond U+10FFFF. */
	check_harmless("\xed\xa0\x80", "???");
	check_harmless("\xf4\x90\x80\x80\xf5\x80\x80\x80", "????????");
	/* The first and last characters of each length. */
	check_harmless(
		"\xdf\xbf\xe0\xa0\x80\xee\x80\x80\xef\xbf\xbd\xf0\x90\x80\x80\xf4\x8f\xbf\xbd",
		"\xdf\xbf\xe0\xa0\x80\xee\x80\x80\xef\xbf\xbd\xf0\x90\x80\x80\xf4\x8f\xbf\xbd");
	/* No characters: a bus would refuse the text. */
	check_harmless("a\xef\xbf\xbf\xef\xb7\x90\xf4\x8f\xbf\xbfz", "a???z");
}

static void test_is_utf8(void **state)
{
	assert_true(text_is_utf8(""));
	assert_true(text_is_utf8("größe"));
	assert_true(text_is_utf8("\033"));
	assert_false(text_is_utf8("gr\xf6\xdf"
				  "e"));
	assert_false(text_is_utf8("ok\xe2\x82"));
}

static void test_width(void **state)
{
	assert_int_equal(text_width(""), 0);
	assert_int_equal(text_width("größe"), 5);
	assert_int_equal(text_width("日本"), 4);
	assert_int_equal(text_width("e\xcc\x81"), 1);
	assert_int_equal(text_width("\xff"), 1);
}

static void test_fit(void **state)
{
	assert_int_equal(text_fit("abc", 0), 0);
	assert_int_equal(text_fit("abc", 2), 2);
	assert_int_equal(text_fit("abc", 9), 3);
	assert_int_equal(text_fit("größe", 3), 4);
	/* Half of a wide character is none of it. */
	assert_int_equal(text_fit("日本", 3), 3);
	/* What combines stays with what it combines with. */
	assert_int_equal(text_fit("e\xcc\x81x", 1), 3);
}

static void test_line(void **state)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	text_line(f, TEXT_PLAIN, "%s %d", "a\n\033b", 7);
	text_line(f, TEXT_BAD, "x");
	fclose(f);
	assert_string_equal(text, "a??b 7\n\033[1;31mx\033[0m\n");
	free(text);
}

static void test_bytes(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{1048575, "1.0 MiB"},
		{1048576, "1 MiB"},
		{UINT64_C(134217728), "128 MiB"},
		{UINT64_C(8000000000), "7.5 GiB"},
		{UINT64_MAX, "16 EiB"},
	};
	char out[32];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(text_bytes(cases[i].bytes, out, sizeof(out)), cases[i].text);
	}
}

static void check_shorten(const char *text, size_t width, const char *expected)
{
	char *out = text_shorten(text, width);

	assert_non_null(out);
	assert_string_equal(out, expected);
	assert_true(text_width(out) <= width);
	free(out);
}

static void test_shorten_keeps_both_ends(void **state)
{
	check_shorten("usb:0000:00:14.0-2.4", 20, "usb:0000:00:14.0-2.4");
	check_shorten("usb:0000:00:14.0-2.4", 12, "usb:0….0-2.4");
	check_shorten("abc", 2, "…c");
	check_shorten("abc", 1, "…");
	check_shorten("abc", 0, "");
	check_shorten("日本語日本語", 6, "日…語");
	check_shorten("", 0, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_harmless_keeps_text),
		cmocka_unit_test(test_harmless_takes_control_characters),
		cmocka_unit_test(test_harmless_takes_broken_utf8),
		cmocka_unit_test(test_is_utf8),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_fit),
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_shorten_keeps_both_ends),
	};

	if (!setlocale(LC_CTYPE, "C.UTF-8")) {
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
