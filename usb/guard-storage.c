/* SPDX-License-Identifier: MIT
 *
 * Bulk-only transport (USB Mass Storage Class, 1.0) between a guest and a device that mustn't be
 * written. A guest sends a command in an OUT transfer of 31 bytes (CBW), then data in one
 * direction, then reads a status of 13 bytes (CSW).
 *
 * The one rule that protects: whatever the guest sends on the OUT endpoint, only a whole,
 * well-formed CBW of a command that reads (usb/guard-commands.c) and sends no data goes to the
 * device. So no byte of the guest's can be taken for data, and it needn't be known whether the
 * device and we are of one mind about what comes next: the rest of this file is manners. A command
 * that is refused is answered here as a write-protected disk does: its data is thrown away, or a
 * short packet comes in its place, then a CSW that says "failed" with the whole length as residue,
 * and the REQUEST SENSE that follows tells why.
 *
 * Transfers wait here until it is clear whose they are: IN while there is no command, OUT while
 * there is one. What no specification allows (6.2, 6.6.1: no valid CBW where one is due) stalls
 * everything until Bulk-Only Mass Storage Reset.
 */
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/guard-internal.h"
#include "usb/scsi.h"

#define CBW_SIGNATURE 0x43425355
#define CSW_SIGNATURE 0x53425355

/* 5.1, 5.2 */
enum {
	CBW_SIZE = 31,
	CBW_TAG = 4,
	CBW_LENGTH = 8,
	CBW_FLAGS = 12,
	CBW_LUN = 13,
	CBW_COMMAND_SIZE = 14,
	CBW_COMMAND = 15,
	CBW_FLAG_IN = 0x80,
	COMMAND_SIZE_MAX = 16,
	CSW_SIZE = 13,
	CSW_TAG = 4,
	CSW_RESIDUE = 8,
	CSW_STATUS = 12,
	CSW_PASSED = 0,
	CSW_FAILED = 1,
	REQUEST_SENSE = 0x03,
	PROTECT = 0x80, /* SBC-3, 6.4.1: WP of the device-specific parameter */
};

void guard_unit_init(struct guard_unit *u, struct guard *g)
{
	u->guard = g;
	list_init(&u->held_in);
	list_init(&u->held_out);
}

void guard_unit_reset(struct guard_unit *u)
{
	u->state = UNIT_COMMAND;
	memset(u->sense, 0, sizeof(u->sense));
}

static struct transfer *take(struct list *held)
{
	struct transfer *t = list_first(held, struct transfer, backend);

	if (t) {
		list_remove(&t->backend);
		t->held = false;
	}
	return t;
}

static void to_device(struct guard_unit *u, struct transfer *t)
{
	t->guard_unit = (uint8_t)(u - u->guard->units + 1);
	u->at_device++;
	u->guard->ops->submit(u->guard->userdata, t);
}

/* ---- Commands ---- */

static bool is_cbw(const struct transfer *t)
{
	const uint8_t *p = t->data;

	return t->length == CBW_SIZE && get_le32(p) == CBW_SIGNATURE &&
	       (p[CBW_FLAGS] & ~CBW_FLAG_IN) == 0 && p[CBW_LUN] < GUARD_LUNS &&
	       p[CBW_COMMAND_SIZE] >= 1 && p[CBW_COMMAND_SIZE] <= COMMAND_SIZE_MAX;
}

/* Answers the command in hand: size bytes of reply, if any, to a guest that wants data, and status.
 */
static void answer(struct guard_unit *u, bool in, uint8_t status, uint8_t size)
{
	u->status = status;
	u->residue = u->data_left;
	u->reply_size = size;
	u->reply_at = 0;
	u->state = u->data_left == 0 ? UNIT_STATUS : in ? UNIT_DATA_IN : UNIT_DATA_OUT;
}

static void answer_sense(struct guard_unit *u, const uint8_t *cdb, uint8_t lun)
{
	size_t size = scsi_reply_sense(u->reply, u->sense[lun], cdb[1] & 0x01);

	u->sense[lun] = 0;
	size = MIN(size, (size_t)cdb[4]);
	answer(u, true, CSW_PASSED, (uint8_t)MIN(size, (size_t)u->data_left));
}

static void refuse(struct guard_unit *u, bool in, uint8_t lun, uint32_t sense)
{
	u->guard->ops->refused(u->guard->userdata);
	u->sense[lun] = sense;
	answer(u, in, CSW_FAILED, 0);
}

static void take_command(struct guard_unit *u, struct transfer *t)
{
	const uint8_t *p = t->data, *cdb = p + CBW_COMMAND;
	enum guard_verdict verdict;
	uint8_t lun;
	bool in;

	if (!is_cbw(t)) {
		u->state = UNIT_BROKEN;
		u->guard->ops->refused(u->guard->userdata);
		guard_complete(u->guard, t, TRANSFER_STALL, 0);
		return;
	}
	in = p[CBW_FLAGS] & CBW_FLAG_IN;
	lun = p[CBW_LUN];
	u->tag = get_le32(p + CBW_TAG);
	u->data_size = u->data_left = get_le32(p + CBW_LENGTH);
	u->data_at = 0;
	u->asked = 0;
	verdict = guard_judge(cdb, p[CBW_COMMAND_SIZE]);
	if (cdb[0] == REQUEST_SENSE && verdict == GUARD_READS && u->sense[lun] &&
		(in || u->data_left == 0)) {
		answer_sense(u, cdb, lun);
	} else if (verdict == GUARD_WRITES) {
		refuse(u, in, lun, SENSE_WRITE_PROTECTED);
	} else if (verdict == GUARD_UNKNOWN) {
		refuse(u, in, lun, SENSE_INVALID_OPCODE);
	} else if (!in && u->data_left > 0) {
		refuse(u, in, lun, SENSE_INVALID_CDB_FIELD);
	} else {
		u->sense[lun] = 0;
		u->protect_at = guard_protect_offset(cdb);
		u->state = UNIT_DEVICE;
		to_device(u, t);
		return;
	}
	guard_complete(u->guard, t, TRANSFER_OK, CBW_SIZE);
}

/* ---- Answers of our own ---- */

static void swallow(struct guard_unit *u, struct transfer *t)
{
	if (t->length >= u->data_left || t->length % u->out_packet != 0 || t->length == 0) {
		u->state = UNIT_STATUS; /* all, or a short packet: there is no more */
	}
	u->data_left -= MIN(t->length, u->data_left);
	guard_complete(u->guard, t, TRANSFER_OK, t->length);
}

static void give_data(struct guard_unit *u, struct transfer *t)
{
	uint32_t n = MIN((uint32_t)(u->reply_size - u->reply_at), t->length);

	if (n > 0) {
		memcpy(t->data, u->reply + u->reply_at, n);
	}
	u->reply_at = (uint8_t)(u->reply_at + n);
	u->data_left -= n;
	u->residue -= n;
	if (n < t->length || n % u->in_packet != 0 || u->data_left == 0) {
		u->state = UNIT_STATUS;
	}
	guard_complete(u->guard, t, TRANSFER_OK, n);
}

static void give_status(struct guard_unit *u, struct transfer *t)
{
	uint8_t *p = t->data;

	if (t->length < CSW_SIZE) {
		guard_complete(u->guard, t, TRANSFER_BABBLE, 0);
		return;
	}
	put_le32(p, CSW_SIGNATURE);
	put_le32(p + CSW_TAG, u->tag);
	put_le32(p + CSW_RESIDUE, u->residue);
	p[CSW_STATUS] = u->status;
	u->state = UNIT_COMMAND;
	guard_complete(u->guard, t, TRANSFER_OK, CSW_SIZE);
}

/* ---- The machine ---- */

/* One step. False: nothing can be done now. */
static bool step(struct guard_unit *u)
{
	struct transfer *t = NULL;

	switch (u->state) {
	case UNIT_COMMAND:
		/* What is left of the one before comes back first. */
		t = u->at_device == 0 ? take(&u->held_out) : NULL;
		if (t) {
			take_command(u, t);
		}
		break;
	case UNIT_DEVICE:
		/* As many as the data needs; then, alone, the one for the status. What the guest
		 * sends ahead belongs to the next command. */
		t = u->asked < u->data_size || u->at_device == 0 ? take(&u->held_in) : NULL;
		if (t) {
			u->asked += t->length;
			to_device(u, t);
		}
		break;
	case UNIT_DATA_OUT:
		t = take(&u->held_out);
		if (t) {
			swallow(u, t);
		}
		break;
	case UNIT_DATA_IN:
		t = take(&u->held_in);
		if (t) {
			give_data(u, t);
		}
		break;
	case UNIT_STATUS:
		t = take(&u->held_in);
		if (t) {
			give_status(u, t);
		}
		break;
	case UNIT_BROKEN:
		t = take(&u->held_in);
		t = t ? t : take(&u->held_out);
		if (t) {
			guard_complete(u->guard, t, TRANSFER_STALL, 0);
		}
		break;
	}
	return t != NULL;
}

void guard_unit_run(struct guard_unit *u)
{
	if (u->running) {
		u->again = true;
		return;
	}
	u->running = true;
	do {
		u->again = step(u);
	} while (u->again);
	u->running = false;
}

void guard_unit_submit(struct guard_unit *u, struct transfer *t)
{
	t->held = true;
	list_append(t->endpoint == u->in ? &u->held_in : &u->held_out, &t->backend);
	guard_unit_run(u);
}

/* ---- Back from the device ---- */

/* A device, too, may send the status where data is due. */
static bool is_csw(const struct guard_unit *u, const struct transfer *t)
{
	return t->actual == CSW_SIZE && get_le32(t->data) == CSW_SIGNATURE &&
	       get_le32(t->data + CSW_TAG) == u->tag;
}

static void data_ended(struct guard_unit *u)
{
	u->data_left = 0;
	u->asked = u->data_size;
}

static void data_came(struct guard_unit *u, struct transfer *t)
{
	if (u->protect_at >= u->data_at && u->protect_at - u->data_at < t->actual &&
		u->protect_at > 0) {
		t->data[u->protect_at - u->data_at] |= PROTECT;
	}
	u->data_at += t->actual;
	if (t->actual < t->length) {
		data_ended(u);
	} else {
		u->data_left -= MIN(t->actual, u->data_left);
	}
}

void guard_unit_completed(struct guard_unit *u, struct transfer *t)
{
	u->at_device--;
	if (u->state != UNIT_DEVICE || t->cancelled) {
		return;
	}
	if (!transfer_is_in(t)) {
		/* The device took the command, or won't have it. */
		u->state = t->status == TRANSFER_OK ? UNIT_DEVICE : UNIT_COMMAND;
	} else if (t->status == TRANSFER_STALL) {
		data_ended(u);
	} else if (t->status != TRANSFER_OK) {
		return;
	} else if (u->data_left == 0 || (is_csw(u, t) && t->actual < t->length)) {
		u->state = t->actual > 0 ? UNIT_COMMAND : UNIT_DEVICE;
	} else {
		data_came(u, t);
	}
}
