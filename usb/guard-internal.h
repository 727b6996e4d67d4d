/* SPDX-License-Identifier: MIT
 * What the guard's files share: guard.c (life, control requests), guard-descriptors.c (what the
 * guest reads), guard-storage.c (commands of one bulk-only storage interface), guard-uas.c (of one
 * of UAS), guard-commands.c (which of them only read).
 */
#pragma once

#include "base/list.h"
#include "usb/guard.h"
#include "usb/transfer.h"

/* Storage interfaces of one device; those beyond are hidden. */
#define GUARD_UNITS_MAX 4
#define GUARD_LUNS      16

enum {
	GUARD_CLASS_STORAGE = 0x08,
	GUARD_PROTOCOL_BULK_ONLY = 0x50,
	GUARD_PROTOCOL_UAS = 0x62,
	GUARD_CLASS_APPLICATION = 0xfe,
	GUARD_SUBCLASS_DFU = 0x01,
};

/* Which of a configuration's interfaces and altsettings stay. */
struct guard_rules {
	uint32_t interfaces;
	/* Of mass storage only what can be guarded: bulk-only transport, or else UAS. */
	bool guards_storage;
};

struct guard_view {
	uint32_t interfaces; /* numbers that are left, a bit each */
	uint32_t storage;    /* of them: mass storage that can be guarded */
	uint32_t endpoints;  /* of any of their altsettings: bits of descriptors_slot */
	bool beyond;         /* there are interfaces above 31, which no mask chooses */
	uint32_t hidden;     /* numbers of those that are not */
};

/* Rewrites a configuration descriptor without what rules hides; out has room for size bytes.
 * Returns its size; 0: it is none. */
size_t guard_rewrite(const struct guard_rules *rules, const uint8_t *config, size_t size,
	uint8_t *out, struct guard_view *view_out);
/* Interfaces of the configuration with an altsetting of that class and subclass, a bit each. */
uint32_t guard_find_class(
	const uint8_t *config, size_t size, uint8_t class, uint8_t subclass) _must_check_;

/* Their numbers are those of pipe usage descriptors (UAS, 6.2.1). */
enum guard_uas_pipe {
	UAS_COMMAND = 1,
	UAS_STATUS = 2,
	UAS_DATA_IN = 3,
	UAS_DATA_OUT = 4,
	UAS_PIPES,
};

/* The endpoints of an altsetting's pipes, 0 where there is none. */
void guard_find_pipes(const uint8_t *config, size_t size, uint8_t interface, uint8_t alt,
	uint8_t pipes_out[UAS_PIPES]);

enum guard_verdict {
	GUARD_READS,   /* nothing on the medium changes: it may pass */
	GUARD_WRITES,  /* it would write: refused as a write-protected medium does */
	GUARD_UNKNOWN, /* who knows: refused like a command that the device hasn't */
};

/* What a command of size bytes (1 to 16) does. */
enum guard_verdict guard_judge(const uint8_t *cdb, size_t size);
/* Where in the reply of a MODE SENSE the byte with the write-protect bit stands; 0: it is none. */
uint32_t guard_protect_offset(const uint8_t *cdb);

enum guard_unit_state {
	UNIT_COMMAND,  /* the guest's next OUT transfer is a command */
	UNIT_DEVICE,   /* the device has one; IN transfers are its */
	UNIT_DATA_OUT, /* we refuse one: its data is thrown away */
	UNIT_DATA_IN,  /* we answer one: data, then a short packet where the guest wants more */
	UNIT_STATUS,   /* we answer one: the status comes next */
	UNIT_BROKEN,   /* what came was no command: everything stalls until the reset that is for it
			*/
};

/* One interface of bulk-only transport. */
struct guard_unit {
	struct guard *guard;
	bool used;
	uint8_t interface;
	uint8_t in; /* addresses */
	uint8_t out;
	uint16_t in_packet; /* bytes */
	uint16_t out_packet;
	enum guard_unit_state state;
	bool running;
	bool again;
	struct list held_in;  // transfer::backend
	struct list held_out; // transfer::backend
	uint32_t at_device;   /* transfers of it that the backend has */
	/* The command in hand. */
	uint32_t tag;
	uint32_t data_size; /* bytes that the guest wants to send or get */
	uint32_t data_left; /* of them */
	uint32_t data_at;   /* bytes that came before */
	uint64_t asked;     /* bytes that its IN transfers at the device have room for */
	uint32_t protect_at;
	uint8_t status; /* of the CSW */
	uint32_t residue;
	uint8_t reply[18];
	uint8_t reply_size;
	uint8_t reply_at;
	uint32_t
		sense[GUARD_LUNS]; /* what REQUEST SENSE will tell; 0: it is the device's to tell */
};

/* Tags that a guest may use, from 1: as many as an endpoint has streams here. */
#define GUARD_UAS_TAGS 256

enum guard_uas_state { UAS_NONE, UAS_AT_DEVICE, UAS_REFUSED };

struct guard_uas_command {
	enum guard_uas_state state;
	uint32_t sense;      /* of one that is refused */
	uint32_t protect_at; /* as guard_protect_offset */
	uint32_t data_at;    /* bytes that came before */
};

/* One interface of USB Attached SCSI. */
struct guard_uas {
	struct guard *guard;
	bool used;
	bool broken;
	bool running;
	bool again;
	uint8_t interface;
	uint8_t pipes[UAS_PIPES]; /* addresses */
	struct list held;         // transfer::backend
	uint32_t n_at_device;     /* commands */
	uint32_t n_refused;       /* commands whose sense is not read yet */
	uint32_t n_status;        /* transfers without a stream that the device has */
	uint16_t reading;         /* tag of the command whose data comes without a stream */
	struct guard_uas_command commands[GUARD_UAS_TAGS + 1];
};

struct guard {
	struct guard_options options;
	const struct guard_ops *ops;
	void *userdata;
	bool rewrites;  /* the guest sees other descriptors than the device's */
	uint8_t pinned; /* rewrites: bConfigurationValue of the one that the guest sees; 0: not yet
			 */
	uint32_t firmware; /* interfaces of the DFU class, hidden ones too */
	uint32_t watched;
	uint32_t blocked; /* endpoints of storage that are no part of its transport */
	struct guard_view view;
	struct usb_description shown; /* as the guest reads it; also while it is not configured */
	struct guard_unit units[GUARD_UNITS_MAX];
	struct guard_uas uas[GUARD_UNITS_MAX];
};

/* guard-storage.c */
void guard_unit_init(struct guard_unit *u, struct guard *g);
void guard_unit_reset(struct guard_unit *u);
void guard_unit_submit(struct guard_unit *u, struct transfer *t);
void guard_unit_completed(struct guard_unit *u, struct transfer *t);
void guard_unit_run(struct guard_unit *u);

/* guard-uas.c: the same */
void guard_uas_init(struct guard_uas *u, struct guard *g);
void guard_uas_reset(struct guard_uas *u);
void guard_uas_submit(struct guard_uas *u, struct transfer *t);
void guard_uas_completed(struct guard_uas *u, struct transfer *t);
void guard_uas_run(struct guard_uas *u);

static inline void guard_complete(
	struct guard *g, struct transfer *t, enum transfer_status status, uint32_t actual)
{
	t->held = false;
	t->status = (uint8_t)status;
	t->actual = actual;
	g->ops->complete(g->userdata, t);
}
