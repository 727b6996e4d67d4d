/* SPDX-License-Identifier: MIT
 * A connection to the NBD server that a URI names, made with the caller's rights; the broker gets
 * only the connected socket.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"

struct cli;

#define CLI_NBD_EXPORT_MAX 255

struct cli_nbd {
	char export[CLI_NBD_EXPORT_MAX + 1]; /* as the server calls it; "" is its default one */
	char where[256];                     /* the socket's path, or host name */
	char port[16];                       /* "" for a unix socket */
};

/* Whether text is to be understood as a URI and not as a path. */
bool cli_nbd_is_uri(const char *text);
/* nbd+unix:///EXPORT?socket=PATH, nbd://HOST[:PORT][/EXPORT]. 0, or the exit code; the error is
 * printed. */
int cli_nbd_parse(const struct cli *c, const char *uri, struct cli_nbd *out) _must_check_;
/* remote: hosts that are not this one are allowed, too. 0 with the socket, or the exit code. */
int cli_nbd_connect(
	const struct cli *c, const struct cli_nbd *nbd, bool remote, int *fd_out) _must_check_;
