/* SPDX-License-Identifier: MIT
 * Bulk-only transport: the thirteen cases, what is no CBW, recovery, split and deep queues, cancel.
 */
#include "usb/bot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/stick.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"

#define MIB 1048576

/* Two blocks at block 4. */
static const uint8_t read10[10] = {0x28, 0, 0, 0, 0, 4, 0, 0, 2};
static const uint8_t write10[10] = {0x2a, 0, 0, 0, 0, 4, 0, 0, 2};
static const uint8_t beyond10[10] = {0x28, 0, 0xff, 0, 0, 0, 0, 0, 2};
static const uint8_t ready6[6] = {0};
static const uint8_t inquiry6[6] = {0x12, 0, 0, 0, 36};

static void open_ready(struct stick *s, enum usb_speed speed)
{
	stick_open(s, stick_image(MIB), false, speed);
	stick_ready(s);
}

static void send_cbw(struct stick *s, uint32_t length, bool in, const uint8_t *cdb, uint8_t size)
{
	uint8_t cbw[31];

	stick_cbw(s, cbw, length, in, cdb, size);
	assert_int_equal(stick_bulk_out(s, cbw, 31, NULL), TRANSFER_OK);
}

/* The stick is as good as new: a command works without any recovery. */
static void assert_usable(struct stick *s)
{
	uint8_t d[1024];
	uint32_t n;

	assert_int_equal(stick_command(s, read10, 10, true, d, 1024, &n), 0);
	assert_int_equal(n, 1024);
	assert_int_equal(get_be64(d), 4);
	assert_int_equal(get_be64(d + 512), 5);
}

static void assert_untouched(struct stick *s)
{
	uint8_t d[1024];

	assert_int_equal(pread(s->image, d, 1024, 4 * 512), 1024);
	assert_int_equal(get_be64(d), 4);
	assert_int_equal(get_be64(d + 1016), 5);
}

struct want {
	const char *name;
	const uint8_t *cdb;
	uint8_t size;
	uint32_t host; /* dCBWDataTransferLength */
	bool in;
	uint8_t data;    /* transfer status of the data phase */
	uint32_t actual; /* of it */
	bool csw_stalls; /* the CSW must be fetched after clearing bulk-in */
	uint8_t status;
	uint32_t residue;
};

static const struct want cases[] = {
	{"1 Hn=Dn", ready6, 6, 0, false, 0, 0, false, 0, 0},
	{"1 Hn=Dn, in", ready6, 6, 0, true, 0, 0, false, 0, 0},
	{"2 Hn<Di", read10, 10, 0, true, 0, 0, false, 2, 0},
	{"2 Hn<Di, reply", inquiry6, 6, 0, true, 0, 0, false, 2, 0},
	{"3 Hn<Do", write10, 10, 0, false, 0, 0, false, 2, 0},
	{"4 Hi>Dn", ready6, 6, 1024, true, TRANSFER_STALL, 0, false, 0, 1024},
	{"4 Hi>Dn, failed", beyond10, 10, 1024, true, TRANSFER_STALL, 0, false, 1, 1024},
	/* Ends on a full packet with the transfer not filled: short enough for usbredir. */
	{"5 Hi>Di", read10, 10, 4096, true, TRANSFER_OK, 1024, false, 0, 3072},
	{"5 Hi>Di, reply", inquiry6, 6, 96, true, TRANSFER_OK, 36, false, 0, 60},
	{"6 Hi=Di", read10, 10, 1024, true, TRANSFER_OK, 1024, false, 0, 0},
	{"7 Hi<Di", read10, 10, 512, true, TRANSFER_STALL, 0, false, 2, 512},
	{"7 Hi<Di, reply is cut", inquiry6, 6, 16, true, TRANSFER_OK, 16, false, 0, 0},
	{"8 Hi<>Do", write10, 10, 1024, true, TRANSFER_STALL, 0, false, 2, 1024},
	{"9 Ho>Dn", ready6, 6, 1024, false, TRANSFER_STALL, 0, false, 0, 1024},
	{"10 Ho<>Di", read10, 10, 1024, false, TRANSFER_STALL, 0, false, 2, 1024},
	{"11 Ho>Do", write10, 10, 2048, false, TRANSFER_OK, 2048, false, 0, 1024},
	{"12 Ho=Do", write10, 10, 1024, false, TRANSFER_OK, 1024, false, 0, 0},
	{"13 Ho<Do", write10, 10, 512, false, TRANSFER_STALL, 0, false, 2, 512},
};

static void run_case(struct stick *s, const struct want *w)
{
	uint8_t data[4096];
	uint32_t n = 0;
	struct csw csw;

	for (size_t i = 0; i < sizeof(data); i += 8) {
		put_be64(data + i, 4 + i / 512);
	}
	send_cbw(s, w->host, w->in, w->cdb, w->size);
	if (w->host > 0) {
		int status = w->in ? stick_bulk_in(s, data, w->host, &n)
				   : stick_bulk_out(s, data, w->host, &n);

		assert_int_equal(status, w->data);
		assert_int_equal(n, w->actual);
		if (status == TRANSFER_STALL) {
			/* It stays stalled until the host clears it. */
			status = w->in ? stick_bulk_in(s, data, 13, NULL)
				       : stick_bulk_out(s, data, 31, NULL);
			assert_int_equal(status, TRANSFER_STALL);
			stick_clear_halt(s, w->in ? 0x81 : 0x02);
		}
	}
	csw = stick_csw(s);
	assert_int_equal(csw.status, w->status);
	assert_int_equal(csw.residue, w->residue);
	assert_untouched(s);
	assert_usable(s);
}

static void the_thirteen_cases(void **state)
{
	static const enum usb_speed speeds[] = {USB_SPEED_HIGH, USB_SPEED_SUPER};

	for (size_t k = 0; k < ARRAY_SIZE(speeds); k++) {
		struct stick s;

		open_ready(&s, speeds[k]);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			print_message("  %s\n", cases[i].name);
			run_case(&s, &cases[i]);
		}
		stick_close(&s);
	}
}

/* Case 5 where the data fills its transfers and ends on a full packet: bulk-in stalls after it. */
static void data_that_ends_on_a_full_packet(void **state)
{
	uint8_t d[1024];
	struct stick s;
	struct csw csw;
	uint32_t n;

	open_ready(&s, USB_SPEED_HIGH);
	send_cbw(&s, 4096, true, read10, 10);
	assert_int_equal(stick_bulk_in(&s, d, 1024, &n), TRANSFER_OK);
	assert_int_equal(n, 1024);
	assert_int_equal(stick_bulk_in(&s, d, 1024, &n), TRANSFER_STALL);
	stick_clear_halt(&s, 0x81);
	csw = stick_csw(&s);
	assert_int_equal(csw.status, 0);
	assert_int_equal(csw.residue, 3072);
	/* But 36 bytes are a short packet even if they fill their transfer. */
	send_cbw(&s, 96, true, inquiry6, 6);
	assert_int_equal(stick_bulk_in(&s, d, 36, &n), TRANSFER_OK);
	assert_int_equal(stick_bulk_in(&s, d, 13, &n), TRANSFER_OK);
	assert_int_equal(n, 13);
	assert_int_equal(get_le32(d + 8), 60);
	stick_close(&s);
}

static void no_cbw(struct stick *s, const uint8_t *bytes, uint32_t size)
{
	uint8_t d[64];

	assert_int_equal(stick_bulk_out(s, bytes, size, NULL), TRANSFER_OK);
	/* Both stall, and clearing alone does not help (6.6.1). */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stick_bulk_in(s, d, 13, NULL), TRANSFER_STALL);
		assert_int_equal(stick_bulk_out(s, d, 31, NULL), TRANSFER_STALL);
		stick_clear_halt(s, 0x81);
		stick_clear_halt(s, 0x02);
	}
	/* Reset recovery: reset, then both halts, which the reset keeps. */
	assert_int_equal(stick_control(s, 0x21, 0xff, 0, 0, NULL, 0, NULL), TRANSFER_OK);
	assert_int_equal(stick_bulk_in(s, d, 13, NULL), TRANSFER_STALL);
	stick_clear_halt(s, 0x81);
	stick_clear_halt(s, 0x02);
	assert_usable(s);
}

static void what_is_no_cbw(void **state)
{
	uint8_t good[64] = {0}, bad[64];
	struct stick s;

	open_ready(&s, USB_SPEED_HIGH);
	stick_cbw(&s, good, 0, false, ready6, 6);
	no_cbw(&s, good, 30);
	no_cbw(&s, good, 32);
	no_cbw(&s, good, 0);
	for (size_t i = 0; i < 4; i++) { /* signature */
		memcpy(bad, good, 31);
		bad[i] ^= 1;
		no_cbw(&s, bad, 31);
	}
	memcpy(bad, good, 31);
	bad[12] = 0x01; /* reserved flag */
	no_cbw(&s, bad, 31);
	memcpy(bad, good, 31);
	bad[13] = 1; /* LUN */
	no_cbw(&s, bad, 31);
	memcpy(bad, good, 31);
	bad[14] = 0;
	no_cbw(&s, bad, 31);
	bad[14] = 17;
	no_cbw(&s, bad, 31);
	stick_close(&s);
}

/* A host that queues everything at once, in the worst order. */
static void everything_queued_at_once(void **state)
{
	struct piece cbw[4], data[4], csw[4];
	struct stick s;

	open_ready(&s, USB_SPEED_SUPER);
	for (int i = 0; i < 4; i++) {
		piece_init(&data[i], 0x81, 1024);
		piece_init(&csw[i], 0x81, 13);
		stick_submit(&s, &data[i]);
		stick_submit(&s, &csw[i]);
		assert_false(data[i].done || csw[i].done);
	}
	for (int i = 0; i < 4; i++) {
		piece_init(&cbw[i], 0x02, 31);
		stick_cbw(&s, cbw[i].data, 1024, true, read10, 10);
		stick_submit(&s, &cbw[i]);
	}
	stick_wait(&s, &csw[3]);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(cbw[i].t.status, TRANSFER_OK);
		assert_int_equal(data[i].t.actual, 1024);
		assert_int_equal(get_be64(data[i].data), 4);
		assert_int_equal(csw[i].t.actual, 13);
		assert_int_equal(csw[i].data[12], 0);
		assert_true(data[i].order < csw[i].order);
		assert_true(i == 0 || csw[i - 1].order < data[i].order);
		piece_free(&cbw[i]);
		piece_free(&data[i]);
		piece_free(&csw[i]);
	}
	stick_close(&s);
}

/* 128 KiB each way, cut into more transfers than there are slots, all queued. */
static void split_transfers(void **state)
{
	enum { N = 128 };
	static const uint8_t write_all[10] = {0x2a, 0, 0, 0, 0, 16, 0, 1, 0};
	static const uint8_t read_all[10] = {0x28, 0, 0, 0, 0, 16, 0, 1, 0};
	static struct piece p[N];
	uint8_t disk[1024];
	struct stick s;

	open_ready(&s, USB_SPEED_SUPER);
	for (int pass = 0; pass < 2; pass++) {
		bool in = pass == 1;

		send_cbw(&s, N * 1024, in, in ? read_all : write_all, 10);
		for (unsigned i = 0; i < N; i++) {
			piece_init(&p[i], in ? 0x81 : 0x02, 1024);
			if (!in) {
				memset(p[i].data, (int)(i + 1), 1024);
			}
			stick_submit(&s, &p[i]);
		}
		assert_int_equal(stick_csw(&s).status, 0);
		for (unsigned i = 0; i < N; i++) {
			assert_int_equal(p[i].t.status, TRANSFER_OK);
			assert_int_equal(p[i].t.actual, 1024);
			assert_true(i == 0 || p[i].order == p[i - 1].order + 1);
			assert_int_equal(pread(s.image, disk, 1024, 16 * 512 + i * 1024), 1024);
			assert_memory_equal(disk, p[i].data, 1024);
			assert_int_equal(disk[1023], (uint8_t)(i + 1));
			piece_free(&p[i]);
		}
	}
	stick_close(&s);
}

/* The host ends the data phase early, or sends more than it said. */
static void hosts_that_break_their_word(void **state)
{
	uint8_t d[2048] = {0};
	struct stick s;
	struct csw csw;

	for (size_t i = 0; i < sizeof(d); i += 8) {
		put_be64(d + i, 4 + i / 512);
	}
	open_ready(&s, USB_SPEED_HIGH);
	send_cbw(&s, 1024, false, write10, 10);
	assert_int_equal(stick_bulk_out(&s, d, 100, NULL), TRANSFER_OK);
	csw = stick_csw(&s);
	assert_int_equal(csw.status, 2);
	assert_untouched(&s);
	assert_usable(&s);
	send_cbw(&s, 1024, false, write10, 10);
	assert_int_equal(stick_bulk_out(&s, d, 2048, NULL), TRANSFER_STALL);
	stick_clear_halt(&s, 0x02);
	csw = stick_csw(&s);
	assert_int_equal(csw.status, 2);
	assert_int_equal(csw.residue, 1024);
	assert_untouched(&s);
	assert_usable(&s);
	/* A CSW has no room in 12 bytes; it stays to be fetched. */
	send_cbw(&s, 0, false, ready6, 6);
	assert_int_equal(stick_bulk_in(&s, d, 12, NULL), TRANSFER_BABBLE);
	assert_int_equal(stick_csw(&s).status, 0);
	stick_close(&s);
}

static void cancel_what_waits(void **state)
{
	struct piece data, csw;
	struct stick s;

	open_ready(&s, USB_SPEED_HIGH);
	piece_init(&data, 0x81, 1024);
	piece_init(&csw, 0x81, 13);
	stick_submit(&s, &data);
	stick_submit(&s, &csw);
	s.backend->ops->cancel(s.backend, &data.t);
	assert_true(data.done);
	assert_int_equal(data.t.status, TRANSFER_CANCELLED);
	assert_int_equal(data.t.actual, 0);
	assert_false(csw.done);
	send_cbw(&s, 0, false, ready6, 6);
	stick_wait(&s, &csw);
	assert_int_equal(csw.t.status, TRANSFER_OK);
	piece_free(&data);
	piece_free(&csw);
	assert_usable(&s);
	stick_close(&s);
}

/* A write that is with the thread when it is cancelled, or when the bus is reset, is done, and
 * says so, exactly once; the next command sees it. */
static void cancel_and_reset_what_runs(void **state)
{
	uint8_t cbw[31], disk[1024];
	struct piece data;
	struct stick s;

	open_ready(&s, USB_SPEED_HIGH);
	for (int pass = 0; pass < 3; pass++) {
		piece_init(&data, 0x02, 1024);
		memset(data.data, 0x40 + pass, 1024);
		stick_cbw(&s, cbw, 1024, false, write10, 10);
		assert_int_equal(stick_bulk_out(&s, cbw, 31, NULL), TRANSFER_OK);
		stick_submit(&s, &data);
		assert_false(data.done);
		if (pass == 0) {
			s.backend->ops->cancel(s.backend, &data.t);
			stick_wait(&s, &data);
			assert_int_equal(stick_csw(&s).status, 0);
		} else if (pass == 1) {
			s.backend->ops->reset(s.backend);
			stick_wait(&s, &data);
			stick_ready(&s);
		} else {
			assert_int_equal(
				stick_control(&s, 0x21, 0xff, 0, 0, NULL, 0, NULL), TRANSFER_OK);
			assert_int_equal(stick_command(&s, ready6, 6, false, NULL, 0, NULL), 0);
			assert_true(data.done);
		}
		assert_int_equal(data.t.status, TRANSFER_OK);
		assert_int_equal(data.t.actual, 1024);
		assert_int_equal(pread(s.image, disk, 1024, 4 * 512), 1024);
		assert_memory_equal(disk, data.data, 1024);
		piece_free(&data);
	}
	stick_close(&s);
}

static void bus_reset_cancels_the_queues(void **state)
{
	struct piece in, out;
	struct stick s;

	open_ready(&s, USB_SPEED_HIGH);
	send_cbw(&s, 1024, false, write10, 10);
	piece_init(&in, 0x81, 13);
	stick_submit(&s, &in);
	send_cbw(&s, 0, false, ready6, 6); /* 31 bytes of data, and short: a phase error */
	stick_wait(&s, &in);
	assert_int_equal(in.data[12], 2);
	piece_free(&in);

	piece_init(&in, 0x81, 13);
	piece_init(&out, 0x02, 31);
	assert_int_equal(stick_control(&s, 0x02, 3, 0, 0x02, NULL, 0, NULL), TRANSFER_OK);
	stick_submit(&s, &in);
	s.backend->ops->reset(s.backend);
	assert_true(in.done);
	assert_int_equal(in.t.status, TRANSFER_CANCELLED);
	/* The halt is gone too. */
	stick_cbw(&s, out.data, 0, false, ready6, 6);
	stick_submit(&s, &out);
	stick_wait(&s, &out);
	assert_int_equal(out.t.status, TRANSFER_OK);
	assert_int_equal(stick_csw(&s).status, 1);
	assert_int_equal(stick_sense(&s), SENSE_POWER_ON);
	piece_free(&in);
	piece_free(&out);
	stick_close(&s);
}

static void eject(void **state)
{
	static const uint8_t prevent[6] = {0x1e, 0, 0, 0, 1}, allow[6] = {0x1e};
	static const uint8_t load_eject[6] = {0x1b, 0, 0, 0, 2};
	uint8_t d[1024];
	struct stick s;

	open_ready(&s, USB_SPEED_HIGH);
	assert_int_equal(stick_command(&s, prevent, 6, false, NULL, 0, NULL), 0);
	assert_int_equal(stick_command(&s, load_eject, 6, false, NULL, 0, NULL), 1);
	assert_int_equal(stick_sense(&s), SENSE_REMOVAL_PREVENTED);
	assert_usable(&s);
	assert_int_equal(stick_command(&s, allow, 6, false, NULL, 0, NULL), 0);
	/* Told only when the guest has heard that it went well. */
	send_cbw(&s, 0, false, load_eject, 6);
	stick_settle(&s, 20);
	assert_int_equal(s.ejected, 0);
	assert_int_equal(stick_csw(&s).status, 0);
	assert_int_equal(s.ejected, 1);
	assert_int_equal(stick_command(&s, ready6, 6, false, NULL, 0, NULL), 1);
	assert_int_equal(stick_sense(&s), SENSE_NO_MEDIUM);
	assert_int_equal(stick_command(&s, read10, 10, true, d, 1024, NULL), 1);
	assert_int_equal(stick_sense(&s), SENSE_NO_MEDIUM);
	assert_int_equal(stick_command(&s, load_eject, 6, false, NULL, 0, NULL), 0);
	assert_int_equal(s.ejected, 1);
	stick_close(&s);
}

/* The medium fails in both directions: sense data, and the stick goes on. */
static void io_errors(void **state)
{
	uint8_t d[1024] = {0};
	struct stick s;
	struct csw csw;
	uint32_t n;

	open_ready(&s, USB_SPEED_HIGH);
	/* Reading behind the end of what has become a shorter file. */
	assert_int_equal(ftruncate(s.image, 4 * 512 + 512), 0);
	send_cbw(&s, 1024, true, read10, 10);
	assert_int_equal(stick_bulk_in(&s, d, 1024, &n), TRANSFER_STALL);
	assert_int_equal(n, 0);
	assert_int_equal(stick_bulk_in(&s, d, 13, &n), TRANSFER_STALL); /* a halt, no accident */
	csw = stick_csw(&s);
	assert_int_equal(csw.status, 1);
	assert_int_equal(csw.residue, 1024);
	assert_int_equal(stick_sense(&s), SENSE_READ_ERROR);
	assert_int_equal(stick_sense(&s), SENSE_NONE);
	assert_int_equal(fcntl(s.image, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(stick_command(&s, write10, 10, false, d, 1024, &n), 1);
	assert_int_equal(stick_sense(&s), SENSE_WRITE_PROTECTED);
	stick_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_thirteen_cases),
		cmocka_unit_test(data_that_ends_on_a_full_packet),
		cmocka_unit_test(what_is_no_cbw),
		cmocka_unit_test(everything_queued_at_once),
		cmocka_unit_test(split_transfers),
		cmocka_unit_test(hosts_that_break_their_word),
		cmocka_unit_test(cancel_what_waits),
		cmocka_unit_test(cancel_and_reset_what_runs),
		cmocka_unit_test(bus_reset_cancels_the_queues),
		cmocka_unit_test(eject),
		cmocka_unit_test(io_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
