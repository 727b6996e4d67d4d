/* SPDX-License-Identifier: MIT
 * Where a device shall be: a pure function of rules, facts and the states of VMs. usb-host compares
 * the decision with what is.
 *
 * Rules stand in policy.d/NAME.conf below the configuration's directory, a section "[rule NAME]"
 * each, with keys Match= (any number), Action= and options; see devbroker-policy(5). Files in the
 * order of their names, rules in that of the file; the first that matches decides. Where none does,
 * udev properties may (DEVBROKER_ACTION, DEVBROKER_VM), and otherwise the host keeps the device.
 */
#pragma once

#include <stddef.h>

#include "base/list.h"
#include "broker/config.h"
#include "broker/lease.h"
#include "broker/policy-match.h"

struct policy_index;
struct usb_facts;

enum policy_action {
	POLICY_HOLD,   /* the host keeps it; a user may lend it */
	POLICY_ATTACH, /* it goes to a VM, whenever both are there */
	POLICY_OFFER,  /* somebody shall choose one of some VMs */
	POLICY_DENY,   /* neither the host nor a VM has it */
	POLICY_IGNORE, /* the host's, never to be lent */
	POLICY_ACTION_COUNT_,
};

#define POLICY_VMS_MAX            16
#define POLICY_RULES_MAX          65536
#define POLICY_RULE_NAME_MAX      63
#define POLICY_FOLLOW_MAX         16 /* ids */
#define POLICY_FOLLOW_SECONDS_MAX 3600

struct policy_rule {
	struct list link; // policy::rules
	char *name;
	char *where; /* "policy.d/10-sticks.conf:4" */
	size_t n_matches;
	struct policy_match *matches; /* any of them; none: every device */
	enum policy_action action;
	size_t n_vms;
	char *vms[POLICY_VMS_MAX]; /* one for attach, some for offer */
	struct lease_options options;
	/* A device that it gave to a VM, and that is one of these afterwards, stays there. */
	unsigned int follow_seconds; /* within them; 0: none does */
	size_t n_follow;
	struct policy_match follow[POLICY_FOLLOW_MAX]; /* an id each */
};

struct policy {
	struct list rules; // policy_rule::link
	size_t n_rules;
	bool is_volatile;           /* a decision may change without the device */
	struct policy_index *index; /* of all lines */
};

struct policy_decision {
	enum policy_action action;
	const struct policy_rule *rule; // NULL: none matched; the policy's
	char vm[NAME_MAX_LENGTH + 1];   /* POLICY_ATTACH */
	struct lease_options options;   /* POLICY_ATTACH */
	char why[256];                  /* a sentence; "" if nothing was said about the device */
};

/* What a decision looks at, rule by rule: failed is the first word that was not so of the Match=
 * line with this index, or NULL if all were. */
struct policy_trace {
	void (*looked)(
		void *userdata, const struct policy_rule *rule, size_t match, const char *failed);
	void *userdata;
};

/* Reads dir/policy.d; a directory that is not there is no rules. 0 with the policy; -errno;
 * REFUSAL_CONFIG with text ("policy.d/x.conf:3:7: …"). */
int policy_load(const char *dir, struct policy **out, struct refusal_text *text) _must_check_;
/* NULL is fine. Decisions point into it. */
void policy_destroy(struct policy *p);

/* trace may be NULL. A udev value that makes no sense leaves the device with the host, and why says
 * so. */
void policy_decide(const struct policy *p, const struct usb_facts *f,
	const struct policy_context *context, const struct policy_trace *trace,
	struct policy_decision *out);

/* The rule of this name, the first if there are some; NULL: none. */
const struct policy_rule *policy_rule_named(const struct policy *p, const char *name);
/* A device came to the place of one that rule had given to vm, within the rule's time: gives it
 * there too if its id is one that the rule follows. What d forbids stays forbidden. */
void policy_follow(const struct policy_rule *rule, const char *vm, const struct usb_facts *f,
	struct policy_decision *d);

const char *policy_action_name(enum policy_action action);
