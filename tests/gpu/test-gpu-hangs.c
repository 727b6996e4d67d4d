/* SPDX-License-Identifier: MIT
 * The front alone with renderers that hang while no VMM waits for them, that work long, that have
 * nothing to do.
 */
#include <unistd.h>

#include "base/clock.h"
#include "tests/gpu/bare-front.h"
#include "tests/unit/test.h"

/* A renderer with a ring, and nothing to do. */
static void begin_idle(struct bare_front *b)
{
	union link_msg m;

	bare_renderer(b);
	bare_expect(b, LINK_START, &m);
	/* Longer than the front looks after it. */
	bare_expect_nothing(b, 600);
}

static void kick(struct bare_front *b)
{
	const uint64_t one = 1;

	assert_int_equal(write(b->kicks[0], &one, sizeof(one)), sizeof(one));
}

/* How long it takes until it is given up. */
static int64_t hang(struct bare_front *b)
{
	int64_t start = now_ms();

	bare_expect_lost(b);
	return now_ms() - start;
}

/* The fourth and the fifth: what they do is probably what the guest asks each of them. */
static void hang_too_often(struct bare_front *b)
{
	union link_msg m;

	for (int i = 0; i < 2; i++) {
		bare_renderer(b);
		bare_expect(b, LINK_START, &m);
		kick(b);
		if (i == 0) {
			bare_expect_lost(b);
		}
	}
	assert_int_equal(bare_exit_code(b), 1);
}

/* Nobody waits for it: only a guest has kicked it, or has kept it busy, or our parent has asked. */
static void hangs_unnoticed_by_the_vmm(void **state)
{
	struct bare_front *b = *state;
	const struct parent_msg ping = {.type = PARENT_PING, .seq = 1};
	struct parent_msg pong;
	int64_t best = INT64_MAX, ms;

	bare_ring(b, 0);
	for (int i = 0; i < 3; i++) {
		begin_idle(b);
		if (i == 2) {
			bare_ask(b, &ping);
			assert_int_equal(bare_hear(b, PARENT_PONG, &pong), -1);
		} else {
			kick(b);
		}
		if (i == 1) {
			/* It works, and would look again; then it does no more. */
			bare_answer(b, bare_expect_ping(b), true);
		}
		ms = hang(b);
		best = ms < best ? ms : best;
	}
	assert_in_range(best, 0, 2000);
	assert_true(bare_serves(b));
	hang_too_often(b);
}

/* One that shows that it works is waited for, and one that has nothing to do costs no turn of the
 * loop. */
static void works_long(void **state)
{
	struct bare_front *b = *state;
	unsigned long before = 0;

	bare_ring(b, 0);
	begin_idle(b);
	kick(b);
	for (int i = 0; i < 20; i++) {
		usleep(100000);
		journal_beat(b->journal);
	}
	bare_expect_nothing(b, 600);
	/* Neither message nor timer, when it has looked for the last time. */
	for (int i = 0; i < 15 && before != bare_switches(b); i++) {
		before = bare_switches(b);
		usleep(1000000);
	}
	assert_int_equal(bare_switches(b), before);
	kick(b);
	bare_answer(b, bare_expect_ping(b), false);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, bare_set_up, bare_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(hangs_unnoticed_by_the_vmm),
		TEST(works_long),
	};

	return cmocka_run_group_tests_name("gpu-hangs", tests, NULL, NULL);
}
