/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "broker/uid-account.h"

#define SEC UINT64_C(1000000)

static struct uid_account *connect_as(struct uid_accounts *a, uid_t uid, enum uid_class class)
{
	struct uid_account *account = NULL;
	struct refusal_text text = {0};

	assert_int_equal(uid_account_connect(a, uid, class, &account, &text), 0);
	return account;
}

static unsigned int charge_until_refused(
	struct uid_account *account, enum uid_class class, uint64_t now)
{
	struct refusal_text text = {0};
	unsigned int n = 0;

	while (n < 100000 && uid_account_charge(account, class, 1, now, &text) == 0) {
		n++;
	}
	return n;
}

static void connections_have_an_end(void **state)
{
	struct uid_account *accounts[64] = {0}, *one;
	struct refusal_text text = {0};
	struct uid_accounts a;
	unsigned int n = 0;

	uid_accounts_init(&a);
	while (n < 64 && uid_account_connect(&a, 1000, UID_ORDINARY, &accounts[n], &text) == 0) {
		n++;
	}
	assert_int_equal(n, 16);
	assert_string_equal(
		text.sentence, "user 1000 has 16 connections to devbrokerd, and may not have more");
	/* Another one and an administrator have theirs. */
	one = connect_as(&a, 1001, UID_ORDINARY);
	uid_account_disconnect(&a, one, UID_ORDINARY);
	one = connect_as(&a, 1002, UID_ADMIN);
	uid_account_disconnect(&a, one, UID_ADMIN);
	while (n > 0) {
		uid_account_disconnect(&a, accounts[--n], UID_ORDINARY);
	}
	uid_accounts_finish(&a);
}

static void crowds_leave_room_for_administrators(void **state)
{
	struct uid_account *accounts[2000] = {0}, *admin;
	struct refusal_text text = {0};
	struct uid_accounts a;
	unsigned int n = 0;

	uid_accounts_init(&a);
	while (n < 2000 &&
		uid_account_connect(&a, 5000 + n, UID_ORDINARY, &accounts[n], &text) == 0) {
		n++;
	}
	assert_int_equal(n, 1024);
	admin = connect_as(&a, 1, UID_ADMIN);
	uid_account_disconnect(&a, admin, UID_ADMIN);
	admin = connect_as(&a, 0, UID_HOST);
	uid_account_disconnect(&a, admin, UID_HOST);
	while (n > 0) {
		uid_account_disconnect(&a, accounts[--n], UID_ORDINARY);
	}
	uid_accounts_finish(&a);
}

static void requests_leak_away(void **state)
{
	struct uid_account *account, *other;
	struct refusal_text text = {0};
	struct uid_accounts a;
	uint64_t now = 1000 * SEC;
	int r = 0;

	uid_accounts_init(&a);
	account = connect_as(&a, 1000, UID_ORDINARY);
	other = connect_as(&a, 1001, UID_ORDINARY);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now), 200);
	/* Not a whole one yet, then one, then a second's worth. */
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + SEC / 51), 0);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + SEC / 49), 1);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + SEC), 49);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + 1000 * SEC), 200);
	/* A clock that goes back adds nothing. */
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now), 0);
	assert_int_equal(charge_until_refused(other, UID_ORDINARY, now), 200);
	/* Once too far over it nothing is answered, until it has been quiet. */
	for (int i = 0; i < 2000 && r != -EPIPE; i++) {
		r = uid_account_charge(account, UID_ORDINARY, 1, now + 1000 * SEC, &text);
	}
	assert_int_equal(r, -EPIPE);
	assert_int_equal(uid_account_charge(account, UID_ORDINARY, 1, now + 2000 * SEC, &text), 0);
	/* What costs more than there is at all is let through when nothing else is asked. */
	assert_int_equal(
		uid_account_charge(account, UID_ORDINARY, 5000, now + 3000 * SEC, &text), 0);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + 3000 * SEC), 0);
	uid_account_disconnect(&a, account, UID_ORDINARY);
	/* Who connects anew is the same. */
	account = connect_as(&a, 1000, UID_ORDINARY);
	assert_int_equal(charge_until_refused(account, UID_ORDINARY, now + 3000 * SEC), 0);
	assert_int_equal(charge_until_refused(account, UID_ADMIN, now + 3000 * SEC), 3800);
	assert_int_equal(charge_until_refused(account, UID_HOST, now), 100000);
	uid_account_disconnect(&a, account, UID_ORDINARY);
	uid_account_disconnect(&a, other, UID_ORDINARY);
	uid_accounts_finish(&a);
}

static void idle_accounts_make_room(void **state)
{
	struct uid_account *busy, *account;
	struct uid_accounts a;

	uid_accounts_init(&a);
	busy = connect_as(&a, 7, UID_ORDINARY);
	for (uid_t uid = 10000; uid < 20000; uid++) {
		account = connect_as(&a, uid, UID_ORDINARY);
		uid_account_disconnect(&a, account, UID_ORDINARY);
	}
	assert_true(a.n <= 4096);
	assert_ptr_equal(uid_account_find(&a, 7), busy);
	assert_null(uid_account_find(&a, 10000));
	assert_non_null(uid_account_find(&a, 19999));
	uid_account_disconnect(&a, busy, UID_ORDINARY);
	uid_accounts_finish(&a);
}

static void notes_are_rationed(void **state)
{
	struct uid_account account = {0};
	uint64_t now = 1000 * SEC;
	unsigned int n = 0;

	while (n < 1000 && uid_account_note(&account, now)) {
		n++;
	}
	assert_int_equal(n, 20);
	assert_false(uid_account_note(&account, now + SEC / 2));
	assert_true(uid_account_note(&account, now + SEC));
	assert_false(uid_account_note(&account, now + SEC));
	assert_true(uid_account_note_flood(&account, now));
	assert_false(uid_account_note_flood(&account, now + 9 * SEC));
	assert_true(uid_account_note_flood(&account, now + 10 * SEC));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections_have_an_end),
		cmocka_unit_test(crowds_leave_room_for_administrators),
		cmocka_unit_test(requests_leak_away),
		cmocka_unit_test(idle_accounts_make_room),
		cmocka_unit_test(notes_are_rationed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
