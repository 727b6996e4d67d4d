/* SPDX-License-Identifier: MIT
 *
 * A call that its sender's uid does not allow is held while polkit is asked, without waiting: the
 * answer puts the same message into the connection's queue again, marked as allowed, or answers it.
 * A user is asked for a password only if the caller's message says that it may be. No polkit, no
 * answer in time, or too many questions: the call is refused, as it is on the private socket.
 */
#include "broker/bus-polkit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus-system.h"
#include "broker/config.h"

#define POLKIT_NAME  "org.freedesktop.PolicyKit1"
#define POLKIT_PATH  "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_IFACE "org.freedesktop.PolicyKit1.Authority"

#define ALLOW_INTERACTION 1u
#define WITHIN            (10 * UINT64_C(1000000))
#define WITHIN_PASSWORD   (180 * UINT64_C(1000000))

struct question {
	struct list link; // bus_system::questions
	struct bus_system *system;
	struct bus_peer *peer;
	sd_bus_message *m;
	sd_bus_slot *slot; // may be NULL: polkit has said yes
	bool may_interact;
	char cancel[32];
	char device[128];
	char vm[NAME_MAX_LENGTH + 1];
	struct refusal_text text;
};

static void question_destroy(struct question *q)
{
	list_remove(&q->link);
	q->system->n_questions--;
	q->peer->n_questions--;
	sd_bus_slot_unref(q->slot);
	sd_bus_message_unref(q->m);
	free(q);
}

/* A dialogue that is open has no purpose any more. */
static void cancel(struct question *q)
{
	if (q->may_interact) {
		_unused_ int r = sd_bus_call_method_async(q->system->c.bus, NULL, POLKIT_NAME,
			POLKIT_PATH, POLKIT_IFACE, "CancelCheckAuthorization", NULL, NULL, "s",
			q->cancel);
	}
}

/* Refuses it: nobody may. challenge: somebody could by typing a password. */
static void question_refuse(struct question *q, bool challenge)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;

	bus_audit_refused(&q->system->c, &q->peer->caller, q->device, q->vm, REFUSAL_DENIED,
		q->text.sentence);
	if (challenge && !q->may_interact) {
		sd_bus_error_setf(&error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
			"%s\nAsk in a way that lets polkit ask for a password.", q->text.sentence);
	} else {
		bus_fail(&error, REFUSAL_DENIED, &q->text);
	}
	sd_bus_reply_method_error(q->m, &error);
	sd_bus_error_free(&error);
	question_destroy(q);
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct question *q = userdata;
	int yes = 0, challenge = 0;
	int r = sd_bus_message_get_errno(reply) > 0
			? -EACCES
			: sd_bus_message_enter_container(reply, 'r', "bba{ss}");

	if (r >= 0) {
		r = sd_bus_message_read(reply, "bb", &yes, &challenge);
	}
	q->slot = sd_bus_slot_unref(q->slot);
	if (r < 0) {
		const sd_bus_error *e = sd_bus_message_get_error(reply);
		char shown[128] = "no answer";

		if (e && e->name) {
			log_escape(e->name, strlen(e->name), shown, sizeof(shown));
		}
		log_debug("polkit: %s; administrators only", shown);
		cancel(q);
	}
	if (r < 0 || !yes || sd_bus_enqueue_for_read(q->system->c.bus, q->m) < 0) {
		question_refuse(q, r >= 0 && challenge);
	}
	return 0;
}

static int send_question(struct question *q, const char *action)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL;
	struct bus_system *s = q->system;
	int r = sd_bus_message_new_method_call(
		s->c.bus, &call, POLKIT_NAME, POLKIT_PATH, POLKIT_IFACE, "CheckAuthorization");

	if (r >= 0) {
		r = sd_bus_message_append(call, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name",
			"s", q->peer->name, action, 0, q->may_interact ? ALLOW_INTERACTION : 0,
			q->cancel);
	}
	return r < 0 ? r
		     : sd_bus_call_async(s->c.bus, &q->slot, call, on_answer, q,
			       q->may_interact ? WITHIN_PASSWORD : WITHIN);
}

int bus_polkit_ask(struct bus_connection *c, sd_bus_message *m, const struct bus_question *asked)
{
	struct bus_system *s = c->system;
	struct bus_peer *peer = bus_peer_named(s, sd_bus_message_get_sender(m));
	struct question *q;
	int r;

	if (!peer || peer->n_questions >= QUESTIONS || s->n_questions >= QUESTIONS_ALL) {
		return -EBUSY;
	}
	q = calloc(1, sizeof(*q));
	if (!q) {
		return -ENOMEM;
	}
	*q = (struct question){
		.system = s,
		.peer = peer,
		.m = sd_bus_message_ref(m),
		.may_interact = sd_bus_message_get_allow_interactive_authorization(m) > 0,
		.text = *asked->text,
	};
	snprintf(q->cancel, sizeof(q->cancel), "devbroker-%" PRIu64, ++s->cancel_seq);
	snprintf(q->device, sizeof(q->device), "%s", asked->device);
	snprintf(q->vm, sizeof(q->vm), "%s", asked->vm);
	list_append(&s->questions, &q->link);
	s->n_questions++;
	peer->n_questions++;
	r = send_question(q, asked->action);
	if (r < 0) {
		question_destroy(q);
		return r;
	}
	return 0;
}

bool bus_polkit_allowed(struct bus_system *s, sd_bus_message *m)
{
	struct question *q;

	list_for_each (q, &s->questions, link) {
		if (q->m == m) {
			question_destroy(q);
			return true;
		}
	}
	return false;
}

void bus_polkit_forget(struct bus_system *s, const struct bus_peer *peer)
{
	struct question *q, *next;

	if (peer->n_questions == 0) {
		return;
	}
	list_for_each_safe (q, next, &s->questions, link) {
		if (q->peer == peer) {
			if (q->slot) {
				cancel(q);
			}
			question_destroy(q);
		}
	}
}
