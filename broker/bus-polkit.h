/* SPDX-License-Identifier: MIT
 * Asking polkit whether a caller on the system bus may do more than its uid says.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

struct bus_connection;
struct bus_peer;
struct bus_system;

/* What is refused unless polkit says otherwise; all borrowed. */
struct bus_question {
	const char *action;
	const char *device; /* "" if none */
	const char *vm;
	const struct refusal_text *text; /* what the caller is told then */
};

/* Asks for the sender of m, which is held. It comes again on c with c->caller.by_polkit set, or is
 * answered. 0; -errno (also where too many questions are open): nothing has been done. */
int bus_polkit_ask(
	struct bus_connection *c, sd_bus_message *m, const struct bus_question *asked) _must_check_;
/* Whether m is one that polkit has allowed, and comes again: true once. */
bool bus_polkit_allowed(struct bus_system *s, sd_bus_message *m);
/* The one who asked has gone: nobody is asked any more on its behalf. */
void bus_polkit_forget(struct bus_system *s, const struct bus_peer *peer);
