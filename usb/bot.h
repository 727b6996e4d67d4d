/* SPDX-License-Identifier: MIT
 * Bulk-only transport ("Universal Serial Bus Mass Storage Class Bulk-Only Transport", 1.0): command
 * block wrappers in, data either way, command status wrappers out, and its error recovery.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "usb/disk-io.h"
#include "usb/scsi.h"
#include "usb/transfer.h"

#define BOT_CBW_SIZE 31
#define BOT_CSW_SIZE 13
/* I/O requests of one command at a time; leaves room in disk-io's queue for the backend's flush. */
#define BOT_SLOTS (DISK_IO_QUEUE_MAX / 2)

enum bot_state {
	BOT_COMMAND,    /* waits for a CBW on bulk-out */
	BOT_REPLY,      /* sends reply[] */
	BOT_READ,       /* reads the medium into IN transfers */
	BOT_WRITE,      /* writes OUT transfers to the medium, or compares them */
	BOT_PARAMETERS, /* collects a parameter list */
	BOT_WORK,       /* disk I/O without data */
	BOT_STATUS,     /* waits for an IN transfer to take the CSW */
	BOT_INVALID,    /* after a CBW that is none: all stalls until reset recovery (6.6.1) */
};

struct bot;

struct bot_slot {
	struct disk_io_request io;
	struct bot *bot;
	struct transfer *transfer; /* NULL: without data */
	uint64_t generation;       /* of the command it belongs to */
	struct bot_slot *next_free;
};

struct bot {
	/* Set by the owner; the callbacks may submit and cancel from within. */
	struct scsi_unit *unit;
	struct disk_io *io;
	void (*complete)(void *userdata, struct transfer *t);
	void (*ejected)(void *userdata);
	void *userdata;
	uint16_t max_packet; /* of both bulk endpoints */

	/* The rest is bot.c's. */
	struct list in, out; // transfer::backend; submitted and not in disk-io
	bool halted_in, halted_out;
	bool running, again;
	bool eject_pending; /* told once the CSW is through */
	uint8_t state;      /* enum bot_state */
	unsigned io_pending;
	struct bot_slot slots[BOT_SLOTS];
	struct bot_slot *free_slots;

	/* The command at hand. */
	uint64_t generation;
	uint32_t tag;
	bool host_in;    /* direction of the host's data phase */
	bool short_sent; /* the data phase ended with a short packet */
	bool stalled;    /* a transfer of the data phase was stalled */
	bool phase_error;
	uint32_t host_length; /* dCBWDataTransferLength */
	uint32_t host_left;   /* of it: not yet asked for or sent by the host */
	uint32_t processed;   /* of it: done with, for the residue */
	uint32_t data_left;   /* what the device still wants to move */
	uint64_t offset;      /* next byte of the medium */
	uint32_t sense;       /* SENSE_NONE: well so far */
	size_t unmap_next;
	size_t filled; /* of parameters; or sent of reply */
	struct scsi_plan plan;
	uint8_t reply[SCSI_REPLY_MAX];
	uint8_t parameters[SCSI_PARAMETERS_MAX];
};

/* unit, io, complete, ejected, userdata and max_packet are set. */
void bot_init(struct bot *b);
/* Takes a bulk transfer of either endpoint until complete(); that may be from within. */
void bot_submit(struct bot *b, struct transfer *t);
/* A transfer that waits completes as cancelled, at once; one whose disk I/O runs completes with
 * its result when that is over. */
void bot_cancel(struct bot *b, struct transfer *t);
/* Class request 0xFF: ready for the next CBW. Halts stay (3.1). */
void bot_reset_recovery(struct bot *b);
/* Bus reset, or a configuration or interface is set: everything as after power-on, and what waits
 * completes as cancelled. */
void bot_reset(struct bot *b);
/* CLEAR_FEATURE and SET_FEATURE(ENDPOINT_HALT). */
void bot_set_halt(struct bot *b, bool in, bool halt);
bool bot_halted(const struct bot *b, bool in);
