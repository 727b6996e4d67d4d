/* SPDX-License-Identifier: MIT
 *
 * Who talks on the system bus. The bus knows (GetConnectionCredentials), and asking it takes a
 * message there and back, for which the loop does not wait: calls of an unknown sender are held,
 * and taken in again when the answer is there. Unique names are never used twice, so what is known
 * of one holds until it leaves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-polkit.h"
#include "broker/bus-system.h"

#define PEERS_MAX   4096 /* more than a bus lets in */
#define NAME_LENGTH 64

static struct list *bucket_of(struct bus_system *s, const char *name)
{
	uint32_t hash = 5381;

	for (const char *p = name; *p; p++) {
		hash = hash * 33 + (uint8_t)*p;
	}
	return &s->peers[hash % PEER_BUCKETS];
}

struct bus_peer *bus_peer_named(struct bus_system *s, const char *name)
{
	struct bus_peer *peer;

	list_for_each (peer, bucket_of(s, name), link) {
		if (strcmp(peer->name, name) == 0) {
			return peer;
		}
	}
	return NULL;
}

static void drop_held(struct bus_peer *peer)
{
	while (peer->n_held > 0) {
		sd_bus_message_unref(peer->held[--peer->n_held]);
	}
}

static void peer_destroy(struct bus_peer *peer)
{
	struct bus_system *s = peer->system;

	bus_polkit_forget(s, peer);
	sd_bus_slot_unref(peer->asked);
	drop_held(peer);
	if (peer->caller.account) {
		uid_account_disconnect(
			&s->server->accounts, peer->caller.account, peer->caller.class);
	}
	list_remove(&peer->link);
	s->n_peers--;
	free(peer->name);
	free(peer);
}

/* Its calls get an answer, and it is forgotten: the next one begins anew. */
static void peer_refuse(struct bus_peer *peer, int r, const struct refusal_text *text)
{
	for (unsigned int i = 0; i < peer->n_held; i++) {
		sd_bus_error error = SD_BUS_ERROR_NULL;

		bus_fail(&error, r, text);
		sd_bus_reply_method_error(peer->held[i], &error);
		sd_bus_error_free(&error);
	}
	peer_destroy(peer);
}

/* The ids of its groups, which not every bus tells. */
static int read_groups(sd_bus_message *reply, gid_t wanted, bool *found)
{
	const void *gids;
	size_t size;
	int r = sd_bus_message_enter_container(reply, 'v', "au");

	if (r >= 0) {
		r = sd_bus_message_read_array(reply, 'u', &gids, &size);
	}
	for (size_t i = 0; r >= 0 && i < size / sizeof(uint32_t); i++) {
		*found = *found || ((const uint32_t *)gids)[i] == wanted;
	}
	return r < 0 ? r : sd_bus_message_exit_container(reply);
}

/* What GetConnectionCredentials answers. 0, -errno, -ENODATA without a uid. */
static int read_credentials(struct bus_peer *peer, sd_bus_message *reply)
{
	gid_t admin_gid = peer->system->server->admin_gid;
	bool has_uid = false, in_group = false;
	const char *key;
	int r = sd_bus_message_enter_container(reply, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
		uint32_t number = 0;

		r = sd_bus_message_read(reply, "s", &key);
		if (r < 0) {
			return r;
		}
		if (strcmp(key, "UnixUserID") == 0) {
			r = sd_bus_message_read(reply, "v", "u", &number);
			peer->caller.uid = number;
			has_uid = r >= 0;
		} else if (strcmp(key, "ProcessID") == 0) {
			r = sd_bus_message_read(reply, "v", "u", &number);
			peer->caller.pid = (pid_t)number;
		} else if (strcmp(key, "UnixGroupIDs") == 0 && admin_gid != (gid_t)-1) {
			r = read_groups(reply, admin_gid, &in_group);
		} else {
			r = sd_bus_message_skip(reply, "v");
		}
		if (r >= 0) {
			r = sd_bus_message_exit_container(reply);
		}
	}
	if (r < 0 || !has_uid) {
		return r < 0 ? r : -ENODATA;
	}
	peer->caller.class = peer->caller.uid == 0 || peer->caller.uid == geteuid() ? UID_HOST
			     : in_group                                             ? UID_ADMIN
										    : UID_ORDINARY;
	return 0;
}

static int on_credentials(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	struct bus_peer *peer = userdata;
	struct bus_system *s = peer->system;
	struct refusal_text text = {0};
	int r = sd_bus_message_get_errno(reply) > 0 ? -EACCES : read_credentials(peer, reply);

	peer->asked = sd_bus_slot_unref(peer->asked);
	if (r == 0) {
		r = uid_account_connect(&s->server->accounts, peer->caller.uid, peer->caller.class,
			&peer->caller.account, &text);
	}
	if (r > 0) {
		bus_audit_connection(s->server, &peer->caller, &text);
	}
	if (r != 0) {
		peer_refuse(peer, r, &text);
		return 0;
	}
	for (unsigned int i = 0; i < peer->n_held; i++) {
		sd_bus_enqueue_for_read(s->c.bus, peer->held[i]);
	}
	drop_held(peer);
	return 0;
}

static int peer_create(struct bus_system *s, const char *name, struct bus_peer **out)
{
	struct bus_peer *peer;
	int r;

	if (s->n_peers >= PEERS_MAX || strlen(name) > NAME_LENGTH) {
		return -ENOBUFS;
	}
	peer = calloc(1, sizeof(*peer));
	if (!peer) {
		return -ENOMEM;
	}
	peer->system = s;
	list_prepend(bucket_of(s, name), &peer->link);
	s->n_peers++;
	peer->name = strdup(name);
	r = !peer->name ? -ENOMEM
			: sd_bus_call_method_async(s->c.bus, &peer->asked, "org.freedesktop.DBus",
				  "/org/freedesktop/DBus", "org.freedesktop.DBus",
				  "GetConnectionCredentials", on_credentials, peer, "s", name);
	if (r < 0) {
		peer_destroy(peer);
		return r;
	}
	*out = peer;
	return 0;
}

int bus_peer_of(struct bus_system *s, sd_bus_message *m, struct bus_peer **out, sd_bus_error *error)
{
	const char *name = sd_bus_message_get_sender(m);
	const struct refusal_text text = {.sentence = "too many calls before it is known who calls",
		.remedy = "Wait for an answer first."};
	struct bus_peer *peer = name ? bus_peer_named(s, name) : NULL;
	int r;

	if (!name) {
		return -EACCES;
	}
	if (!peer) {
		r = peer_create(s, name, &peer);
		if (r < 0) {
			return r;
		}
	}
	if (!peer->asked) {
		*out = peer;
		return 0;
	}
	if (peer->n_held == PEER_HELD) {
		return bus_fail(error, REFUSAL_QUOTA, &text);
	}
	peer->held[peer->n_held++] = sd_bus_message_ref(m);
	return 1;
}

void bus_peer_gone(struct bus_system *s, const char *name)
{
	struct bus_peer *peer = bus_peer_named(s, name);

	if (peer) {
		peer_destroy(peer);
	}
}

void bus_peers_clear(struct bus_system *s)
{
	struct bus_peer *peer, *next;

	for (size_t i = 0; i < PEER_BUCKETS; i++) {
		list_for_each_safe (peer, next, &s->peers[i], link) {
			peer_destroy(peer);
		}
	}
}
