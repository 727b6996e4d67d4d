/* SPDX-License-Identifier: MIT
 *
 * backend-libusb over the stub libusb: how transfers wait for room and for the thread, what becomes
 * of them when the device goes, isochronous packets, streams, and requests.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "tests/unit/fake-engine.h"

#define PLENTY (2u * 1024 * 1024)

static struct fake_transfer *bulk(struct fake_engine *e, uint8_t endpoint, uint32_t length)
{
	struct fake_transfer *f = fake_transfer_new(e, TRANSFER_BULK, endpoint, length);

	fake_engine_submit(e, f);
	return f;
}

static struct fake_transfer *clear_halt(struct fake_engine *e, uint8_t endpoint)
{
	struct fake_transfer *f = fake_transfer_new(e, TRANSFER_CONTROL, 0, 0);

	f->t.setup = (struct usb_setup){.request_type = 0x02, .request = 1, .index = endpoint};
	fake_engine_submit(e, f);
	return f;
}

static unsigned int place_of(const struct fake_engine *e, unsigned int number)
{
	for (unsigned int i = 0; i < e->n_done; i++) {
		if (e->done[i] == number) {
			return i;
		}
	}
	fail_msg("transfer %u was not completed", number);
	return 0;
}

static void test_describe(void **state)
{
	struct fake_engine e;
	struct usb_description d = {0};
	struct stub_device stub;

	for (uint32_t speed = 1; speed <= 4; speed++) {
		char options[16];

		snprintf(options, sizeof(options), "speed=%u", speed);
		stub_device_init(&stub, options);
		assert_int_equal(fake_engine_start(&e, options, PLENTY, false), 0);
		assert_int_equal(e.backend->ops->describe(e.backend, &d), 0);
		assert_int_equal(d.speed, USB_SPEED_LOW + (speed - 1));
		assert_memory_equal(d.device, stub.descriptor, sizeof(d.device));
		assert_int_equal(d.config_size, stub.config_size);
		assert_memory_equal(d.config, stub.config, stub.config_size);
		fake_engine_stop(&e);
	}
}

static void test_open_fails(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "busy", PLENTY, true), -EBUSY);
	fake_engine_stop(&e);
	assert_int_equal(fake_engine_start(&e, "gone=1", PLENTY, true), -ENODEV);
	fake_engine_stop(&e);
}

static void submit_another(struct fake_engine *e, struct fake_transfer *f)
{
	/* Small ones, for which there may be room where there is none for who waits. */
	if (f->number < 50) {
		bulk(e, f->t.endpoint, 100);
	}
}

static void test_order(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "latency=100", 64 * 1024, false), 0);
	e.look = submit_another;
	for (int i = 0; i < 50; i++) {
		bulk(&e, STUB_BULK_IN, 15000);
	}
	fake_engine_settle(&e, 0);
	assert_int_equal(e.n_done, 100);
	for (unsigned int i = 0; i < e.n_done; i++) {
		assert_int_equal(e.done[i], i);
		assert_int_equal(e.status[i], TRANSFER_OK);
		assert_int_equal(e.actual[i], i < 50 ? 15000 : 100);
	}
	fake_engine_stop(&e);
}

/* The kernel has hardly any memory for a long time, but some: everything is done in the end. */
static void test_little_memory(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "memory=15000 latency=200000", PLENTY, false), 0);
	for (int i = 0; i < 12; i++) {
		bulk(&e, i % 2 ? STUB_BULK_IN : STUB_BULK_OUT, 10000);
	}
	fake_engine_settle(&e, 0);
	for (unsigned int i = 0; i < e.n_done; i++) {
		assert_int_equal(e.status[i], TRANSFER_OK);
	}
	fake_engine_stop(&e);
}

/* Of two endpoints one of which has much to do, the other's turn comes; and small ones don't pass
 * a large one until there never is room for it. */
static void test_turns(void **state)
{
	struct fake_engine e;
	struct fake_transfer *large;
	unsigned int number;

	assert_int_equal(fake_engine_start(&e, "latency=100", 64 * 1024, false), 0);
	fake_engine_set_alt(&e, 2, 1);
	for (int i = 0; i < 100; i++) {
		bulk(&e, STUB_BULK_IN, 5000);
	}
	large = fake_transfer_new(&e, TRANSFER_BULK, STUB_STREAM_IN, 30000);
	number = large->number;
	fake_engine_submit(&e, large);
	fake_engine_settle(&e, 1);
	assert_true(place_of(&e, number) < 20);
	fake_engine_stop(&e);
}

/* IN that never comes keeps neither OUT nor interrupts nor control from going on, and what is
 * larger than its share goes alone. */
static void test_shares(void **state)
{
	struct fake_engine e;
	struct fake_transfer *f;
	unsigned int out, control, interrupt;

	assert_int_equal(fake_engine_start(&e, "hang=81", 64 * 1024, false), 0);
	for (int i = 0; i < 20; i++) {
		bulk(&e, STUB_BULK_IN, 30000);
	}
	out = bulk(&e, STUB_BULK_OUT, 100000)->number;
	f = fake_transfer_new(&e, TRANSFER_CONTROL, 0x80, 18);
	f->t.setup = (struct usb_setup){0x80, 6, 0x0100, 0, 18};
	control = f->number;
	fake_engine_submit(&e, f);
	f = fake_transfer_new(&e, TRANSFER_INTERRUPT, STUB_INTERRUPT_IN, 64);
	interrupt = f->number;
	fake_engine_submit(&e, f);
	fake_engine_run(&e, 50);
	assert_int_equal(e.n_done, 3);
	assert_int_equal(e.actual[place_of(&e, interrupt)], 64);
	assert_int_equal(e.status[place_of(&e, out)], TRANSFER_OK);
	assert_int_equal(e.actual[place_of(&e, out)], 100000);
	assert_int_equal(e.actual[place_of(&e, control)], 18);
	fake_engine_cancel_all(&e);
	fake_engine_settle(&e, 0);
	for (unsigned int i = 3; i < e.n_done; i++) {
		assert_int_equal(e.status[i], TRANSFER_CANCELLED);
	}
	fake_engine_stop(&e);
}

static void test_control_flood(void **state)
{
	struct fake_engine e;

	/* Many more than their reserve. */
	assert_int_equal(fake_engine_start(&e, "latency=100", 64 * 1024, false), 0);
	for (int i = 0; i < 200; i++) {
		struct fake_transfer *f = fake_transfer_new(&e, TRANSFER_CONTROL, 0x80, 4096);

		f->t.setup = (struct usb_setup){0xc0, STUB_REQUEST_SCRATCH, 0, 0, 4096};
		fake_engine_submit(&e, f);
	}
	fake_engine_settle(&e, 0);
	for (unsigned int i = 0; i < e.n_done; i++) {
		assert_int_equal(e.done[i], i);
		assert_int_equal(e.actual[i], 4096);
	}
	fake_engine_stop(&e);
}

static void look_at_packets(struct fake_engine *e, struct fake_transfer *f)
{
	static uint32_t sequence;
	uint8_t want[192];
	uint32_t at = 0;

	if (f->number == 0) {
		sequence = 0;
	}
	for (uint32_t i = 0; i < f->t.n_packets; i++, at += sizeof(want)) {
		const struct iso_packet *p = &f->packets[i];
		bool bad = sequence % 10 == 9;

		assert_int_equal(p->status, bad ? TRANSFER_IO_ERROR : TRANSFER_OK);
		assert_int_equal(p->actual, bad ? 0 : stub_pattern(sequence, want, sizeof(want)));
		assert_memory_equal(f->t.data + at, want, p->actual);
		sequence++;
	}
}

static struct fake_transfer *iso(struct fake_engine *e, uint8_t endpoint, uint32_t n)
{
	struct fake_transfer *f = fake_transfer_new(e, TRANSFER_ISO, endpoint, n * 192);

	f->t.packets = f->packets;
	f->t.n_packets = n;
	for (uint32_t i = 0; i < n; i++) {
		f->packets[i] = (struct iso_packet){.length = 192, .status = 0xff};
	}
	return f;
}

static void test_iso_in(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "iso=10 isobad=10", PLENTY, false), 0);
	fake_engine_set_alt(&e, 1, 1);
	e.look = look_at_packets;
	for (uint32_t n = 1; n <= ISO_PACKETS_MAX; n++) {
		fake_engine_submit(&e, iso(&e, STUB_ISO_IN, n));
	}
	fake_engine_settle(&e, 1);
	fake_engine_stop(&e);
}

static void look_at_counters(struct fake_engine *e, struct fake_transfer *f)
{
	struct stub_counters c;

	if (f->t.type == TRANSFER_CONTROL) {
		assert_int_equal(f->t.actual, sizeof(c));
		memcpy(&c, f->t.data, sizeof(c));
		assert_int_equal(c.iso_packets, 8 * 7);
		assert_int_equal(c.iso_gaps + c.iso_spoilt, 0);
	}
}

static void test_iso_out(void **state)
{
	struct fake_engine e;
	struct fake_transfer *f;
	uint32_t sequence = 0;

	assert_int_equal(fake_engine_start(&e, "iso=10", PLENTY, false), 0);
	fake_engine_set_alt(&e, 1, 1);
	for (int i = 0; i < 8; i++) {
		f = iso(&e, STUB_ISO_OUT, 7);
		f->t.length = 0;
		for (uint32_t k = 0; k < 7; k++) {
			/* Each as long as another one. */
			uint32_t n = 20 * (k + 1);
			uint8_t *p = f->t.data + f->t.length;

			for (uint32_t b = 0; b < n; b++) {
				p[b] = (uint8_t)(b < 4 ? sequence >> 8 * b : sequence + b);
			}
			f->packets[k].length = n;
			f->t.length += n;
			sequence++;
		}
		fake_engine_submit(&e, f);
	}
	fake_engine_settle(&e, 1);
	e.look = look_at_counters;
	f = fake_transfer_new(&e, TRANSFER_CONTROL, 0x80, sizeof(struct stub_counters));
	f->t.setup = (struct usb_setup){0xc0, STUB_REQUEST_COUNTERS, 0, 0, (uint16_t)f->t.length};
	fake_engine_submit(&e, f);
	fake_engine_settle(&e, 1);
	fake_engine_stop(&e);
}

static void look_at_stream(struct fake_engine *e, struct fake_transfer *f)
{
	if (f->t.status == TRANSFER_OK) {
		assert_int_equal(f->t.data[4], f->t.stream_id);
	}
}

static void test_streams(void **state)
{
	const uint32_t endpoints = 1u << (16 + 4) | 1u << 4;
	struct fake_engine e;
	struct fake_transfer *f;

	assert_int_equal(fake_engine_start(&e, "", PLENTY, false), 0);
	fake_engine_set_alt(&e, 2, 1);
	e.look = look_at_stream;
	e.backend->ops->alloc_streams(e.backend, endpoints, 16);
	fake_engine_settle(&e, 2);
	assert_int_equal(e.answer, TRANSFER_OK);
	for (uint32_t id = 1; id <= 17; id++) {
		f = fake_transfer_new(&e, TRANSFER_BULK, STUB_STREAM_IN, 64);
		f->t.stream_id = id;
		fake_engine_submit(&e, f);
	}
	fake_engine_settle(&e, 2);
	for (unsigned int i = 0; i < 17; i++) {
		assert_int_equal(
			e.status[place_of(&e, i)], i < 16 ? TRANSFER_OK : TRANSFER_INVALID);
	}
	e.backend->ops->free_streams(e.backend, endpoints);
	fake_engine_settle(&e, 3);
	assert_int_equal(e.answer, TRANSFER_OK);
	/* The device has 16: fewer than are asked for are none. */
	e.backend->ops->alloc_streams(e.backend, endpoints, 17);
	fake_engine_settle(&e, 4);
	assert_int_equal(e.answer, TRANSFER_IO_ERROR);
	f = fake_transfer_new(&e, TRANSFER_BULK, STUB_STREAM_IN, 64);
	f->t.stream_id = 1;
	fake_engine_submit(&e, f);
	fake_engine_settle(&e, 4);
	assert_int_equal(e.status[e.n_done - 1], TRANSFER_INVALID);
	fake_engine_stop(&e);
}

static void test_lost_once(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "gone=20 latency=100", PLENTY, false), 0);
	for (int i = 0; i < 40; i++) {
		bulk(&e, STUB_BULK_IN, 512);
	}
	fake_engine_settle(&e, 0);
	bulk(&e, STUB_BULK_OUT, 512);
	fake_engine_run(&e, 10);
	assert_int_equal(e.n_lost, 1);
	assert_int_equal(e.n_done, 41);
	assert_int_equal(e.status[0], TRANSFER_OK);
	assert_int_equal(e.status[40], TRANSFER_IO_ERROR);
	backend_libusb_unplugged(e.backend);
	assert_int_equal(e.n_lost, 1);
	fake_engine_stop(&e);
}

static void test_unplugged(void **state)
{
	struct fake_engine e;
	struct usb_description d;

	assert_int_equal(fake_engine_start(&e, "", PLENTY, false), 0);
	backend_libusb_unplugged(e.backend);
	assert_int_equal(e.n_lost, 1);
	bulk(&e, STUB_BULK_IN, 512);
	assert_int_equal(e.status[0], TRANSFER_IO_ERROR);
	assert_int_equal(e.backend->ops->describe(e.backend, &d), -ENODEV);
	fake_engine_stop(&e);
}

/* While the thread has the device: what is in flight stays, what comes waits, and cancels of both
 * are not forgotten. */
static void test_halts(void **state)
{
	struct fake_engine e;
	struct fake_transfer *flying, *waiting, *second, *third;
	unsigned int first;

	assert_int_equal(fake_engine_start(&e, "hang=81 slow=50", PLENTY, false), 0);
	flying = bulk(&e, STUB_BULK_IN, 512);
	first = clear_halt(&e, STUB_BULK_OUT)->number;
	second = clear_halt(&e, STUB_BULK_IN);
	third = clear_halt(&e, 0x8f);
	waiting = bulk(&e, STUB_BULK_OUT, 512);
	assert_int_equal(e.n_done, 0);
	fake_engine_cancel(&e, flying);
	fake_engine_cancel(&e, waiting);
	assert_int_equal(e.n_done, 1);
	assert_int_equal(e.status[0], TRANSFER_CANCELLED);
	fake_engine_cancel(&e, second);
	assert_int_equal(e.n_done, 2);
	assert_int_equal(e.status[1], TRANSFER_CANCELLED);
	fake_engine_settle(&e, 0);
	assert_int_equal(e.status[place_of(&e, first)], TRANSFER_OK);
	assert_int_equal(e.status[place_of(&e, 0)], TRANSFER_CANCELLED);
	/* No such endpoint. */
	assert_int_equal(e.status[place_of(&e, 3)], TRANSFER_STALL);
	assert_non_null(third);
	fake_engine_stop(&e);
}

static void test_reset_waits_for_cancels(void **state)
{
	struct fake_engine e;
	struct fake_transfer *f;

	assert_int_equal(fake_engine_start(&e, "hang=81", PLENTY, false), 0);
	f = bulk(&e, STUB_BULK_IN, 512);
	e.backend->ops->reset(e.backend);
	fake_engine_run(&e, 50);
	assert_int_equal(e.n_answers, 0);
	bulk(&e, STUB_BULK_OUT, 512);
	assert_int_equal(e.n_done, 0);
	fake_engine_cancel(&e, f);
	fake_engine_settle(&e, 1);
	assert_int_equal(e.answer, TRANSFER_OK);
	assert_int_equal(e.status[1], TRANSFER_OK);
	fake_engine_stop(&e);
}

static void test_reset_tells_another_device(void **state)
{
	struct fake_engine e;
	struct usb_description before = {0}, after = {0};

	assert_int_equal(fake_engine_start(&e, "identity", PLENTY, false), 0);
	assert_int_equal(e.backend->ops->describe(e.backend, &before), 0);
	e.backend->ops->reset(e.backend);
	fake_engine_settle(&e, 1);
	assert_int_equal(e.backend->ops->describe(e.backend, &after), 0);
	assert_memory_not_equal(before.device, after.device, sizeof(after.device));
	fake_engine_stop(&e);
}

static void test_configuration(void **state)
{
	struct fake_engine e;
	struct usb_description d = {0};

	/* By itself. */
	assert_int_equal(fake_engine_start(&e, "", PLENTY, false), 0);
	e.backend->ops->set_configuration(e.backend, 0);
	fake_engine_settle(&e, 1);
	assert_int_equal(e.answer, TRANSFER_OK);
	assert_int_equal(e.backend->ops->describe(e.backend, &d), 0);
	assert_int_equal(d.config_size, 0);
	e.backend->ops->set_configuration(e.backend, 1);
	fake_engine_settle(&e, 2);
	assert_int_equal(e.answer, TRANSFER_OK);
	e.backend->ops->set_configuration(e.backend, 2);
	fake_engine_settle(&e, 3);
	assert_int_equal(e.answer, TRANSFER_INVALID);
	bulk(&e, STUB_BULK_IN, 64);
	fake_engine_settle(&e, 3);
	assert_int_equal(e.status[0], TRANSFER_OK);
	fake_engine_stop(&e);
	/* By the broker. */
	assert_int_equal(fake_engine_start(&e, "", PLENTY, true), 0);
	backend_libusb_configured(e.backend, 0);
	e.backend->ops->set_configuration(e.backend, 1);
	fake_engine_settle(&e, 1);
	assert_int_equal(e.asked_configuration, -1);
	e.backend->ops->set_configuration(e.backend, 3);
	fake_engine_run(&e, 20);
	assert_int_equal(e.asked_configuration, 3);
	assert_int_equal(e.n_answers, 1);
	backend_libusb_configured(e.backend, -EINVAL);
	fake_engine_settle(&e, 2);
	assert_int_equal(e.answer, TRANSFER_STALL);
	fake_engine_stop(&e);
	assert_int_equal(e.n_busy, 0);
}

static void test_destroyed_meanwhile(void **state)
{
	struct fake_engine e;

	assert_int_equal(fake_engine_start(&e, "slow=50", PLENTY, false), 0);
	e.backend->ops->reset(e.backend);
	fake_engine_stop(&e);
	assert_int_equal(e.n_answers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_open_fails),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_little_memory),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_control_flood),
		cmocka_unit_test(test_iso_in),
		cmocka_unit_test(test_iso_out),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_lost_once),
		cmocka_unit_test(test_unplugged),
		cmocka_unit_test(test_halts),
		cmocka_unit_test(test_reset_waits_for_cancels),
		cmocka_unit_test(test_reset_tells_another_device),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_destroyed_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
