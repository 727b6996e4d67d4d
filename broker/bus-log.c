/* SPDX-License-Identifier: MIT
 * The audit log on the bus: the Log method, and what calls leave in the log.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/vm.h"

/* In one answer; who wants more asks for what comes after the last. */
#define RECORDS_MAX 256

struct filter {
	const char *device; /* "" for all */
	const char *vm;
	uint64_t since;
};

static bool device_is(const char *name, const char *wanted)
{
	const char *colon = strchr(name, ':');

	return strcmp(name, wanted) == 0 || (colon && strcmp(colon + 1, wanted) == 0);
}

/* What a user did itself, and what was about its VMs. */
static bool may_see(struct bus_connection *c, const struct audit_record *r)
{
	const struct vm *vm = r->vm[0] ? broker_vm_named(bus_broker(c), r->vm) : NULL;

	return bus_is_admin(&c->caller) || r->uid == c->caller.uid ||
	       (vm && owners_have(&vm->owners, c->caller.uid));
}

static bool wanted(const struct filter *f, const struct audit_record *r)
{
	return r->time >= f->since && (!f->device[0] || device_is(r->device, f->device)) &&
	       (!f->vm[0] || strcmp(r->vm, f->vm) == 0);
}

static int append_records(
	sd_bus_message *reply, struct bus_connection *c, uint64_t after, const struct filter *f)
{
	const struct audit *a = bus_broker(c)->audit;
	const struct audit_record *record;
	unsigned int n = 0;
	int r = sd_bus_message_open_container(reply, 'a', "(ttussssss)");

	while (r >= 0 && a && n < RECORDS_MAX && (record = audit_next(a, after))) {
		after = record->seq;
		if (!wanted(f, record) || !may_see(c, record)) {
			continue;
		}
		n++;
		r = sd_bus_message_append(reply, "(ttussssss)", record->seq, record->time,
			(uint32_t)record->uid, audit_action_name(record->action), record->device,
			record->vm, record->rule, record->reason, record->text);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bus_on_log(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	struct filter f = {.device = "", .vm = ""};
	const struct bus_option options[] = {
		{"device", 's', &f.device},
		{"vm", 's', &f.vm},
		{"since", 't', &f.since},
	};
	struct refusal_text text = {0};
	uint64_t after;
	int r = sd_bus_message_read(m, "t", &after);

	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r != 0) {
		return bus_fail(error, r, &text);
	}
	r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0) {
		r = append_records(reply, c, after, &f);
	}
	return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

void bus_audit(const struct bus_connection *c, enum audit_action action, const char *device,
	const char *vm, const char *rule, const char *text)
{
	audit_note(bus_broker(c)->audit, &(struct audit_event){.action = action,
						 .uid = c->caller.uid,
						 .device = device,
						 .vm = vm,
						 .rule = rule,
						 .text = text});
}

void bus_audit_refused(const struct bus_connection *c, const struct bus_caller *caller,
	const char *device, const char *vm, int refusal, const char *sentence)
{
	const struct audit_event e = {
		.action = refusal == REFUSAL_QUOTA ? AUDIT_QUOTA : AUDIT_REFUSED,
		.uid = caller->uid,
		.device = device,
		.vm = vm,
		.reason = refusal_code(refusal),
		.text = sentence};

	if (caller->class == UID_HOST ||
		(refusal == REFUSAL_QUOTA ? uid_account_note_flood(caller->account, now_usec())
					  : uid_account_note(caller->account, now_usec()))) {
		audit_note(bus_broker(c)->audit, &e);
	}
}

void bus_audit_connection(
	struct bus_server *s, const struct bus_caller *caller, const struct refusal_text *text)
{
	struct uid_account *account = uid_account_find(&s->accounts, caller->uid);

	if (account && uid_account_note_flood(account, now_usec())) {
		audit_note(s->broker->audit, &(struct audit_event){.action = AUDIT_QUOTA,
						     .uid = caller->uid,
						     .reason = refusal_code(REFUSAL_QUOTA),
						     .text = text->sentence});
	}
}

int bus_fail_call(struct bus_connection *c, const char *device, const char *vm, sd_bus_error *error,
	int r, const struct refusal_text *text)
{
	if (r > 0) {
		bus_audit_refused(c, &c->caller, device, vm, r,
			text->sentence[0] ? text->sentence : refusal_sentence(r));
	}
	return bus_fail(error, r, text);
}
