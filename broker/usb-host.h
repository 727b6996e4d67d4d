/* SPDX-License-Identifier: MIT
 * The host's USB devices as the broker has them: what is plugged in becomes a device, and where
 * policy wants it elsewhere than it is, that is begun.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/policy.h"

struct broker;
struct device;
struct device_usb;
struct usb_facts;

/* Finds what is there, gives back what a broker before this one took, quarantines the buses that
 * configuration names, and carries policy out. 0 or -errno. */
int usb_host_start(struct broker *b) _must_check_;
void usb_host_stop(struct broker *b);

/* Compares what should be with what is. u may be gone when it returns. */
void usb_host_reconcile(struct device_usb *u);
/* Decides anew for every device, after rules or states of VMs changed, and carries it out. */
void usb_host_decide_all(struct broker *b);
/* What rules, udev and memory say about u, which is plugged in; trace may be NULL. */
void usb_host_decision(
	const struct device_usb *u, const struct policy_trace *trace, struct policy_decision *out);
/* A VM has another state: in the next turn of the loop, if a rule asks for one. */
void usb_host_vm_changed(struct broker *b);
/* Seconds from the host's boot until udev knew it; until now, if udev does not say. */
uint64_t usb_host_since_boot(const struct usb_facts *f);
/* Whether nothing else shall be done, and for the same reason; a rule is known by its name. */
bool usb_host_same_decision(const struct policy_decision *a, const struct policy_decision *b);
/* The rule that offers it to some VMs while nobody has chosen; NULL: none. */
const struct policy_rule *usb_host_offer(const struct device_usb *u);
/* What a user asks for, within what u's rule says of how it is lent. 0; REFUSAL_DENIED if the rule
 * lets no VM see any of the interfaces that are asked for. */
int usb_host_restrict(const struct device_usb *u, struct lease_options *o,
	struct refusal_text *text) _must_check_;
/* A VM came to be known that devices may wait for. */
void usb_host_reconcile_all(struct broker *b);
/* struct device_ops: its lease has ended. d may be gone when it returns. */
void usb_host_lease_ended(struct device *d);
/* The device with this key is there, and has no struct device yet. */
void usb_host_look(struct broker *b, const char *key);
