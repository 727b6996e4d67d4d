/* SPDX-License-Identifier: MIT
 * What of a lease outlives its broker: its record, and the socket where its worker is found.
 */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"

struct broker;
struct lease;

/* Binds the socket on which l's worker, which is about to start, will wait for another broker. The
 * fd, for the worker; or -1: it will end with this one. */
int lease_keep_listen(struct lease *l);
/* Its worker goes on without us from now on, if the record says where it is. */
void lease_keep_worker(struct lease *l);
/* Writes down what it is now. */
void lease_note(struct lease *l);
/* It is over. */
void lease_forget_note(struct lease *l);

/* The path of the socket of the worker of the lease with this id (16 hexadecimal digits). 0 or
 * -ENAMETOOLONG. */
int lease_socket_path(const struct broker *b, const char *id, char *out, size_t size) _must_check_;
