/* SPDX-License-Identifier: MIT
 *
 * An account is made when a user connects and kept after that for as long as there is room, the
 * idle ones in the order in which they became so: a user who connects anew for each request is
 * counted all the same. The bucket is one that leaks: requests fill it, time drains it. Everything
 * here takes the same time however many users there are.
 */
#include "broker/uid-account.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

#define ACCOUNTS_MAX 4096
/* What is refused before nothing is answered any more, in bursts. */
#define FLOOD_BURSTS 4
#define REQUEST      UINT64_C(1000000) /* of a level: what a rate of 1 drains in a second */
#define NOTES_BURST  20
#define USEC_PER_SEC UINT64_C(1000000)
#define FLOOD_NOTES  (10 * USEC_PER_SEC)

static const struct {
	const char *who;
	uint32_t connections;
	uint32_t all_connections; /* of all users who are not UID_HOST, up to which it gets one */
	uint32_t rate;            /* requests a second; 0: without limit */
	uint32_t burst;
} limits[] = {
	[UID_ORDINARY] = {"user", 16, 1024, 50, 200},
	[UID_ADMIN] = {"administrator", 32, 1088, 1000, 4000},
	[UID_HOST] = {"", 32, UINT32_MAX, 0, 0},
};
static_assert(ARRAY_SIZE(limits) == UID_CLASS_COUNT_, "one per class");

void uid_accounts_init(struct uid_accounts *a)
{
	for (size_t i = 0; i < UID_BUCKETS; i++) {
		list_init(&a->buckets[i]);
	}
	list_init(&a->idle);
	a->n = a->n_connections = 0;
}

static void account_destroy(struct uid_accounts *a, struct uid_account *account)
{
	list_remove(&account->link);
	list_remove(&account->idle);
	a->n--;
	free(account);
}

void uid_accounts_finish(struct uid_accounts *a)
{
	struct uid_account *account;

	while ((account = list_first(&a->idle, struct uid_account, idle))) {
		account_destroy(a, account);
	}
	assert(a->n == 0 && a->n_connections == 0);
}

/* Neighbours go to different ones, and so do the ranges that containers get. */
static struct list *bucket_of(struct uid_accounts *a, uid_t uid)
{
	return &a->buckets[(uid * 2654435761u) >> 24];
}

struct uid_account *uid_account_find(struct uid_accounts *a, uid_t uid)
{
	struct uid_account *account;

	list_for_each (account, bucket_of(a, uid), link) {
		if (account->uid == uid) {
			return account;
		}
	}
	return NULL;
}

static struct uid_account *account_of(struct uid_accounts *a, uid_t uid)
{
	struct uid_account *account = uid_account_find(a, uid);

	if (account) {
		return account;
	}
	if (a->n >= ACCOUNTS_MAX) {
		account = list_first(&a->idle, struct uid_account, idle);
		if (!account) {
			return NULL;
		}
		account_destroy(a, account);
	}
	account = calloc(1, sizeof(*account));
	if (!account) {
		return NULL;
	}
	account->uid = uid;
	list_init(&account->idle);
	list_append(&a->idle, &account->idle);
	list_prepend(bucket_of(a, uid), &account->link);
	a->n++;
	return account;
}

int uid_account_connect(struct uid_accounts *a, uid_t uid, enum uid_class class,
	struct uid_account **out, struct refusal_text *text)
{
	struct uid_account *account = account_of(a, uid);

	if (!account) {
		return -ENOMEM;
	}
	if (account->connections >= limits[class].connections) {
		return refuse_with(text, REFUSAL_QUOTA, "Close some of them first.",
			"user %u has %u connections to devbrokerd, and may not have more",
			(unsigned int)uid, account->connections);
	}
	if (a->n_connections >= limits[class].all_connections) {
		return refuse_with(text, REFUSAL_QUOTA, "Try again later.",
			"%u programs are connected to devbrokerd, and no more may be",
			a->n_connections);
	}
	account->connections++;
	a->n_connections += class != UID_HOST;
	list_remove(&account->idle);
	*out = account;
	return 0;
}

void uid_account_disconnect(
	struct uid_accounts *a, struct uid_account *account, enum uid_class class)
{
	assert(account->connections > 0);
	account->connections--;
	a->n_connections -= class != UID_HOST;
	if (account->connections == 0) {
		list_append(&a->idle, &account->idle);
	}
}

/* What has drained since: at most all, so that no product overflows. */
static void drain(struct uid_account *account, uint32_t rate, uint64_t now)
{
	uint64_t elapsed = now > account->at ? now - account->at : 0, drained;

	account->at = MAX(now, account->at);
	elapsed = MIN(elapsed, 1000 * USEC_PER_SEC);
	drained = elapsed * rate;
	account->level -= MIN(account->level, drained);
}

int uid_account_charge(struct uid_account *account, enum uid_class class, uint32_t cost,
	uint64_t now, struct refusal_text *text)
{
	const uint32_t rate = limits[class].rate, burst = limits[class].burst;

	if (rate == 0) {
		return 0;
	}
	drain(account, rate, now);
	if (account->level + REQUEST * MIN(cost, burst) <= REQUEST * burst) {
		account->level += REQUEST * MIN(cost, burst);
		account->refused = account->level > REQUEST / 2 * burst ? account->refused : 0;
		return 0;
	}
	account->refused += account->refused < UINT32_MAX;
	if (account->refused > FLOOD_BURSTS * burst) {
		return -EPIPE;
	}
	return refuse_with(text, REFUSAL_QUOTA, "Ask less often.",
		"%s %u asks more than %u times a second", limits[class].who,
		(unsigned int)account->uid, rate);
}

bool uid_account_note(struct uid_account *account, uint64_t now)
{
	uint64_t from = MAX(account->noted, now - MIN(now, NOTES_BURST * USEC_PER_SEC));

	if (from + USEC_PER_SEC > now) {
		return false;
	}
	account->noted = from + USEC_PER_SEC;
	return true;
}

bool uid_account_note_flood(struct uid_account *account, uint64_t now)
{
	if (account->flood_noted > now) {
		return false;
	}
	account->flood_noted = now + FLOOD_NOTES;
	return true;
}
