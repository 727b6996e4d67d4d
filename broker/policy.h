/* SPDX-License-Identifier: MIT
 * Where a device shall be: a pure function of its facts. What is there and what is running doesn't
 * matter here; usb-host compares the decision with what is.
 */
#pragma once

#include "broker/config.h"
#include "broker/lease.h"

struct usb_facts;

enum policy_action {
	POLICY_HOST,   /* the host keeps it */
	POLICY_ATTACH, /* it goes to a VM, whenever both are there */
	POLICY_DENY,   /* neither the host nor a VM has it */
};

struct policy_decision {
	enum policy_action action;
	char vm[NAME_MAX_LENGTH + 1]; /* POLICY_ATTACH */
	struct lease_options options; /* POLICY_ATTACH */
	/* The reason as a sentence; of POLICY_HOST "" if nothing was said about the device. */
	char why[256];
};

/* Decides by the udev properties of the device, which an administrator's udev rules set:
 * DEVBROKER_ACTION=deny or host; DEVBROKER_VM=NAME; with it DEVBROKER_HOST_DRIVERS=return or away
 * and DEVBROKER_LAST_INPUT=yes. A value that makes no sense leaves the device with the host, and
 * why says so. */
void policy_decide(const struct usb_facts *f, struct policy_decision *out);
