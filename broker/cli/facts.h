/* SPDX-License-Identifier: MIT
 * Facts of a device from what `devbroker show --json` printed of it.
 */
#pragma once

#include <jansson.h>

#include "base/cleanup.h"

struct usb_facts;

/* Reads doc (with "device" and "usb") into *out, which then points into doc and must not be given
 * to usb_facts_destroy; cli_facts_finish instead. 0, -ENOMEM, or -EINVAL with *missing_out the
 * field that is not as it should be. */
int cli_facts_read(const json_t *doc, struct usb_facts *out, const char **missing_out) _must_check_;
void cli_facts_finish(struct usb_facts *f);
