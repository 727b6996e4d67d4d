/* SPDX-License-Identifier: MIT */
#include "usb/helper-options.h"

#include <stdio.h>

#include "build-config.h"

int helper_options_parse(const struct helper_options *h, int argc, char **argv, void *options)
{
	char what[128];
	int c, index = 0;

	while ((c = getopt_long(argc, argv, "", h->known, &index)) >= 0) {
		if (c == 'V') {
			printf("%s %s\n", h->program, DEVBROKER_VERSION);
			return 0;
		}
		if (c == '?') {
			return h->usage("unknown option, or one without its value");
		}
		if (h->take(options, c) < 0) {
			snprintf(what, sizeof(what), "bad value of --%s", h->known[index].name);
			return h->usage(what);
		}
	}
	return -1;
}
