/* SPDX-License-Identifier: MIT
 *
 * USB Attached SCSI (UAS, T10/2095-D) between a guest and a device that mustn't be written. It has
 * four bulk pipes: commands OUT, status IN, data IN, data OUT; at SuperSpeed the last three have
 * a stream for each command, whose number is the command's tag.
 *
 * The rule that protects: on the command pipe only a whole command that reads
 * (usb/guard-commands.c) or a request to manage tasks passes, and on the data OUT pipe nothing
 * does. The rest is manners. A guest asks for a command's status and data before it sends the
 * command; so these wait here until it is known that the device has the command. A command that is
 * refused gets its sense from here, where the device's would come; its data is thrown away.
 *
 * What is no command on the command pipe stalls everything until the next reset.
 */
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"
#include "usb/guard-internal.h"
#include "usb/scsi.h"

/* Tables 14, 15, 18: information units */
enum {
	IU_COMMAND = 0x01,
	IU_SENSE = 0x03,
	IU_RESPONSE = 0x04,
	IU_TASK_MANAGEMENT = 0x05,
	IU_READ_READY = 0x06,
	IU_HEAD = 4,
	IU_TAG = 2,
	COMMAND_SIZE = 32,
	COMMAND_MORE = 6, /* CDB bytes beyond 16 */
	COMMAND_CDB = 16,
	CDB_SIZE = 16,
	TASK_MANAGEMENT_SIZE = 16,
	SENSE_STATUS = 6,
	SENSE_LENGTH = 14,
	SENSE_DATA = 16,
	SENSE_DATA_SIZE = 18,
	CHECK_CONDITION = 0x02,
	PROTECT = 0x80, /* SBC-3, 6.4.1: WP of the device-specific parameter */
};

void guard_uas_init(struct guard_uas *u, struct guard *g)
{
	u->guard = g;
	list_init(&u->held);
}

void guard_uas_reset(struct guard_uas *u)
{
	memset(u->commands, 0, sizeof(u->commands));
	u->n_at_device = u->n_refused = u->n_status = 0;
	u->reading = 0;
	u->broken = false;
}

static void set_state(struct guard_uas *u, uint16_t tag, enum guard_uas_state state)
{
	struct guard_uas_command *c = &u->commands[tag];

	u->n_at_device -= c->state == UAS_AT_DEVICE;
	u->n_refused -= c->state == UAS_REFUSED;
	*c = (struct guard_uas_command){.state = state};
	u->n_at_device += state == UAS_AT_DEVICE;
	u->n_refused += state == UAS_REFUSED;
}

/* 0: none that can be. */
static uint16_t tag_of(const struct transfer *t, uint32_t n)
{
	uint16_t tag = n >= IU_HEAD ? get_be16(t->data + IU_TAG) : 0;

	return tag <= GUARD_UAS_TAGS ? tag : 0;
}

static uint16_t stream_of(const struct transfer *t)
{
	return t->stream_id <= GUARD_UAS_TAGS ? (uint16_t)t->stream_id : 0;
}

static void to_device(struct guard_uas *u, struct transfer *t)
{
	list_remove(&t->backend);
	t->held = false;
	t->guard_unit = (uint8_t)(u - u->guard->uas + 1 + GUARD_UNITS_MAX);
	u->guard->ops->submit(u->guard->userdata, t);
}

static void give(
	struct guard_uas *u, struct transfer *t, enum transfer_status status, uint32_t actual)
{
	list_remove(&t->backend);
	guard_complete(u->guard, t, status, actual);
}

/* The sense of a command; none (0): it may pass. */
static uint32_t judge(const struct transfer *t)
{
	switch (t->data[COMMAND_MORE] ? GUARD_UNKNOWN
				      : guard_judge(t->data + COMMAND_CDB, CDB_SIZE)) {
	case GUARD_READS:
		return SENSE_NONE;
	case GUARD_WRITES:
		return SENSE_WRITE_PROTECTED;
	default:
		return SENSE_INVALID_OPCODE;
	}
}

static void take_command(struct guard_uas *u, struct transfer *t)
{
	uint16_t tag = tag_of(t, t->length);
	uint8_t id = t->length > 0 ? t->data[0] : 0;
	uint32_t sense = SENSE_NONE;

	if (tag == 0 || !((id == IU_COMMAND && t->length == COMMAND_SIZE) ||
				(id == IU_TASK_MANAGEMENT && t->length == TASK_MANAGEMENT_SIZE))) {
		u->broken = true;
		u->guard->ops->refused(u->guard->userdata);
		give(u, t, TRANSFER_STALL, 0);
		return;
	}
	if (id == IU_COMMAND) {
		sense = judge(t);
	}
	set_state(u, tag, sense ? UAS_REFUSED : UAS_AT_DEVICE);
	if (sense) {
		u->commands[tag].sense = sense;
		u->guard->ops->refused(u->guard->userdata);
		give(u, t, TRANSFER_OK, t->length);
		return;
	}
	if (id == IU_COMMAND) {
		u->commands[tag].protect_at = guard_protect_offset(t->data + COMMAND_CDB);
	}
	to_device(u, t);
}

static void give_sense(struct guard_uas *u, struct transfer *t, uint16_t tag)
{
	uint8_t iu[SENSE_DATA + SENSE_DATA_SIZE] = {IU_SENSE};
	uint8_t sense[SCSI_REPLY_MAX];
	uint32_t n = MIN(t->length, (uint32_t)sizeof(iu));

	_unused_ size_t size = scsi_reply_sense(sense, u->commands[tag].sense, false);
	memcpy(iu + SENSE_DATA, sense, SENSE_DATA_SIZE);
	put_be16(iu + IU_TAG, tag);
	iu[SENSE_STATUS] = CHECK_CONDITION;
	put_be16(iu + SENSE_LENGTH, SENSE_DATA_SIZE);
	if (n > 0) {
		memcpy(t->data, iu, n);
	}
	set_state(u, tag, UAS_NONE);
	give(u, t, TRANSFER_OK, n);
}

static uint16_t first_refused(const struct guard_uas *u)
{
	for (uint16_t tag = 1; u->n_refused > 0 && tag <= GUARD_UAS_TAGS; tag++) {
		if (u->commands[tag].state == UAS_REFUSED) {
			return tag;
		}
	}
	return 0;
}

/* False: it goes on waiting. */
static bool take_status(struct guard_uas *u, struct transfer *t)
{
	uint16_t stream = stream_of(t), tag = t->stream_id ? stream : first_refused(u);

	if (tag && u->commands[tag].state == UAS_REFUSED) {
		give_sense(u, t, tag);
		return true;
	}
	/* One for each command that the device has, and no more: what is left is for refusals. */
	if (stream ? u->commands[stream].state == UAS_AT_DEVICE
		   : !t->stream_id && u->n_status < u->n_at_device) {
		u->n_status += stream == 0;
		to_device(u, t);
		return true;
	}
	return false;
}

static bool take_data_in(struct guard_uas *u, struct transfer *t)
{
	uint16_t stream = stream_of(t);
	enum guard_uas_state state = u->commands[stream].state;

	if (stream ? state == UAS_AT_DEVICE : !t->stream_id && u->n_at_device > 0) {
		to_device(u, t);
		return true;
	}
	if (stream && state == UAS_REFUSED) {
		give(u, t, TRANSFER_OK, 0);
		return true;
	}
	return false;
}

/* Nobody gets it. */
static bool take_data_out(struct guard_uas *u, struct transfer *t)
{
	if (u->commands[stream_of(t)].state != UAS_REFUSED) {
		return false;
	}
	give(u, t, TRANSFER_OK, t->length);
	return true;
}

/* Whether something became of t. */
static bool take(struct guard_uas *u, struct transfer *t)
{
	if (u->broken) {
		give(u, t, TRANSFER_STALL, 0);
		return true;
	}
	if (t->endpoint == u->pipes[UAS_COMMAND]) {
		take_command(u, t);
		return true;
	}
	if (t->endpoint == u->pipes[UAS_DATA_IN]) {
		return take_data_in(u, t);
	}
	return t->endpoint == u->pipes[UAS_DATA_OUT] ? take_data_out(u, t) : take_status(u, t);
}

/* Data of a refused command comes to nothing before its status ends it. */
static bool step(struct guard_uas *u)
{
	struct transfer *t;

	list_for_each (t, &u->held, backend) {
		if (t->endpoint != u->pipes[UAS_STATUS] && take(u, t)) {
			return true;
		}
	}
	list_for_each (t, &u->held, backend) {
		if (t->endpoint == u->pipes[UAS_STATUS] && take(u, t)) {
			return true;
		}
	}
	return false;
}

void guard_uas_run(struct guard_uas *u)
{
	if (u->running) {
		u->again = true;
		return;
	}
	u->running = true;
	do {
		u->again = false;
		/* What it does may call back, and change the list. */
		u->again = step(u) || u->again;
	} while (u->again);
	u->running = false;
}

void guard_uas_submit(struct guard_uas *u, struct transfer *t)
{
	t->held = true;
	list_append(&u->held, &t->backend);
	guard_uas_run(u);
}

static void status_came(struct guard_uas *u, const struct transfer *t)
{
	uint16_t tag = tag_of(t, t->actual);

	if (tag == 0) {
		return;
	}
	if (t->data[0] == IU_READ_READY) {
		u->reading = tag;
	} else if ((t->data[0] == IU_SENSE || t->data[0] == IU_RESPONSE) &&
		   u->commands[tag].state == UAS_AT_DEVICE) {
		set_state(u, tag, UAS_NONE);
	}
}

static void data_came(struct guard_uas *u, struct transfer *t)
{
	struct guard_uas_command *c = &u->commands[t->stream_id ? stream_of(t) : u->reading];

	if (c->protect_at >= c->data_at && c->protect_at - c->data_at < t->actual &&
		c->protect_at > 0) {
		t->data[c->protect_at - c->data_at] |= PROTECT;
	}
	c->data_at += t->actual;
}

void guard_uas_completed(struct guard_uas *u, struct transfer *t)
{
	bool good = t->status == TRANSFER_OK && !t->cancelled;

	if (t->endpoint == u->pipes[UAS_COMMAND]) {
		uint16_t tag = tag_of(t, t->length);

		/* The device won't have it. */
		if (!good && tag && u->commands[tag].state == UAS_AT_DEVICE) {
			set_state(u, tag, UAS_NONE);
		}
	} else if (t->endpoint == u->pipes[UAS_STATUS]) {
		u->n_status -= t->stream_id == 0 && u->n_status > 0;
		if (good) {
			status_came(u, t);
		}
	} else if (good) {
		data_came(u, t);
	}
}
