/* SPDX-License-Identifier: MIT
 * The front alone with renderers that hang or end while they draw in 3D: drawing takes its time,
 * whoever it was for is named, and a VM that does it again and again gets no 3D.
 */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "tests/gpu/bare-front.h"
#include "tests/unit/test.h"

static void draws_long(void **state)
{
	struct bare_front *b = *state;
	const uint64_t one = 1;
	union link_msg m;
	int64_t start;

	bare_ring(b, 0);
	bare_renderer(b);
	bare_expect(b, LINK_START, &m);
	b->journal->drawing = 1;
	start = now_ms();
	assert_int_equal(write(b->kicks[0], &one, sizeof(one)), sizeof(one));
	bare_expect_lost(b);
	/* BARE_HANG_SECONDS, looked at every 0.4 s, instead of 1.2 s. */
	assert_in_range(now_ms() - start, 1000 * BARE_HANG_SECONDS - 500, 10000);
	assert_int_equal(b->journal->drawing, 0);
}

/* hangs: that the front says there have been. */
static void end_while_drawing(struct bare_front *b, uint32_t drawing, uint64_t hangs)
{
	struct parent_msg m;

	bare_renderer(b);
	b->journal->drawing = drawing;
	b->journal->contexts[0].id = 77;
	memcpy(b->journal->context_names[0], "bo\nmb", 5);
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &m), -1);
	assert_int_equal(m.hangs, hangs);
}

static struct parent_msg ask(struct bare_front *b)
{
	const struct parent_msg ping = {.type = PARENT_PING, .seq = 1};
	struct parent_msg pong;

	bare_ask(b, &ping);
	assert_int_equal(bare_hear(b, PARENT_PONG, &pong), -1);
	return pong;
}

static void quarantined(void **state)
{
	struct bare_front *b = *state;
	const struct parent_msg allow = {.type = PARENT_ALLOW};
	union link_msg m;

	/* Those that do not draw when they end don't count. */
	for (int i = 0; i < 4; i++) {
		end_while_drawing(b, 0, 0);
	}
	assert_int_equal(ask(b).hangs, 0);
	/* Whatever a renderer has written there. */
	end_while_drawing(b, 2, 1);
	end_while_drawing(b, 1, 2);
	assert_false(b->setup.flags & LINK_SETUP_NO_3D);
	end_while_drawing(b, UINT32_MAX, 3);
	assert_int_equal(ask(b).hangs, 3);
	assert_int_equal(ask(b).quarantined, 1);
	bare_renderer(b);
	assert_true(b->setup.flags & LINK_SETUP_NO_3D);
	bare_ask(b, &allow);
	bare_expect(b, LINK_ALLOW, &m);
	assert_int_equal(m.allow.allowed, 1);
	assert_int_equal(ask(b).quarantined, 0);
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &(struct parent_msg){0}), -1);
	bare_renderer(b);
	assert_false(b->setup.flags & LINK_SETUP_NO_3D);
	assert_true(bare_serves(b));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, bare_set_up, bare_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(draws_long),
		TEST(quarantined),
	};

	return cmocka_run_group_tests_name("gpu-blame", tests, NULL, NULL);
}
