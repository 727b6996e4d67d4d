/* SPDX-License-Identifier: MIT
 * Which interfaces the host's drivers may have: the kernel's authorization of buses, devices and
 * interfaces (Documentation/usb/authorization.rst).
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"

/* New interfaces on the bus of this root hub get no driver until they are authorised. The kernel
 * knows it per bus. It stays so when the broker ends: what is plugged in then waits for the next
 * one. 0 or -errno. */
int usb_bus_quarantine(const char *root_hub_syspath) _must_check_;
/* Whether it is so. */
bool usb_bus_quarantined(const char *root_hub_syspath);

/* Authorises each interface of the device's active configuration, or none of them. No driver is
 * looked for by that. 0 or -errno of the first that failed. */
int usb_bus_authorize(const char *device_syspath, bool authorize) _must_check_;
/* Opens the authorization of the device as a whole for writing. The fd, or -errno. */
int usb_bus_open_authorized(const char *device_syspath) _must_check_;
