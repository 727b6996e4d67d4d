/* SPDX-License-Identifier: MIT
 *
 * A device that keeps what it was told to give back, in real time; and one that is another one
 * after a reset.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "tests/unit/engine-fixture.h"

#define LIMIT_US (5 * 1000 * 1000)

static const uint8_t bulk_in[10] = {0x82, 0, 0, 2};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000;
}

/* Runs the loop until the engine has finished. The guest reads, and acknowledges nothing. */
static void run_to_the_end(struct fixture *f, uint64_t start)
{
	while (!f->finished && now_us() - start < 2 * LIMIT_US) {
		assert_true(sd_event_run(f->event, 100 * 1000) >= 0);
		turn(f);
		f->n_in = 0;
	}
	assert_true(f->finished);
	assert_true(now_us() - start < LIMIT_US);
	assert_int_equal(f->reason, WORKER_DONE_DEVICE_LOST);
}

static void test_cancel_never_completes(void **state)
{
	struct fixture *f = *state;
	uint64_t start;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in, sizeof(bulk_in));
	start = now_us();
	say(f, CANCEL, 40, "", 0);
	run_to_the_end(f, start);
	assert_string_equal(f->detail, "a cancelled transfer doesn't come back");
}

/* Detached meanwhile: that can't wait for ever, either, and it isn't a clean end. */
static void test_detach_with_a_stuck_transfer(void **state)
{
	struct fixture *f = *state;
	uint64_t start;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in, sizeof(bulk_in));
	start = now_us();
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	run_to_the_end(f, start);
}

static void test_request_never_answered(void **state)
{
	struct fixture *f = *state;
	uint64_t start;

	bring_up(f);
	f->requests_wait = true;
	start = now_us();
	say(f, RESET, 0, "", 0);
	run_to_the_end(f, start);
	assert_string_equal(f->detail, "the device doesn't answer a request");
	/* What comes then comes too late. */
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_OK);
}

/* What comes back late, but comes, is no reason; nor does an old cancel shorten a new one's time.
 */
static void test_late_is_not_lost(void **state)
{
	struct fixture *f = *state;
	uint64_t start = now_us();

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in, sizeof(bulk_in));
	say(f, CANCEL, 40, "", 0);
	while (now_us() - start < 2500 * 1000) {
		assert_true(sd_event_run(f->event, 100 * 1000) >= 0);
	}
	complete(f, 0, TRANSFER_CANCELLED, NULL);
	say(f, BULK, 41, bulk_in, sizeof(bulk_in));
	say(f, CANCEL, 41, "", 0);
	while (now_us() - start < LIMIT_US) {
		assert_true(sd_event_run(f->event, 100 * 1000) >= 0);
		turn(f);
	}
	assert_false(f->finished);
	assert_int_equal(f->state, WORKER_STATE_CONFIGURED);
	complete(f, 0, TRANSFER_CANCELLED, NULL);
}

/* A disk takes the time that it takes. */
static void test_slow_backend_is_waited_for(void **state)
{
	struct fixture *f = *state;
	uint64_t start = now_us();

	f->ops.slow = true;
	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in, sizeof(bulk_in));
	say(f, CANCEL, 40, "", 0);
	while (now_us() - start < LIMIT_US) {
		assert_true(sd_event_run(f->event, 100 * 1000) >= 0);
		turn(f);
	}
	assert_false(f->finished);
	complete(f, 0, TRANSFER_CANCELLED, NULL);
}

static void reset_as(struct fixture *f, uint8_t *byte)
{
	bring_up(f);
	f->requests_wait = true;
	say(f, RESET, 0, "", 0);
	if (byte) {
		*byte ^= 1;
	}
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_OK);
	turn(f);
}

static void test_same_device_after_reset(void **state)
{
	struct fixture *f = *state;

	/* Which string is the product's name is no matter of identity. */
	reset_as(f, &f->description.device[15]);
	expect(f, EP_INFO, 0, NULL); /* altsetting 0 */
	expect(f, INTERFACE_INFO, 0, NULL);
	assert_int_equal(f->state, WORKER_STATE_CONFIGURED);
	expect_nothing(f);
}

/* Byte at is of the device descriptor, or (from 100 on) of the configuration's. */
static void other_device(void **state, size_t at)
{
	struct fixture *f = *state;

	reset_as(f, at < 100 ? f->description.device + at : f->description.config + at - 100);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	say(f, DISCONNECT_ACK, 0, "", 0);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_DEVICE_LOST);
	assert_string_equal(f->detail, "another device after the reset");
}

static void test_other_class_after_reset(void **state)
{
	other_device(state, 4);
}

static void test_other_vendor_after_reset(void **state)
{
	other_device(state, 8);
}

static void test_other_product_after_reset(void **state)
{
	other_device(state, 11);
}

static void test_other_version_after_reset(void **state)
{
	other_device(state, 12);
}

static void test_other_serial_after_reset(void **state)
{
	other_device(state, 16);
}

static void test_other_interface_after_reset(void **state)
{
	other_device(state, 100 + 9 + 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cancel_never_completes),
		TEST(test_detach_with_a_stuck_transfer),
		TEST(test_request_never_answered),
		TEST(test_late_is_not_lost),
		TEST(test_slow_backend_is_waited_for),
		TEST(test_same_device_after_reset),
		TEST(test_other_class_after_reset),
		TEST(test_other_vendor_after_reset),
		TEST(test_other_product_after_reset),
		TEST(test_other_version_after_reset),
		TEST(test_other_serial_after_reset),
		TEST(test_other_interface_after_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
