/* SPDX-License-Identifier: MIT
 * What is shown through the journal: damage and cursors from one side to the other, with either of
 * them slow, and with nonsense in it.
 */
#include "gpu/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

struct rig {
	int fd;
	struct journal *front, *renderer; /* the same, mapped twice */
	struct journal_reader reader;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_int_equal(journal_create(&r->fd, &r->front), 0);
	assert_int_equal(journal_map(r->fd, &r->renderer), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	journal_unmap(r->front);
	journal_unmap(r->renderer);
	close(r->fd);
	free(r);
	return 0;
}

static void mapping(void **state)
{
	struct rig *r = *state;
	_cleanup_close_ int fd = memfd_create("no journal", MFD_CLOEXEC);
	struct journal *j = NULL;

	assert_int_equal(ftruncate(fd, sizeof(struct journal)), 0);
	assert_int_equal(journal_map(fd, &j), -EINVAL); /* can be cut */
	assert_true(ftruncate(r->fd, 0) < 0);
	r->front->version = 0;
	assert_int_equal(journal_map(r->fd, &j), -EINVAL);
	assert_null(j);
}

static bool put(struct rig *r, uint32_t scanout, uint32_t x)
{
	return journal_put_damage(
		r->renderer, &(struct journal_damage){.scanout = scanout, .x = x, .width = 1});
}

static void damages(void **state)
{
	struct rig *r = *state;
	struct journal_damage d;

	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 0);
	assert_false(put(r, 3, 0)); /* nobody sleeps */
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 1);
	assert_int_equal(d.scanout, 3);
	/* To sleep with nothing to do: the first rings, the second needn't. */
	assert_false(journal_sleep(r->front, &r->reader));
	assert_true(put(r, 0, 1));
	assert_false(put(r, 0, 2));
	/* And not to sleep with something to do. */
	assert_true(journal_sleep(r->front, &r->reader));
	assert_false(put(r, 0, 3));
	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 1);
		assert_int_equal(d.x, i);
	}
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 0);

	/* No room: everything is damaged, and nothing is taken twice. */
	for (uint32_t i = 0; i < JOURNAL_DAMAGES; i++) {
		put(r, 0, i);
	}
	assert_int_equal(r->front->damage_lost, 0);
	put(r, 0, 0);
	assert_int_equal(r->front->damage_lost, 1);
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 2);
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 0);
	put(r, 0, 7);
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 1);
	assert_int_equal(d.x, 7);

	/* Nonsense: never outside, and an end to it. */
	r->renderer->damage_put = 0x80000000;
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 2);
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 0);
	put(r, JOURNAL_SCANOUTS, 0);
	assert_int_equal(journal_take_damage(r->front, &r->reader, &d), 2);
}

static void cursors(void **state)
{
	static uint8_t image[JOURNAL_CURSOR_BYTES];
	struct rig *r = *state;
	struct journal_cursor c = {.resource_id = 5, .x = 10, .y = 20, .hot_x = 1, .hot_y = 2}, out;
	bool fresh = false;

	memset(image, 7, sizeof(image));
	assert_false(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	assert_false(journal_sleep(r->front, &r->reader));
	assert_true(journal_put_cursor(r->renderer, 2, &c, image));
	assert_true(journal_sleep(r->front, &r->reader));
	assert_true(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	assert_true(fresh);
	assert_int_equal(out.resource_id, 5);
	assert_int_equal(out.hot_y, 2);
	assert_memory_equal(out.pixels, image, sizeof(image));
	assert_false(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	/* Moves: only the newest is seen, and an image between two looks is. */
	c.x = 11;
	assert_false(journal_put_cursor(r->renderer, 2, &c, NULL));
	c.x = 12;
	assert_false(journal_put_cursor(r->renderer, 2, &c, NULL));
	assert_true(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	assert_false(fresh);
	assert_int_equal(out.x, 12);
	assert_false(journal_put_cursor(r->renderer, 2, &c, image));
	assert_false(journal_put_cursor(r->renderer, 2, &c, NULL));
	assert_true(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	assert_true(fresh);
	/* Killed in the middle of writing: not shown, until the next one has written. */
	r->renderer->cursors[2].changes |= 1;
	assert_false(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
	assert_false(journal_sleep(r->front, &r->reader));
	assert_true(journal_put_cursor(r->renderer, 2, &c, NULL));
	assert_true(journal_take_cursor(r->front, &r->reader, 2, &out, &fresh));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(damages, setup, teardown),
		cmocka_unit_test_setup_teardown(cursors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
