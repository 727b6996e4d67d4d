/* SPDX-License-Identifier: MIT
 * A CD-ROM's commands, byte by byte, and that a stick has none of them.
 */
#include "usb/mmc.h"

#include <string.h>

#include "tests/unit/scsi-rig.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"

#define CD_BLOCKS  1000
#define DVD_BLOCKS (2298496) /* of a full single-layer DVD */

static void init(struct rig *r, uint64_t blocks)
{
	memset(r, 0, sizeof(*r));
	scsi_unit_init_cdrom(&r->u, blocks, NULL, "0123456789ABCDEF");
	r->u.unit_attention = SENSE_NONE;
}

/* The reply is exactly these bytes. */
static void expect(const struct rig *r, const uint8_t *want, size_t size)
{
	assert_int_equal(r->p.action, SCSI_REPLY);
	assert_int_equal(r->p.data, size);
	assert_memory_equal(r->reply, want, size);
}

#define EXPECT(r, ...) \
	expect(r, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void inquiry(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 36, 0), 0);
	EXPECT(&r, 0x05, 0x80, 0x05, 0x02, 31, 0, 0, 0, 'D', 'e', 'v', 'b', 'r', 'o', 'k', 'r', 'V',
		'i', 'r', 't', 'u', 'a', 'l', ' ', 'C', 'D', '-', 'R', 'O', 'M', ' ', ' ', '0', '0',
		'0', '1');
	assert_int_equal(RUN(&r, 0x12, 1, 0, 0, 255, 0), 0);
	EXPECT(&r, 0x05, 0, 0, 3, 0x00, 0x80, 0x83);
	/* Limits and provisioning are a block device's. */
	assert_int_equal(RUN(&r, 0x12, 1, 0xb0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
}

static void capacity_and_reads(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	EXPECT(&r, 0, 0, 3, 0xe7, 0, 0, 8, 0);
	assert_int_equal(RUN(&r, 0x28, 0, 0, 0, 3, 0xe7, 0, 0, 1, 0), 0);
	assert_int_equal(r.p.action, SCSI_READ_MEDIUM);
	assert_int_equal(r.p.offset, 999 * 2048);
	assert_int_equal(r.p.data, 2048);
	assert_int_equal(RUN(&r, 0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0), 0);
	assert_int_equal(r.p.offset, 2048);
	assert_int_equal(r.p.data, 4096);
	assert_int_equal(RUN(&r, 0x28, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0), SENSE_LBA_OUT_OF_RANGE);
	assert_int_equal(RUN(&r, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_WRITE_PROTECTED);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SENSE_WRITE_PROTECTED);
	/* READ CD: user data of data sectors only. */
	assert_int_equal(RUN(&r, 0xbe, 0, 0, 0, 0, 5, 0, 0, 2, 0x10, 0, 0), 0);
	assert_int_equal(r.p.action, SCSI_READ_MEDIUM);
	assert_int_equal(r.p.offset, 5 * 2048);
	assert_int_equal(r.p.data, 4096);
	assert_int_equal(
		RUN(&r, 0xbe, 0, 0, 0, 3, 0xe7, 0, 0, 2, 0x10, 0, 0), SENSE_LBA_OUT_OF_RANGE);
	assert_int_equal(
		RUN(&r, 0xbe, 4, 0, 0, 0, 5, 0, 0, 2, 0x10, 0, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(
		RUN(&r, 0xbe, 0, 0, 0, 0, 5, 0, 0, 2, 0xf8, 0, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(
		RUN(&r, 0xbe, 0, 0, 0, 0, 5, 0, 0, 2, 0x10, 1, 0), SENSE_INVALID_CDB_FIELD);
}

static void toc(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0), 0);
	EXPECT(&r, 0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 3, 0xe8);
	assert_int_equal(RUN(&r, 0x43, 2, 0, 0, 0, 0, 1, 0xff, 0xff, 0), 0);
	/* 1000 + 150 frames are 15 seconds and 25 frames. */
	EXPECT(&r, 0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xaa, 0, 0, 0, 15, 25);
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 0xaa, 0, 12, 0), 0);
	EXPECT(&r, 0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 3, 0xe8);
	/* Cut to what was asked for, and told whole. */
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 0, 0, 4, 0), 0);
	EXPECT(&r, 0, 18, 1, 1);
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 2, 0, 12, 0), SENSE_INVALID_CDB_FIELD);
	/* Sessions, in both places where the format may stand. */
	assert_int_equal(RUN(&r, 0x43, 0, 1, 0, 0, 0, 0, 0, 12, 0), 0);
	EXPECT(&r, 0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40), 0);
	EXPECT(&r, 0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x43, 2, 2, 0, 0, 0, 1, 0, 255, 0), 0);
	EXPECT(&r, 0, 46, 1, 1, 1, 0x14, 0, 0xa0, 0, 0, 0, 0, 1, 0, 0, 1, 0x14, 0, 0xa1, 0, 0, 0, 0,
		1, 0, 0, 1, 0x14, 0, 0xa2, 0, 0, 0, 0, 0, 15, 25, 1, 0x14, 0, 0x01, 0, 0, 0, 0, 0,
		2, 0);
	assert_int_equal(RUN(&r, 0x43, 0, 3, 0, 0, 0, 0, 0, 12, 0), SENSE_INVALID_CDB_FIELD);
	/* What minutes can't hold is their last one. */
	init(&r, UINT32_MAX);
	assert_int_equal(RUN(&r, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 12, 0), 0);
	EXPECT(&r, 0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 255, 59, 74);
}

static void configuration(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x46, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0), 0);
	EXPECT(&r, 0, 0, 0, 60, 0, 0, 0, 0x08,               /* header */
		0, 0, 0x03, 8, 0, 0x10, 0, 0, 0, 0x08, 1, 0, /* profiles */
		0, 1, 0x0b, 8, 0, 0, 0, 8, 1, 0, 0, 0,       /* core */
		0, 3, 0x0b, 4, 0x39, 0, 0, 0,                /* removable */
		0, 0x10, 0x01, 8, 0, 0, 8, 0, 0, 1, 0, 0,    /* readable */
		0, 0x1f, 0, 0,                               /* DVD read */
		1, 0, 0x03, 0, 1, 5, 0x03, 0);
	/* The current ones from 10h on; then one alone, and one that there is not. */
	assert_int_equal(RUN(&r, 0x46, 1, 0, 0x10, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 0, 0, 24, 0, 0, 0, 0x08, 0, 0x10, 0x01, 8, 0, 0, 8, 0, 0, 1, 0, 0, 1, 0, 0x03,
		0, 1, 5, 0x03, 0);
	assert_int_equal(RUN(&r, 0x46, 2, 0, 3, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 0, 0, 12, 0, 0, 0, 0x08, 0, 3, 0x0b, 4, 0x39, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x46, 2, 0, 0x20, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 0, 0, 4, 0, 0, 0, 0x08);
	assert_int_equal(RUN(&r, 0x46, 3, 0, 0, 0, 0, 0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	/* What a guest asks first: how long would it be. */
	assert_int_equal(RUN(&r, 0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0), 0);
	EXPECT(&r, 0, 0, 0, 60, 0, 0, 0, 0x08);
	/* Without a medium, no profile; a unit attention stays. */
	r.u.unit_attention = SENSE_POWER_ON;
	scsi_eject(&r.u);
	assert_int_equal(RUN(&r, 0x46, 2, 0, 0, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0x03, 8, 0, 0x10, 0, 0, 0, 0x08, 0, 0);
	assert_int_equal(r.u.unit_attention, SENSE_POWER_ON);
	init(&r, DVD_BLOCKS);
	assert_int_equal(RUN(&r, 0x46, 2, 0, 0x1f, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0x1f, 0x01, 0);
}

static void events(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	/* Only polled, and only about the medium. */
	assert_int_equal(RUN(&r, 0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8, 0), 0);
	EXPECT(&r, 0, 2, 0x80, 0x10);
	/* The header alone takes no event. */
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 4, 0), 0);
	EXPECT(&r, 0, 6, 4, 0x10);
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 6, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 0);
	EXPECT(&r, 0, 6, 4, 0x10, 2, 2, 0, 0);
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 0);
	EXPECT(&r, 0, 6, 4, 0x10, 0, 2, 0, 0);
	scsi_eject(&r.u);
	assert_int_equal(RUN(&r, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), 0);
	EXPECT(&r, 0, 6, 4, 0x10, 3, 1, 0, 0);
	assert_int_equal(RUN(&r, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), 0);
	EXPECT(&r, 0, 0x10, 0, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0), SENSE_NO_MEDIUM);
	assert_int_equal(RUN(&r, 0, 0, 0, 0, 0, 0), SENSE_NO_MEDIUM);
}

static void information(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x51, 0, 0, 0, 0, 0, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255,
		255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x51, 1, 0, 0, 0, 0, 0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x52, 1, 0, 0, 0, 1, 0, 0, 255, 0), 0);
	EXPECT(&r, 0, 34, 1, 1, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3,
		0xe8, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x52, 0, 0, 0, 3, 0xe7, 0, 0, 255, 0), 0);
	assert_int_equal(RUN(&r, 0x52, 0, 0, 0, 3, 0xe8, 0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x52, 2, 0, 0, 0, 2, 0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x52, 3, 0, 0, 0, 1, 0, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0xbb, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0), 0);
	assert_int_equal(r.p.action, SCSI_NOTHING);
	assert_int_equal(RUN(&r, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0), 0);
	EXPECT(&r, 0, 0, 0, 0, 0, 0, 0, 0);
}

static void dvd_structures(void **state)
{
	static const uint8_t start[] = {0x08, 0x02, 0, 0, 1, 0x0f, 1, 0, 0, 3, 0, 0, 0, 0x26, 0x12,
		0x7f, 0, 0x26, 0x12, 0x7f};
	struct rig r;

	init(&r, DVD_BLOCKS);
	assert_int_equal(RUN(&r, 0xad, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0), 0);
	assert_int_equal(r.p.data, 2052);
	assert_memory_equal(r.reply, start, sizeof(start));
	for (size_t i = sizeof(start); i < 2052; i++) {
		assert_int_equal(r.reply[i], 0);
	}
	assert_int_equal(RUN(&r, 0xad, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0), 0);
	EXPECT(&r, 0, 6, 0, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0xad, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0), 0);
	EXPECT(&r, 0, 14, 0, 0, 0, 0x40, 8, 4, 1, 0x40, 0, 8, 4, 0x40, 8, 4);
	assert_int_equal(
		RUN(&r, 0xad, 0, 0, 0, 0, 0, 1, 0, 255, 255, 0, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(
		RUN(&r, 0xad, 0, 0, 0, 0, 0, 0, 3, 255, 255, 0, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(
		RUN(&r, 0xad, 1, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0), SENSE_INVALID_CDB_FIELD);
	init(&r, CD_BLOCKS);
	assert_int_equal(
		RUN(&r, 0xad, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0), SENSE_INCOMPATIBLE_MEDIUM);
}

static void mode_pages(void **state)
{
	struct rig r;

	init(&r, CD_BLOCKS);
	assert_int_equal(RUN(&r, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128, 0), 0);
	EXPECT(&r, 0, 28, 0, 0, 0, 0, 0, 0, 0x2a, 20, 0x0b, 0, 0x70, 0, 0x29, 0, 0x22, 0x60, 0, 2,
		8, 0, 0x22, 0x60, 0, 0, 0, 0, 0, 0);
	assert_int_equal(RUN(&r, 0x1e, 0, 0, 0, 1, 0), 0);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x2a, 0, 255, 0), 0);
	assert_int_equal(r.p.data, 26);
	assert_int_equal(r.reply[0], 25);
	assert_int_equal(r.reply[4 + 6], 0x2b); /* locked */
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 2, 0), SENSE_REMOVAL_PREVENTED);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x3f, 0, 255, 0), 0);
	assert_int_equal(r.p.data, 4 + 12 + 22);
	assert_int_equal(r.reply[4], 0x01);
	assert_int_equal(r.reply[16], 0x2a);
	/* A stick's caching page is not a CD-ROM's. */
	assert_int_equal(RUN(&r, 0x1a, 0, 0x08, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x1e, 0, 0, 0, 0, 0), 0);
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 2, 0), 0);
	assert_int_equal(r.p.action, SCSI_EJECT);
}

static void not_of_a_stick(void **state)
{
	static const uint8_t ops[] = {0x43, 0x46, 0x4a, 0x51, 0x52, 0xad, 0xbb, 0xbd, 0xbe};
	struct rig r;

	memset(&r, 0, sizeof(r));
	scsi_unit_init(&r.u, CD_BLOCKS, true, false, NULL, "0123456789ABCDEF");
	r.u.unit_attention = SENSE_NONE;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		uint8_t cdb[12] = {ops[i], ops[i] == 0x4a ? 1 : 0};

		assert_int_equal(run(&r, cdb, sizeof(cdb)), SENSE_INVALID_OPCODE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inquiry),
		cmocka_unit_test(capacity_and_reads),
		cmocka_unit_test(toc),
		cmocka_unit_test(configuration),
		cmocka_unit_test(events),
		cmocka_unit_test(information),
		cmocka_unit_test(dvd_structures),
		cmocka_unit_test(mode_pages),
		cmocka_unit_test(not_of_a_stick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
