/* SPDX-License-Identifier: MIT
 * A stick that can't be written: commands of a guest that behaves, and of one that doesn't.
 */
#include <string.h>

#include "tests/unit/guard-fixture.h"
#include "usb/bytes.h"
#include "usb/guard-internal.h"

enum { IN = 0x83, OUT = 0x03, CBW = 31, CSW = 13 };

static int setup(void **state)
{
	static const struct guard_options options = {.interfaces = UINT32_MAX, .read_only = true};
	struct guarded *g = test_calloc(1, sizeof(*g));

	*state = g;
	return guarded_start(g, &options);
}

static int teardown(void **state)
{
	guarded_finish(*state);
	test_free(*state);
	return 0;
}

static void make_cbw(
	uint8_t *p, uint32_t tag, uint32_t length, bool in, const uint8_t *cdb, size_t n)
{
	memset(p, 0, CBW);
	put_le32(p, 0x43425355);
	put_le32(p + 4, tag);
	put_le32(p + 8, length);
	p[12] = in ? 0x80 : 0;
	p[14] = (uint8_t)n;
	memcpy(p + 15, cdb, n);
}

static enum fate command(struct guarded *g, struct packet *p, uint32_t tag, uint32_t length,
	bool in, const char *cdb, size_t n)
{
	uint8_t cbw[CBW];

	make_cbw(cbw, tag, length, in, (const uint8_t *)cdb, n);
	return guarded_bulk(g, p, OUT, cbw, CBW);
}

#define COMMAND(g, p, tag, length, in, cdb) command(g, p, tag, length, in, cdb, sizeof(cdb) - 1)
#define WRITE_1                             "\x2a\0\0\0\0\x07\0\0\x01\0"
#define READ_1                              "\x28\0\0\0\0\x07\0\0\x01\0"
#define SENSE                               "\x03\0\0\0\x12\0"

static void check_csw(struct guarded *g, uint32_t tag, uint32_t residue, uint8_t status)
{
	struct packet p;

	assert_int_equal(guarded_bulk(g, &p, IN, NULL, CSW), FATE_DONE);
	assert_int_equal(p.t.status, TRANSFER_OK);
	assert_int_equal(p.t.actual, CSW);
	assert_int_equal(get_le32(p.data), 0x53425355);
	assert_int_equal(get_le32(p.data + 4), tag);
	assert_int_equal(get_le32(p.data + 8), residue);
	assert_int_equal(p.data[12], status);
}

static void check_sense(struct guarded *g, uint32_t tag, uint8_t key, uint8_t asc)
{
	struct packet p, data;

	assert_int_equal(COMMAND(g, &p, tag, 18, true, SENSE), FATE_DONE);
	assert_int_equal(guarded_bulk(g, &data, IN, NULL, 18), FATE_DONE);
	assert_int_equal(data.t.actual, 18);
	assert_int_equal(data.data[2], key);
	assert_int_equal(data.data[12], asc);
	check_csw(g, tag, 0, 0);
}

/* The device's own answer to a command that passed. */
static void device_answers(struct guarded *g, struct packet *cbw, uint32_t tag, uint32_t length)
{
	uint8_t csw[CSW] = {0x55, 0x53, 0x42, 0x53};
	struct packet p;

	guarded_complete(g, cbw, TRANSFER_OK, NULL, CBW);
	if (length > 0) {
		assert_int_equal(guarded_bulk(g, &p, IN, NULL, length), FATE_AT_DEVICE);
		guarded_complete(g, &p, TRANSFER_OK, NULL, length);
	}
	put_le32(csw + 4, tag);
	assert_int_equal(guarded_bulk(g, &p, IN, NULL, CSW), FATE_AT_DEVICE);
	guarded_complete(g, &p, TRANSFER_OK, csw, CSW);
}

static void reads_pass(void **state)
{
	struct guarded *g = *state;
	struct packet p;

	for (uint32_t tag = 1; tag < 4; tag++) {
		assert_int_equal(COMMAND(g, &p, tag, 512, true, READ_1), FATE_AT_DEVICE);
		assert_memory_equal(p.data + 15, READ_1, 10);
		device_answers(g, &p, tag, 512);
	}
	assert_int_equal(COMMAND(g, &p, 9, 0, false, "\0\0\0\0\0\0"), FATE_AT_DEVICE);
	device_answers(g, &p, 9, 0);
	/* The device's own sense. */
	assert_int_equal(COMMAND(g, &p, 10, 18, true, SENSE), FATE_AT_DEVICE);
	device_answers(g, &p, 10, 18);
	assert_int_equal(g->refused, 0);
}

static void a_write_is_refused(void **state)
{
	struct guarded *g = *state;
	struct packet p, data[3];

	assert_int_equal(COMMAND(g, &p, 77, 1100, false, WRITE_1), FATE_DONE);
	assert_int_equal(p.t.status, TRANSFER_OK);
	assert_int_equal(p.t.actual, CBW);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(guarded_bulk(g, &data[i], OUT, NULL, i < 2 ? 512 : 76), FATE_DONE);
		assert_int_equal(data[i].t.actual, data[i].t.length);
	}
	check_csw(g, 77, 1100, 1);
	check_sense(g, 78, 7, 0x27);
	assert_int_equal(g->n_at_device, 0);
	assert_int_equal(g->refused, 1);
	/* Told once. */
	assert_int_equal(COMMAND(g, &p, 79, 18, true, SENSE), FATE_AT_DEVICE);
}

static void a_guest_may_send_ahead(void **state)
{
	struct guarded *g = *state;
	struct packet status, more, write, data, read, in;

	/* The reads of both statuses, then a write with its data, then a read. */
	assert_int_equal(guarded_bulk(g, &status, IN, NULL, CSW), FATE_HELD);
	assert_int_equal(guarded_bulk(g, &in, IN, NULL, 512), FATE_HELD);
	assert_int_equal(guarded_bulk(g, &more, IN, NULL, CSW), FATE_HELD);
	assert_int_equal(COMMAND(g, &write, 1, 512, false, WRITE_1), FATE_DONE);
	assert_int_equal(guarded_fate(g, &status), FATE_HELD);
	assert_int_equal(guarded_bulk(g, &data, OUT, NULL, 512), FATE_DONE);
	assert_int_equal(guarded_fate(g, &status), FATE_DONE);
	assert_int_equal(status.data[12], 1);
	assert_int_equal(COMMAND(g, &read, 2, 512, true, READ_1), FATE_AT_DEVICE);
	assert_int_equal(guarded_fate(g, &in), FATE_AT_DEVICE);
	/* The next command waits for this one. */
	assert_int_equal(guarded_fate(g, &more), FATE_HELD);
	assert_int_equal(COMMAND(g, &write, 3, 0, false, WRITE_1), FATE_HELD);
	guarded_complete(g, &read, TRANSFER_OK, NULL, CBW);
	guarded_complete(g, &in, TRANSFER_OK, NULL, 512);
	assert_int_equal(guarded_fate(g, &more), FATE_AT_DEVICE);
	guarded_complete(g, &more, TRANSFER_OK, "USBS\2\0\0\0\0\0\0\0\0", CSW);
	assert_int_equal(guarded_fate(g, &write), FATE_DONE);
	check_csw(g, 3, 0, 1);
}

static void what_is_refused(void **state)
{
	static const struct {
		const char *cdb;
		size_t size;
		bool in;
		uint32_t length;
		uint8_t key, asc;
	} all[] = {
		{"\x0a\0\0\0\1\0", 6, false, 512, 7, 0x27},
		{"\xaa\0\0\0\0\0\0\0\0\1\0\0", 12, false, 512, 7, 0x27},
		{"\x8a\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0", 16, false, 512, 7, 0x27},
		{"\x2e\0\0\0\0\0\0\0\1\0", 10, false, 512, 7, 0x27},    /* WRITE AND VERIFY */
		{"\x41\0\0\0\0\0\0\0\1\0", 10, false, 512, 7, 0x27},    /* WRITE SAME */
		{"\x42\0\0\0\0\0\0\0\x18\0", 10, false, 24, 7, 0x27},   /* UNMAP */
		{"\x04\0\0\0\0\0", 6, false, 0, 7, 0x27},               /* FORMAT UNIT */
		{"\x48\x02\0\0\0\0\0\0\0\0", 10, false, 0, 7, 0x27},    /* SANITIZE */
		{"\x15\x10\0\0\x0c\0", 6, false, 12, 5, 0x20},          /* MODE SELECT */
		{"\x3b\x05\0\0\0\0\0\0\x10\0", 10, false, 16, 5, 0x20}, /* WRITE BUFFER */
		{"\x5f\0\0\0\0\0\0\0\x18\0", 10, false, 24, 5, 0x20},   /* PERSISTENT RESERVE OUT */
		{"\x85\x0a\0\0\0\0\0\0\0\0\0\0\0\0\x30\0", 16, false, 512, 5, 0x20}, /* ATA */
		{"\xa1\x06\0\0\0\0\0\0\0\x40\0\0", 12, false, 0, 5, 0x20},
		{"\xb5\0\0\0\0\0\0\0\0\x10\0\0", 12, false, 16, 5,
			0x20}, /* SECURITY PROTOCOL OUT */
		{"\x7f\0\0\0\0\0\0\x18\0\x0b\0\0\0\0\0\0", 16, false, 512, 5,
			0x20},                            /* WRITE (32) */
		{"\xc0\0\0\0\0\0", 6, false, 0, 5, 0x20}, /* a vendor's */
		{"\xff\0\0\0\0\0\0\0\0\0", 10, true, 64, 5, 0x20},
		{"\x06\0\0\0\0\0", 6, true, 512, 5, 0x20},
		{"\x9e\x11\0\0\0\0\0\0\0\0\0\0\0\1\0\0", 16, true, 512, 5, 0x20}, /* READ LONG */
		{"\x2f\x02\0\0\0\0\0\0\1\0", 10, false, 512, 5, 0x20}, /* VERIFY with data */
		{READ_1, 10, false, 512, 5, 0x24},                     /* the wrong direction */
		{"\x28\0\0\0\0\0", 6, true, 512, 5, 0x20},             /* a short command */
	};
	struct guarded *g = *state;

	for (uint32_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct packet p, data;

		assert_int_equal(
			command(g, &p, i, all[i].length, all[i].in, all[i].cdb, all[i].size),
			FATE_DONE);
		if (all[i].length > 0) {
			assert_int_equal(
				guarded_bulk(g, &data, all[i].in ? IN : OUT, NULL, all[i].length),
				FATE_DONE);
			assert_int_equal(data.t.status, TRANSFER_OK);
			assert_int_equal(data.t.actual, all[i].in ? 0 : all[i].length);
		}
		check_csw(g, i, all[i].length, 1);
		check_sense(g, 1000 + i, all[i].key, all[i].asc);
	}
	assert_int_equal(g->n_at_device, 0);
}

/* Of all 256 opcodes and both directions, what reaches the device takes no data from the guest. */
static void only_what_reads_passes(void **state)
{
	static const uint8_t passes[] = {0x00, 0x03, 0x08, 0x12, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28,
		0x2b, 0x2f, 0x34, 0x35, 0x43, 0x46, 0x4a, 0x5a, 0x88, 0x8f, 0x90, 0x91, 0xa0, 0xa8,
		0xaf, 0xb9, 0xbe};
	struct guarded *g = *state;
	size_t n = 0;

	for (unsigned int op = 0; op < 256; op++) {
		const char cdb[16] = {(char)op};
		struct packet p, data;

		assert_int_equal(command(g, &p, op, 512, false, cdb, 16), FATE_DONE);
		assert_int_equal(guarded_bulk(g, &data, OUT, NULL, 512), FATE_DONE);
		check_csw(g, op, 512, 1);
		guard_forget(g->guard, -1); /* the sense of that */
		if (command(g, &p, op, 0, false, cdb, 16) == FATE_AT_DEVICE) {
			assert_int_equal(passes[n++], op);
			device_answers(g, &p, op, 0);
		} else {
			check_csw(g, op, 0, 1);
		}
	}
	assert_int_equal(n, sizeof(passes));
}

static void the_guest_sees_it_protected(void **state)
{
	static const struct {
		const char *cdb;
		size_t size;
		uint32_t offset;
	} all[] = {{"\x1a\0\x3f\0\xc0\0", 6, 2}, {"\x5a\0\x3f\0\0\0\0\0\xc0\0", 10, 3}};
	struct guarded *g = *state;
	uint8_t reply[192] = {23, 0, 0, 0};

	for (uint32_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct packet p, data, status;

		assert_int_equal(
			command(g, &p, i, 192, true, all[i].cdb, all[i].size), FATE_AT_DEVICE);
		assert_int_equal(guarded_bulk(g, &data, IN, NULL, 192), FATE_AT_DEVICE);
		guarded_complete(g, &p, TRANSFER_OK, NULL, CBW);
		guarded_complete(g, &data, TRANSFER_OK, reply, 24);
		for (uint32_t k = 0; k < 24; k++) {
			assert_int_equal(data.data[k], k == all[i].offset ? 0x80 : reply[k]);
		}
		assert_int_equal(guarded_bulk(g, &status, IN, NULL, CSW), FATE_AT_DEVICE);
		guarded_complete(g, &status, TRANSFER_OK, "USBS\0\0\0\0\0\0\0\0\0", CSW);
	}
	/* In pieces, and never beyond what came. */
	for (uint32_t size = 1; size <= 4; size++) {
		struct packet p, data, more, status;

		assert_int_equal(
			COMMAND(g, &p, size, 4 + size, true, "\x1a\0\x3f\0\xc0\0"), FATE_AT_DEVICE);
		guarded_bulk(g, &data, IN, NULL, size);
		guarded_bulk(g, &more, IN, NULL, 4);
		guarded_complete(g, &p, TRANSFER_OK, NULL, CBW);
		guarded_complete(g, &data, TRANSFER_OK, reply + 8, size);
		guarded_complete(g, &more, TRANSFER_OK, reply + 8, 4);
		for (uint32_t k = 0; k < size + 4; k++) {
			assert_int_equal(
				k < size ? data.data[k] : more.data[k - size], k == 2 ? 0x80 : 0);
		}
		guarded_bulk(g, &status, IN, NULL, CSW);
		guarded_complete(g, &status, TRANSFER_OK, "USBS\0\0\0\0\0\0\0\0\0", CSW);
	}
}

static void what_is_no_command_stalls(void **state)
{
	struct guarded *g = *state;
	uint8_t good[CBW + 1] = {0}, bad[CBW + 1];

	make_cbw(good, 1, 0, false, (const uint8_t *)"\0\0\0\0\0\0", 6);
	for (int how = 0; how < 9; how++) {
		struct packet p, in, again, reset;
		uint32_t size = CBW;

		memcpy(bad, good, sizeof(bad));
		bad[0] ^= how == 0;          /* signature */
		bad[12] |= how == 1 ? 1 : 0; /* reserved flag */
		bad[13] = how == 2 ? 16 : 0; /* LUN */
		bad[14] = how == 3 ? 0 : how == 4 ? 17 : 6;
		size = how == 5 ? 30 : how == 6 ? 32 : how == 7 ? 0 : how == 8 ? 20 : size;
		assert_int_equal(guarded_bulk(g, &p, OUT, bad, size), FATE_DONE);
		assert_int_equal(p.t.status, TRANSFER_STALL);
		/* The rest of one that was split, a good one, a clear halt: nothing helps… */
		assert_int_equal(guarded_bulk(g, &again, OUT, good, CBW), FATE_DONE);
		assert_int_equal(again.t.status, TRANSFER_STALL);
		assert_int_equal(guarded_bulk(g, &in, IN, NULL, CSW), FATE_DONE);
		assert_int_equal(in.t.status, TRANSFER_STALL);
		assert_int_equal(guarded_control(g, &reset, 0x02, 1, 0, OUT, 0), FATE_AT_DEVICE);
		guarded_complete(g, &reset, TRANSFER_OK, NULL, 0);
		assert_int_equal(guarded_bulk(g, &again, OUT, good, CBW), FATE_DONE);
		/* … but the reset that is for it. */
		assert_int_equal(guarded_control(g, &reset, 0x21, 0xff, 0, 2, 0), FATE_AT_DEVICE);
		guarded_complete(g, &reset, TRANSFER_OK, NULL, 0);
		assert_int_equal(guarded_bulk(g, &again, OUT, good, CBW), FATE_AT_DEVICE);
		device_answers(g, &again, 1, 0);
	}
}

static void failures_of_the_device(void **state)
{
	struct guarded *g = *state;
	struct packet p, data, status, next;

	/* It won't have the command. */
	assert_int_equal(COMMAND(g, &p, 1, 512, true, READ_1), FATE_AT_DEVICE);
	guarded_complete(g, &p, TRANSFER_STALL, NULL, 0);
	/* No data, but a status, after a stall. */
	assert_int_equal(COMMAND(g, &p, 2, 512, true, READ_1), FATE_AT_DEVICE);
	guarded_bulk(g, &data, IN, NULL, 512);
	guarded_complete(g, &p, TRANSFER_OK, NULL, CBW);
	guarded_complete(g, &data, TRANSFER_STALL, NULL, 0);
	assert_int_equal(guarded_bulk(g, &status, IN, NULL, CSW), FATE_AT_DEVICE);
	guarded_complete(g, &status, TRANSFER_STALL, NULL, 0);
	assert_int_equal(guarded_bulk(g, &status, IN, NULL, CSW), FATE_AT_DEVICE);
	guarded_complete(g, &status, TRANSFER_OK, "USBS\2\0\0\0\0\0\0\0\1", CSW);
	/* The status in the place of the data. */
	assert_int_equal(COMMAND(g, &p, 3, 512, true, READ_1), FATE_AT_DEVICE);
	guarded_bulk(g, &data, IN, NULL, 512);
	guarded_complete(g, &p, TRANSFER_OK, NULL, CBW);
	guarded_complete(g, &data, TRANSFER_OK, "USBS\3\0\0\0\0\0\0\0\1", CSW);
	/* Cancelled by the guest: what waits is let go, what is at the device comes back first. */
	assert_int_equal(COMMAND(g, &p, 4, 512, true, READ_1), FATE_AT_DEVICE);
	guarded_bulk(g, &data, IN, NULL, 512);
	guarded_bulk(g, &status, IN, NULL, CSW);
	guard_cancel(g->guard, &status.t);
	assert_int_equal(status.t.status, TRANSFER_CANCELLED);
	guarded_control(g, &next, 0x21, 0xff, 0, 2, 0);
	guarded_complete(g, &next, TRANSFER_OK, NULL, 0);
	assert_int_equal(COMMAND(g, &next, 5, 512, true, READ_1), FATE_HELD);
	p.t.cancelled = data.t.cancelled = true;
	guarded_complete(g, &p, TRANSFER_CANCELLED, NULL, 0);
	guarded_complete(g, &data, TRANSFER_CANCELLED, NULL, 0);
	assert_int_equal(guarded_fate(g, &next), FATE_AT_DEVICE);
}

static void luns_have_senses_of_their_own(void **state)
{
	struct guarded *g = *state;
	uint8_t cbw[CBW];
	struct packet p;

	make_cbw(cbw, 1, 0, false, (const uint8_t *)WRITE_1, 10);
	cbw[13] = 3;
	assert_int_equal(guarded_bulk(g, &p, OUT, cbw, CBW), FATE_DONE);
	check_csw(g, 1, 0, 1);
	assert_int_equal(COMMAND(g, &p, 2, 18, true, SENSE), FATE_AT_DEVICE);
	device_answers(g, &p, 2, 18);
	make_cbw(cbw, 3, 8, true, (const uint8_t *)"\3\1\0\0\xff\0", 6);
	cbw[13] = 3;
	assert_int_equal(guarded_bulk(g, &p, OUT, cbw, CBW), FATE_DONE);
	/* Descriptor format, in two pieces of a guest with small buffers. */
	assert_int_equal(guarded_bulk(g, &p, IN, NULL, 512), FATE_DONE);
	assert_int_equal(p.t.actual, 8);
	assert_memory_equal(p.data, "\x72\x07\x27\x00", 4);
	check_csw(g, 3, 0, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(reads_pass),
		TEST(a_write_is_refused),
		TEST(a_guest_may_send_ahead),
		TEST(what_is_refused),
		TEST(only_what_reads_passes),
		TEST(the_guest_sees_it_protected),
		TEST(what_is_no_command_stalls),
		TEST(failures_of_the_device),
		TEST(luns_have_senses_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
