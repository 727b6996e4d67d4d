/* SPDX-License-Identifier: MIT
 * A USB device of the host: what is known of it, and how it is taken from the host and given back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/device.h"
#include "broker/policy.h"
#include "broker/quota.h"
#include "broker/usb-follow.h"

struct claim_run;
struct usb_facts;
struct usb_record;

struct device_usb {
	struct device device;
	const struct usb_facts *facts; // hotplug's; NULL: unplugged
	struct policy_decision decision;
	/* It was in a VM since it came, and left it: the decision isn't carried out again by
	 * itself.
	 */
	bool held_off;
	sd_event_source *again; // may be NULL: it is held off until then
	unsigned int failures;  /* to carry the decision out, in a row */
	uint64_t since_boot;    /* seconds from the host's boot until it appeared */
	struct follow followed; /* rule[0]: the device that was there before it, and its VM */
	bool denied;            /* the host's stack was told to let go of it */
	bool to_host;           /* on a quarantined bus: the host's drivers were asked */
	char description[160];
	char speed[16];
	char path[64]; /* of its node */

	/* usb-claim.c */
	int node;              /* without privileges, for the worker; -1: not taken */
	uint32_t interfaces;   /* that are lent, a bit each */
	uint32_t host_drivers; /* whose host drivers are off because of us */
	uint8_t configuration; /* when it was taken */
	struct charge usbfs;   /* kernel memory for its transfers */
	struct claim_run *run; // may be NULL
	int run_node;          /* what it works on; -1 */
	int run_authorized;    /* -1 */
	bool take_waits;       /* until run is done, and restoring */
	bool restoring;        /* what an earlier broker had is being given back */
	unsigned int restore_tries;
	uint32_t restore_configuration;
	sd_event_source *restore_timer; // may be NULL
};

/* d as a USB device, or NULL if it is something else. */
struct device_usb *device_usb(struct device *d);

/* A device appeared. 0 with the device, which is announced; -errno; a refusal with text. */
int device_usb_add(struct broker *b, const struct usb_facts *facts, struct device_usb **out,
	struct refusal_text *text) _must_check_;
/* What is known of it is different. */
void device_usb_update(struct device_usb *u, const struct usb_facts *facts);
/* It was unplugged. u may be gone when it returns. */
void device_usb_gone(struct device_usb *u);
/* Nothing of it runs any more: goes on with what waited for that, or ends it. u may be gone. */
void device_usb_settle(struct device_usb *u);

/* usb-claim.c: struct device_ops */
int usb_claim_check(struct device *d, const struct lease_options *options,
	struct refusal_text *text) _must_check_;
void usb_claim_take(struct device *d, struct lease *l);
void usb_claim_give_back(struct device *d, struct lease *l);
void usb_claim_message(struct device *d, struct lease *l, const union worker_msg *m);

/* usb-adopt.c: struct device_ops, and what an earlier broker had written of a device that is still
 * lent. */
void usb_adopt_note(const struct device *d, struct lease_record *r);
int usb_adopt(struct device *d, struct lease *l, const struct lease_record *r, int fd) _must_check_;
void usb_adopt_claim(struct device_usb *u, const struct usb_record *record);

/* Whether a driver of the host has something that is lent. When a host wakes up whose controller
 * had no power, the kernel takes interfaces from usbfs and looks for drivers. */
bool usb_claim_lost(const struct device_usb *u);
/* Lets the host have what it has not, because its bus is quarantined or it was denied. */
void usb_claim_to_host(struct device_usb *u);
/* Takes it from the host for nobody. */
void usb_claim_deny(struct device_usb *u);
/* What a broker that was killed had taken comes back to the host. */
void usb_claim_restore(struct device_usb *u, const struct usb_record *record);
/* A hub on a quarantined bus is always the host's: nothing behind it would appear otherwise. */
void usb_claim_hub(struct broker *b, const struct usb_facts *f);
/* At the end of u. */
void usb_claim_finish(struct device_usb *u);
