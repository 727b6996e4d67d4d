/* SPDX-License-Identifier: MIT
 *
 * The engine between a fake backend and a guest: what a disk does not have (interrupt endpoints,
 * altsettings, requests that take time, a device that goes away).
 */
#include "usb/engine.h"

#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "tests/unit/engine-fixture.h"

static const uint8_t bulk_in_512[10] = {0x82, 0, 0, 2};
static const uint8_t bulk_out_3[13] = {0x02, 0, 3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'};

static void test_interrupt_in(void **state)
{
	struct fixture *f = *state;
	const uint8_t *body;
	size_t size;

	greet(f);
	configure(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 10, NULL), "\0\x81", 2);
	/* Two wait at the device; each report is sent on unasked, with ids that count up. */
	assert_int_equal(f->n_queued, 2);
	for (uint32_t i = 0; i < 5; i++) {
		complete(f, 0, TRANSFER_OK, "report");
		body = expect(f, INTERRUPT, i, &size);
		assert_int_equal(body[0], 0x81);
		assert_int_equal(size, 4 + 6);
		assert_memory_equal(body + 4, "report", 6);
		assert_int_equal(f->n_queued, 2);
	}
	say(f, START_INTERRUPT, 11, "\x81", 1);
	assert_int_equal(expect(f, INTERRUPT_STATUS, 11, NULL)[0], TRANSFER_INVALID);
	say(f, STOP_INTERRUPT, 12, "\x81", 1);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 12, NULL), "\0\x81", 2);
	assert_int_equal(f->n_queued, 0);
	expect_nothing(f);
}

static void test_interrupt_stall_ends_it(void **state)
{
	struct fixture *f = *state;

	greet(f);
	configure(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	complete(f, 0, TRANSFER_STALL, NULL);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 0, NULL), "\4\x81", 2);
	assert_int_equal(f->n_queued, 0);
	say(f, START_INTERRUPT, 13, "\x81", 1);
	assert_int_equal(expect(f, INTERRUPT_STATUS, 13, NULL)[0], TRANSFER_OK);
	assert_int_equal(f->n_queued, 2);
}

static void test_interrupt_out(void **state)
{
	struct fixture *f = *state;
	const uint8_t packet[7] = {0x03, 0, 3, 0, 'x', 'y', 'z'};

	greet(f);
	configure(f);
	/* Its altsetting is not active yet. */
	say(f, INTERRUPT, 20, packet, sizeof(packet));
	assert_int_equal(expect(f, INTERRUPT, 20, NULL)[1], TRANSFER_INVALID);
	set_alt(f, 5, 7);
	say(f, INTERRUPT, 21, packet, sizeof(packet));
	assert_int_equal(f->n_queued, 1);
	assert_memory_equal(f->queued[0]->data, "xyz", 3);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_memory_equal(expect(f, INTERRUPT, 21, NULL), "\3\0\3\0", 4);
}

static void test_bulk_both_ways(void **state)
{
	struct fixture *f = *state;
	struct engine_counters n;
	const uint8_t *body;
	size_t size;

	bring_up(f);
	say(f, BULK, 30, bulk_out_3, sizeof(bulk_out_3));
	say(f, BULK, 31, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 2);
	assert_memory_equal(f->queued[0]->data, "abc", 3);
	/* In the order in which the device completes them. */
	complete(f, 1, TRANSFER_OK, "short");
	body = expect(f, BULK, 31, &size);
	assert_int_equal(size, 10 + 5);
	assert_memory_equal(body + 10, "short", 5);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_int_equal(expect(f, BULK, 30, &size)[1], TRANSFER_OK);
	assert_int_equal(size, 10);
	engine_count(f->engine, &n);
	assert_int_equal(n.transfers, 2);
	assert_int_equal(n.bytes_in, 5);
	assert_int_equal(n.bytes_out, 3);
	assert_int_equal(n.in_flight, 0);
	assert_int_equal(n.in_flight_bytes, 0);
	assert_int_equal(n.in_flight_peak, 2);
}

static void test_count_is_bounded(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	for (uint32_t i = 0; i < 20; i++) {
		say(f, BULK, 100 + i, bulk_in_512, sizeof(bulk_in_512));
	}
	assert_int_equal(f->n_queued, 8);
	/* What is refused is told when it is its turn. */
	complete(f, 3, TRANSFER_OK, "x");
	expect_nothing(f);
	while (f->n_queued > 0) {
		complete(f, 0, TRANSFER_OK, "x");
	}
	for (uint32_t i = 0; i < 20; i++) {
		assert_int_equal(
			expect(f, BULK, 100 + i, NULL)[1], i < 8 ? TRANSFER_OK : TRANSFER_IO_ERROR);
	}
	say(f, BULK, 200, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 1);
	expect_nothing(f);
}

/* QEMU aborts when a bulk endpoint's packets are answered in another order than it sent them. */
static void test_replies_in_order(void **state)
{
	struct fixture *f = *state;
	struct engine_counters n;

	bring_up(f);
	for (uint32_t i = 0; i < 4; i++) {
		say(f, BULK, 60 + i, bulk_in_512, sizeof(bulk_in_512));
	}
	say(f, BULK, 64, bulk_out_3, sizeof(bulk_out_3));
	complete(f, 2, TRANSFER_OK, "third");
	complete(f, 2, TRANSFER_IO_ERROR, NULL);
	expect_nothing(f);
	engine_count(f->engine, &n);
	assert_int_equal(n.in_flight, 5); /* what waits is charged */
	/* Another endpoint doesn't wait for that one. */
	complete(f, 2, TRANSFER_OK, NULL);
	assert_int_equal(expect(f, BULK, 64, NULL)[1], TRANSFER_OK);
	complete(f, 0, TRANSFER_OK, "first");
	assert_memory_equal(expect(f, BULK, 60, NULL) + 10, "first", 5);
	expect_nothing(f);
	/* The second is cancelled: those behind it have waited long enough. */
	say(f, CANCEL, 61, "", 0);
	assert_int_equal(expect(f, BULK, 61, NULL)[1], TRANSFER_CANCELLED);
	assert_memory_equal(expect(f, BULK, 62, NULL) + 10, "third", 5);
	assert_int_equal(expect(f, BULK, 63, NULL)[1], TRANSFER_IO_ERROR);
	engine_count(f->engine, &n);
	assert_int_equal(n.in_flight, 0);
	assert_int_equal(n.in_flight_bytes, 0);
}

/* What waits for its turn when the device goes must not keep the end from coming. */
static void test_waiting_replies_at_the_end(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	for (uint32_t i = 0; i < 12; i++) {
		say(f, BULK, 60 + i, bulk_in_512, sizeof(bulk_in_512));
	}
	complete(f, 2, TRANSFER_OK, "third");
	complete(f, 4, TRANSFER_OK, "sixth");
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	turn(f);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	say(f, DISCONNECT_ACK, 0, "", 0);
	turn(f);
	assert_true(f->finished);
}

/* QEMU's ids are addresses, which come again as soon as the guest's driver likes. */
static void test_cancelled_id_is_used_again(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	f->cancel_waits = true;
	for (uint32_t i = 0; i < 3; i++) {
		say(f, BULK, 70, bulk_in_512, sizeof(bulk_in_512));
		assert_int_equal(f->n_queued, i + 1);
		say(f, CANCEL, 70, "", 0);
		assert_int_equal(expect(f, BULK, 70, NULL)[1], TRANSFER_CANCELLED);
	}
	say(f, BULK, 70, bulk_in_512, sizeof(bulk_in_512));
	expect_nothing(f);
	/* In whatever order the device gives them back, the last one is the guest's. */
	complete(f, 1, TRANSFER_CANCELLED, NULL);
	complete(f, 2, TRANSFER_OK, "data");
	assert_memory_equal(expect(f, BULK, 70, NULL) + 10, "data", 4);
	complete(f, 0, TRANSFER_CANCELLED, NULL);
	complete(f, 0, TRANSFER_OK, "late");
	expect_nothing(f);
}

static void test_completion_and_cancel_cross(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in_512, sizeof(bulk_in_512));
	say(f, CANCEL, 40, "", 0);
	assert_int_equal(expect(f, BULK, 40, NULL)[1], TRANSFER_CANCELLED);
	say(f, CANCEL, 40, "", 0);
	/* The device was faster: the guest has had its answer all the same. */
	complete(f, 0, TRANSFER_OK, "late");
	say(f, CANCEL, 40, "", 0);
	expect_nothing(f);
}

static void test_requests_take_their_time(void **state)
{
	struct fixture *f = *state;

	greet(f);
	f->requests_wait = true;
	say(f, SET_CONFIGURATION, 50, "\1", 1);
	/* What follows must see its result: it waits in the socket. */
	say(f, SET_ALT, 51, "\5\7", 2);
	assert_int_equal(f->requests, 1);
	expect_nothing(f);
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_OK);
	turn(f);
	assert_int_equal(f->requests, 2);
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_IO_ERROR);
	turn(f);
	expect(f, EP_INFO, 0, NULL);
	expect(f, INTERFACE_INFO, 0, NULL);
	expect(f, CONFIGURATION_STATUS, 50, NULL);
	/* It failed: alt 0 is what is. */
	assert_memory_equal(expect(f, ALT_STATUS, 51, NULL), "\3\5\0", 3);
}

static void test_reset_cancels(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	say(f, BULK, 60, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 3);
	say(f, RESET, 0, "", 0);
	assert_int_equal(f->n_queued, 0);
	assert_int_equal(expect(f, BULK, 60, NULL)[1], TRANSFER_CANCELLED);
}

static void test_device_lost(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, BULK, 70, bulk_in_512, sizeof(bulk_in_512));
	f->backend.sink->lost(f->backend.sink_data, ENODEV);
	turn(f);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	assert_false(f->finished);
	say(f, DISCONNECT_ACK, 0, "", 0);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_DEVICE_LOST);
	assert_int_equal(f->n_queued, 0);
}

static void test_stop_waits_for_the_device(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 80, bulk_in_512, sizeof(bulk_in_512));
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	say(f, DISCONNECT_ACK, 0, "", 0);
	/* A transfer is still with the device: its buffer can't go. */
	assert_false(f->finished);
	complete(f, 0, TRANSFER_OK, "late");
	turn(f);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_DETACHED);
}

static void test_guest_closes(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, BULK, 90, bulk_in_512, sizeof(bulk_in_512));
	f->guest = safe_close(f->guest);
	turn(f);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_PEER_CLOSED);
	assert_int_equal(f->n_queued, 0);
}

static void test_control(void **state)
{
	struct fixture *f = *state;
	const uint8_t get[10] = {0x80, 6, 0x80, 0, 0, 1, 0, 0, 18, 0};
	const uint8_t set[12] = {0, 9, 0x21, 0, 0, 2, 0, 0, 2, 0, 'h', 'i'};
	const uint8_t forbidden[10] = {0, 9, 0x00, 0, 1, 0, 0, 0, 0, 0};
	size_t size;

	greet(f);
	configure(f);
	say(f, CONTROL, 95, get, sizeof(get));
	assert_int_equal(f->queued[0]->setup.request, 6);
	assert_int_equal(f->queued[0]->setup.value, 0x0100);
	complete(f, 0, TRANSFER_OK, "descriptor");
	expect(f, CONTROL, 95, &size);
	assert_int_equal(size, 10 + 10);
	say(f, CONTROL, 96, set, sizeof(set));
	assert_memory_equal(f->queued[0]->data, "hi", 2);
	complete(f, 0, TRANSFER_STALL, NULL);
	assert_int_equal(expect(f, CONTROL, 96, NULL)[3], TRANSFER_STALL);
	say(f, CONTROL, 97, forbidden, sizeof(forbidden));
	assert_int_equal(expect(f, CONTROL, 97, NULL)[3], TRANSFER_STALL);
	assert_int_equal(f->n_queued, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_interrupt_in),
		TEST(test_interrupt_stall_ends_it),
		TEST(test_interrupt_out),
		TEST(test_bulk_both_ways),
		TEST(test_count_is_bounded),
		TEST(test_replies_in_order),
		TEST(test_waiting_replies_at_the_end),
		TEST(test_cancelled_id_is_used_again),
		TEST(test_completion_and_cancel_cross),
		TEST(test_requests_take_their_time),
		TEST(test_reset_cancels),
		TEST(test_device_lost),
		TEST(test_stop_waits_for_the_device),
		TEST(test_guest_closes),
		TEST(test_control),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
