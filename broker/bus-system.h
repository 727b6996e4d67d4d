/* SPDX-License-Identifier: MIT
 * What the files of the system bus share: the connection, who talks there, what polkit is asked.
 */
#pragma once

#include "broker/bus-internal.h"

#define PEER_BUCKETS  256
#define PEER_HELD     16 /* calls of one that is not known yet */
#define QUESTIONS     4  /* that polkit is asked at once for one caller */
#define QUESTIONS_ALL 256

struct bus_peer {
	struct list link; // bus_system::peers[]
	struct bus_system *system;
	char *name; /* ":1.42" */
	struct bus_caller caller;
	sd_bus_slot *asked; // may be NULL: the bus has said who it is
	unsigned int n_held;
	sd_bus_message *held[PEER_HELD]; /* until it is known */
	unsigned int n_questions;
};

struct bus_system {
	struct bus_server *server;
	struct bus_connection c; /* c.bus NULL: not connected */
	char *address;
	sd_bus_vtable *device_vtable, *vm_vtable, *gpu_vtable;
	struct bus_vtables vtables;
	struct list peers[PEER_BUCKETS]; // bus_peer::link
	unsigned int n_peers;
	struct list questions; // question::link
	unsigned int n_questions;
	uint64_t cancel_seq;
	bool named;              /* the name is ours */
	bool told;               /* the log says that there is no bus */
	uint64_t delay;          /* µs until the next try */
	sd_event_source *retry;  // may be NULL
	sd_event_source *losing; // may be NULL: the connection ends in this turn
};

/* NULL: not connected, or not yet. */
sd_bus *bus_system_connection(const struct bus_server *s);

/* Who sent m. 0 with the peer; 1: it isn't known yet, m is held and comes again; < 0: error is the
 * answer. */
int bus_peer_of(
	struct bus_system *s, sd_bus_message *m, struct bus_peer **out, sd_bus_error *error);
/* name has left the bus. */
void bus_peer_gone(struct bus_system *s, const char *name);
void bus_peers_clear(struct bus_system *s);
/* The peer of this name, or NULL. */
struct bus_peer *bus_peer_named(struct bus_system *s, const char *name);
