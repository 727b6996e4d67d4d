/* SPDX-License-Identifier: MIT
 *
 * Buffered bulk receiving and bulk streams through the engine, and ep_info at SuperSpeed.
 */
#include <string.h>

#include "tests/unit/engine-fixture.h"
#include "usb/bytes.h"

#define SLOT_IN  (1u << 18) /* 0x82 */
#define SLOT_OUT (1u << 2)  /* 0x02 */

static void start(struct fixture *f, uint8_t endpoint, uint32_t bytes, uint8_t n, uint32_t stream)
{
	uint8_t body[10];

	put_le32(body, stream);
	put_le32(body + 4, bytes);
	body[8] = endpoint;
	body[9] = n;
	say(f, START_BULK, 7, body, sizeof(body));
}

static void expect_status(struct fixture *f, uint32_t id, uint8_t endpoint, uint8_t status)
{
	const uint8_t *body = expect(f, BULK_STATUS, id, NULL);

	assert_int_equal(body[4], endpoint);
	assert_int_equal(body[5], status);
}

static void started(struct fixture *f)
{
	start(f, 0x82, 1024, 3, 0);
	expect_status(f, 7, 0x82, TRANSFER_OK);
	assert_int_equal(f->n_queued, 3);
}

static void expect_data(struct fixture *f, uint32_t id, const char *data)
{
	size_t size;
	const uint8_t *body = expect(f, BUFFERED_BULK, id, &size);

	assert_int_equal(get_le32(body), 0);
	assert_int_equal(get_le32(body + 4), strlen(data));
	assert_int_equal(body[8], 0x82);
	assert_int_equal(body[9], TRANSFER_OK);
	assert_int_equal(size, 10 + strlen(data));
	assert_memory_equal(body + 10, data, strlen(data));
}

static void test_bulk_receiving(void **state)
{
	struct fixture *f = *state;
	static const uint8_t stop[5] = {0, 0, 0, 0, 0x82};

	bring_up(f);
	started(f);
	assert_int_equal(f->queued[0]->type, TRANSFER_BULK);
	assert_int_equal(f->queued[0]->length, 1024);
	for (uint32_t i = 0; i < 10; i++) {
		complete(f, 0, TRANSFER_OK, i % 2 ? "ab" : "");
		expect_data(f, i, i % 2 ? "ab" : "");
		assert_int_equal(f->n_queued, 3);
	}
	say(f, STOP_BULK, 8, stop, sizeof(stop));
	expect_status(f, 8, 0x82, TRANSFER_OK);
	assert_int_equal(f->n_queued, 0);
	say(f, STOP_BULK, 9, stop, sizeof(stop));
	expect_status(f, 9, 0x82, TRANSFER_OK);
	started(f);
}

static void test_bulk_receiving_is_bounded(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint32_t bytes, stream;
		uint8_t endpoint, n;
	} bad[] = {{0, 0, 0x82, 1}, {511, 0, 0x82, 1}, {1u << 21, 0, 0x82, 1}, {512, 0, 0x82, 0},
		{512, 0, 0x82, 17}, {512, 0, 0x82, 255}, {512, 1, 0x82, 1}, {512, 0, 0x81, 1},
		{512, 0, 0x84, 1}, {512, 0, 0x8c, 1}, {512, 0, 0xf2, 1}};
	struct engine_counters n;

	bring_up(f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		start(f, bad[i].endpoint, bad[i].bytes, bad[i].n, bad[i].stream);
		expect_status(f, 7, bad[i].endpoint, TRANSFER_INVALID);
		assert_int_equal(f->n_queued, 0);
	}
	started(f);
	start(f, 0x82, 512, 1, 0);
	expect_status(f, 7, 0x82, TRANSFER_INVALID);
	engine_count(f->engine, &n);
	assert_int_equal(n.refused, ARRAY_SIZE(bad) + 1);
	assert_int_equal(n.in_flight, 3);
}

static struct transfer *expect_clear_halt(struct fixture *f)
{
	struct transfer *t = f->queued[0];

	assert_int_equal(f->n_queued, 1);
	assert_int_equal(t->type, TRANSFER_CONTROL);
	assert_int_equal(t->setup.request_type, 2);
	assert_int_equal(t->setup.request, 1);
	assert_int_equal(t->setup.value, 0);
	assert_int_equal(t->setup.index, 0x82);
	return t;
}

static void test_bulk_receiving_clears_a_halt(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	started(f);
	complete(f, 1, TRANSFER_STALL, NULL);
	expect_clear_halt(f);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_int_equal(f->n_queued, 3);
	complete(f, 0, TRANSFER_OK, "ab");
	expect_data(f, 0, "ab");
	/* A device that stalls again at once isn't worth it. */
	complete(f, 0, TRANSFER_STALL, NULL);
	assert_int_equal(f->n_queued, 0);
	expect_status(f, 0, 0x82, TRANSFER_STALL);
	expect_nothing(f);
}

static void test_bulk_receiving_ends(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	started(f);
	complete(f, 0, TRANSFER_IO_ERROR, NULL);
	expect_status(f, 0, 0x82, TRANSFER_STALL);
	assert_int_equal(f->n_queued, 0);
	started(f);
	complete(f, 0, TRANSFER_STALL, NULL);
	expect_clear_halt(f);
	complete(f, 0, TRANSFER_STALL, NULL); /* even that */
	expect_status(f, 0, 0x82, TRANSFER_STALL);
	assert_int_equal(f->n_queued, 0);
}

/* Its halt is being cleared when the guest stops it and starts it again. */
static void test_bulk_receiving_restarts_while_clearing(void **state)
{
	struct fixture *f = *state;
	static const uint8_t stop[5] = {0, 0, 0, 0, 0x82};

	bring_up(f);
	started(f);
	complete(f, 0, TRANSFER_STALL, NULL);
	say(f, STOP_BULK, 8, stop, sizeof(stop));
	expect_status(f, 8, 0x82, TRANSFER_OK);
	start(f, 0x82, 512, 2, 0);
	expect_status(f, 7, 0x82, TRANSFER_OK);
	expect_clear_halt(f);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_int_equal(f->n_queued, 2);
	assert_int_equal(f->queued[0]->length, 512);
}

/* An end that the guest didn't ask for has to be a stall, or QEMU never starts it again. */
static void test_interrupt_error_is_told_as_a_stall(void **state)
{
	struct fixture *f = *state;

	greet(f);
	configure(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	complete(f, 0, TRANSFER_IO_ERROR, NULL);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 0, NULL), "\4\x81", 2);
}

/* Interface 5's bulk endpoints with companions: 0x82 has 16 streams, 0x02 says 65536; interrupt OUT
 * 0x03 none. */
static const uint8_t super_config[] = {9, 2, 59, 0, 1, 1, 0, 0x80, 50, /**/
	9, 4, 5, 0, 3, 8, 6, 0x62, 0,                                  /**/
	7, 5, 0x82, 2, 0, 4, 0, 6, 0x30, 0, 4, 0, 0,                   /**/
	7, 5, 0x02, 2, 0, 4, 0, 6, 0x30, 0, 16, 0, 0,                  /**/
	7, 5, 0x83, 3, 0, 4, 1, 6, 0x30, 2, 3, 0, 0x0c};

static void bring_up_super(struct fixture *f)
{
	size_t size;
	const uint8_t *body;

	f->description.speed = USB_SPEED_SUPER;
	memcpy(f->description.config, super_config, sizeof(super_config));
	greet(f);
	say(f, SET_CONFIGURATION, 1, "\1", 1);
	f->description.config_size = sizeof(super_config);
	say(f, SET_CONFIGURATION, 1, "\1", 1);
	expect(f, EP_INFO, 0, NULL);
	expect(f, INTERFACE_INFO, 0, NULL);
	expect(f, CONFIGURATION_STATUS, 1, NULL);
	body = expect(f, EP_INFO, 0, &size);
	assert_int_equal(size, 32 * (3 + 2 + 4));
	body += (size_t)32 * 5;
	assert_int_equal(get_le32(body + 4 * 18), 16);
	assert_int_equal(get_le32(body + 4 * 2), 256); /* as many as we give it */
	assert_int_equal(get_le32(body + 4 * 19), 0);
	expect(f, INTERFACE_INFO, 0, NULL);
	expect(f, CONFIGURATION_STATUS, 1, NULL);
}

static void say_alloc(struct fixture *f, uint32_t endpoints, uint32_t n)
{
	uint8_t body[8];

	put_le32(body, endpoints);
	put_le32(body + 4, n);
	say(f, ALLOC_STREAMS, 20, body, sizeof(body));
}

static void say_free(struct fixture *f, uint32_t endpoints)
{
	uint8_t body[4];

	put_le32(body, endpoints);
	say(f, FREE_STREAMS, 21, body, sizeof(body));
}

static void expect_streams(
	struct fixture *f, uint32_t id, uint32_t endpoints, uint32_t n, uint8_t status)
{
	const uint8_t *body = expect(f, STREAMS_STATUS, id, NULL);

	assert_int_equal(get_le32(body), endpoints);
	assert_int_equal(get_le32(body + 4), n);
	assert_int_equal(body[8], status);
}

/* Whether a bulk IN packet with that stream reaches the device. */
static bool reaches(struct fixture *f, uint32_t stream)
{
	uint8_t body[10] = {0x82, 0, 0, 2};
	size_t before = f->n_queued;

	put_le32(body + 4, stream);
	say(f, BULK, 90 + stream, body, sizeof(body));
	if (f->n_queued > before) {
		assert_int_equal(f->queued[before]->stream_id, stream);
		complete(f, before, TRANSFER_OK, "x");
		assert_int_equal(get_le32(expect(f, BULK, 90 + stream, NULL) + 4), stream);
		return true;
	}
	assert_int_equal(expect(f, BULK, 90 + stream, NULL)[1], TRANSFER_INVALID);
	return false;
}

static void test_streams(void **state)
{
	struct fixture *f = *state;

	bring_up_super(f);
	assert_true(reaches(f, 0));
	assert_false(reaches(f, 1));
	say_alloc(f, SLOT_IN | SLOT_OUT, 16);
	expect_streams(f, 20, SLOT_IN | SLOT_OUT, 16, TRANSFER_OK);
	assert_int_equal(f->stream_endpoints, SLOT_IN | SLOT_OUT);
	assert_int_equal(f->n_streams, 16);
	assert_false(reaches(f, 0));
	assert_true(reaches(f, 1));
	assert_true(reaches(f, 16));
	assert_false(reaches(f, 17));
	say_alloc(f, SLOT_IN, 8);
	expect_streams(f, 20, SLOT_IN, 8, TRANSFER_INVALID);
	say_free(f, SLOT_IN);
	expect_streams(f, 21, SLOT_IN, 0, TRANSFER_OK);
	assert_int_equal(f->stream_endpoints, SLOT_IN);
	assert_true(reaches(f, 0));
	assert_false(reaches(f, 1));
	/* Nothing to free any more: the device isn't asked. */
	f->stream_endpoints = 0;
	say_free(f, SLOT_IN);
	expect_streams(f, 21, SLOT_IN, 0, TRANSFER_OK);
	assert_int_equal(f->stream_endpoints, 0);
}

static void test_streams_are_bounded(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint32_t endpoints, n;
	} bad[] = {{0, 1}, {SLOT_IN, 0}, {SLOT_IN, 17}, {SLOT_OUT, 257}, {SLOT_OUT, 65536 + 1},
		{1u << 19, 1}, {1, 1}, {1u << 16, 1}, {UINT32_MAX, 1}, {SLOT_IN | 1u << 31, 1}};

	bring_up_super(f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		say_alloc(f, bad[i].endpoints, bad[i].n);
		expect_streams(f, 20, bad[i].endpoints, bad[i].n, TRANSFER_INVALID);
	}
	say_free(f, UINT32_MAX);
	expect_streams(f, 21, UINT32_MAX, 0, TRANSFER_INVALID);
	assert_int_equal(f->requests, 2); /* the configurations */
}

static void test_streams_fail_or_go(void **state)
{
	struct fixture *f = *state;

	bring_up_super(f);
	f->requests_wait = true;
	say_alloc(f, SLOT_IN, 4);
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_IO_ERROR);
	expect_streams(f, 20, SLOT_IN, 4, TRANSFER_IO_ERROR);
	assert_true(reaches(f, 0));
	f->requests_wait = false;
	say_alloc(f, SLOT_IN, 4);
	expect_streams(f, 20, SLOT_IN, 4, TRANSFER_OK);
	say(f, RESET, 0, "", 0);
	assert_true(reaches(f, 0));
	assert_false(reaches(f, 1));
}

static void test_freeing_cancels(void **state)
{
	struct fixture *f = *state;
	const uint8_t bulk[10] = {0x82, 0, 0, 2, 3};

	bring_up_super(f);
	say_alloc(f, SLOT_IN | SLOT_OUT, 4);
	expect_streams(f, 20, SLOT_IN | SLOT_OUT, 4, TRANSFER_OK);
	say(f, BULK, 30, bulk, sizeof(bulk));
	assert_int_equal(f->n_queued, 1);
	say_free(f, SLOT_OUT);
	expect_streams(f, 21, SLOT_OUT, 0, TRANSFER_OK);
	assert_int_equal(f->n_queued, 1);
	say_free(f, SLOT_IN);
	assert_int_equal(expect(f, BULK, 30, NULL)[1], TRANSFER_CANCELLED);
	expect_streams(f, 21, SLOT_IN, 0, TRANSFER_OK);
}

/* A burst of SuperSpeed is more than one packet. */
static void test_interval_bytes(void **state)
{
	struct fixture *f = *state;

	bring_up_super(f);
	say(f, START_INTERRUPT, 10, "\x83", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	assert_int_equal(f->queued[0]->length, 3072);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bulk_receiving),
		TEST(test_bulk_receiving_is_bounded),
		TEST(test_bulk_receiving_clears_a_halt),
		TEST(test_bulk_receiving_ends),
		TEST(test_bulk_receiving_restarts_while_clearing),
		TEST(test_interrupt_error_is_told_as_a_stall),
		TEST(test_streams),
		TEST(test_streams_are_bounded),
		TEST(test_streams_fail_or_go),
		TEST(test_freeing_cancels),
		TEST(test_interval_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
