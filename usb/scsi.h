/* SPDX-License-Identifier: MIT
 * The SCSI side of the virtual stick or CD-ROM: what a command descriptor block asks for
 * (scsi_decode, pure), and what the one logical unit makes of it (scsi_start). No I/O happens here:
 * the caller (usb/bot) carries out the plan. What only a CD-ROM knows is in usb/mmc.
 *
 * Sources: SPC-3 (INQUIRY, MODE SENSE, REQUEST SENSE, REPORT LUNS), SBC-3 (all that touches
 * blocks), MMC (READ FORMAT CAPACITIES).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define SCSI_BLOCK_SIZE     512 /* of a stick; MMC_BLOCK_SIZE of a CD-ROM */
#define SCSI_CDB_MAX        16
#define SCSI_REPLY_MAX      2052 /* a DVD's structure with its header */
#define SCSI_PARAMETERS_MAX (8 + 16 * SCSI_UNMAP_RANGES_MAX)
/* Limits that VPD page B0 tells: one UNMAP holds the I/O thread for at most this much. */
#define SCSI_UNMAP_RANGES_MAX 128
#define SCSI_UNMAP_BLOCKS_MAX (4U * 1024 * 1024 * 2) /* 4 GiB */

/* A sense code in one number; 0 is "no sense", so that it doubles as "no error". */
#define SCSI_SENSE(key, asc, ascq) ((uint32_t)(key) << 16 | (uint32_t)(asc) << 8 | (uint32_t)(ascq))

enum {
	SENSE_NONE = 0,
	SENSE_NO_MEDIUM = SCSI_SENSE(0x2, 0x3a, 0x00),
	SENSE_WRITE_ERROR = SCSI_SENSE(0x3, 0x0c, 0x00),
	SENSE_READ_ERROR = SCSI_SENSE(0x3, 0x11, 0x00),
	SENSE_LIST_LENGTH = SCSI_SENSE(0x5, 0x1a, 0x00),
	SENSE_INVALID_OPCODE = SCSI_SENSE(0x5, 0x20, 0x00),
	SENSE_LBA_OUT_OF_RANGE = SCSI_SENSE(0x5, 0x21, 0x00),
	SENSE_INVALID_CDB_FIELD = SCSI_SENSE(0x5, 0x24, 0x00),
	SENSE_INVALID_PARAMETER = SCSI_SENSE(0x5, 0x26, 0x00),
	SENSE_INCOMPATIBLE_MEDIUM = SCSI_SENSE(0x5, 0x30, 0x00),
	SENSE_NO_SAVED_PAGES = SCSI_SENSE(0x5, 0x39, 0x00),
	SENSE_REMOVAL_PREVENTED = SCSI_SENSE(0x5, 0x53, 0x02),
	SENSE_POWER_ON = SCSI_SENSE(0x6, 0x29, 0x00),
	SENSE_WRITE_PROTECTED = SCSI_SENSE(0x7, 0x27, 0x00),
	/* What Linux reports as ENOSPC (drivers/scsi/scsi_error.c: "thin provisioning hard
	 * threshold reached"). */
	SENSE_NO_SPACE = SCSI_SENSE(0x7, 0x27, 0x07),
	SENSE_MISCOMPARE = SCSI_SENSE(0xe, 0x1d, 0x00),
};

enum scsi_kind {
	SCSI_TEST_UNIT_READY,
	SCSI_REQUEST_SENSE,
	SCSI_INQUIRY,
	SCSI_MODE_SENSE,
	SCSI_MODE_SELECT,
	SCSI_START_STOP,
	SCSI_PREVENT_ALLOW,
	SCSI_READ_FORMAT_CAPACITIES,
	SCSI_READ_CAPACITY,
	SCSI_REPORT_LUNS,
	SCSI_READ,
	SCSI_WRITE,
	SCSI_VERIFY,
	SCSI_SYNCHRONIZE_CACHE,
	SCSI_UNMAP,
	/* Of a CD-ROM only. */
	SCSI_READ_TOC,
	SCSI_GET_CONFIGURATION,
	SCSI_GET_EVENT, /* GET EVENT STATUS NOTIFICATION */
	SCSI_READ_DISC_INFORMATION,
	SCSI_READ_TRACK_INFORMATION,
	SCSI_READ_DVD_STRUCTURE,
	SCSI_MECHANISM_STATUS,
	SCSI_SET_CD_SPEED,
	SCSI_READ_CD, /* decoded to SCSI_READ */
};

/* What GET EVENT STATUS NOTIFICATION tells about the medium. */
enum { MMC_EVENT_NONE = 0, MMC_EVENT_NEW_MEDIUM = 2, MMC_EVENT_MEDIUM_REMOVED = 3 };

/* A decoded command. Fields that a kind doesn't have are 0. */
struct scsi_command {
	uint8_t kind; /* enum scsi_kind */
	/* 10-byte MODE SENSE/SELECT, or the 16-byte READ CAPACITY: the long form of the reply. */
	bool long_form;
	bool fua;
	bool evpd;              /* INQUIRY */
	bool descriptor_sense;  /* REQUEST SENSE */
	bool start, load_eject; /* START STOP UNIT */
	bool compare;           /* VERIFY: BYTCHK */
	uint8_t prevent;        /* PREVENT ALLOW: bit 0 */
	uint8_t page, subpage;  /* INQUIRY, MODE SENSE */
	uint8_t page_control;   /* MODE SENSE: 0 current, 1 changeable, 2 default, 3 saved */
	uint8_t select_report;  /* REPORT LUNS */
	bool mmc;               /* a CD-ROM's only */
	bool msf;               /* READ TOC: minutes, seconds, frames */
	uint8_t format;         /* READ TOC, GET CONFIGURATION, ...: which of its replies */
	uint16_t number;        /* of a track, a feature, a layer; event classes */
	uint32_t length;        /* bytes: allocation length, or parameter list length */
	uint64_t lba;
	uint32_t blocks;
};

/* size is the valid length of cdb, 1 to SCSI_CDB_MAX (bCBWCBLength); bytes behind it are not read.
 * Returns SENSE_NONE and *out, or the sense code. */
uint32_t scsi_decode(const uint8_t *cdb, size_t size, struct scsi_command *out) _must_check_;

/* The logical unit. Set by scsi_unit_init; only scsi*.c writes to it. */
struct scsi_unit {
	uint64_t blocks;
	uint32_t block_size; /* bytes */
	bool cdrom;
	bool read_only;
	bool can_unmap;
	uint8_t medium_event; /* of a CD-ROM, to be told once */
	bool prevented;       /* PREVENT ALLOW MEDIUM REMOVAL */
	bool ejected;
	uint32_t sense;          /* of the last command, for REQUEST SENSE */
	uint32_t unit_attention; /* told once, to the first command that may hear it */
	char product[17];        /* padded with blanks, printable ASCII */
	char serial[33];         /* printable ASCII */
};

enum scsi_action {
	SCSI_NOTHING,      /* status only */
	SCSI_REPLY,        /* send reply[0, data) */
	SCSI_READ_MEDIUM,  /* send data bytes from offset; first put on disk what is not, if fua */
	SCSI_WRITE_MEDIUM, /* take data bytes to offset, then flush if fua */
	SCSI_COMPARE_MEDIUM, /* take data bytes and compare them with the medium */
	SCSI_CHECK_MEDIUM,   /* read span bytes from offset, send nothing */
	SCSI_PARAMETERS,     /* take data bytes (<= SCSI_PARAMETERS_MAX), then scsi_parameters */
	SCSI_FLUSH,
	SCSI_EJECT, /* flush, then scsi_eject */
};

struct scsi_plan {
	uint8_t action; /* enum scsi_action */
	bool to_host;   /* direction of data, when data > 0 */
	bool fua;
	uint32_t sense;  /* not SENSE_NONE: the command failed, nothing is to be done */
	uint64_t data;   /* bytes in the data phase, as the device wants it */
	uint64_t offset; /* bytes, on the medium */
	uint64_t span;   /* bytes, on the medium */
	struct scsi_command command;
};

/* product (may be NULL) and serial are copied; what is not printable becomes '_'. */
void scsi_unit_init(struct scsi_unit *u, uint64_t blocks, bool read_only, bool can_unmap,
	const char *product, const char *serial);
/* The same for a CD-ROM of so many blocks of MMC_BLOCK_SIZE. */
void scsi_unit_init_cdrom(
	struct scsi_unit *u, uint64_t blocks, const char *product, const char *serial);
/* Power-on or bus reset: unit attention, removal allowed. An ejected medium stays out. */
void scsi_unit_reset(struct scsi_unit *u);

/* Starts the command in cdb. reply has SCSI_REPLY_MAX bytes. plan->sense says whether it may go on;
 * the caller reports every end to scsi_end. */
void scsi_start(struct scsi_unit *u, const uint8_t *cdb, size_t size, uint8_t *reply,
	struct scsi_plan *plan);
/* The command is over, with this sense; REQUEST SENSE tells it until the next command. */
void scsi_end(struct scsi_unit *u, uint32_t sense);
/* The data of SCSI_PARAMETERS has come. SENSE_NONE or why not. */
uint32_t scsi_parameters(const struct scsi_unit *u, const struct scsi_command *c,
	const uint8_t *data, size_t size) _must_check_;
/* The ranges of an UNMAP whose data scsi_parameters took. */
size_t scsi_unmap_count(const uint8_t *data, size_t size);
void scsi_unmap_range(const uint8_t *data, size_t i, uint64_t *offset_out, uint64_t *length_out);
/* The medium is out from now on. */
void scsi_eject(struct scsi_unit *u);
/* The sense code for an I/O error (-errno) of the medium. */
uint32_t scsi_sense_of_errno(int error, bool write);

/* Replies (usb/scsi-reply.c, usb/scsi-sense.c): each fills reply and returns its whole length,
 * which may exceed the allocation length but not SCSI_REPLY_MAX; 0: no such page (*sense_out says
 * why). */
size_t scsi_reply_sense(uint8_t *reply, uint32_t sense, bool descriptor);
size_t scsi_reply_inquiry(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out);
size_t scsi_reply_mode(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out);
size_t scsi_reply_capacity(const struct scsi_unit *u, bool long_form, uint8_t *reply);
size_t scsi_reply_format_capacities(const struct scsi_unit *u, uint8_t *reply);
size_t scsi_reply_luns(uint8_t *reply);
/* Compares a MODE SELECT list with what MODE SENSE tells: nothing is changeable. */
uint32_t scsi_mode_select(const struct scsi_unit *u, const struct scsi_command *c,
	const uint8_t *data, size_t size) _must_check_;
