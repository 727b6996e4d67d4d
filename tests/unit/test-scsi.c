/* SPDX-License-Identifier: MIT
 * Every SCSI command and its boundaries, without any I/O: what a CDB decodes to, and what the unit
 * plans to do.
 */
#include "usb/scsi.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/scsi-rig.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"

#define BLOCKS 1000

static void init(struct rig *r, uint64_t blocks, bool read_only, bool can_unmap)
{
	memset(r, 0, sizeof(*r));
	scsi_unit_init(&r->u, blocks, read_only, can_unmap, NULL, "0123456789ABCDEF");
	r->u.unit_attention = SENSE_NONE;
}

static void unknown_and_short(void **state)
{
	static const struct {
		uint8_t op, size;
	} known[] = {{0x00, 6}, {0x03, 6}, {0x08, 6}, {0x0a, 6}, {0x12, 6}, {0x15, 6}, {0x1a, 6},
		{0x1b, 6}, {0x1e, 6}, {0x23, 10}, {0x25, 10}, {0x28, 10}, {0x2a, 10}, {0x2f, 10},
		{0x35, 10}, {0x42, 10}, {0x55, 10}, {0x5a, 10}, {0x88, 16}, {0x8a, 16}, {0x8f, 16},
		{0x91, 16}, {0x9e, 16}, {0xa0, 12}, {0xa8, 12}, {0xaa, 12}, {0xaf, 12}, {0x43, 10},
		{0x46, 10}, {0x4a, 10}, {0x51, 10}, {0x52, 10}, {0xad, 12}, {0xbb, 12}, {0xbd, 12},
		{0xbe, 12}};
	struct scsi_command c;

	for (int op = 0; op < 256; op++) {
		uint8_t cdb[16] = {(uint8_t)op};
		size_t need = 0;

		if (op == 0x9e) {
			cdb[1] = 0x10;
		} else if (op == 0x4a) {
			cdb[1] = 0x01;
		}
		for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
			need = known[i].op == op ? known[i].size : need;
		}
		for (size_t size = 0; size <= 16; size++) {
			uint32_t want = size == 0 || need == 0 ? SENSE_INVALID_OPCODE
					: size < need          ? SENSE_INVALID_CDB_FIELD
							       : SENSE_NONE;

			assert_int_equal(scsi_decode(cdb, size, &c), want);
		}
	}
}

static void blocks_decode(void **state)
{
	struct scsi_command c;

	assert_int_equal(scsi_decode((uint8_t[]){0x08, 0xff, 0xff, 0xff, 0}, 6, &c), 0);
	assert_int_equal(c.lba, 0x1fffff);
	assert_int_equal(c.blocks, 256);
	assert_int_equal(scsi_decode((uint8_t[]){0x0a, 0, 0, 1, 255, 0}, 6, &c), 0);
	assert_int_equal(c.kind, SCSI_WRITE);
	assert_int_equal(c.blocks, 255);
	assert_int_equal(
		scsi_decode((uint8_t[]){0x2a, 8, 1, 2, 3, 4, 0, 0xfe, 0xdc, 0}, 10, &c), 0);
	assert_int_equal(c.lba, 0x01020304);
	assert_int_equal(c.blocks, 0xfedc);
	assert_true(c.fua);
	assert_int_equal(
		scsi_decode((uint8_t[]){0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0}, 12, &c), 0);
	assert_int_equal(c.blocks, 0x05060708);
	assert_false(c.fua);
	assert_int_equal(
		scsi_decode(
			(uint8_t[]){0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0}, 16, &c),
		0);
	assert_true(c.lba == 0x0102030405060708);
	assert_int_equal(c.blocks, 0x090a0b0c);
	/* Protection information is not there to be checked. */
	assert_int_equal(scsi_decode((uint8_t[16]){0x28, 0x20}, 10, &c), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(scsi_decode((uint8_t[16]){0x2f, 0x04}, 10, &c), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(scsi_decode((uint8_t[16]){0x2f, 0x02}, 10, &c), 0);
	assert_true(c.compare);
	assert_int_equal(scsi_decode((uint8_t[16]){0x9e, 0x11}, 16, &c), SENSE_INVALID_OPCODE);
}

static void block_ranges(void **state)
{
	static const uint8_t ops[] = {0x88, 0x8a, 0x8f, 0x91};
	static const struct {
		uint64_t lba;
		uint32_t n;
		bool ok;
	} cases[] = {{0, 0, true}, {0, BLOCKS, true}, {BLOCKS - 1, 1, true}, {BLOCKS - 1, 0, true},
		{0, BLOCKS + 1, false}, {BLOCKS - 1, 2, false}, {BLOCKS, 0, false},
		{BLOCKS, 1, false}, {UINT64_MAX, 1, false}, {UINT64_MAX, UINT32_MAX, false},
		{UINT64_MAX / 512 + 1, 1, false}, {1, UINT32_MAX, false}};
	struct rig r;

	init(&r, BLOCKS, false, false);
	for (size_t o = 0; o < ARRAY_SIZE(ops); o++) {
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			uint8_t cdb[16] = {ops[o]};

			put_be64(cdb + 2, cases[i].lba);
			put_be32(cdb + 10, cases[i].n);
			assert_int_equal(
				run(&r, cdb, 16), cases[i].ok ? 0 : SENSE_LBA_OUT_OF_RANGE);
			if (cases[i].ok) {
				assert_int_equal(r.p.offset, cases[i].lba * 512);
				assert_int_equal(r.p.span, (uint64_t)cases[i].n * 512);
			}
		}
	}
	assert_int_equal(RUN(&r, 0x28, 0x08, 0, 0, 0, 1, 0, 0, 3, 0), 0);
	assert_int_equal(r.p.action, SCSI_READ_MEDIUM);
	assert_true(r.p.to_host && r.p.fua);
	assert_int_equal(r.p.data, 3 * 512);
	assert_int_equal(RUN(&r, 0x2a, 0, 0, 0, 0, 1, 0, 0, 3, 0), 0);
	assert_int_equal(r.p.action, SCSI_WRITE_MEDIUM);
	assert_false(r.p.to_host || r.p.fua);
	assert_int_equal(RUN(&r, 0x2f, 0, 0, 0, 0, 1, 0, 0, 3, 0), 0);
	assert_int_equal(r.p.action, SCSI_CHECK_MEDIUM);
	assert_int_equal(r.p.data, 0);
	assert_int_equal(RUN(&r, 0x2f, 2, 0, 0, 0, 1, 0, 0, 3, 0), 0);
	assert_int_equal(r.p.action, SCSI_COMPARE_MEDIUM);
	assert_int_equal(r.p.data, 3 * 512);
	assert_int_equal(RUN(&r, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	assert_int_equal(r.p.action, SCSI_FLUSH);
	/* 2 TiB in one command: the data phase is told in 64 bits. */
	init(&r, (uint64_t)1 << 40, false, false);
	assert_int_equal(RUN(&r, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0), 0);
	assert_true(r.p.data == (uint64_t)UINT32_MAX * 512);
}

static void read_only(void **state)
{
	struct rig r;

	init(&r, BLOCKS, true, true);
	assert_int_equal(RUN(&r, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_WRITE_PROTECTED);
	assert_int_equal(RUN(&r, 0x0a, 0, 0, 0, 1, 0), SENSE_WRITE_PROTECTED);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SENSE_WRITE_PROTECTED);
	assert_int_equal(RUN(&r, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), 0);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x3f, 0, 192, 0), 0);
	assert_int_equal(r.reply[2], 0x90);
	/* It does not say that it could unmap. */
	assert_int_equal(RUN(&r, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), 0);
	assert_int_equal(r.reply[14], 0);
}

static void capacity(void **state)
{
	struct rig r;

	init(&r, BLOCKS, false, true);
	assert_int_equal(RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	assert_int_equal(r.p.data, 8);
	assert_int_equal(get_be32(r.reply), BLOCKS - 1);
	assert_int_equal(get_be32(r.reply + 4), 512);
	assert_int_equal(RUN(&r, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0), 0);
	assert_int_equal(r.p.data, 12); /* the allocation length cuts */
	assert_int_equal(get_be64(r.reply), BLOCKS - 1);
	assert_int_equal(r.reply[14], 0x80);
	init(&r, (uint64_t)UINT32_MAX + 1, false, false);
	RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_int_equal(get_be32(r.reply), UINT32_MAX);
	init(&r, (uint64_t)UINT32_MAX + 2, false, false);
	RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_int_equal(get_be32(r.reply), UINT32_MAX); /* use READ CAPACITY (16) */
	RUN(&r, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0);
	assert_true(get_be64(r.reply) == (uint64_t)UINT32_MAX + 1);
	RUN(&r, 0x23, 0, 0, 0, 0, 0, 0, 0, 252, 0);
	assert_int_equal(r.p.data, 12);
	assert_memory_equal(r.reply, "\0\0\0\x08\xff\xff\xff\xff\x02\0\x02\0", 12);
}

static void inquiry(void **state)
{
	struct rig r;

	init(&r, BLOCKS, false, true);
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 36, 0), 0);
	assert_int_equal(r.p.data, 36);
	assert_memory_equal(r.reply, "\x00\x80\x05\x02\x1f\0\0\0Devbrokr", 16);
	assert_memory_equal(r.reply + 16, "Virtual Stick   0001", 20);
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 5, 0), 0);
	assert_int_equal(r.p.data, 5);
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 0, 0), 0);
	assert_int_equal(r.p.data, 0);
	assert_int_equal(RUN(&r, 0x12, 0, 0x80, 0, 36, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x12, 2, 0, 0, 36, 0), SENSE_INVALID_CDB_FIELD);
	/* Each page that page 00 names is there and says its own number and length. */
	assert_int_equal(RUN(&r, 0x12, 1, 0, 0, 255, 0), 0);
	assert_int_equal(r.p.data, 4 + 6);
	for (int page = 0; page < 256; page++) {
		uint8_t cdb[6] = {0x12, 1, (uint8_t)page, 0, 255};
		bool there =
			page == 0 || page == 0x80 || page == 0x83 || (page >= 0xb0 && page <= 0xb2);

		assert_int_equal(run(&r, cdb, 6), there ? 0 : SENSE_INVALID_CDB_FIELD);
		if (there) {
			assert_int_equal(r.reply[1], page);
			assert_int_equal(get_be16(r.reply + 2) + 4, r.p.data);
		}
	}
	RUN(&r, 0x12, 1, 0x80, 0, 255, 0);
	assert_memory_equal(r.reply + 4, "0123456789ABCDEF", 16);
	RUN(&r, 0x12, 1, 0x83, 0, 255, 0);
	assert_memory_equal(r.reply + 4,
		"\x02\x01\0\x28"
		"DevbrokrVirtual Stick   0123",
		32);
	assert_memory_equal(r.reply + 48, "\x01\x03\0\x08", 4);
	assert_int_equal(r.reply[52] >> 4, 3);
	RUN(&r, 0x12, 1, 0xb0, 0, 255, 0);
	assert_int_equal(get_be32(r.reply + 20), SCSI_UNMAP_BLOCKS_MAX);
	assert_int_equal(get_be32(r.reply + 24), SCSI_UNMAP_RANGES_MAX);
	RUN(&r, 0x12, 1, 0xb1, 0, 255, 0);
	assert_int_equal(get_be16(r.reply + 4), 1);
	RUN(&r, 0x12, 1, 0xb2, 0, 255, 0);
	assert_int_equal(r.reply[5], 0x80);
	init(&r, BLOCKS, false, false);
	RUN(&r, 0x12, 1, 0xb2, 0, 255, 0);
	assert_int_equal(r.reply[5], 0);
}

static void mode_pages(void **state)
{
	struct rig r;
	uint8_t list[64];
	size_t n;

	init(&r, BLOCKS, false, false);
	/* Linux's request: the caching page with WCE must be in it. */
	assert_int_equal(RUN(&r, 0x1a, 0, 0x3f, 0, 192, 0), 0);
	assert_int_equal(r.p.data, 4 + 20 + 12);
	assert_memory_equal(r.reply, "\x23\0\x10\0\x08\x12\x04", 7);
	assert_memory_equal(r.reply + 24, "\x0a\x0a", 2);
	assert_int_equal(RUN(&r, 0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255, 0), 0);
	assert_int_equal(r.p.data, 28);
	assert_int_equal(get_be16(r.reply), 26);
	assert_int_equal(r.reply[3], 0x10);
	assert_int_equal(r.reply[10], 0x04);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x48, 0, 255, 0), 0); /* changeable: nothing */
	assert_int_equal(r.reply[6], 0);
	assert_int_equal(RUN(&r, 0x1a, 0, 0xc8, 0, 255, 0), SENSE_NO_SAVED_PAGES);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x1c, 0, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x08, 1, 255, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x1a, 0, 0x3f, 0xff, 255, 0), 0);

	/* What it says may be told back to it, and nothing else. */
	RUN(&r, 0x1a, 0, 0x3f, 0, 192, 0);
	n = r.p.data;
	memcpy(list, r.reply, n);
	assert_int_equal(RUN(&r, 0x15, 0x10, 0, 0, (uint8_t)n, 0), 0);
	assert_int_equal(r.p.action, SCSI_PARAMETERS);
	assert_int_equal(r.p.data, n);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, n), 0);
	for (size_t size = 1; size < n; size++) {
		uint32_t want = size == 4 || size == 24 ? SENSE_NONE : SENSE_LIST_LENGTH;

		assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, size), want);
	}
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 0), 0);
	list[6] = 0; /* WCE off */
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, n), SENSE_INVALID_PARAMETER);
	list[6] = 4;
	list[4] = 0x1c;
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, n), SENSE_INVALID_PARAMETER);
	memset(list, 0, sizeof(list));
	list[3] = 8;
	put_be32(list + 8, 4096);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 12), SENSE_INVALID_PARAMETER);
	put_be32(list + 8, 512);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 12), 0);
	assert_int_equal(RUN(&r, 0x15, 0x11, 0, 0, 4, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0), SENSE_LIST_LENGTH);
}

static void unmap(void **state)
{
	struct rig r;
	uint8_t list[SCSI_PARAMETERS_MAX] = {0};
	uint64_t offset, length;

	init(&r, 1ULL << 33, false, true);
	assert_int_equal(RUN(&r, 0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0), SENSE_INVALID_CDB_FIELD);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), 0);
	assert_int_equal(r.p.data, 40);
	put_be16(list, 38);
	put_be16(list + 2, 32);
	put_be64(list + 8, 16);
	put_be32(list + 16, 8);
	put_be64(list + 24, (1ULL << 33) - 1);
	put_be32(list + 32, 1);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 40), 0);
	assert_int_equal(scsi_unmap_count(list, 40), 2);
	assert_int_equal(scsi_unmap_count(list, 39), 1); /* a cut descriptor doesn't count */
	assert_int_equal(scsi_unmap_count(list, 7), 0);
	scsi_unmap_range(list, 0, &offset, &length);
	assert_int_equal(offset, 16 * 512);
	assert_int_equal(length, 8 * 512);
	put_be32(list + 32, 2);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 40), SENSE_LBA_OUT_OF_RANGE);
	put_be64(list + 24, UINT64_MAX);
	put_be32(list + 32, 1);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 40), SENSE_LBA_OUT_OF_RANGE);
	put_be64(list + 24, 0);
	put_be32(list + 32, SCSI_UNMAP_BLOCKS_MAX - 8);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 40), 0);
	put_be32(list + 32, SCSI_UNMAP_BLOCKS_MAX - 7);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 40), SENSE_INVALID_PARAMETER);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 7), SENSE_LIST_LENGTH);
	assert_int_equal(scsi_parameters(&r.u, &r.p.command, list, 0), 0);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, SCSI_PARAMETERS_MAX >> 8,
				 SCSI_PARAMETERS_MAX & 0xff, 0),
		0);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, SCSI_PARAMETERS_MAX >> 8,
				 (SCSI_PARAMETERS_MAX & 0xff) + 1, 0),
		SENSE_LIST_LENGTH);
	init(&r, BLOCKS, false, false);
	assert_int_equal(RUN(&r, 0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SENSE_INVALID_OPCODE);
}

static void sense_and_attention(void **state)
{
	struct rig r;

	scsi_unit_init(&r.u, BLOCKS, false, false, "Pro\tduct of too long a name", "S");
	assert_memory_equal(r.u.product, "Pro_duct of too ", 17);
	/* INQUIRY and REPORT LUNS go on under a unit attention and leave it. */
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 36, 0), 0);
	assert_int_equal(RUN(&r, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0), 0);
	assert_int_equal(r.p.data, 16);
	assert_memory_equal(r.reply, "\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_POWER_ON);
	assert_int_equal(RUN(&r, 0x03, 0, 0, 0, 18, 0), 0);
	assert_memory_equal(r.reply, "\x70\0\x06\0\0\0\0\x0a\0\0\0\0\x29\0\0\0\0\0", 18);
	assert_int_equal(RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
	/* REQUEST SENSE alone takes the attention too. */
	scsi_unit_reset(&r.u);
	assert_int_equal(RUN(&r, 0x03, 1, 0, 0, 252, 0), 0);
	assert_int_equal(r.p.data, 8);
	assert_memory_equal(r.reply, "\x72\x06\x29\0\0\0\0\0", 8);
	assert_int_equal(RUN(&r, 0x00, 0, 0, 0, 0, 0), 0);
	/* Sense is of the last command only. */
	assert_int_equal(RUN(&r, 0xff, 0, 0, 0, 0, 0), SENSE_INVALID_OPCODE);
	assert_int_equal(RUN(&r, 0x00, 0, 0, 0, 0, 0), 0);
	RUN(&r, 0x03, 0, 0, 0, 18, 0);
	assert_int_equal(r.reply[2], 0);
	assert_int_equal(RUN(&r, 0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 16, 0, 0), SENSE_INVALID_CDB_FIELD);
}

static void ejecting(void **state)
{
	struct rig r;

	init(&r, BLOCKS, false, false);
	assert_int_equal(RUN(&r, 0x1e, 0, 0, 0, 1, 0), 0);
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 2, 0), SENSE_REMOVAL_PREVENTED);
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 0, 0), 0);
	assert_int_equal(r.p.action, SCSI_FLUSH);
	/* With a power condition, LOEJ means nothing. */
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 0x32, 0), 0);
	assert_int_equal(r.p.action, SCSI_NOTHING);
	scsi_unit_reset(&r.u); /* allows removal again */
	r.u.unit_attention = SENSE_NONE;
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 2, 0), 0);
	assert_int_equal(r.p.action, SCSI_EJECT);
	scsi_eject(&r.u);
	assert_int_equal(RUN(&r, 0x00, 0, 0, 0, 0, 0), SENSE_NO_MEDIUM);
	assert_int_equal(RUN(&r, 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SENSE_NO_MEDIUM);
	assert_int_equal(RUN(&r, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SENSE_NO_MEDIUM);
	assert_int_equal(RUN(&r, 0x1b, 0, 0, 0, 3, 0), SENSE_NO_MEDIUM);
	assert_int_equal(RUN(&r, 0x12, 0, 0, 0, 36, 0), 0);
	RUN(&r, 0x03, 0, 0, 0, 18, 0);
	assert_int_equal(r.reply[12], 0x3a);
	RUN(&r, 0x23, 0, 0, 0, 0, 0, 0, 0, 12, 0);
	assert_int_equal(r.reply[8], 3);
	scsi_unit_reset(&r.u);
	assert_true(r.u.ejected);
}

static void errors_become_sense(void **state)
{
	assert_int_equal(scsi_sense_of_errno(-ENOSPC, true), SENSE_NO_SPACE);
	assert_int_equal(scsi_sense_of_errno(-EDQUOT, true), SENSE_NO_SPACE);
	assert_int_equal(scsi_sense_of_errno(-EIO, true), SENSE_WRITE_ERROR);
	assert_int_equal(scsi_sense_of_errno(-EIO, false), SENSE_READ_ERROR);
	assert_int_equal(scsi_sense_of_errno(-EROFS, true), SENSE_WRITE_PROTECTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unknown_and_short),
		cmocka_unit_test(blocks_decode),
		cmocka_unit_test(block_ranges),
		cmocka_unit_test(read_only),
		cmocka_unit_test(capacity),
		cmocka_unit_test(inquiry),
		cmocka_unit_test(mode_pages),
		cmocka_unit_test(unmap),
		cmocka_unit_test(sense_and_attention),
		cmocka_unit_test(ejecting),
		cmocka_unit_test(errors_become_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
