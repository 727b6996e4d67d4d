/* SPDX-License-Identifier: MIT
 * Devices that turn into others on their port (DFU, fastboot) stay with their VM: what left a port,
 * by which rule and from which VM, for as long as that rule follows it.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/config.h"
#include "broker/policy.h"

struct broker;
struct device_usb;

struct follow {
	struct list link; // broker::follows
	char *key;        /* the place that it left */
	char rule[POLICY_RULE_NAME_MAX + 1];
	char vm[NAME_MAX_LENGTH + 1];
	uint64_t left; /* CLOCK_MONOTONIC µs */
};

/* u's device leaves its place, or is another one from now on: notes it if its rule follows what
 * comes there next. */
void usb_follow_note(const struct device_usb *u);
/* A device came to the place: takes over what was noted there, if there is still time. */
void usb_follow_take(struct device_usb *u);
/* What follows from that for u's decision. */
void usb_follow_decide(const struct device_usb *u, struct policy_decision *d);
void usb_follow_finish(struct broker *b);
