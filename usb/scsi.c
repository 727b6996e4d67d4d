/* SPDX-License-Identifier: MIT */
#include "usb/scsi.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/mmc.h"

static void copy_printable(char *out, size_t size, const char *text)
{
	size_t i = 0;

	for (; i < size - 1 && text[i]; i++) {
		out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '_';
	}
	out[i] = '\0';
}

void scsi_unit_init(struct scsi_unit *u, uint64_t blocks, bool read_only, bool can_unmap,
	const char *product, const char *serial)
{
	*u = (struct scsi_unit){
		.blocks = blocks,
		.block_size = SCSI_BLOCK_SIZE,
		.read_only = read_only,
		.can_unmap = can_unmap && !read_only,
		.unit_attention = SENSE_POWER_ON,
	};
	copy_printable(u->product, sizeof(u->product), product ? product : "Virtual Stick");
	for (size_t i = strlen(u->product); i < sizeof(u->product) - 1; i++) {
		u->product[i] = ' ';
	}
	copy_printable(u->serial, sizeof(u->serial), serial);
}

void scsi_unit_init_cdrom(
	struct scsi_unit *u, uint64_t blocks, const char *product, const char *serial)
{
	scsi_unit_init(u, blocks, true, false, product ? product : "Virtual CD-ROM", serial);
	u->cdrom = true;
	u->block_size = MMC_BLOCK_SIZE;
	u->medium_event = MMC_EVENT_NEW_MEDIUM;
}

void scsi_unit_reset(struct scsi_unit *u)
{
	u->prevented = false;
	u->sense = SENSE_NONE;
	u->unit_attention = SENSE_POWER_ON;
}

void scsi_end(struct scsi_unit *u, uint32_t sense)
{
	u->sense = sense;
}

void scsi_eject(struct scsi_unit *u)
{
	u->ejected = true;
	u->medium_event = MMC_EVENT_MEDIUM_REMOVED;
}

uint32_t scsi_sense_of_errno(int error, bool write)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG: /* RLIMIT_FSIZE: a limit of space too */
		return SENSE_NO_SPACE;
	case -EROFS:
	case -EPERM:
	case -EACCES:
		return write ? SENSE_WRITE_PROTECTED : SENSE_READ_ERROR;
	default:
		return write ? SENSE_WRITE_ERROR : SENSE_READ_ERROR;
	}
}

/* Data for the host, cut to the allocation length. */
static void plan_reply(struct scsi_plan *plan, size_t size)
{
	plan->action = SCSI_REPLY;
	plan->to_host = true;
	plan->data = MIN((uint64_t)size, (uint64_t)plan->command.length);
}

static void plan_parameters(const struct scsi_unit *u, struct scsi_plan *plan)
{
	if (plan->command.kind == SCSI_UNMAP) {
		if (!u->can_unmap) {
			plan->sense = u->read_only ? SENSE_WRITE_PROTECTED : SENSE_INVALID_OPCODE;
			return;
		}
	}
	if (plan->command.length > SCSI_PARAMETERS_MAX) {
		plan->sense = SENSE_LIST_LENGTH;
		return;
	}
	plan->action = SCSI_PARAMETERS;
	plan->data = plan->command.length;
}

/* Range checks happen here, in 64 bits, before any byte moves. A count of 0 is no error (SBC-3
 * 5.8), an LBA behind the last block is, even then. */
static void plan_blocks(const struct scsi_unit *u, struct scsi_plan *plan)
{
	const struct scsi_command *c = &plan->command;

	if (c->lba >= u->blocks || c->blocks > u->blocks - c->lba) {
		plan->sense = SENSE_LBA_OUT_OF_RANGE;
		return;
	}
	plan->offset = c->lba * u->block_size;
	plan->span = (uint64_t)c->blocks * u->block_size;
	plan->fua = c->fua;
	switch (c->kind) {
	case SCSI_READ:
		plan->action = SCSI_READ_MEDIUM;
		plan->to_host = true;
		plan->data = plan->span;
		break;
	case SCSI_WRITE:
		if (u->read_only) {
			plan->sense = SENSE_WRITE_PROTECTED;
			return;
		}
		plan->action = SCSI_WRITE_MEDIUM;
		plan->data = plan->span;
		break;
	case SCSI_VERIFY:
		plan->action = c->compare ? SCSI_COMPARE_MEDIUM : SCSI_CHECK_MEDIUM;
		plan->data = c->compare ? plan->span : 0;
		break;
	default: /* SYNCHRONIZE CACHE: the range is only checked; all is flushed */
		plan->action = SCSI_FLUSH;
		break;
	}
}

static void plan_start_stop(const struct scsi_unit *u, struct scsi_plan *plan)
{
	const struct scsi_command *c = &plan->command;

	if (c->start) {
		/* Nothing to spin up, and a medium that is out comes back by attaching it. */
		plan->sense = u->ejected ? SENSE_NO_MEDIUM : SENSE_NONE;
	} else if (c->load_eject && u->prevented) {
		plan->sense = SENSE_REMOVAL_PREVENTED;
	} else if (u->ejected) {
		plan->action = SCSI_NOTHING;
	} else {
		plan->action = c->load_eject ? SCSI_EJECT : SCSI_FLUSH;
	}
}

static void plan_mmc(struct scsi_unit *u, uint8_t *reply, struct scsi_plan *plan)
{
	const struct scsi_command *c = &plan->command;
	size_t size = 0;

	switch (c->kind) {
	case SCSI_READ_TOC:
		size = mmc_reply_toc(u, c, reply, &plan->sense);
		break;
	case SCSI_GET_CONFIGURATION:
		size = mmc_reply_configuration(u, c, reply);
		break;
	case SCSI_GET_EVENT:
		size = mmc_reply_event(u, c, reply, &plan->sense);
		break;
	case SCSI_READ_DISC_INFORMATION:
		size = mmc_reply_disc_information(c, reply, &plan->sense);
		break;
	case SCSI_READ_TRACK_INFORMATION:
		size = mmc_reply_track_information(u, c, reply, &plan->sense);
		break;
	case SCSI_READ_DVD_STRUCTURE:
		size = mmc_reply_dvd_structure(u, c, reply, &plan->sense);
		break;
	case SCSI_MECHANISM_STATUS:
		size = mmc_reply_mechanism(u, reply);
		break;
	default: /* SET CD SPEED: any speed is as good */
		return;
	}
	plan_reply(plan, size);
}

static void plan_command(struct scsi_unit *u, uint8_t *reply, struct scsi_plan *plan)
{
	const struct scsi_command *c = &plan->command;

	switch (c->kind) {
	case SCSI_INQUIRY:
		plan_reply(plan, scsi_reply_inquiry(u, c, reply, &plan->sense));
		break;
	case SCSI_MODE_SENSE:
		plan_reply(plan, scsi_reply_mode(u, c, reply, &plan->sense));
		break;
	case SCSI_READ_CAPACITY:
		plan_reply(plan, scsi_reply_capacity(u, c->long_form, reply));
		break;
	case SCSI_READ_FORMAT_CAPACITIES:
		plan_reply(plan, scsi_reply_format_capacities(u, reply));
		break;
	case SCSI_REPORT_LUNS:
		if (c->select_report > 2) {
			plan->sense = SENSE_INVALID_CDB_FIELD;
			break;
		}
		plan_reply(plan, scsi_reply_luns(reply));
		break;
	case SCSI_MODE_SELECT:
	case SCSI_UNMAP:
		plan_parameters(u, plan);
		break;
	case SCSI_START_STOP:
		plan_start_stop(u, plan);
		break;
	case SCSI_PREVENT_ALLOW:
		u->prevented = c->prevent & 1;
		break;
	case SCSI_READ:
	case SCSI_WRITE:
	case SCSI_VERIFY:
	case SCSI_SYNCHRONIZE_CACHE:
		plan_blocks(u, plan);
		break;
	default: /* TEST UNIT READY, or a CD-ROM's */
		if (c->mmc) {
			plan_mmc(u, reply, plan);
		}
		break;
	}
}

static bool needs_medium(uint8_t kind)
{
	switch (kind) {
	case SCSI_REQUEST_SENSE:
	case SCSI_INQUIRY:
	case SCSI_REPORT_LUNS:
	case SCSI_MODE_SENSE:
	case SCSI_MODE_SELECT:
	case SCSI_START_STOP:
	case SCSI_READ_FORMAT_CAPACITIES:
	case SCSI_GET_CONFIGURATION:
	case SCSI_GET_EVENT:
	case SCSI_MECHANISM_STATUS:
		return false;
	default:
		return true;
	}
}

/* The commands that are carried out under a unit attention and leave it pending (SPC-3 4.5.2.x,
 * SAM-4 5.14; MMC-6 4.1.6.1 for the last two). REQUEST SENSE takes it. */
static bool ignores_attention(uint8_t kind)
{
	return kind == SCSI_INQUIRY || kind == SCSI_REPORT_LUNS || kind == SCSI_REQUEST_SENSE ||
	       kind == SCSI_GET_CONFIGURATION || kind == SCSI_GET_EVENT;
}

static void plan_request_sense(struct scsi_unit *u, uint8_t *reply, struct scsi_plan *plan)
{
	uint32_t sense = u->sense;

	if (!sense && u->unit_attention) {
		sense = u->unit_attention;
		u->unit_attention = SENSE_NONE;
	} else if (!sense && u->ejected) {
		sense = SENSE_NO_MEDIUM;
	}
	plan_reply(plan, scsi_reply_sense(reply, sense, plan->command.descriptor_sense));
}

void scsi_start(struct scsi_unit *u, const uint8_t *cdb, size_t size, uint8_t *reply,
	struct scsi_plan *plan)
{
	*plan = (struct scsi_plan){.action = SCSI_NOTHING};
	plan->sense = scsi_decode(cdb, size, &plan->command);
	if (!plan->sense && plan->command.mmc && !u->cdrom) {
		plan->sense = SENSE_INVALID_OPCODE;
	}
	if (plan->sense) {
		return;
	}
	if (plan->command.kind == SCSI_REQUEST_SENSE) {
		plan_request_sense(u, reply, plan);
		return;
	}
	if (u->unit_attention && !ignores_attention(plan->command.kind)) {
		plan->sense = u->unit_attention;
		u->unit_attention = SENSE_NONE;
		return;
	}
	if (u->ejected && needs_medium(plan->command.kind)) {
		plan->sense = SENSE_NO_MEDIUM;
		return;
	}
	plan_command(u, reply, plan);
	if (plan->sense) {
		plan->action = SCSI_NOTHING;
		plan->data = 0;
	}
}

/* UNMAP's list: header (data length, block descriptor data length), 16 bytes per range: LBA,
 * count, reserved (SBC-3 5.28.2). A truncated descriptor at the end is not looked at. */
size_t scsi_unmap_count(const uint8_t *data, size_t size)
{
	if (size < 8) {
		return 0;
	}
	return MIN((size_t)get_be16(data + 2), size - 8) / 16;
}

void scsi_unmap_range(const uint8_t *data, size_t i, uint64_t *offset_out, uint64_t *length_out)
{
	const uint8_t *d = data + 8 + 16 * i;

	*offset_out = get_be64(d) * SCSI_BLOCK_SIZE;
	*length_out = (uint64_t)get_be32(d + 8) * SCSI_BLOCK_SIZE;
}

static uint32_t check_unmap(const struct scsi_unit *u, const uint8_t *data, size_t size)
{
	size_t n = scsi_unmap_count(data, size);
	uint64_t sum = 0;

	if (size == 0) {
		return SENSE_NONE;
	}
	if (size < 8) {
		return SENSE_LIST_LENGTH;
	}
	for (size_t i = 0; i < n; i++) {
		uint64_t lba = get_be64(data + 8 + 16 * i);
		uint32_t blocks = get_be32(data + 8 + 16 * i + 8);

		if (lba >= u->blocks || blocks > u->blocks - lba) {
			return SENSE_LBA_OUT_OF_RANGE;
		}
		sum += blocks;
	}
	return sum > SCSI_UNMAP_BLOCKS_MAX ? SENSE_INVALID_PARAMETER : SENSE_NONE;
}

uint32_t scsi_parameters(
	const struct scsi_unit *u, const struct scsi_command *c, const uint8_t *data, size_t size)
{
	return c->kind == SCSI_UNMAP ? check_unmap(u, data, size)
				     : scsi_mode_select(u, c, data, size);
}
