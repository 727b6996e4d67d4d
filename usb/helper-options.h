/* SPDX-License-Identifier: MIT
 * Reads the options of the helpers that devbrokerd starts (devbroker-claim, devbroker-qmp).
 */
#pragma once

#include <getopt.h>

#include "base/cleanup.h"

/* --version, among the options that are known. */
#define HELPER_VERSION                            \
	{                                         \
		"version", no_argument, NULL, 'V' \
	}

struct helper_options {
	const char *program;
	const struct option *known;
	/* Takes option c, whose value is in optarg. 0 or -errno: the value is bad. */
	int (*take)(void *options, int c);
	/* Says what is wrong, and how it is used. Returns the exit code. */
	int (*usage)(const char *what);
};

/* -1: go on, optind is behind the options; otherwise the exit code. */
int helper_options_parse(
	const struct helper_options *h, int argc, char **argv, void *options) _must_check_;
