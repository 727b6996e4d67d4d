/* SPDX-License-Identifier: MIT
 * What policy-match.c (lines of words) and policy-words.c (what each key means) share.
 */
#pragma once

#include "broker/policy-match.h"

/* A class, subclass and protocol, any of which may be any. */
struct policy_class {
	uint8_t value[3];
	bool any[3];
};

enum policy_comparison { IS, LESS, LESS_OR_IS, MORE, MORE_OR_IS };

struct policy_word {
	const struct policy_key *key;
	bool negated;
	enum policy_comparison comparison;
	char *written; /* the whole word */
	char *name;    /* of udev.NAME and of the VM; may be NULL */
	char *pattern; /* text and ids; may be NULL */
	uint64_t number;
	/* An id without *, or with one for a whole part: value and mask of VID << 16 | PID. */
	uint32_t id, id_mask;
	bool id_whole;
	size_t n_classes;
	struct policy_class classes[POLICY_CLASSES_MAX];
};

struct policy_key {
	const char *name;
	/* Takes value into w. NULL, or what was wanted instead. */
	const char *(*parse)(struct policy_word *w, const char *value);
	bool (*holds)(const struct policy_word *w, const struct usb_facts *f,
		const struct policy_context *context);
	bool compares;    /* takes <, <=, >, >= */
	bool is_volatile; /* may change while the device stays as it is */
	/* What w names in full, if it does. NULL: never. */
	void (*selects)(const struct policy_word *w, struct policy_selector *out);
};

/* What policy_key::parse returns when there is none. */
extern const char policy_no_memory[];

/* The key of this name; of "udev.NAME" NAME goes to w. NULL: there is none; place is told then. */
const struct policy_key *policy_find_key(
	struct policy_word *w, const char *name, const struct config_place *place);
