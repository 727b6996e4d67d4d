/* SPDX-License-Identifier: MIT
 * The VM's rates in the engine: what waits keeps its order, can be cancelled, and ends with the
 * engine.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protocol/pace.h"
#include "tests/unit/engine-fixture.h"

static const uint8_t bulk_in_512[] = {0x82, 0, 0, 2, 0, 0, 0, 0, 0, 0};
static const uint8_t bulk_out_3[] = {0x02, 0, 3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'};
static const uint8_t get_status[] = {0x80, 0, 0x80, 0, 0, 0, 0, 0, 2, 0};

/* One transfer per second after the first two: none but those go in a test. */
static struct pace_page *limit(struct fixture *f)
{
	int fd = memfd_create("pace", MFD_CLOEXEC);
	struct pace_page *p;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(*p)), 0);
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(p != MAP_FAILED);
	pace_set(p, 0, 1);
	bring_up(f);
	assert_int_equal(engine_pace(f->engine, fd), 0);
	return p;
}

static void test_waits_in_order(void **state)
{
	struct fixture *f = *state;
	struct pace_page *p = limit(f);

	for (uint32_t i = 0; i < 4; i++) {
		say(f, BULK, 30 + i, bulk_in_512, sizeof(bulk_in_512));
	}
	assert_int_equal(f->n_queued, 1);
	/* A control transfer overtakes them. */
	say(f, CONTROL, 40, get_status, sizeof(get_status));
	assert_int_equal(f->n_queued, 2);
	complete(f, 1, TRANSFER_OK, "ab");
	expect(f, CONTROL, 40, NULL);
	complete(f, 0, TRANSFER_OK, "0");
	expect(f, BULK, 30, NULL);
	/* One that waits is cancelled. */
	say(f, CANCEL, 32, "", 0);
	assert_int_equal(expect(f, BULK, 32, NULL)[1], TRANSFER_CANCELLED);
	/* Another limit is noticed by what waits; a newer one stands behind it. */
	pace_set(p, 0, 0);
	say(f, BULK, 35, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 0);
	for (int i = 0; i < 10 && f->n_queued < 3; i++) {
		usleep(50000);
		turn(f);
	}
	assert_int_equal(f->n_queued, 3);
	complete(f, 0, TRANSFER_OK, "1");
	complete(f, 0, TRANSFER_OK, "3");
	complete(f, 0, TRANSFER_OK, "5");
	assert_memory_equal(expect(f, BULK, 31, NULL) + 10, "1", 1);
	assert_memory_equal(expect(f, BULK, 33, NULL) + 10, "3", 1);
	assert_memory_equal(expect(f, BULK, 35, NULL) + 10, "5", 1);
	munmap(p, sizeof(*p));
}

static void test_bytes_that_did_not_come(void **state)
{
	struct fixture *f = *state;
	struct pace_page *p = limit(f);
	uint64_t owed;

	pace_set(p, 1000, 0);
	say(f, BULK, 30, bulk_in_512, sizeof(bulk_in_512));
	owed = p->bytes.at;
	complete(f, 0, TRANSFER_OK, "0123456789");
	expect(f, BULK, 30, NULL);
	assert_int_equal(owed - p->bytes.at, 502 * 1000000);
	munmap(p, sizeof(*p));
}

static void test_ends_while_some_wait(void **state)
{
	struct fixture *f = *state;
	struct pace_page *p = limit(f);
	struct engine_counters n;

	for (uint32_t i = 0; i < 4; i++) {
		say(f, BULK, 30 + i, bulk_out_3, sizeof(bulk_out_3));
	}
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	turn(f);
	engine_count(f->engine, &n);
	assert_int_equal(n.in_flight, 0);
	assert_int_equal(n.in_flight_bytes, 0);
	munmap(p, sizeof(*p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_waits_in_order),
		TEST(test_bytes_that_did_not_come),
		TEST(test_ends_while_some_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
