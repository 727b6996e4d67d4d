/* SPDX-License-Identifier: MIT */
#include "usb/scsi.h"

#include "usb/bytes.h"
#include "usb/mmc.h"

/* Where the numbers stand in a CDB. Reserved bits, the group number and the vote bits (RDPROTECT,
 * DPO) are ignored, except RDPROTECT/WRPROTECT, which ask for what an unprotected medium must
 * refuse. */
enum layout {
	LAYOUT_NONE,
	LAYOUT_ALLOC_8,     /* byte 4 */
	LAYOUT_ALLOC_16_3,  /* bytes 3-4 */
	LAYOUT_ALLOC_16_7,  /* bytes 7-8 */
	LAYOUT_ALLOC_16_8,  /* bytes 8-9 */
	LAYOUT_ALLOC_32_6,  /* bytes 6-9 */
	LAYOUT_ALLOC_32_10, /* bytes 10-13 */
	LAYOUT_BLOCKS_6,    /* 21-bit LBA, 8-bit count, 0 means 256 */
	LAYOUT_BLOCKS_10,
	LAYOUT_BLOCKS_12,
	LAYOUT_BLOCKS_16,
};

struct opcode {
	uint8_t size; /* of the CDB; 0: no such command */
	uint8_t kind;
	uint8_t layout;
	bool long_form;
	bool mmc; /* a CD-ROM's only */
};

static const struct opcode opcodes[256] = {
	[0x00] = {6, SCSI_TEST_UNIT_READY, LAYOUT_NONE, false, false},
	[0x03] = {6, SCSI_REQUEST_SENSE, LAYOUT_ALLOC_8, false, false},
	[0x08] = {6, SCSI_READ, LAYOUT_BLOCKS_6, false, false},
	[0x0a] = {6, SCSI_WRITE, LAYOUT_BLOCKS_6, false, false},
	[0x12] = {6, SCSI_INQUIRY, LAYOUT_ALLOC_16_3, false, false},
	[0x15] = {6, SCSI_MODE_SELECT, LAYOUT_ALLOC_8, false, false},
	[0x1a] = {6, SCSI_MODE_SENSE, LAYOUT_ALLOC_8, false, false},
	[0x1b] = {6, SCSI_START_STOP, LAYOUT_NONE, false, false},
	[0x1e] = {6, SCSI_PREVENT_ALLOW, LAYOUT_NONE, false, false},
	[0x23] = {10, SCSI_READ_FORMAT_CAPACITIES, LAYOUT_ALLOC_16_7, false, false},
	[0x25] = {10, SCSI_READ_CAPACITY, LAYOUT_NONE, false, false},
	[0x28] = {10, SCSI_READ, LAYOUT_BLOCKS_10, false, false},
	[0x2a] = {10, SCSI_WRITE, LAYOUT_BLOCKS_10, false, false},
	[0x2f] = {10, SCSI_VERIFY, LAYOUT_BLOCKS_10, false, false},
	[0x35] = {10, SCSI_SYNCHRONIZE_CACHE, LAYOUT_BLOCKS_10, false, false},
	[0x42] = {10, SCSI_UNMAP, LAYOUT_ALLOC_16_7, false, false},
	[0x43] = {10, SCSI_READ_TOC, LAYOUT_ALLOC_16_7, false, true},
	[0x46] = {10, SCSI_GET_CONFIGURATION, LAYOUT_ALLOC_16_7, false, true},
	[0x4a] = {10, SCSI_GET_EVENT, LAYOUT_ALLOC_16_7, false, true},
	[0x51] = {10, SCSI_READ_DISC_INFORMATION, LAYOUT_ALLOC_16_7, false, true},
	[0x52] = {10, SCSI_READ_TRACK_INFORMATION, LAYOUT_ALLOC_16_7, false, true},
	[0x55] = {10, SCSI_MODE_SELECT, LAYOUT_ALLOC_16_7, true, false},
	[0x5a] = {10, SCSI_MODE_SENSE, LAYOUT_ALLOC_16_7, true, false},
	[0x88] = {16, SCSI_READ, LAYOUT_BLOCKS_16, false, false},
	[0x8a] = {16, SCSI_WRITE, LAYOUT_BLOCKS_16, false, false},
	[0x8f] = {16, SCSI_VERIFY, LAYOUT_BLOCKS_16, false, false},
	[0x91] = {16, SCSI_SYNCHRONIZE_CACHE, LAYOUT_BLOCKS_16, false, false},
	/* SERVICE ACTION IN (16): only READ CAPACITY (16). */
	[0x9e] = {16, SCSI_READ_CAPACITY, LAYOUT_ALLOC_32_10, true, false},
	[0xa0] = {12, SCSI_REPORT_LUNS, LAYOUT_ALLOC_32_6, false, false},
	[0xa8] = {12, SCSI_READ, LAYOUT_BLOCKS_12, false, false},
	[0xaa] = {12, SCSI_WRITE, LAYOUT_BLOCKS_12, false, false},
	[0xad] = {12, SCSI_READ_DVD_STRUCTURE, LAYOUT_ALLOC_16_8, false, true},
	[0xaf] = {12, SCSI_VERIFY, LAYOUT_BLOCKS_12, false, false},
	[0xbb] = {12, SCSI_SET_CD_SPEED, LAYOUT_NONE, false, true},
	[0xbd] = {12, SCSI_MECHANISM_STATUS, LAYOUT_ALLOC_16_8, false, true},
	[0xbe] = {12, SCSI_READ_CD, LAYOUT_NONE, false, true},
};

static void decode_layout(const uint8_t *cdb, uint8_t layout, struct scsi_command *c)
{
	switch (layout) {
	case LAYOUT_ALLOC_8:
		c->length = cdb[4];
		break;
	case LAYOUT_ALLOC_16_3:
		c->length = get_be16(cdb + 3);
		break;
	case LAYOUT_ALLOC_16_7:
		c->length = get_be16(cdb + 7);
		break;
	case LAYOUT_ALLOC_16_8:
		c->length = get_be16(cdb + 8);
		break;
	case LAYOUT_ALLOC_32_6:
		c->length = get_be32(cdb + 6);
		break;
	case LAYOUT_ALLOC_32_10:
		c->length = get_be32(cdb + 10);
		break;
	case LAYOUT_BLOCKS_6:
		c->lba = get_be24(cdb + 1) & 0x1fffff;
		c->blocks = cdb[4] ? cdb[4] : 256;
		break;
	case LAYOUT_BLOCKS_10:
		c->lba = get_be32(cdb + 2);
		c->blocks = get_be16(cdb + 7);
		break;
	case LAYOUT_BLOCKS_12:
		c->lba = get_be32(cdb + 2);
		c->blocks = get_be32(cdb + 6);
		break;
	case LAYOUT_BLOCKS_16:
		c->lba = get_be64(cdb + 2);
		c->blocks = get_be32(cdb + 10);
		break;
	default:
		break;
	}
}

static uint32_t decode_blocks_flags(
	const uint8_t *cdb, const struct opcode *op, struct scsi_command *c)
{
	if (op->layout == LAYOUT_BLOCKS_6 || op->kind == SCSI_SYNCHRONIZE_CACHE) {
		return SENSE_NONE;
	}
	if (cdb[1] & 0xe0) { /* RDPROTECT, WRPROTECT, VRPROTECT: SBC-3 4.21 */
		return SENSE_INVALID_CDB_FIELD;
	}
	if (op->kind != SCSI_VERIFY) {
		c->fua = cdb[1] & 0x08;
		return SENSE_NONE;
	}
	/* BYTCHK 01: compare all blocks; 10 is reserved, 11 compares one block with all. */
	if (cdb[1] & 0x04) {
		return SENSE_INVALID_CDB_FIELD;
	}
	c->compare = cdb[1] & 0x02;
	return SENSE_NONE;
}

/* What is not a length or an LBA. */
static uint32_t decode_fields(const uint8_t *cdb, const struct opcode *op, struct scsi_command *c)
{
	switch (op->kind) {
	case SCSI_REQUEST_SENSE:
		c->descriptor_sense = cdb[1] & 0x01;
		break;
	case SCSI_INQUIRY:
		c->evpd = cdb[1] & 0x01;
		c->page = cdb[2];
		/* CMDDT is obsolete; a page without EVPD is an error by SPC-3 6.4.1. */
		if ((cdb[1] & 0x02) || (!c->evpd && c->page)) {
			return SENSE_INVALID_CDB_FIELD;
		}
		break;
	case SCSI_MODE_SENSE:
		c->page_control = cdb[2] >> 6;
		c->page = cdb[2] & 0x3f;
		c->subpage = cdb[3];
		break;
	case SCSI_MODE_SELECT:
		if (cdb[1] & 0x01) { /* SP: nothing can be saved */
			return SENSE_INVALID_CDB_FIELD;
		}
		break;
	case SCSI_START_STOP:
		/* With a POWER CONDITION, START and LOEJ mean nothing (SBC-3 5.25). */
		if (!(cdb[4] & 0xf0)) {
			c->start = cdb[4] & 0x01;
			c->load_eject = cdb[4] & 0x02;
		} else {
			c->start = true;
		}
		break;
	case SCSI_PREVENT_ALLOW:
		c->prevent = cdb[4] & 0x03;
		break;
	case SCSI_READ_CAPACITY:
		if (c->long_form && (cdb[1] & 0x1f) != 0x10) {
			return SENSE_INVALID_OPCODE;
		}
		if (!c->long_form) {
			c->length = 8;
		}
		break;
	case SCSI_REPORT_LUNS:
		c->select_report = cdb[2];
		break;
	case SCSI_UNMAP:
		if (cdb[1] & 0x01) { /* ANCHOR: not supported, and VPD page B2 says so */
			return SENSE_INVALID_CDB_FIELD;
		}
		break;
	case SCSI_READ:
	case SCSI_WRITE:
	case SCSI_VERIFY:
		return decode_blocks_flags(cdb, op, c);
	default:
		break;
	}
	return SENSE_NONE;
}

uint32_t scsi_decode(const uint8_t *cdb, size_t size, struct scsi_command *out)
{
	const struct opcode *op;
	struct scsi_command c = {0};
	uint32_t sense;

	if (size == 0) {
		return SENSE_INVALID_OPCODE;
	}
	op = &opcodes[cdb[0]];
	if (op->size == 0) {
		return SENSE_INVALID_OPCODE;
	}
	/* Hosts pad CDBs (12 bytes for an INQUIRY); shorter than the command it can't be. */
	if (size < op->size) {
		return SENSE_INVALID_CDB_FIELD;
	}
	c.kind = op->kind;
	c.long_form = op->long_form;
	c.mmc = op->mmc;
	decode_layout(cdb, op->layout, &c);
	sense = c.mmc ? mmc_decode(cdb, &c) : decode_fields(cdb, op, &c);
	if (sense) {
		return sense;
	}
	*out = c;
	return SENSE_NONE;
}
