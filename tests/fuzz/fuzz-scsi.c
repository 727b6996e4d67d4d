/* SPDX-License-Identifier: MIT
 * The commands of a virtual stick or CD-ROM. The first byte says which unit it is; then come
 * commands: the size of a block, the block, and what an accepted one takes as parameters.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"
#include "usb/mmc.h"
#include "usb/scsi.h"

struct input {
	const uint8_t *data;
	size_t left;
};

static const uint8_t *take(struct input *in, size_t n)
{
	const uint8_t *at = in->data;

	in->data += n;
	in->left -= n;
	return at;
}

static void check_plan(const struct scsi_unit *u, const struct scsi_plan *p)
{
	uint64_t size = u->blocks * u->block_size;

	assert(!p->sense || (p->action == SCSI_NOTHING && p->data == 0));
	switch (p->action) {
	case SCSI_REPLY:
		assert(p->data <= SCSI_REPLY_MAX && p->data <= p->command.length);
		break;
	case SCSI_WRITE_MEDIUM:
		assert(!u->read_only);
		assert(p->offset <= size && p->data <= size - p->offset);
		break;
	case SCSI_READ_MEDIUM:
	case SCSI_COMPARE_MEDIUM:
		assert(p->offset <= size && p->data <= size - p->offset);
		break;
	case SCSI_CHECK_MEDIUM:
		assert(p->offset <= size && p->span <= size - p->offset);
		break;
	case SCSI_PARAMETERS:
		assert(p->data <= SCSI_PARAMETERS_MAX);
		break;
	default:
		assert(p->data == 0);
	}
}

static uint32_t take_parameters(
	const struct scsi_unit *u, const struct scsi_command *c, struct input *in, uint64_t wanted)
{
	size_t n = MIN(in->left, (size_t)wanted);
	/* Where it ends is what is looked for. */
	uint8_t *data = malloc(n ? n : 1);
	uint64_t offset, length;
	uint32_t sense;

	must(data);
	memcpy(data, take(in, n), n);
	sense = scsi_parameters(u, c, data, n);
	for (size_t i = 0; c->kind == SCSI_UNMAP && !sense && i < scsi_unmap_count(data, n); i++) {
		scsi_unmap_range(data, i, &offset, &length);
		assert(offset / SCSI_BLOCK_SIZE <= u->blocks &&
			length / SCSI_BLOCK_SIZE <= u->blocks - offset / SCSI_BLOCK_SIZE);
	}
	free(data);
	return sense;
}

static void run_command(struct scsi_unit *u, struct input *in)
{
	size_t n = *take(in, 1) % (SCSI_CDB_MAX + 1);
	uint8_t *reply = malloc(SCSI_REPLY_MAX), *cdb;
	struct scsi_plan plan;
	uint32_t sense;

	n = MIN(n, in->left);
	cdb = malloc(n ? n : 1);
	must(reply && cdb);
	memcpy(cdb, take(in, n), n);
	scsi_start(u, cdb, n, reply, &plan);
	check_plan(u, &plan);
	sense = plan.sense;
	if (plan.action == SCSI_PARAMETERS) {
		sense = take_parameters(u, &plan.command, in, plan.data);
	} else if (plan.action == SCSI_EJECT) {
		scsi_eject(u);
	}
	scsi_end(u, sense);
	free(cdb);
	free(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t blocks[] = {1, 1000, 3000000, UINT64_C(1) << 40};
	struct input in = {data, size};
	struct scsi_unit u;
	uint8_t how;

	if (size == 0) {
		return 0;
	}
	how = *take(&in, 1);
	if (how & 1) {
		scsi_unit_init_cdrom(&u, blocks[how >> 4 & 3], NULL, "0123456789ABCDEF");
	} else {
		scsi_unit_init(
			&u, blocks[how >> 4 & 3], how & 2, how & 4, NULL, "0123456789ABCDEF");
	}
	while (in.left > 0) {
		if (in.data[0] == 0xff) {
			scsi_unit_reset(&u);
		}
		run_command(&u, &in);
	}
	return 0;
}
