/* SPDX-License-Identifier: MIT
 * Command line of devbroker-usb.
 */
#pragma once

#include <stdbool.h>

#include "usb/serve.h"

struct options {
	struct serve_options serve;
	/* By hand: what is to be opened; NULL where an fd was given. */
	const char *disk;    /* path of the image */
	const char *device;  /* path of the usbfs node */
	const char *connect; /* path of a unix socket, or tcp:HOST:PORT */
	bool jailed;         /* the inner one of the two processes of a start by hand */
};

#define OPTION_JAILED "--jailed"
#define EXIT_USAGE    2

/* Fills *out, whose strings point into argv. -1: go on; otherwise the exit code, and what is wrong
 * (or what was asked for) has been printed. */
int options_parse(int argc, char **argv, struct options *out);
