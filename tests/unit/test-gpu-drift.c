/* SPDX-License-Identifier: MIT
 * What is taken beyond the ledger, by a meter that tells what it is told to; whom that is refused
 * to; and the real meter.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/sandbox-internal.h"
#include "gpu/drift.h"
#include "tests/unit/gpu-rig-3d.h"

#define MIB   (UINT64_C(1) << 20)
#define LIMIT (32 * MIB) /* the rig's */
#define BEGIN (50 * MIB) /* that nobody is charged */
#define TICK  (10 * UINT64_C(1000000))

enum { DRAW = 8, SHADER = 1 | 4 << 8 };

/* What the meter shows. */
static struct {
	uint64_t taken; /* beside what fake_3d takes */
	uint64_t free;  /* of it, until it is trimmed */
	uint64_t now, tick;
	uint32_t looks, trims;
} shown;

static uint64_t own(int fd)
{
	assert_int_equal(fd, 77);
	shown.looks++;
	return BEGIN + shown.taken + fake.taken;
}

static void trim(void)
{
	shown.trims++;
	shown.taken -= shown.free;
	shown.free = 0;
}

static uint64_t coarse(void)
{
	return shown.now += shown.tick;
}

static const struct drift_meter meter = {own, 77, trim, coarse};

static int setup_drift(void **state)
{
	int r = setup_3d(state);
	struct rig *rig = *state;

	memset(&shown, 0, sizeof(shown));
	shown.tick = TICK;
	drift_init(&rig->gpu->drift, &rig->gpu->budget, &meter);
	return r;
}

static void only_what_is_beyond(void **state)
{
	struct rig *r = *state;
	struct budget *b = &r->gpu->budget;

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 1024, 1024), OK);
	shown.taken = b->used + DRIFT_SLACK;
	drift_look(&r->gpu->drift);
	assert_int_equal(b->uncharged, 0);
	shown.taken += 5 * MIB;
	drift_look(&r->gpu->drift);
	assert_int_equal(b->uncharged, 5 * MIB);
	/* An image is charged, and in a file: it hides nothing. */
	assert_int_equal(create(r, 2, BGRX, 512, 512), OK);
	drift_look(&r->gpu->drift);
	assert_int_equal(b->shared, MIB);
	assert_int_equal(b->uncharged, 5 * MIB);
	assert_int_equal(unref(r, 2), OK);
	assert_int_equal(b->shared, 0);
	/* Of what is charged and never came it does. */
	shown.taken = 0;
	drift_look(&r->gpu->drift);
	assert_int_equal(b->uncharged, 0);
}

/* It is in the way of what is made next, to the byte. */
static void creations(void **state)
{
	struct rig *r = *state;
	struct budget *b = &r->gpu->budget;

	shown.taken = DRIFT_SLACK + LIMIT - 6 * MIB;
	drift_look(&r->gpu->drift);
	assert_int_equal(b->uncharged, LIMIT - 6 * MIB);
	shown.taken += 3 * MIB; /* as it is charged */
	assert_int_equal(context(r, 1), OK);
	assert_false(budget_has(b, 3 * MIB + 1));
	assert_true(budget_has(b, 3 * MIB));
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 1024, 1024), NO_MEMORY);
	assert_int_equal(r->gpu->refused, 1);
	assert_int_equal(join(r, 1, 1), NO_MEMORY);
	assert_int_equal(submit(r, 1, (uint32_t[]){0}, 1), NO_MEMORY);
	assert_int_equal(r->gpu->three->poisoned, 1);
	shown.taken += 3 * MIB;
	assert_int_equal(context(r, 2), OK);
	assert_int_equal(context(r, 3), NO_MEMORY);
}

/* Nobody is refused for what is free. */
static void free_memory(void **state)
{
	struct rig *r = *state;
	struct budget *b = &r->gpu->budget;

	shown.taken = DRIFT_SLACK + LIMIT;
	shown.free = 20 * MIB;
	drift_look(&r->gpu->drift);
	assert_int_equal(b->uncharged, LIMIT);
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 1024, 1024), OK);
	assert_int_equal(shown.trims, 1);
	assert_int_equal(create_3d(r, 2, TARGET_2D, RGBA, 1024, 1024), OK);
	assert_int_equal(shown.trims, 1);
	/* What no trimming would make possible is not tried. */
	assert_int_equal(create_3d(r, 3, TARGET_2D, RGBA, 16384, 16384), NO_MEMORY);
	assert_int_equal(shown.trims, 1);
}

/* What may be free is given back as soon as it is much, though nothing is in the way of anybody;
 * and when a context ends. */
static void given_back(void **state)
{
	struct rig *r = *state;
	struct budget *b = &r->gpu->budget;

	assert_int_equal(context(r, 1), OK);
	shown.taken = b->used + DRIFT_SLACK + DRIFT_SLACK;
	shown.free = MIB;
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(shown.trims, 0);
	shown.taken += MIB;
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(shown.trims, 1);
	assert_int_equal(b->uncharged, DRIFT_SLACK);
	/* The rest is no less for trying again. */
	assert_int_equal(create_3d(r, 1, TARGET_2D, RGBA, 16, 16), OK);
	assert_int_equal(unref(r, 1), OK);
	assert_int_equal(shown.trims, 1);
	shown.free = shown.taken;
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(shown.trims, 2);
	assert_int_equal(b->uncharged, 0);
	/* Nothing was known of it before. */
	assert_int_equal(context(r, 1), OK);
	shown.taken = shown.free = 3 * MIB + DRIFT_SLACK;
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(shown.trims, 3);
	assert_int_equal(shown.taken, 0);
}

/* Of a program's draws: n of them. */
static uint32_t draws(uint32_t *dwords, uint32_t n)
{
	memset(dwords, 0, (size_t)n * 13 * 4);
	for (uint32_t i = 0; i < n; i++) {
		dwords[i * 13] = DRAW | 12 << 16;
	}
	return n * 13;
}

static void who_took_it(void **state)
{
	static uint32_t dwords[13 * 100];
	struct rig *r = *state;
	struct budget *b = &r->gpu->budget;
	uint32_t n = draws(dwords, 100), used;

	for (uint32_t i = 1; i < 4; i++) {
		assert_int_equal(context(r, i), OK);
	}
	/* With the buffer that streams are copied into. */
	assert_int_equal(submit(r, 3, dwords, n), OK);
	fake.n_submits = 0;
	used = (uint32_t)b->used;
	shown.taken = used + DRIFT_SLACK;
	/* In parts of eight: the third one is too much, and the rest is left. */
	fake.takes = 9 * MIB;
	assert_int_equal(submit(r, 1, dwords, n), NO_MEMORY);
	assert_int_equal(fake.n_submits, 3);
	assert_int_equal(fake.n_dwords, 8 * 13);
	assert_int_equal(b->uncharged, 27 * MIB);
	assert_int_equal(r->gpu->three->poisoned, 1);
	assert_int_equal(r->gpu->refused, 1);
	assert_int_equal(submit(r, 1, dwords, n), NO_MEMORY);
	assert_int_equal(fake.n_submits, 3);
	/* Others draw on, as long as they take no more. */
	fake.takes = 0;
	assert_int_equal(submit(r, 2, dwords, n), OK);
	assert_int_equal(fake.n_submits, 16);
	assert_int_equal(fake.n_dwords, 4 * 13);
	assert_int_equal(r->gpu->three->poisoned, 1);
	/* Or next to nothing. */
	fake.takes = DRIFT_OVER / 13;
	assert_int_equal(submit(r, 2, dwords, n), OK);
	assert_int_equal(submit(r, 3, dwords, n / 2), OK);
	fake.takes = MIB;
	assert_int_equal(submit(r, 3, dwords, n), NO_MEMORY);
	assert_int_equal(r->gpu->three->poisoned, 2);
	/* It is over, and the memory is back. */
	shown.free = shown.taken;
	fake.taken = 0;
	assert_int_equal(context_end(r, 1), OK);
	assert_int_equal(b->uncharged, 0);
	fake.takes = MIB;
	assert_int_equal(submit(r, 2, dwords, n), OK);
}

/* A limit that was lowered is nobody's doing. */
static void lowered(void **state)
{
	struct rig *r = *state;
	uint32_t dwords[13];

	assert_int_equal(context(r, 1), OK);
	assert_int_equal(submit(r, 1, dwords, draws(dwords, 1)), OK);
	shown.taken = r->gpu->budget.used + DRIFT_SLACK + 10 * MIB;
	drift_look(&r->gpu->drift);
	gpu_set_limits(r->gpu, 8 * MIB, 10, 10);
	assert_int_equal(submit(r, 1, dwords, draws(dwords, 1)), OK);
	assert_int_equal(context(r, 2), NO_MEMORY);
	assert_int_equal(submit(r, 1, dwords, draws(dwords, 1)), OK);
}

/* Not for each command, and not for a stream that is short. */
static void seldom(void **state)
{
	static uint32_t dwords[13 * 8];
	struct rig *r = *state;
	uint32_t n = draws(dwords, 8), looks;

	assert_int_equal(context(r, 1), OK);
	shown.tick = 1000;
	drift_look(&r->gpu->drift);
	looks = shown.looks;
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(submit(r, 1, dwords, n), OK);
	}
	assert_int_equal(fake.n_submits, 100);
	assert_int_equal(shown.looks, looks);
	shown.now += TICK;
	assert_int_equal(submit(r, 1, dwords, n), OK);
	assert_int_equal(shown.looks, looks + 1);
}

/* At the end of a command, with what is not counted taken along. */
static void parts(void **state)
{
	const uint32_t dwords[] = {0, DRAW | 1 << 16, DRAW, 7, SHADER | 2 << 16, 5, 5, 0, DRAW, 0};
	const uint32_t n = sizeof(dwords) / 4;

	assert_int_equal(submit_part(dwords, n, 1), 3);
	assert_int_equal(submit_part(dwords, n, 2), 7);
	assert_int_equal(submit_part(dwords, n, 3), 9);
	assert_int_equal(submit_part(dwords, n, 4), n);
	assert_int_equal(submit_part(dwords, n, 100), n);
	(void)state;
}

#define MANY 4096
#define EACH (4 * MIB)

/* Pieces that malloc keeps when they are freed: one behind them stays. */
static void take_and_free(struct drift *d, const struct budget *b)
{
	char *pieces[MANY], *last;

	for (int i = 0; i < MANY; i++) {
		pieces[i] = malloc(16384);
		assert_non_null(pieces[i]);
		memset(pieces[i], i, 16384);
	}
	last = malloc(64);
	drift_look(d);
	assert_in_range(b->uncharged, 40 * MIB, 56 * MIB);
	for (int i = 0; i < MANY; i++) {
		free(pieces[i]);
	}
	drift_ended(d);
	free(last);
}

static void real_meter(void **state)
{
	_cleanup_close_ int statm = drift_open(), file = -1;
	struct budget b = {.limit = LIMIT};
	struct drift_meter m;
	struct drift d;
	void *image;

	assert_true(statm >= 0);
	if (SANDBOX_SANITIZERS) {
		skip();
	}
	drift_meter_init(&m, statm);
	m.trim();
	drift_init(&d, &b, &m);
	drift_look(&d);
	assert_int_equal(b.uncharged, 0);
	/* Neither a file's pages nor shared ones are its own. */
	assert_int_equal(fd_create_sealed("test", 64 * MIB, &file, &image), 0);
	memset(image, 1, 64 * MIB);
	drift_look(&d);
	assert_int_equal(b.uncharged, 0);
	munmap(image, 64 * MIB);
	take_and_free(&d, &b);
	assert_int_equal(b.uncharged, 0);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(only_what_is_beyond, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(creations, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(free_memory, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(given_back, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(who_took_it, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(lowered, setup_drift, teardown_3d),
		cmocka_unit_test_setup_teardown(seldom, setup_drift, teardown_3d),
		cmocka_unit_test(parts),
		cmocka_unit_test(real_meter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
