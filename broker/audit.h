/* SPDX-License-Identifier: MIT
 * Who did what, where, why and when: kept in memory for `devbroker log`, in a file over restarts,
 * and in the journal with fields.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"

struct audit;
struct broker;

#define AUDIT_NOBODY ((uid_t)-1) /* rules, the broker itself */

enum audit_action {
	AUDIT_ATTACH,  /* a device is to go to a VM */
	AUDIT_DETACH,  /* somebody wants it out */
	AUDIT_END,     /* it is in the VM no more */
	AUDIT_DECIDED, /* rules say something new of a device */
	AUDIT_REFUSED,
	AUDIT_QUOTA,  /* refused because of a user's limits */
	AUDIT_POLICY, /* rules were read */
	AUDIT_CHANGE, /* VMs, disks, what is remembered */
	AUDIT_ACTION_COUNT_,
};

/* What happened; texts may be anything, and NULL is "". */
struct audit_event {
	enum audit_action action;
	uid_t uid; /* AUDIT_NOBODY: nobody asked */
	const char *device;
	const char *vm;
	const char *rule;
	const char *reason; /* a short code */
	const char *text;   /* a sentence */
};

/* One that is kept: UTF-8 without control characters, and bounded. */
struct audit_record {
	uint64_t seq;  /* counts up, over restarts too */
	uint64_t time; /* CLOCK_REALTIME µs */
	uid_t uid;
	enum audit_action action;
	char *device;
	char *vm;
	char *rule;
	char *reason;
	char *text;
};

/* Reads what is in state_dir/log and goes on with it; where it can't be written to, records are
 * kept in memory only, and the log says so. noted (may be NULL) is called for every record. 0 or
 * -errno. */
int audit_create(const char *state_dir, void (*noted)(void *userdata, uint64_t seq), void *userdata,
	struct audit **out) _must_check_;
/* NULL is fine. */
void audit_destroy(struct audit *a);

/* Writes it down. a NULL: nothing happens. Nothing is said if it can't be kept. */
void audit_note(struct audit *a, const struct audit_event *e);

/* The oldest record with a seq above after, or NULL. Borrowed until the next audit_note. */
const struct audit_record *audit_next(const struct audit *a, uint64_t after);

const char *audit_action_name(enum audit_action action);
