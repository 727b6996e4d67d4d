/* SPDX-License-Identifier: MIT
 * What each user takes of the control API: connections, and requests in a token bucket.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "protocol/refusal.h"

#define UID_BUCKETS 256

/* What a caller is; one uid may come as either of the first two. */
enum uid_class {
	UID_ORDINARY,
	UID_ADMIN, /* group devbroker */
	UID_HOST,  /* root and the broker's own user, who could stop the broker as well */
	UID_CLASS_COUNT_,
};

struct uid_account {
	struct list link; // uid_accounts::buckets[]
	struct list idle; // uid_accounts::idle; in no list while there are connections
	uid_t uid;
	uint32_t connections;
	uint64_t level;   /* millionths of requests that have not drained yet */
	uint64_t at;      /* CLOCK_MONOTONIC µs of level */
	uint32_t refused; /* requests in this flood */
	/* CLOCK_MONOTONIC µs up to which what it was refused, and that it floods, is written down.
	 */
	uint64_t noted, flood_noted;
};

struct uid_accounts {
	struct list buckets[UID_BUCKETS];
	struct list idle; /* the one that is idle for longest first */
	uint32_t n;
	uint32_t n_connections; /* but those of UID_HOST */
};

void uid_accounts_init(struct uid_accounts *a);
/* No connection is counted any more. */
void uid_accounts_finish(struct uid_accounts *a);

/* Counts a connection of uid, which shall give it back. 0; REFUSAL_QUOTA with text; -ENOMEM. */
int uid_account_connect(struct uid_accounts *a, uid_t uid, enum uid_class class,
	struct uid_account **out, struct refusal_text *text) _must_check_;
/* What is known of uid, or NULL. */
struct uid_account *uid_account_find(struct uid_accounts *a, uid_t uid);
void uid_account_disconnect(
	struct uid_accounts *a, struct uid_account *account, enum uid_class class);

/* Takes cost requests at now (CLOCK_MONOTONIC µs). 0; REFUSAL_QUOTA with text; -EPIPE: it goes on
 * for so long that it isn't worth an answer. */
int uid_account_charge(struct uid_account *account, enum uid_class class, uint32_t cost,
	uint64_t now, struct refusal_text *text) _must_check_;

/* Whether something that this user was refused is to be written down: some, then one a second. */
bool uid_account_note(struct uid_account *account, uint64_t now);
/* Whether it is to be written down that this user is over its quota: once in ten seconds. */
bool uid_account_note_flood(struct uid_account *account, uint64_t now);
