/* SPDX-License-Identifier: MIT
 * owner= of a VM: names of users, or their numbers.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "broker/config-internal.h"

#define WORD_MAX 64

bool owners_have(const struct owners *o, uid_t uid)
{
	for (uint32_t i = 0; i < o->n; i++) {
		if (o->uids[i] == uid) {
			return true;
		}
	}
	return false;
}

bool owners_add(struct owners *o, uid_t uid)
{
	if (owners_have(o, uid)) {
		return true;
	}
	if (o->n >= OWNERS_MAX) {
		return false;
	}
	o->uids[o->n++] = uid;
	return true;
}

/* A number needs no user of that number: a database of users may not be there yet. */
static int add_word(struct owners *o, const char *word, const struct config_place *place)
{
	char shown[2 * WORD_MAX];
	const struct passwd *user;
	uint64_t uid;

	if (parse_u64(word, 0, UINT32_MAX - 1, &uid) < 0) {
		user = getpwnam(word);
		if (!user) {
			return config_refuse(place,
				"owner=: there is no user %s (a number would need none)",
				log_escape(word, strlen(word), shown, sizeof(shown)));
		}
		uid = user->pw_uid;
	}
	if (!owners_add(o, (uid_t)uid)) {
		return config_refuse(place, "owner=: a VM can have at most %d owners", OWNERS_MAX);
	}
	return 0;
}

int config_set_owner(void *target, const char *value, const struct config_place *place)
{
	struct owners *o = &((struct config_target *)target)->vm->owners;
	char word[WORD_MAX + 1];
	int r = 0;

	for (const char *p = value; r == 0 && *p; p += strspn(p, " \t,")) {
		size_t n = strcspn(p, " \t,");

		if (n > WORD_MAX) {
			return config_refuse(place, "owner=: that is no name of a user");
		}
		snprintf(word, sizeof(word), "%.*s", (int)n, p);
		r = n > 0 ? add_word(o, word, place) : 0;
		p += n;
	}
	return r;
}
