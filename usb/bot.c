/* SPDX-License-Identifier: MIT
 *
 * The device is one state machine (enum bot_state) that looks at two queues of transfers, in and
 * out, and takes from a queue only what its state is waiting for. So it does not matter in which
 * order or how deep the guest queues: a CSW read that is submitted before the data waits, and the
 * next CBW waits behind the status. bot_run turns the machine until nothing moves any more; it is
 * called after every submit, completion and unstall, and never nests: a completion may submit the
 * next transfer from within, which only makes it turn once more.
 *
 * A transfer in a data phase is one request to disk-io, and its buffer is the buffer of the read or
 * write. The machine goes on to the status only when all of them are back (io_pending).
 *
 * The thirteen cases (6.7), host's intent H against device's intent D, n nothing, i in, o out:
 *	Hn=Dn Hi=Di Ho=Do	1 6 12	status as it comes
 *	Hi>Dn Hi>Di		4 5	data, then a short packet; where the data ends on a full
 *					packet, or there is none, bulk-in stalls. Residue.
 *	Ho>Dn Ho>Do		9 11	what is wanted is taken, then bulk-out stalls. Residue.
 *	Hn<Di Hn<Do		2 3	phase error, nothing moves
 *	Hi<Di Hi<>Do		7 8	phase error, bulk-in stalls
 *	Ho<>Di Ho<Do		10 13	phase error, bulk-out stalls
 * In 4 and 5 the specification also asks for a stall after a short packet. As most sticks, we
 * spare it: the short packet says it all, hosts cope either way, and firmware copes only so. A
 * reply that is not from the medium (INQUIRY, …) is cut to what the host asks for in its CBW
 * instead of ending in case 7, because firmware does write larger numbers into its CDBs.
 *
 * A failed command is one without (further) data: cases 4 and 9 with status 1.
 *
 * After a reset, I/O of the dropped command may still run in the thread. Its transfers complete
 * with their results, and the next CBW is not looked at before the last of it is over.
 */
#include "usb/bot.h"

#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"

#define CBW_SIGNATURE 0x43425355
#define CSW_SIGNATURE 0x53425355

enum { CSW_PASSED = 0, CSW_FAILED = 1, CSW_PHASE_ERROR = 2 };

static void io_done(struct disk_io_request *r, int error);
static void bot_run(struct bot *b);

static void complete(
	struct bot *b, struct transfer *t, enum transfer_status status, uint32_t actual)
{
	t->status = status;
	t->actual = actual;
	b->complete(b->userdata, t);
}

static struct transfer *take(struct list *queue)
{
	struct transfer *t = list_first(queue, struct transfer, backend);

	if (t) {
		list_remove(&t->backend);
	}
	return t;
}

static void issue(
	struct bot *b, enum disk_io_op op, uint64_t offset, uint64_t length, struct transfer *t)
{
	struct bot_slot *s = b->free_slots;

	b->free_slots = s->next_free;
	s->transfer = t;
	s->generation = b->generation;
	s->io = (struct disk_io_request){
		.op = op,
		.offset = offset,
		.length = length,
		.data = t ? t->data : NULL,
		.done = io_done,
		.userdata = s,
	};
	b->io_pending++;
	disk_io_submit(b->io, &s->io);
}

/* The data phase is over, for better or worse, and no I/O runs: settle it and offer the status. */
static void finish(struct bot *b)
{
	/* The second: the host still waits to send or receive, and no short packet told it not to.
	 */
	if (b->stalled || (b->host_left > 0 && !b->short_sent)) {
		if (b->host_in) {
			b->halted_in = true;
		} else {
			b->halted_out = true;
		}
	}
	scsi_end(b->unit, b->phase_error ? SENSE_NONE : b->sense);
	b->state = BOT_STATUS;
}

/* All data of the command is moved and all I/O is back without an error. True if there is more to
 * do before the status. */
static bool next_work(struct bot *b)
{
	struct scsi_plan *p = &b->plan;

	switch (p->action) {
	case SCSI_WRITE_MEDIUM:
		if (!p->fua) {
			return false;
		}
		p->fua = false;
		issue(b, DISK_IO_FLUSH, 0, 0, NULL);
		return true;
	case SCSI_PARAMETERS:
		if (p->command.kind != SCSI_UNMAP ||
			b->unmap_next >= scsi_unmap_count(b->parameters, b->filled)) {
			return false;
		}
		scsi_unmap_range(b->parameters, b->unmap_next++, &p->offset, &p->span);
		issue(b, DISK_IO_DISCARD, p->offset, p->span, NULL);
		return true;
	case SCSI_EJECT:
		scsi_eject(b->unit);
		b->eject_pending = true;
		return false;
	default:
		return false;
	}
}

/* Turns the command at hand from data to work to status, as far as it has come. */
static void advance(struct bot *b)
{
	bool failed = b->sense || b->phase_error;

	if (b->io_pending > 0 || (!failed && b->data_left > 0)) {
		return;
	}
	if (!failed && b->state == BOT_PARAMETERS) {
		b->sense = scsi_parameters(b->unit, &b->plan.command, b->parameters, b->filled);
		failed = b->sense;
	}
	if (!failed) {
		b->state = BOT_WORK;
		if (next_work(b)) {
			return;
		}
	}
	finish(b);
}

static uint32_t sense_of_io(const struct disk_io_request *r, int error)
{
	bool reads = r->op == DISK_IO_READ || r->op == DISK_IO_VERIFY || r->op == DISK_IO_COMPARE;

	return error == DISK_IO_MISCOMPARE ? SENSE_MISCOMPARE : scsi_sense_of_errno(error, !reads);
}

static void io_done(struct disk_io_request *r, int error)
{
	struct bot_slot *s = r->userdata;
	struct bot *b = s->bot;
	struct transfer *t = s->transfer;
	bool current = s->generation == b->generation, in = r->op == DISK_IO_READ;
	uint32_t n = (uint32_t)r->length;

	s->next_free = b->free_slots;
	b->free_slots = s;
	b->io_pending--;
	if (current && error && !b->sense) {
		b->sense = sense_of_io(r, error);
	}
	/* What comes after the first error is not told to the host as done. */
	if (current && t && error == 0 && !b->sense) {
		b->processed += n;
	}
	if (t && in && current && b->sense) {
		b->stalled = true;
		complete(b, t, TRANSFER_STALL, 0);
	} else if (t && in) {
		complete(b, t, error ? TRANSFER_IO_ERROR : TRANSFER_OK, error ? 0 : n);
	} else if (t) {
		/* OUT data has been taken even if it could not be written: the CSW says so. */
		complete(b, t, TRANSFER_OK, t->length);
	}
	bot_run(b);
}

static bool cbw_valid(const struct transfer *t)
{
	const uint8_t *c = t->data;

	if (t->length != BOT_CBW_SIZE || get_le32(c) != CBW_SIGNATURE) {
		return false;
	}
	/* Meaningful (6.2.2): no reserved bit, our one LUN, a command block of 1 to 16 bytes. */
	return (c[12] & 0x7f) == 0 && c[13] == 0 && c[14] >= 1 && c[14] <= SCSI_CDB_MAX;
}

/* Host's intent against device's. True if the command may go on. */
static bool intents_agree(struct bot *b)
{
	struct scsi_plan *p = &b->plan;

	if (p->data == 0) {
		return true;
	}
	if (p->action == SCSI_REPLY && b->host_in && b->host_length > 0) {
		p->data = MIN(p->data, (uint64_t)b->host_length);
	}
	return p->data <= b->host_length && p->to_host == b->host_in;
}

static void start_action(struct bot *b)
{
	struct scsi_plan *p = &b->plan;

	b->data_left = (uint32_t)p->data;
	b->offset = p->offset;
	switch (p->action) {
	case SCSI_REPLY:
		b->state = BOT_REPLY;
		break;
	case SCSI_READ_MEDIUM:
		b->state = BOT_READ;
		if (p->fua) { /* SBC-3 5.8: from the medium, so what is newer goes there first */
			issue(b, DISK_IO_FLUSH, 0, 0, NULL);
		}
		break;
	case SCSI_WRITE_MEDIUM:
	case SCSI_COMPARE_MEDIUM:
		b->state = BOT_WRITE;
		break;
	case SCSI_PARAMETERS:
		b->state = BOT_PARAMETERS;
		break;
	case SCSI_CHECK_MEDIUM:
		b->state = BOT_WORK;
		issue(b, DISK_IO_VERIFY, p->offset, p->span, NULL);
		break;
	case SCSI_FLUSH:
	case SCSI_EJECT:
		b->state = BOT_WORK;
		issue(b, DISK_IO_FLUSH, 0, 0, NULL);
		break;
	default:
		b->state = BOT_WORK;
		break;
	}
}

static void start_command(struct bot *b, const uint8_t *cbw)
{
	b->generation++;
	b->tag = get_le32(cbw + 4);
	b->host_length = get_le32(cbw + 8);
	b->host_left = b->host_length;
	b->host_in = cbw[12] & 0x80;
	b->short_sent = false;
	b->stalled = false;
	b->phase_error = false;
	b->processed = 0;
	b->data_left = 0;
	b->unmap_next = 0;
	b->filled = 0;
	b->state = BOT_WORK;
	scsi_start(b->unit, cbw + 15, cbw[14], b->reply, &b->plan);
	b->sense = b->plan.sense;
	if (b->sense) {
		return;
	}
	if (!intents_agree(b)) {
		b->phase_error = true;
		return;
	}
	start_action(b);
}

static bool take_command(struct bot *b)
{
	struct transfer *t;

	if (b->io_pending > 0) { /* of a command that a reset dropped */
		return false;
	}
	t = take(&b->out);
	if (!t) {
		return false;
	}
	if (cbw_valid(t)) {
		start_command(b, t->data);
	} else {
		b->state = BOT_INVALID;
	}
	complete(b, t, TRANSFER_OK, t->length);
	return true;
}

/* Accounts for n bytes that go to the host in t; t is the last of the data if it is not filled or
 * ends in a short packet. */
static void account_in(struct bot *b, const struct transfer *t, uint32_t n)
{
	b->data_left -= n;
	b->host_left -= MIN(n, b->host_left);
	if (b->data_left == 0 && (n < t->length || n % b->max_packet != 0)) {
		b->short_sent = true;
	}
}

static bool send_reply(struct bot *b)
{
	struct transfer *t = b->data_left > 0 ? take(&b->in) : NULL;
	uint32_t n;

	if (!t) {
		return false;
	}
	n = MIN(t->length, b->data_left);
	if (n > 0) {
		memcpy(t->data, b->reply + b->filled, n);
	}
	b->filled += n;
	b->processed += n;
	account_in(b, t, n);
	complete(b, t, TRANSFER_OK, n);
	return true;
}

static bool read_medium(struct bot *b)
{
	struct transfer *t;
	uint64_t at = b->offset;
	uint32_t n;

	if (b->data_left == 0 || b->sense || !b->free_slots) {
		return false;
	}
	t = take(&b->in);
	if (!t) {
		return false;
	}
	n = MIN(t->length, b->data_left);
	b->offset += n;
	account_in(b, t, n);
	issue(b, DISK_IO_READ, at, n, t);
	return true;
}

/* The host broke its word (6.7 does not foresee it): it sent more than the CBW said, or ended the
 * data phase early with a short packet. */
static void break_off(struct bot *b)
{
	b->phase_error = true;
	b->data_left = 0;
}

static bool take_data(struct bot *b)
{
	struct transfer *t;
	uint64_t at = b->offset;
	uint32_t n;

	if (b->data_left == 0 || b->sense || b->phase_error || !b->free_slots) {
		return false;
	}
	t = take(&b->out);
	if (!t) {
		return false;
	}
	if (t->length > b->host_left) {
		break_off(b);
		b->stalled = true;
		complete(b, t, TRANSFER_STALL, 0);
		return true;
	}
	n = MIN(t->length, b->data_left);
	b->host_left -= t->length;
	b->data_left -= n;
	b->offset += n;
	if (b->host_left > 0 && (t->length == 0 || t->length % b->max_packet != 0)) {
		b->short_sent = true;
		if (b->data_left > 0) {
			break_off(b);
		}
	}
	if (b->state == BOT_PARAMETERS) {
		if (n > 0) {
			memcpy(b->parameters + b->filled, t->data, n);
		}
		b->filled += n;
		b->processed += n;
		complete(b, t, TRANSFER_OK, t->length);
	} else {
		issue(b, b->plan.action == SCSI_COMPARE_MEDIUM ? DISK_IO_COMPARE : DISK_IO_WRITE,
			at, n, t);
	}
	return true;
}

static bool send_status(struct bot *b)
{
	struct transfer *t = take(&b->in);
	uint8_t status = b->phase_error ? CSW_PHASE_ERROR : b->sense ? CSW_FAILED : CSW_PASSED;

	if (!t) {
		return false;
	}
	if (t->length < BOT_CSW_SIZE) {
		complete(b, t, TRANSFER_BABBLE, 0);
		return true;
	}
	put_le32(t->data, CSW_SIGNATURE);
	put_le32(t->data + 4, b->tag);
	put_le32(t->data + 8, b->host_length - b->processed);
	t->data[12] = status;
	b->state = BOT_COMMAND;
	complete(b, t, TRANSFER_OK, BOT_CSW_SIZE);
	if (b->eject_pending) {
		b->eject_pending = false;
		b->ejected(b->userdata);
	}
	return true;
}

bool bot_halted(const struct bot *b, bool in)
{
	return b->state == BOT_INVALID || (in ? b->halted_in : b->halted_out);
}

/* A transfer on a halted endpoint stalls at once. True if there was one. */
static bool stall_one(struct bot *b)
{
	struct transfer *t = NULL;

	if (bot_halted(b, true)) {
		t = take(&b->in);
	}
	if (!t && bot_halted(b, false)) {
		t = take(&b->out);
	}
	if (t) {
		complete(b, t, TRANSFER_STALL, 0);
	}
	return t;
}

/* One step. False when the machine waits. */
static bool step(struct bot *b)
{
	if (stall_one(b)) {
		return true;
	}
	switch (b->state) {
	case BOT_COMMAND:
		return take_command(b);
	case BOT_REPLY:
	case BOT_READ:
	case BOT_WRITE:
	case BOT_PARAMETERS:
	case BOT_WORK:
		if (b->state == BOT_REPLY      ? send_reply(b)
			: b->state == BOT_READ ? read_medium(b)
					       : b->state != BOT_WORK && take_data(b)) {
			return true;
		}
		advance(b);
		return b->state == BOT_STATUS;
	case BOT_STATUS:
		return send_status(b);
	default:
		return false;
	}
}

static void bot_run(struct bot *b)
{
	b->again = true;
	if (b->running) {
		return;
	}
	b->running = true;
	while (b->again) {
		b->again = false;
		while (step(b)) {
		}
	}
	b->running = false;
}

void bot_init(struct bot *b)
{
	list_init(&b->in);
	list_init(&b->out);
	b->state = BOT_COMMAND;
	for (size_t i = 0; i < BOT_SLOTS; i++) {
		b->slots[i].bot = b;
		b->slots[i].next_free = b->free_slots;
		b->free_slots = &b->slots[i];
	}
}

void bot_submit(struct bot *b, struct transfer *t)
{
	list_append(transfer_is_in(t) ? &b->in : &b->out, &t->backend);
	bot_run(b);
}

void bot_cancel(struct bot *b, struct transfer *t)
{
	if (list_empty(&t->backend)) {
		return;
	}
	list_remove(&t->backend);
	complete(b, t, TRANSFER_CANCELLED, 0);
}

/* Leaves the command at hand, if there is one. */
static void drop_command(struct bot *b)
{
	bool eject = b->eject_pending;

	b->generation++;
	b->state = BOT_COMMAND;
	b->eject_pending = false;
	if (b->io_pending > 0) {
		disk_io_abort_verify(b->io);
	}
	if (eject) {
		b->ejected(b->userdata);
	}
}

void bot_reset_recovery(struct bot *b)
{
	if (b->state == BOT_INVALID) {
		b->halted_in = true;
		b->halted_out = true;
	}
	drop_command(b);
	bot_run(b);
}

void bot_reset(struct bot *b)
{
	struct transfer *t;

	b->halted_in = false;
	b->halted_out = false;
	drop_command(b);
	scsi_unit_reset(b->unit);
	while ((t = take(&b->out)) || (t = take(&b->in))) {
		complete(b, t, TRANSFER_CANCELLED, 0);
	}
	bot_run(b);
}

void bot_set_halt(struct bot *b, bool in, bool halt)
{
	if (in) {
		b->halted_in = halt;
	} else {
		b->halted_out = halt;
	}
	bot_run(b);
}
