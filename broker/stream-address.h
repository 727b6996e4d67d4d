/* SPDX-License-Identifier: MIT
 * Where a stream of usbredir comes from or goes to, as configuration and devbroker export write it:
 * unix:PATH, tcp:ADDRESS:PORT, tcp:[ADDRESS]:PORT. No names of hosts: the broker asks no resolver.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"

/* "unix:" and the longest path of a socket. */
#define STREAM_ADDRESS_TEXT (sizeof("unix:") + sizeof(((struct sockaddr_un *)NULL)->sun_path))

struct stream_address {
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	} socket;
	socklen_t length;
};

/* 0 or -EINVAL. Paths are absolute; "localhost" is 127.0.0.1; ports are 1 to 65535. */
int stream_address_parse(const char *text, struct stream_address *out) _must_check_;
/* The address of a unix socket. 0 or -ENAMETOOLONG. */
int stream_address_unix(const char *path, struct stream_address *out) _must_check_;
bool stream_address_is_unix(const struct stream_address *a);
/* Whether nobody but this host can be at the other end. */
bool stream_address_is_local(const struct stream_address *a);
/* As stream_address_parse reads it. */
const char *stream_address_print(const struct stream_address *a, char out[STREAM_ADDRESS_TEXT]);
