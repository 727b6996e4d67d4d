/* SPDX-License-Identifier: MIT
 * Bytes between two sockets, both ways, each end of file passed on by itself.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>

struct relay_stream;

/* Takes both, even on error; either may be -1, which is an error, as is a lack of memory: NULL. */
struct relay_stream *relay_stream_create(int a, int b);
void relay_stream_destroy(struct relay_stream *s);

/* Fills in two entries for poll; s may be NULL: then they wait for nothing. */
void relay_stream_poll(const struct relay_stream *s, struct pollfd p[2]);
/* Moves what can be moved. False when it has ended in both directions, or one end is broken. */
bool relay_stream_run(struct relay_stream *s);
