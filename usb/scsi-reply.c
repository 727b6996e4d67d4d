/* SPDX-License-Identifier: MIT */
#include "usb/scsi.h"

#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/mmc.h"

#define VENDOR   "Devbrokr" /* T10 vendor identification, 8 bytes */
#define REVISION "0001"

/* Guests align to this; the host's page cache works in 4 KiB. */
#define PHYSICAL_EXPONENT 3

#define TYPE_CDROM 0x05

enum { MODE_CACHING = 0x08, MODE_CONTROL = 0x0a, MODE_ALL = 0x3f };

static size_t standard_inquiry(const struct scsi_unit *u, uint8_t *reply)
{
	memset(reply, 0, 36);
	reply[0] = u->cdrom ? TYPE_CDROM : 0;
	reply[1] = 0x80; /* removable: guests offer "eject" */
	reply[2] = 0x05; /* SPC-3 */
	reply[3] = 0x02; /* response data format */
	reply[4] = 36 - 5;
	memcpy(reply + 8, VENDOR, 8);
	memcpy(reply + 16, u->product, 16);
	memcpy(reply + 32, REVISION, 4);
	return 36;
}

/* 60 bits that are the same for the same serial number (FNV-1a), for the NAA designator. */
static uint64_t serial_hash(const char *serial)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *serial; serial++) {
		h = (h ^ (uint8_t)*serial) * 0x100000001b3;
	}
	return h & 0x0fffffffffffffff;
}

static size_t vpd_identification(const struct scsi_unit *u, uint8_t *reply)
{
	size_t serial = strlen(u->serial), at = 4;

	/* T10 vendor id based, ASCII, of the logical unit. */
	reply[at] = 0x02;
	reply[at + 1] = 0x01;
	reply[at + 3] = (uint8_t)(8 + 16 + serial);
	memcpy(reply + at + 4, VENDOR, 8);
	memcpy(reply + at + 12, u->product, 16);
	memcpy(reply + at + 28, u->serial, serial);
	at += 28 + serial;
	/* NAA 3h, locally assigned, binary. */
	reply[at] = 0x01;
	reply[at + 1] = 0x03;
	reply[at + 3] = 8;
	put_be64(reply + at + 4, 0x3000000000000000 | serial_hash(u->serial));
	return at + 12;
}

static size_t vpd_block_limits(const struct scsi_unit *u, uint8_t *reply)
{
	put_be16(reply + 6, 1 << PHYSICAL_EXPONENT); /* optimal transfer granularity */
	if (u->can_unmap) {
		put_be32(reply + 20, SCSI_UNMAP_BLOCKS_MAX);
		put_be32(reply + 24, SCSI_UNMAP_RANGES_MAX);
		put_be32(reply + 28, 1 << PHYSICAL_EXPONENT); /* optimal unmap granularity */
	}
	return 64;
}

static size_t vpd_provisioning(const struct scsi_unit *u, uint8_t *reply)
{
	if (u->can_unmap) {
		reply[5] = 0x80; /* LBPU: UNMAP; what unmapped blocks read as is not promised */
		reply[6] = 0x02; /* thin */
	}
	return 8;
}

static size_t vpd(const struct scsi_unit *u, uint8_t page, uint8_t *reply, uint32_t *sense_out)
{
	static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
	/* The last three are a block device's. */
	size_t size, n_pages = sizeof(pages) - (u->cdrom ? 3 : 0);

	memset(reply, 0, SCSI_REPLY_MAX);
	if (!memchr(pages, page, n_pages)) {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	switch (page) {
	case 0x00:
		memcpy(reply + 4, pages, n_pages);
		size = 4 + n_pages;
		break;
	case 0x80:
		size = 4 + strlen(u->serial);
		memcpy(reply + 4, u->serial, size - 4);
		break;
	case 0x83:
		size = vpd_identification(u, reply);
		break;
	case 0xb0:
		size = vpd_block_limits(u, reply);
		break;
	case 0xb1:
		put_be16(reply + 4, 1); /* non-rotating */
		size = 64;
		break;
	default: /* 0xb2 */
		size = vpd_provisioning(u, reply);
		break;
	}
	reply[0] = u->cdrom ? TYPE_CDROM : 0;
	reply[1] = page;
	put_be16(reply + 2, (uint16_t)(size - 4));
	return size;
}

size_t scsi_reply_inquiry(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out)
{
	return c->evpd ? vpd(u, c->page, reply, sense_out) : standard_inquiry(u, reply);
}

/* Writes one mode page; returns its length, 0: there is none. changeable: the mask of what MODE
 * SELECT may change, which is nothing. */
static size_t mode_page(const struct scsi_unit *u, uint8_t page, bool changeable, uint8_t *out)
{
	size_t size = page == MODE_CACHING ? 20 : page == MODE_CONTROL ? 12 : 0;

	if (u->cdrom) {
		return mmc_mode_page(u, page, changeable, out);
	}
	if (size == 0) {
		return 0;
	}
	memset(out, 0, size);
	out[0] = page;
	out[1] = (uint8_t)(size - 2);
	if (page == MODE_CACHING && !changeable) {
		out[2] = 0x04; /* WCE: a write is on the disk only after SYNCHRONIZE CACHE */
	}
	return size;
}

/* Linux asks a USB stick for page 3Fh in 192 bytes and finds the caching page in it
 * (drivers/scsi/sd.c, skip_ms_page_8): without it there, no SYNCHRONIZE CACHE would ever come. */
size_t scsi_reply_mode(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out)
{
	size_t header = c->long_form ? 8 : 4, at = header;
	/* WP, and DPOFUA: FUA is honoured. A CD-ROM's says nothing (MMC-6 7.2.2). */
	uint8_t device = u->cdrom ? 0 : (u->read_only ? 0x80 : 0) | 0x10;

	if (c->page_control == 3) {
		*sense_out = SENSE_NO_SAVED_PAGES;
		return 0;
	}
	memset(reply, 0, header);
	if (c->subpage == 0 || (c->page == MODE_ALL && c->subpage == 0xff)) {
		for (unsigned int page = 0; page < MODE_ALL; page++) {
			if (c->page == MODE_ALL || c->page == page) {
				at += mode_page(u, (uint8_t)page, c->page_control == 1, reply + at);
			}
		}
	}
	if (at == header) {
		*sense_out = SENSE_INVALID_CDB_FIELD;
		return 0;
	}
	if (c->long_form) {
		put_be16(reply, (uint16_t)(at - 2));
		reply[3] = device;
	} else {
		reply[0] = (uint8_t)(at - 1);
		reply[2] = device;
	}
	return at;
}

uint32_t scsi_mode_select(
	const struct scsi_unit *u, const struct scsi_command *c, const uint8_t *data, size_t size)
{
	size_t at = c->long_form ? 8 : 4, descriptors;

	if (size == 0) {
		return SENSE_NONE;
	}
	if (size < at) {
		return SENSE_LIST_LENGTH;
	}
	descriptors = c->long_form ? get_be16(data + 6) : data[3];
	if (descriptors != 0 && descriptors != 8) {
		return SENSE_INVALID_PARAMETER;
	}
	if (size < at + descriptors) {
		return SENSE_LIST_LENGTH;
	}
	if (descriptors && get_be24(data + at + 5) != u->block_size) {
		return SENSE_INVALID_PARAMETER;
	}
	at += descriptors;
	while (at < size) {
		uint8_t now[MMC_MODE_PAGE_MAX], page = data[at] & 0x7f; /* PS is reserved here */
		size_t n = mode_page(u, page, false, now);

		if (n == 0) {
			return SENSE_INVALID_PARAMETER;
		}
		if (size - at < n) {
			return SENSE_LIST_LENGTH;
		}
		if (memcmp(data + at + 1, now + 1, n - 1) != 0) {
			return SENSE_INVALID_PARAMETER;
		}
		at += n;
	}
	return SENSE_NONE;
}

size_t scsi_reply_capacity(const struct scsi_unit *u, bool long_form, uint8_t *reply)
{
	uint64_t last = u->blocks - 1;

	if (!long_form) {
		put_be32(reply, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
		put_be32(reply + 4, u->block_size);
		return 8;
	}
	memset(reply, 0, 32);
	put_be64(reply, last);
	put_be32(reply + 8, u->block_size);
	reply[13] = u->cdrom ? 0 : PHYSICAL_EXPONENT;
	reply[14] = u->can_unmap ? 0x80 : 0; /* LBPME */
	return 32;
}

size_t scsi_reply_format_capacities(const struct scsi_unit *u, uint8_t *reply)
{
	memset(reply, 0, 12);
	reply[3] = 8;
	put_be32(reply + 4, (uint32_t)MIN(u->blocks, (uint64_t)UINT32_MAX));
	/* Formatted medium, or no medium and the largest capacity; then 24 bits of block size. */
	put_be32(reply + 8, u->block_size);
	reply[8] = u->ejected ? 0x03 : 0x02;
	return 12;
}

size_t scsi_reply_luns(uint8_t *reply)
{
	memset(reply, 0, 16);
	reply[3] = 8; /* one LUN, number 0 */
	return 16;
}
