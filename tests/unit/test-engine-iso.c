/* SPDX-License-Identifier: MIT
 *
 * Isochronous streams through the engine: what the guest may start, packets in both directions, and
 * every way that a stream ends.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/engine-fixture.h"
#include "usb/bytes.h"

#define IN_ENDPOINT  "\x84"
#define OUT_ENDPOINT "\x05"

static void start(struct fixture *f, const char *endpoint, uint8_t packets, uint8_t urbs)
{
	const uint8_t body[3] = {(uint8_t)endpoint[0], packets, urbs};

	say(f, START_ISO, 7, body, sizeof(body));
}

static void expect_status(struct fixture *f, uint32_t id, uint8_t status, const char *endpoint)
{
	const uint8_t *body = expect(f, ISO_STATUS, id, NULL);

	assert_int_equal(body[0], status);
	assert_int_equal(body[1], (uint8_t)endpoint[0]);
}

static void started(struct fixture *f, const char *endpoint, uint8_t packets, uint8_t urbs)
{
	start(f, endpoint, packets, urbs);
	expect_status(f, 7, TRANSFER_OK, endpoint);
}

static void bring_up_iso(struct fixture *f)
{
	greet(f);
	configure(f);
	set_alt(f, 6, 1);
}

/* The URB at place 0 brings packets of those lengths, each full of its number. */
static void bring(struct fixture *f, const uint32_t *lengths, uint8_t bad)
{
	struct transfer *t = f->queued[0];
	uint8_t *p = t->data;

	for (uint32_t i = 0; i < t->n_packets; i++) {
		t->packets[i].actual = lengths[i];
		t->packets[i].status = i == bad ? TRANSFER_IO_ERROR : TRANSFER_OK;
		memset(p, (int)('0' + i), lengths[i]);
		p += t->packets[i].length;
	}
	complete(f, 0, TRANSFER_OK, NULL);
}

static void say_packet(struct fixture *f, uint16_t length, char fill)
{
	uint8_t body[4 + 256] = {(uint8_t)OUT_ENDPOINT[0], 0};

	put_le16(body + 2, length);
	memset(body + 4, fill, length);
	say(f, ISO, 0, body, 4u + length);
}

static uint32_t in_flight(const struct fixture *f)
{
	struct engine_counters n;

	engine_count(f->engine, &n);
	assert_true(n.in_flight > 0 || n.in_flight_bytes == 0);
	return n.in_flight;
}

static void test_in(void **state)
{
	struct fixture *f = *state;
	const uint32_t lengths[3] = {128, 0, 5};
	uint32_t id = 0;

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 3, 4);
	assert_int_equal(f->n_queued, 4);
	assert_int_equal(in_flight(f), 4);
	for (int round = 0; round < 10; round++) {
		struct transfer *t = f->queued[0];

		assert_int_equal(t->type, TRANSFER_ISO);
		assert_int_equal(t->n_packets, 3);
		assert_int_equal(t->length, 3 * 128);
		assert_int_equal(t->packets[2].length, 128);
		bring(f, lengths, 1);
		for (uint32_t i = 0; i < 3; i++) {
			size_t size;
			const uint8_t *body = expect(f, ISO, id++, &size);

			assert_int_equal(body[0], 0x84);
			assert_int_equal(body[1], i == 1 ? TRANSFER_IO_ERROR : TRANSFER_OK);
			assert_int_equal(body[2], lengths[i]);
			assert_int_equal(size, 4 + lengths[i]);
			assert_true(lengths[i] == 0 || body[3 + lengths[i]] == '0' + i);
		}
		/* Written, so it waits at the device again, behind the others. */
		assert_int_equal(f->n_queued, 4);
		assert_ptr_equal(f->queued[3], t);
	}
	assert_int_equal(in_flight(f), 4);
	say(f, STOP_ISO, 8, IN_ENDPOINT, 1);
	expect_status(f, 8, TRANSFER_OK, IN_ENDPOINT);
	assert_int_equal(f->n_queued, 0);
	assert_int_equal(in_flight(f), 0);
	expect_nothing(f);
}

static void test_start_is_bounded(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *endpoint;
		uint8_t packets, urbs, status;
	} bad[] = {{IN_ENDPOINT, 0, 4, TRANSFER_INVALID}, {IN_ENDPOINT, 33, 4, TRANSFER_INVALID},
		{IN_ENDPOINT, 1, 0, TRANSFER_INVALID}, {IN_ENDPOINT, 1, 17, TRANSFER_INVALID},
		{IN_ENDPOINT, 255, 255, TRANSFER_INVALID}, {"\x81", 1, 1, TRANSFER_INVALID},
		{"\x8f", 1, 1, TRANSFER_INVALID}, {"\x04", 1, 1, TRANSFER_INVALID},
		{"\xff", 1, 1, TRANSFER_INVALID}, {"\x94", 1, 1, TRANSFER_INVALID},
		/* More than the engine has: nothing of it may stay. */
		{IN_ENDPOINT, 1, 16, TRANSFER_STALL}, {OUT_ENDPOINT, 1, 16, TRANSFER_STALL}};

	greet(f);
	configure(f);
	start(f, IN_ENDPOINT, 1, 1); /* its altsetting is not active yet */
	expect_status(f, 7, TRANSFER_INVALID, IN_ENDPOINT);
	set_alt(f, 6, 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		start(f, bad[i].endpoint, bad[i].packets, bad[i].urbs);
		expect_status(f, 7, bad[i].status, bad[i].endpoint);
		assert_int_equal(f->n_queued, 0);
		assert_int_equal(in_flight(f), 0);
	}
	started(f, IN_ENDPOINT, 32, 8);
	start(f, IN_ENDPOINT, 1, 1);
	expect_status(f, 7, TRANSFER_INVALID, IN_ENDPOINT);
	assert_int_equal(f->n_queued, 8);
	f->ops.isochronous = false;
	start(f, OUT_ENDPOINT, 1, 1);
	expect_status(f, 7, TRANSFER_INVALID, OUT_ENDPOINT);
}

static void test_out(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 2, 4);
	/* Half of the four are filled before anything starts. */
	say_packet(f, 32, 'a');
	say_packet(f, 7, 'b');
	say_packet(f, 0, 'c');
	assert_int_equal(f->n_queued, 0);
	say_packet(f, 1, 'd');
	assert_int_equal(f->n_queued, 2);
	assert_int_equal(f->queued[0]->n_packets, 2);
	assert_int_equal(f->queued[0]->length, 39);
	assert_int_equal(f->queued[0]->packets[1].length, 7);
	assert_int_equal(f->queued[0]->data[31], 'a');
	assert_int_equal(f->queued[0]->data[32], 'b');
	assert_int_equal(f->queued[1]->packets[0].length, 0);
	assert_int_equal(f->queued[1]->data[0], 'd');
	/* Then each one that is full. */
	say_packet(f, 2, 'e');
	say_packet(f, 2, 'f');
	assert_int_equal(f->n_queued, 3);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_int_equal(in_flight(f), 4);
	expect_nothing(f);
	say(f, STOP_ISO, 8, OUT_ENDPOINT, 1);
	expect_status(f, 8, TRANSFER_OK, OUT_ENDPOINT);
	assert_int_equal(in_flight(f), 0);
	say_packet(f, 2, 'g');
	expect_status(f, 0, TRANSFER_INVALID, OUT_ENDPOINT);
}

static void test_out_underrun_starts_over(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 1, 4);
	say_packet(f, 1, 'a');
	say_packet(f, 1, 'b');
	assert_int_equal(f->n_queued, 2);
	complete(f, 0, TRANSFER_OK, NULL);
	complete(f, 0, TRANSFER_OK, NULL);
	say_packet(f, 1, 'c');
	assert_int_equal(f->n_queued, 0);
	say_packet(f, 1, 'd');
	assert_int_equal(f->n_queued, 2);
	assert_int_equal(f->queued[0]->data[0], 'c');
	assert_int_equal(f->queued[1]->data[0], 'd');
}

static void test_out_overrun_drops(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 1, 4);
	for (char c = 'a'; c <= 'z'; c++) {
		say_packet(f, 1, c);
	}
	assert_int_equal(f->n_queued, 4);
	assert_int_equal(f->queued[3]->data[0], 'd');
	/* One free place isn't enough to go on with, half of them are. */
	complete(f, 0, TRANSFER_OK, NULL);
	say_packet(f, 1, '1');
	assert_int_equal(f->n_queued, 3);
	complete(f, 0, TRANSFER_OK, NULL);
	say_packet(f, 1, '2');
	assert_int_equal(f->n_queued, 3);
	assert_int_equal(f->queued[2]->data[0], '2');
	assert_int_equal(in_flight(f), 4);
	expect_nothing(f);
}

/* CVE-2026-92382's shape: half of one is nothing. */
static void test_out_of_one_urb(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 1, 1);
	for (int i = 0; i < 5; i++) {
		say_packet(f, 32, 'a');
		say_packet(f, 32, 'b'); /* dropped */
		assert_int_equal(f->n_queued, 1);
		assert_int_equal(f->queued[0]->data[31], 'a');
		complete(f, 0, TRANSFER_OK, NULL);
	}
}

static void test_out_packet_too_long_ends_it(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 1, 4);
	say_packet(f, 1, 'a');
	say_packet(f, 33, 'b');
	expect_status(f, 0, TRANSFER_STALL, OUT_ENDPOINT);
	assert_int_equal(in_flight(f), 0);
	/* What the guest sent before it could know is dropped without a word. */
	say_packet(f, 1, 'c');
	expect_nothing(f);
	started(f, OUT_ENDPOINT, 1, 2);
	say_packet(f, 1, 'd');
	assert_int_equal(f->n_queued, 1);
}

static void test_error_ends_it(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 1, 4);
	f->cancel_waits = true;
	complete(f, 0, TRANSFER_IO_ERROR, NULL);
	expect_status(f, 0, TRANSFER_STALL, IN_ENDPOINT);
	/* Three are still with the device; the guest may start again meanwhile. */
	assert_int_equal(in_flight(f), 3);
	started(f, IN_ENDPOINT, 1, 4);
	assert_int_equal(in_flight(f), 7);
	assert_int_equal(f->n_queued, 7);
	while (f->n_queued > 4) {
		complete(f, 0, TRANSFER_OK, NULL); /* too late */
	}
	expect_nothing(f);
	assert_int_equal(in_flight(f), 4);
}

/* A guest that doesn't read: URBs wait for it, and nothing else is submitted. */
static void test_slow_guest_keeps_urbs(void **state)
{
	struct fixture *f = *state;
	const uint32_t lengths[1] = {128};
	size_t room = sizeof(f->in) - 100;
	unsigned int brought = 0;

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 1, 4);
	/* turn() stops reading when its buffer is full, and the socket's fills up. */
	f->n_in = room;
	while (f->n_queued > 0 && brought < 100000) {
		bring(f, lengths, 1);
		turn(f);
		brought++;
	}
	assert_true(brought < 100000);
	assert_int_equal(in_flight(f), 4);
	/* It ends with its packets unwritten. */
	f->n_in = 0;
	say(f, STOP_ISO, 8, IN_ENDPOINT, 1);
	for (int i = 0; i < 1000 && in_flight(f) > 0; i++) {
		f->n_in = 0;
		turn(f);
	}
	assert_int_equal(in_flight(f), 0);
}

/* Streams that are started, brought empty packets and stopped, by a guest that doesn't read: what
 * they leave unwritten costs as much as it holds, so that the guest isn't read any more at 4 MiB. A
 * URB of 32 packets takes 16 KiB, and they are eight at a time. */
static void test_storm_unread(void **state)
{
	struct fixture *f = *state;
	static const uint32_t full[1] = {128}, nothing[32] = {0};
	unsigned int taken = 0;

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 1, 8);
	f->n_in = sizeof(f->in);
	while (f->n_queued > 0) {
		bring(f, full, 1);
		turn(f);
	}
	say(f, STOP_ISO, 8, IN_ENDPOINT, 1);
	for (start(f, IN_ENDPOINT, 32, 8); f->n_queued > 0; start(f, IN_ENDPOINT, 32, 8)) {
		while (f->n_queued > 0) {
			bring(f, nothing, 32);
		}
		say(f, STOP_ISO, 8, IN_ENDPOINT, 1);
		taken++;
	}
	assert_true(taken >= 20 && taken <= 34);
	/* Reading, it gets all of it, and the last start is served. */
	for (int i = 0; i < 1000 && f->n_queued == 0; i++) {
		f->n_in = 0;
		turn(f);
	}
	assert_int_equal(f->n_queued, 8);
}

static void test_stop_with_packets_unwritten(void **state)
{
	struct fixture *f = *state;
	const uint32_t lengths[2] = {128, 128};

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 2, 4);
	/* No turn of the loop between these: they are queued for the guest. */
	bring(f, lengths, 9);
	bring(f, lengths, 9);
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	assert_int_equal(in_flight(f), 0);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	say(f, DISCONNECT_ACK, 0, "", 0);
	assert_true(f->finished);
}

static void test_altsetting_and_reset_end_it(void **state)
{
	struct fixture *f = *state;

	bring_up_iso(f);
	started(f, IN_ENDPOINT, 1, 2);
	started(f, OUT_ENDPOINT, 1, 4);
	say_packet(f, 1, 'a');
	set_alt(f, 6, 0);
	assert_int_equal(f->n_queued, 0);
	assert_int_equal(in_flight(f), 0);
	set_alt(f, 6, 1);
	started(f, IN_ENDPOINT, 1, 2);
	say(f, RESET, 0, "", 0);
	assert_int_equal(f->n_queued, 0);
	assert_int_equal(in_flight(f), 0);
	/* Altsetting 0 again, and the guest is told. */
	expect(f, EP_INFO, 0, NULL);
	expect(f, INTERFACE_INFO, 0, NULL);
	start(f, IN_ENDPOINT, 1, 1);
	expect_status(f, 7, TRANSFER_INVALID, IN_ENDPOINT);
}

static void test_device_lost_in_the_middle_of_a_packet(void **state)
{
	struct fixture *f = *state;
	uint8_t half[16 + 4 + 10] = {ISO, 0, 0, 0, 4 + 32};

	bring_up_iso(f);
	started(f, OUT_ENDPOINT, 1, 4);
	half[16] = (uint8_t)OUT_ENDPOINT[0];
	half[18] = 32;
	assert_int_equal(write(f->guest, half, sizeof(half)), sizeof(half));
	turn(f);
	f->backend.sink->lost(f->backend.sink_data, ENODEV);
	assert_int_equal(in_flight(f), 0);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	f->guest = safe_close(f->guest);
	turn(f);
	assert_true(f->finished);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_in),
		TEST(test_start_is_bounded),
		TEST(test_out),
		TEST(test_out_underrun_starts_over),
		TEST(test_out_overrun_drops),
		TEST(test_out_of_one_urb),
		TEST(test_out_packet_too_long_ends_it),
		TEST(test_error_ends_it),
		TEST(test_slow_guest_keeps_urbs),
		TEST(test_storm_unread),
		TEST(test_stop_with_packets_unwritten),
		TEST(test_altsetting_and_reset_end_it),
		TEST(test_device_lost_in_the_middle_of_a_packet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
