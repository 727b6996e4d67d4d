/* SPDX-License-Identifier: MIT
 * One unit, disk or CD-ROM, and what it makes of one CDB.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "tests/unit/test.h"
#include "usb/scsi.h"

struct rig {
	struct scsi_unit u;
	uint8_t reply[SCSI_REPLY_MAX];
	struct scsi_plan p;
};

/* Runs one CDB; returns its sense. The reply buffer is poisoned behind what may be sent. */
static inline uint32_t run(struct rig *r, const uint8_t *cdb, size_t size)
{
	memset(r->reply, 0xa5, sizeof(r->reply));
	scsi_start(&r->u, cdb, size, r->reply, &r->p);
	scsi_end(&r->u, r->p.sense);
	assert_true(r->p.sense == 0 || (r->p.action == SCSI_NOTHING && r->p.data == 0));
	assert_true(r->p.action != SCSI_REPLY || r->p.data <= SCSI_REPLY_MAX);
	return r->p.sense;
}

#define RUN(r, ...) run(r, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
