/* SPDX-License-Identifier: MIT */
#include "broker/cli/options.h"

#include <string.h>

#include "tests/unit/test.h"

#define WORDS_MAX 16

static const struct cli_command commands[] = {
	{.name = "list", .args = ""},
	{.name = "attach",
		.args = "DEVICE VM",
		.n_args = 2,
		.options = {{"wait", NULL, ""}, {"timeout", "SECONDS", ""}}},
	{.name = "help", .args = "[WHAT]", .n_args = 2, .n_optional = 2},
	{.group = "vm",
		.name = "add",
		.args = "NAME",
		.n_args = 1,
		.options = {{"qmp", "PATH", ""}, {"force", NULL, ""}, {"bus", "BUS", ""}},
		.letters = "qf"},
	{.group = "vm", .name = "list", .args = ""},
	{.group = "disk", .name = "add", .args = "IMAGE", .n_args = 1, .path = true},
};

/* Splits line at blanks; "''" is the empty word. line is kept until the next call. */
static int parse(struct options *o, const char *line)
{
	static char copy[1024];
	char *argv[WORDS_MAX + 2] = {(char *)"devbroker"};
	int argc = 1;

	strncpy(copy, line, sizeof(copy) - 1);
	for (char *p = copy; *p && argc < WORDS_MAX;) {
		argv[argc++] = p;
		p += strcspn(p, " ");
		if (*p) {
			*p++ = '\0';
		}
		if (strcmp(argv[argc - 1], "''") == 0) {
			argv[argc - 1] += 2;
		}
	}
	return options_parse(o, commands, ARRAY_SIZE(commands), "/run/d", argc, argv);
}

static void check_wrong(const char *line, const char *error)
{
	struct options o;

	assert_int_equal(parse(&o, line), CLI_EXIT_USAGE);
	assert_string_equal(o.error, error);
	assert_non_null(o.remedy);
}

static void test_command_with_arguments(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "attach stick win"), 0);
	assert_ptr_equal(o.command, &commands[1]);
	assert_string_equal(o.args[0], "stick");
	assert_string_equal(o.args[1], "win");
	assert_null(options_value(&o, "wait"));
	assert_null(options_value(&o, "timeout"));
	assert_null(options_value(&o, "nonsense"));
	assert_string_equal(o.socket, "/run/d/bus");
	assert_false(o.json || o.help || o.version || o.no_color);
}

static void test_options_anywhere(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "--json attach --wait stick --timeout 5 win --no-color"), 0);
	assert_true(o.json && o.no_color);
	assert_string_equal(options_value(&o, "wait"), "");
	assert_string_equal(options_value(&o, "timeout"), "5");
	assert_string_equal(o.args[1], "win");
	assert_int_equal(parse(&o, "attach a b --timeout=7 --timeout=8"), 0);
	assert_string_equal(options_value(&o, "timeout"), "8");
	assert_int_equal(parse(&o, "attach a b --timeout="), 0);
	assert_string_equal(options_value(&o, "timeout"), "");
	assert_int_equal(parse(&o, "attach a b --timeout --wait"), 0);
	assert_string_equal(options_value(&o, "timeout"), "--wait");
	assert_null(options_value(&o, "wait"));
}

static void test_groups(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "vm add win --qmp /x"), 0);
	assert_ptr_equal(o.command, &commands[3]);
	assert_string_equal(o.args[0], "win");
	assert_string_equal(options_value(&o, "qmp"), "/x");
	assert_int_equal(parse(&o, "vm list"), 0);
	assert_ptr_equal(o.command, &commands[4]);
	assert_int_equal(parse(&o, "list"), 0);
	assert_ptr_equal(o.command, &commands[0]);
}

static void test_letters(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "vm add win -q /x -f"), 0);
	assert_string_equal(options_value(&o, "qmp"), "/x");
	assert_string_equal(options_value(&o, "force"), "");
	assert_int_equal(parse(&o, "vm add -q- win"), 0);
	assert_string_equal(options_value(&o, "qmp"), "-");
	assert_null(options_value(&o, "force"));
	check_wrong("vm add win -q", "-q needs a value");
	check_wrong("vm add win -fq", "there is no option -fq");
	check_wrong("-q /x vm add win", "there is no option -q");
	check_wrong("vm add win -q \xff", "the value of -q is not UTF-8");
}

static void test_where_the_socket_is(void **state)
{
	struct options o;
	char line[700] = "--socket ";

	assert_int_equal(parse(&o, "--run-dir /tmp/x list"), 0);
	assert_string_equal(o.socket, "/tmp/x/bus");
	assert_int_equal(parse(&o, "list --socket=/tmp/y"), 0);
	assert_string_equal(o.socket, "/tmp/y");
	memset(line + strlen(line), 'x', 520);
	check_wrong(line, "the path of the socket is too long");
}

static void test_words_that_look_like_options(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "attach -- --wait --json"), 0);
	assert_string_equal(o.args[0], "--wait");
	assert_string_equal(o.args[1], "--json");
	assert_false(o.json);
	assert_int_equal(parse(&o, "attach - ''"), 0);
	assert_string_equal(o.args[0], "-");
	assert_string_equal(o.args[1], "");
}

static void test_help_and_version(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "--version"), 0);
	assert_true(o.version);
	assert_int_equal(parse(&o, "-V"), 0);
	assert_true(o.version);
	assert_int_equal(parse(&o, "-h"), 0);
	assert_true(o.help);
	assert_null(o.command);
	assert_null(o.args[0]);
	/* Arguments need not be there for it. */
	assert_int_equal(parse(&o, "attach --help"), 0);
	assert_true(o.help);
	assert_ptr_equal(o.command, &commands[1]);
	assert_int_equal(parse(&o, "vm --help"), 0);
	assert_null(o.command);
	assert_string_equal(o.args[0], "vm");
	assert_int_equal(parse(&o, "help"), 0);
	assert_int_equal(parse(&o, "help vm add"), 0);
	assert_string_equal(o.args[1], "add");
}

static void test_wrong(void **state)
{
	check_wrong("", "what is to be done?");
	check_wrong("''", "there is no command ");
	check_wrong("lend", "there is no command lend");
	check_wrong("vm", "vm what? add, list");
	check_wrong("vm ad", "there is no command vm ad, only: add, list");
	check_wrong("attach a", "attach takes DEVICE VM");
	check_wrong("attach a b c", "attach takes DEVICE VM");
	check_wrong("attach a b c d", "too many arguments: d");
	check_wrong("list a", "list takes no arguments");
	check_wrong("help a b c", "help takes [WHAT]");
	check_wrong("list --wait", "list has no option --wait");
	check_wrong("vm add --wait", "vm add has no option --wait");
	check_wrong("--wait attach a b", "there is no option --wait before a command");
	check_wrong("attach a b --timeout", "--timeout needs a value");
	check_wrong("attach a b --wait=yes", "--wait takes no value");
	check_wrong("list --json=1", "--json takes no value");
	check_wrong("list --jso", "list has no option --jso");
	check_wrong("list --run-dir", "--run-dir needs a value");
	check_wrong("list -x", "there is no option -x");
	check_wrong("list -hV", "there is no option -hV");
}

static void test_json_is_known_even_when_wrong(void **state)
{
	struct options o;

	assert_int_equal(parse(&o, "list --bogus --json"), CLI_EXIT_USAGE);
	assert_true(o.json);
	assert_int_equal(parse(&o, "list --bogus -- --json"), CLI_EXIT_USAGE);
	assert_false(o.json);
}

static void test_only_paths_may_be_no_utf8(void **state)
{
	struct options o;

	check_wrong("attach a b\xff", "argument 2 is not UTF-8");
	check_wrong("attach a b --timeout \xff", "the value of --timeout is not UTF-8");
	assert_int_equal(parse(&o, "disk add b\xff.img"), 0);
	assert_string_equal(o.args[0], "b\xff.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command_with_arguments),
		cmocka_unit_test(test_options_anywhere),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_letters),
		cmocka_unit_test(test_where_the_socket_is),
		cmocka_unit_test(test_words_that_look_like_options),
		cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_json_is_known_even_when_wrong),
		cmocka_unit_test(test_only_paths_may_be_no_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
