/* SPDX-License-Identifier: MIT
 * A device that can be lent, of whatever kind: what it is called, who has it, what its kind does
 * with it (struct device_ops).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/config.h"
#include "broker/lease.h"
#include "broker/spawner.h"
#include "protocol/refusal.h"

struct broker;
struct device;
struct lease_record;
union worker_msg;

/* Command line of a worker in the making. */
struct worker_args {
	const char *args[20];
	size_t n;
	char text[1536];
	size_t used;
	bool overflow; /* something did not fit: nothing may be started with it */
};

void worker_args_add(struct worker_args *a, const char *fmt, ...) _printf_(2, 3);

/* The kinds of devices, as a lease sees them. */
struct device_ops {
	const char *kind;             /* "disk" */
	enum spawner_program program; /* that serves it */
	/* Whether it could be lent now: told before there is a lease. 0, -errno or a refusal. */
	int (*check)(struct device *d, const struct lease_options *options,
		struct refusal_text *text) _must_check_;
	/* Takes it for l: ends in lease_taken, maybe from within. */
	void (*take)(struct device *d, struct lease *l);
	/* What its worker is told beside the common part. Returns the fd that becomes the worker's
	 * fd 5; borrowed. */
	int (*worker)(struct device *d, struct worker_args *args);
	/* Nobody uses it any more: undoes take. Ends in lease_given_back, maybe from within. */
	void (*give_back)(struct device *d, struct lease *l);
	/* What its worker asks. NULL: nothing. */
	void (*message)(struct device *d, struct lease *l, const union worker_msg *m);
	/* Its lease is over: d may go, and then is gone when it returns. NULL: nothing. */
	void (*lease_ended)(struct device *d);
	/* Writes into the record of its lease what adopt needs. */
	void (*note)(const struct device *d, struct lease_record *r);
	/* Takes it for l as an earlier broker did, whose worker has it still. fd is the image that
	 * the worker sent, or -1; taken even on error. 0, or -errno: it is another device now, or
	 * can't be had; nothing is taken then. */
	int (*adopt)(struct device *d, struct lease *l, const struct lease_record *r,
		int fd) _must_check_;
	/* The rest of device_destroy. Accepts half-built; frees d. */
	void (*destroy)(struct device *d);
	/* For people; never NULL. */
	const char *(*description)(const struct device *d);
	const char *(*speed)(const struct device *d);
	const char *(*path)(const struct device *d);
	uint64_t (*size)(const struct device *d); /* bytes, 0 if it has none */
	bool (*read_only)(const struct device *d);
};

struct device {
	struct list link; // broker::devices
	struct broker *broker;
	const struct device_ops *ops;
	char *name;   /* "disk:stick" */
	char *serial; /* "" if it has none */
	bool from_config;
	struct lease *lease; // may be NULL: present
	/* How the last lease ended, or why it can't be used; shown until the next lease. */
	enum lease_reason reason;
	char detail[256];
	char last_vm[NAME_MAX_LENGTH + 1]; /* of the last lease; "" */
	uint64_t since;                    /* CLOCK_REALTIME µs of the last change of state */
};

/* Whether a device of this name may be added. 0, REFUSAL_EXISTS or REFUSAL_QUOTA with text. */
int device_check_new(struct broker *b, const char *name, struct refusal_text *text) _must_check_;
/* Enters it into its broker's list and announces it: it is present. Its ops, name and serial are
 * set. */
void device_add(struct device *d);
/* REFUSAL_BUSY while it is lent. 0 and it is gone. */
int device_remove(struct device *d, struct refusal_text *text) _must_check_;
/* There is no lease. NULL is fine. */
void device_destroy(struct device *d);

enum lease_state device_state(const struct device *d);
/* Its reason and sentence: of the lease if there is one. */
const char *device_reason(const struct device *d);
const char *device_detail(const struct device *d);
void device_changed(struct device *d);
