/* SPDX-License-Identifier: MIT
 * The node of a host's device, opened only if it is that of the device that was looked at.
 */
#pragma once

#include "base/cleanup.h"

struct usb_facts;

/* The fd, for the caller to close; -ESTALE if another device is there by now; or another -errno. */
int usb_node_open(const struct usb_facts *f) _must_check_;
