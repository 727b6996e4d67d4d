/* SPDX-License-Identifier: MIT
 * What the host can't do without: a device that it runs from, or its last keyboard or pointer, is
 * not lent.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

/* Where the host says what it uses. */
struct usb_guard {
	const char *sys;       /* "/sys" */
	const char *mountinfo; /* "/proc/self/mountinfo" */
	const char *swaps;     /* "/proc/swaps" */
};

extern const struct usb_guard usb_guard_host;

/* Whether the device at syspath (a real path below guard->sys) can be taken from the host. name is
 * for the sentence.
 * 0; REFUSAL_DENIED: its disk holds a file system that the host needs (root, home, …) or swap, or
 * it is the last keyboard or pointer and last_input is false; REFUSAL_BUSY: its disk is mounted
 * elsewhere or part of another block device; -errno: it can't be found out. */
int usb_guard_check(const struct usb_guard *guard, const char *syspath, const char *name,
	bool last_input, struct refusal_text *text) _must_check_;
