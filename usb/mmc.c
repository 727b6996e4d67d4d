/* SPDX-License-Identifier: MIT */
#include "usb/mmc.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"

/* More than an 80-minute disc holds: then it is a DVD. */
#define CD_BLOCKS_MAX (80U * 60 * 75)

#define TRACK_LEAD_OUT 0xaa
#define CONTROL_DATA   0x14 /* ADR 1, a data track */

#define PROFILE_CD_ROM  0x0008
#define PROFILE_DVD_ROM 0x0010

#define DVD_STRUCTURE_SIZE 2048
#define DVD_FIRST_SECTOR   0x30000 /* physical number of the first one with user data */

#define EVENT_CLASS_MEDIA 4

enum { MODE_ERROR_RECOVERY = 0x01, MODE_CAPABILITIES = 0x2a };

static bool is_dvd(const struct scsi_unit *u)
{
	return u->blocks > CD_BLOCKS_MAX;
}

static uint32_t blocks_of(const struct scsi_unit *u)
{
	return (uint32_t)MIN(u->blocks, (uint64_t)UINT32_MAX);
}

static uint32_t decode_read_cd(const uint8_t *cdb, struct scsi_command *c)
{
	uint8_t type = cdb[1] >> 2 & 0x07;

	/* Any sector type, mode 1 or mode 2 form 1: all have 2048 bytes of user data. Sync, headers
	 * and error codes are not in an image, and neither are subchannels. */
	if ((type != 0 && type != 2 && type != 4) || (cdb[9] & ~0x10) || (cdb[10] & 0x07)) {
		return SENSE_INVALID_CDB_FIELD;
	}
	c->lba = get_be32(cdb + 2);
	c->blocks = cdb[9] ? get_be24(cdb + 6) : 0;
	c->kind = SCSI_READ;
	return SENSE_NONE;
}

uint32_t mmc_decode(const uint8_t *cdb, struct scsi_command *c)
{
	switch (c->kind) {
	case SCSI_READ_TOC:
		c->msf = cdb[1] & 0x02;
		/* SFF-8020i had the format in the last byte; old guests still ask there. */
		c->format = cdb[2] & 0x0f ? cdb[2] & 0x0f : cdb[9] >> 6;
		c->number = cdb[6];
		break;
	case SCSI_GET_CONFIGURATION:
		c->format = cdb[1] & 0x03;
		c->number = get_be16(cdb + 2);
		return c->format == 3 ? SENSE_INVALID_CDB_FIELD : SENSE_NONE;
	case SCSI_GET_EVENT:
		c->number = cdb[4];
		/* Asynchronous answers would hold the bus. */
		return cdb[1] & 0x01 ? SENSE_NONE : SENSE_INVALID_CDB_FIELD;
	case SCSI_READ_DISC_INFORMATION:
		c->format = cdb[1] & 0x07;
		break;
	case SCSI_READ_TRACK_INFORMATION:
		c->format = cdb[1] & 0x03;
		c->lba = get_be32(cdb + 2);
		break;
	case SCSI_READ_DVD_STRUCTURE:
		c->number = cdb[6]; /* layer */
		c->format = cdb[7];
		return cdb[1] & 0x0f ? SENSE_INVALID_CDB_FIELD : SENSE_NONE;
	case SCSI_READ_CD:
		return decode_read_cd(cdb, c);
	default:
		break;
	}
	return SENSE_NONE;
}

/* Minute, second, frame of a block; what is behind their last number is that. */
static void put_msf(uint8_t *out, uint32_t lba)
{
	uint64_t at = (uint64_t)lba + 150;

	if (at >= 256 * 60 * 75) {
		at = 256 * 60 * 75 - 1;
	}
	out[0] = (uint8_t)(at / (60 * 75));
	out[1] = (uint8_t)(at / 75 % 60);
	out[2] = (uint8_t)(at % 75);
}

static void put_address(uint8_t *out, uint32_t lba, bool msf)
{
	if (msf) {
		out[0] = 0;
		put_msf(out + 1, lba);
	} else {
		put_be32(out, lba);
	}
}

static size_t toc_track(uint8_t *out, uint8_t track, uint32_t lba, bool msf)
{
	memset(out, 0, 8);
	out[1] = CONTROL_DATA;
	out[2] = track;
	put_address(out + 4, lba, msf);
	return 8;
}

static size_t toc_tracks(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply)
{
	size_t at = 4;

	reply[2] = 1; /* first and last track */
	reply[3] = 1;
	if (c->number <= 1) {
		at += toc_track(reply + at, 1, 0, c->msf);
	}
	return at + toc_track(reply + at, TRACK_LEAD_OUT, blocks_of(u), c->msf);
}

static size_t toc_sessions(const struct scsi_command *c, uint8_t *reply)
{
	reply[2] = 1; /* first and last session, which begins with track 1 */
	reply[3] = 1;
	return 4 + toc_track(reply + 4, 1, 0, c->msf);
}

/* What the lead-in holds: always minutes, seconds and frames. */
static size_t toc_raw(const struct scsi_unit *u, uint8_t *reply)
{
	static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 0x01};
	size_t at = 4;

	reply[2] = 1;
	reply[3] = 1;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++, at += 11) {
		memset(reply + at, 0, 11);
		reply[at] = 1; /* session */
		reply[at + 1] = CONTROL_DATA;
		reply[at + 3] = points[i];
		if (points[i] == 0xa2) {
			put_msf(reply + at + 8, blocks_of(u));
		} else if (points[i] == 0x01) {
			put_msf(reply + at + 8, 0);
		} else {
			reply[at + 8] = 1; /* the first or last track */
		}
	}
	return at;
}

size_t mmc_reply_toc(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out)
{
	size_t size;

	memset(reply, 0, 4);
	if (c->format == 0 && (c->number <= 1 || c->number == TRACK_LEAD_OUT)) {
		size = toc_tracks(u, c, reply);
	} else if (c->format == 1) {
		size = toc_sessions(c, reply);
	} else if (c->format == 2 && c->number <= 1) {
		size = toc_raw(u, reply);
	} else {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	put_be16(reply, (uint16_t)(size - 2));
	return size;
}

/* One feature's descriptor, MMC-6 5.2.2. The header's byte 2: version, persistent, current. */
struct feature {
	uint16_t number;
	uint8_t version;
	bool persistent;
	enum { ALWAYS, WITH_MEDIUM, WITH_DVD } current;
	uint8_t size;
	uint8_t data[8];
};

static const struct feature features[] = {
	/* Profiles; which one is current is put in. */
	{0x0000, 0, true, ALWAYS, 8, {0x00, PROFILE_DVD_ROM, 0, 0, 0x00, PROFILE_CD_ROM, 0, 0}},
	/* Core: interface 8 is USB; it says when it is busy. */
	{0x0001, 2, true, ALWAYS, 8, {0, 0, 0, 8, 0x01}},
	/* Removable medium: a tray that opens, closes and can be locked. */
	{0x0003, 2, true, ALWAYS, 4, {0x39}},
	/* Random readable: block size, blocks of one read unit. */
	{0x0010, 0, false, WITH_MEDIUM, 8, {0, 0, MMC_BLOCK_SIZE >> 8, 0, 0, 1}},
	/* DVD read */
	{0x001f, 0, false, WITH_DVD, 0, {0}},
	/* Power management, and a command's time-out */
	{0x0100, 0, true, ALWAYS, 0, {0}},
	{0x0105, 0, true, ALWAYS, 0, {0}},
};

static bool is_current(const struct scsi_unit *u, const struct feature *f)
{
	return f->current == ALWAYS || (!u->ejected && (f->current == WITH_MEDIUM || is_dvd(u)));
}

static size_t put_feature(const struct scsi_unit *u, const struct feature *f, uint8_t *out)
{
	put_be16(out, f->number);
	out[2] = (uint8_t)(f->version << 2 | f->persistent << 1 | is_current(u, f));
	out[3] = f->size;
	memcpy(out + 4, f->data, f->size);
	if (f->number == 0 && !u->ejected) {
		out[4 + (is_dvd(u) ? 2 : 6)] = 1;
	}
	return 4 + (size_t)f->size;
}

size_t mmc_reply_configuration(
	const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply)
{
	size_t at = 8;

	memset(reply, 0, 8);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		/* 0 all from number on, 1 of these the current ones, 2 only that one. */
		bool wanted = c->format == 2 ? f->number == c->number : f->number >= c->number;

		if (wanted && (c->format != 1 || is_current(u, f))) {
			at += put_feature(u, f, reply + at);
		}
	}
	put_be32(reply, (uint32_t)(at - 4));
	put_be16(reply + 6, u->ejected ? 0 : is_dvd(u) ? PROFILE_DVD_ROM : PROFILE_CD_ROM);
	return at;
}

size_t mmc_reply_event(
	struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply, uint32_t *sense_out)
{
	memset(reply, 0, 8);
	reply[3] = 1 << EVENT_CLASS_MEDIA; /* the one that there is */
	if (!(c->number & 1 << EVENT_CLASS_MEDIA)) {
		put_be16(reply, 2);
		reply[2] = 0x80; /* no event available */
		return 4;
	}
	/* One that could not be told must not be lost. */
	if (c->length < 8 && c->length > 4) {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	put_be16(reply, 6);
	reply[2] = EVENT_CLASS_MEDIA;
	reply[4] = u->medium_event;
	reply[5] = u->ejected ? 0x01 : 0x02; /* tray open, or medium present */
	if (c->length >= 8) {
		u->medium_event = MMC_EVENT_NONE;
	}
	return 8;
}

size_t mmc_reply_disc_information(const struct scsi_command *c, uint8_t *reply, uint32_t *sense_out)
{
	if (c->format != 0) {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	memset(reply, 0, 34);
	put_be16(reply, 32);
	reply[2] = 0x0e; /* last session complete, disc finalized */
	reply[3] = 1;    /* first track */
	reply[4] = 1;    /* sessions */
	reply[5] = 1;    /* first and last track of the last session */
	reply[6] = 1;
	reply[7] = 0x20; /* for unrestricted use */
	/* Where further sessions would start: nowhere. */
	put_be32(reply + 16, UINT32_MAX);
	put_be32(reply + 20, UINT32_MAX);
	return 34;
}

size_t mmc_reply_track_information(const struct scsi_unit *u, const struct scsi_command *c,
	uint8_t *reply, uint32_t *sense_out)
{
	/* By address, by track, by session; there is one of each. */
	if (c->format == 3 || (c->format == 0 ? c->lba >= u->blocks : c->lba != 1)) {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	memset(reply, 0, 36);
	put_be16(reply, 34);
	reply[2] = 1; /* track */
	reply[3] = 1; /* session */
	reply[5] = 4; /* a data track */
	reply[6] = 1; /* mode 1 */
	put_be32(reply + 24, blocks_of(u));
	return 36;
}

static size_t dvd_physical(const struct scsi_unit *u, uint8_t *out)
{
	uint32_t last =
		(uint32_t)MIN((uint64_t)DVD_FIRST_SECTOR + u->blocks - 1, (uint64_t)0xffffff);

	out[0] = 0x01; /* DVD-ROM, part version 1 */
	out[1] = 0x0f; /* 120 mm, no maximum rate */
	out[2] = 0x01; /* one layer, embossed */
	put_be32(out + 4, DVD_FIRST_SECTOR);
	put_be32(out + 8, last);
	put_be32(out + 12, last);
	return DVD_STRUCTURE_SIZE;
}

/* Which structures there are: format, readable, length. */
static size_t dvd_list(uint8_t *out)
{
	static const struct {
		uint8_t format;
		uint16_t size;
	} known[] = {{0x00, DVD_STRUCTURE_SIZE + 4}, {0x01, 8}, {0x04, DVD_STRUCTURE_SIZE + 4}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		out[4 * i] = known[i].format;
		out[4 * i + 1] = 0x40;
		put_be16(out + 4 * i + 2, known[i].size);
	}
	return 4 * ARRAY_SIZE(known);
}

size_t mmc_reply_dvd_structure(const struct scsi_unit *u, const struct scsi_command *c,
	uint8_t *reply, uint32_t *sense_out)
{
	size_t size;

	static_assert(DVD_STRUCTURE_SIZE + 4 <= SCSI_REPLY_MAX, "a reply must hold it");
	memset(reply, 0, DVD_STRUCTURE_SIZE + 4);
	if (c->format != 0xff && !is_dvd(u)) {
		*sense_out = SENSE_INCOMPATIBLE_MEDIUM;
		return 0;
	}
	switch (c->format) {
	case 0x00:
		size = dvd_physical(u, reply + 4);
		break;
	case 0x01: /* copyright: no protection, every region */
		size = 4;
		break;
	case 0x04: /* manufacturing: nothing is told */
		size = DVD_STRUCTURE_SIZE;
		break;
	case 0xff:
		size = dvd_list(reply + 4);
		break;
	default:
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	if (c->number != 0 && c->format == 0x00) { /* there is one layer */
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	put_be16(reply, (uint16_t)(size + 2));
	return size + 4;
}

size_t mmc_reply_mechanism(const struct scsi_unit *u, uint8_t *reply)
{
	memset(reply, 0, 8);
	reply[1] = u->ejected ? 0x10 : 0; /* the door is open */
	return 8;
}

static void capabilities(const struct scsi_unit *u, uint8_t *out)
{
	out[2] = 0x0b; /* reads CD-R, CD-RW and DVD-ROM; writes nothing */
	out[4] = 0x70; /* sessions, mode 2 forms 1 and 2 */
	/* A tray that can be locked and ejects; whether it is locked now. */
	out[6] = (uint8_t)(0x20 | 0x08 | 0x01 | u->prevented << 1);
	put_be16(out + 8, 50 * 176); /* kB/s at most: 50 times */
	put_be16(out + 10, 2);       /* volume levels */
	put_be16(out + 12, 2048);    /* KiB of buffer */
	put_be16(out + 14, 50 * 176);
}

size_t mmc_mode_page(const struct scsi_unit *u, uint8_t page, bool changeable, uint8_t *out)
{
	size_t size = page == MODE_CAPABILITIES ? 22 : page == MODE_ERROR_RECOVERY ? 12 : 0;

	memset(out, 0, size);
	if (size > 0) {
		out[0] = page;
		out[1] = (uint8_t)(size - 2);
	}
	if (page == MODE_CAPABILITIES && !changeable) {
		capabilities(u, out);
	}
	return size;
}
