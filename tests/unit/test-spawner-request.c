/* SPDX-License-Identifier: MIT
 * What the spawner accepts of a broker that has lost its mind.
 */
#include <errno.h>
#include <string.h>

#include "broker/spawner-wire.h"
#include "tests/unit/test.h"

static struct spawner_request good(void)
{
	struct spawner_request r = {
		.id = 1,
		.program = SPAWNER_QMP,
		.uid_slot = 7,
		.n_args = 3,
		.args_size = 7,
		.n_fds = 2,
		.args = "ab\0\0cd",
	};

	return r;
}

static int check(const struct spawner_request *r)
{
	const char *argv[SPAWNER_ARGV_MAX];

	return spawner_request_check(r, sizeof(*r), 2, 8, argv);
}

static void test_good(void **state)
{
	struct spawner_request r = good();
	const char *argv[SPAWNER_ARGV_MAX];

	assert_int_equal(spawner_request_check(&r, sizeof(r), 2, 8, argv), 0);
	assert_string_equal(argv[0], "devbroker-qmp");
	assert_string_equal(argv[1], "ab");
	assert_string_equal(argv[2], "");
	assert_string_equal(argv[3], "cd");
	assert_null(argv[4]);
}

static void test_none(void **state)
{
	struct spawner_request r = {.program = SPAWNER_USB};
	const char *argv[SPAWNER_ARGV_MAX];

	/* No range of ids: the slot says nothing. */
	r.uid_slot = 99;
	assert_int_equal(spawner_request_check(&r, sizeof(r), 0, 0, argv), 0);
	assert_string_equal(argv[0], "devbroker-usb");
	assert_null(argv[1]);
}

static void test_bad(void **state)
{
	const char *argv[SPAWNER_ARGV_MAX];
	struct spawner_request r = good();

	assert_int_equal(spawner_request_check(&r, sizeof(r) - 1, 2, 8, argv), -EBADMSG);
	assert_int_equal(spawner_request_check(&r, sizeof(r), 1, 8, argv), -EBADMSG);
	assert_int_equal(spawner_request_check(&r, sizeof(r), 2, 7, argv), -EBADMSG);
	r = good();
	r.program = SPAWNER_PROGRAM_COUNT_;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.program = UINT32_MAX;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.n_args = 2;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.n_args = 4;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.n_args = SPAWNER_ARGV_MAX - 1;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.args_size = 6; /* the last one's NUL is outside */
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.args_size = 8;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.args_size = SPAWNER_ARGS_SIZE + 1;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.pad = 1;
	assert_int_equal(check(&r), -EBADMSG);
	r = good();
	r.n_fds = SPAWN_FDS_MAX + 1;
	assert_int_equal(
		spawner_request_check(&r, sizeof(r), SPAWN_FDS_MAX + 1, 8, argv), -EBADMSG);
}

static void test_full(void **state)
{
	struct spawner_request r = good();

	/* Every byte in use, with no NUL anywhere. */
	r.args_size = SPAWNER_ARGS_SIZE;
	memset(r.args, 'x', sizeof(r.args));
	r.n_args = 1;
	assert_int_equal(check(&r), -EBADMSG);
	r.args[SPAWNER_ARGS_SIZE - 1] = '\0';
	assert_int_equal(check(&r), 0);
	/* The most arguments. */
	memset(r.args, 0, sizeof(r.args));
	r.n_args = r.args_size = SPAWNER_ARGV_MAX - 2;
	assert_int_equal(check(&r), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests_name("spawner-request", tests, NULL, NULL);
}
