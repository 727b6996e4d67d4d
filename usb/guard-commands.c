/* SPDX-License-Identifier: MIT
 *
 * Commands that may reach a storage device which can't be written: a list of what is known to read,
 * not of what is known to write. The same number means different commands on disks (SBC) and
 * optical drives (MMC); one is on the list only if it reads on both. None of them takes data from
 * the guest, so that no data of the guest ever reaches the device.
 */
#include "usb/guard-internal.h"

enum rule {
	RULE_UNKNOWN = 0,
	RULE_READS,
	RULE_WRITES,
	RULE_NO_COMPARE, /* reads, unless byte 1 asks to compare with data of the guest */
	RULE_SERVICE_IN, /* reads, for two service actions */
};

static const uint8_t rules[256] = {
	[0x00] = RULE_READS,      /* TEST UNIT READY */
	[0x03] = RULE_READS,      /* REQUEST SENSE */
	[0x04] = RULE_WRITES,     /* FORMAT UNIT */
	[0x08] = RULE_READS,      /* READ (6) */
	[0x0a] = RULE_WRITES,     /* WRITE (6) */
	[0x12] = RULE_READS,      /* INQUIRY */
	[0x1a] = RULE_READS,      /* MODE SENSE (6) */
	[0x1b] = RULE_READS,      /* START STOP UNIT */
	[0x1e] = RULE_READS,      /* PREVENT ALLOW MEDIUM REMOVAL */
	[0x23] = RULE_READS,      /* READ FORMAT CAPACITIES */
	[0x25] = RULE_READS,      /* READ CAPACITY (10) */
	[0x28] = RULE_READS,      /* READ (10) */
	[0x2a] = RULE_WRITES,     /* WRITE (10) */
	[0x2b] = RULE_READS,      /* SEEK (10) */
	[0x2c] = RULE_WRITES,     /* ERASE (10) */
	[0x2e] = RULE_WRITES,     /* WRITE AND VERIFY (10) */
	[0x2f] = RULE_NO_COMPARE, /* VERIFY (10) */
	[0x34] = RULE_READS,      /* PRE-FETCH (10) */
	[0x35] = RULE_READS,      /* SYNCHRONIZE CACHE (10) */
	[0x3f] = RULE_WRITES,     /* WRITE LONG (10) */
	[0x41] = RULE_WRITES,     /* WRITE SAME (10) */
	[0x42] = RULE_WRITES,     /* UNMAP */
	[0x43] = RULE_READS,      /* READ TOC */
	[0x46] = RULE_READS,      /* GET CONFIGURATION */
	[0x48] = RULE_WRITES,     /* SANITIZE */
	[0x4a] = RULE_READS,      /* GET EVENT STATUS NOTIFICATION */
	[0x53] = RULE_WRITES,     /* XDWRITEREAD (10), RESERVE TRACK */
	[0x5a] = RULE_READS,      /* MODE SENSE (10) */
	[0x88] = RULE_READS,      /* READ (16) */
	[0x89] = RULE_WRITES,     /* COMPARE AND WRITE */
	[0x8a] = RULE_WRITES,     /* WRITE (16) */
	[0x8b] = RULE_WRITES,     /* ORWRITE */
	[0x8e] = RULE_WRITES,     /* WRITE AND VERIFY (16) */
	[0x8f] = RULE_NO_COMPARE, /* VERIFY (16) */
	[0x90] = RULE_READS,      /* PRE-FETCH (16) */
	[0x91] = RULE_READS,      /* SYNCHRONIZE CACHE (16) */
	[0x93] = RULE_WRITES,     /* WRITE SAME (16) */
	[0x9c] = RULE_WRITES,     /* WRITE ATOMIC (16) */
	[0x9e] = RULE_SERVICE_IN, /* SERVICE ACTION IN (16) */
	[0x9f] = RULE_WRITES,     /* SERVICE ACTION OUT (16): WRITE LONG (16) */
	[0xa0] = RULE_READS,      /* REPORT LUNS */
	[0xa8] = RULE_READS,      /* READ (12) */
	[0xaa] = RULE_WRITES,     /* WRITE (12) */
	[0xae] = RULE_WRITES,     /* WRITE AND VERIFY (12) */
	[0xaf] = RULE_NO_COMPARE, /* VERIFY (12) */
	[0xb9] = RULE_READS,      /* READ CD MSF */
	[0xbe] = RULE_READS,      /* READ CD */
};

/* SPC-4, 4.3.5: the group of an opcode says how long its command is. */
static size_t command_size(uint8_t opcode)
{
	static const uint8_t sizes[8] = {6, 10, 10, 0, 16, 12, 0, 0};

	return sizes[opcode >> 5];
}

enum guard_verdict guard_judge(const uint8_t *cdb, size_t size)
{
	if (command_size(cdb[0]) == 0 || size < command_size(cdb[0])) {
		return GUARD_UNKNOWN;
	}
	switch ((enum rule)rules[cdb[0]]) {
	case RULE_READS:
		return GUARD_READS;
	case RULE_WRITES:
		return GUARD_WRITES;
	case RULE_NO_COMPARE: /* BYTCHK */
		return cdb[1] & 0x06 ? GUARD_UNKNOWN : GUARD_READS;
	case RULE_SERVICE_IN: /* READ CAPACITY (16), GET LBA STATUS */
		return (cdb[1] & 0x1f) == 0x10 || (cdb[1] & 0x1f) == 0x12 ? GUARD_READS
									  : GUARD_UNKNOWN;
	default:
		return GUARD_UNKNOWN;
	}
}

uint32_t guard_protect_offset(const uint8_t *cdb)
{
	return cdb[0] == 0x1a ? 2 : cdb[0] == 0x5a ? 3 : 0;
}
