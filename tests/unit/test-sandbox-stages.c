/* SPDX-License-Identifier: MIT */
#include "base/sandbox.h"

#include <errno.h>

#include "tests/unit/test.h"

#define UNTOUCHED 0xdeadU

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		uint32_t left_out;
	} good[] = {
		{"full", 0},
		{"reduced:landlock", SANDBOX_LANDLOCK},
		{"reduced:seccomp", SANDBOX_SECCOMP},
		{"reduced:root,landlock", SANDBOX_ROOT | SANDBOX_LANDLOCK},
		{"reduced:landlock,root", SANDBOX_ROOT | SANDBOX_LANDLOCK},
		{"reduced:privileges", SANDBOX_PRIVILEGES},
		/* No mount namespace, no pivot_root. */
		{"reduced:namespaces", SANDBOX_NAMESPACES | SANDBOX_ROOT},
		{"reduced:root,namespaces", SANDBOX_NAMESPACES | SANDBOX_ROOT},
		{"reduced:namespaces,root,privileges,landlock,seccomp", SANDBOX_ALL & ~SANDBOX_FDS},
	};
	uint32_t stages;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		stages = UNTOUCHED;
		assert_int_equal(sandbox_parse(good[i].text, false, &stages), 0);
		assert_int_equal(stages, SANDBOX_ALL & ~good[i].left_out);
	}
}

static void test_parse_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		"Full",
		"full ",
		"off",
		"none",
		"reduced",
		"reduced:",
		"reduced:,",
		"reduced:fds",
		"reduced:root,",
		"reduced:,root",
		"reduced:root,,landlock",
		"reduced:root,root",
		"reduced:roo",
		"reduced:roots",
		"reduced: root",
		"reduced:full",
		"full,reduced:root",
	};
	uint32_t stages = UNTOUCHED;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(sandbox_parse(bad[i], false, &stages), -EINVAL);
		assert_int_equal(stages, UNTOUCHED);
	}
}

static void test_off(void **state)
{
	uint32_t stages = UNTOUCHED;

	assert_int_equal(sandbox_parse("off", false, &stages), -EINVAL);
	assert_int_equal(stages, UNTOUCHED);
	assert_int_equal(sandbox_parse("off", true, &stages), 0);
	assert_int_equal(stages, 0);
}

static void test_format(void **state)
{
	char text[SANDBOX_TEXT_SIZE], small[8];

	assert_string_equal(sandbox_format(SANDBOX_ALL, text, sizeof(text)), "full");
	assert_string_equal(sandbox_format(0, text, sizeof(text)), "off");
	assert_string_equal(sandbox_format(SANDBOX_ALL & ~(SANDBOX_LANDLOCK | SANDBOX_ROOT), text,
				    sizeof(text)),
		"reduced:root,landlock");
	/* The longest. */
	assert_string_equal(sandbox_format(SANDBOX_FDS, text, sizeof(text)),
		"reduced:namespaces,root,privileges,landlock,seccomp");
	assert_string_equal(sandbox_format(SANDBOX_FDS, small, sizeof(small)), "reduced");
}

static void test_round_trip(void **state)
{
	char text[SANDBOX_TEXT_SIZE];

	for (uint32_t stages = 0; stages <= SANDBOX_ALL; stages++) {
		uint32_t back = UNTOUCHED;

		if (!(stages & SANDBOX_FDS) && stages != 0) {
			continue;
		}
		if (!(stages & SANDBOX_NAMESPACES) && stages & SANDBOX_ROOT) {
			continue;
		}
		sandbox_format(stages, text, sizeof(text));
		assert_int_equal(sandbox_parse(text, true, &back), 0);
		assert_int_equal(back, stages);
	}
}

static void test_names(void **state)
{
	assert_string_equal(sandbox_stage_name(SANDBOX_FDS), "fds");
	assert_string_equal(sandbox_stage_name(SANDBOX_SECCOMP), "seccomp");
	assert_string_equal(sandbox_stage_name(0), "unknown");
	assert_string_equal(sandbox_stage_name(SANDBOX_ROOT | SANDBOX_FDS), "unknown");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("sandbox-stages", tests, NULL, NULL);
}
