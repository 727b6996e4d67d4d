/* SPDX-License-Identifier: MIT
 *
 * A device of the host that an earlier broker had lent: its worker has the node, opened and
 * stripped as that broker did, and needs nothing of this one. What was taken from the host is in
 * that broker's record (broker/usb-record.h).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device-usb.h"
#include "broker/lease-record.h"
#include "broker/usb-facts.h"
#include "broker/usb-record.h"

static void hash_of(const struct usb_facts *f, char *out, size_t size)
{
	for (size_t i = 0; i < sizeof(f->descriptors_sha256); i++) {
		snprintf(out + 2 * i, size - 2 * i, "%02x", f->descriptors_sha256[i]);
	}
}

void usb_adopt_note(const struct device *d, struct lease_record *r)
{
	const struct device_usb *u = list_entry(d, const struct device_usb, device);

	r->interfaces = u->interfaces;
	if (u->facts) {
		r->instance = u->facts->instance;
		hash_of(u->facts, r->descriptors, sizeof(r->descriptors));
	}
}

int usb_adopt(struct device *d, struct lease *l, const struct lease_record *r, int fd)
{
	struct device_usb *u = device_usb(d);
	struct broker *b = d->broker;
	struct refusal_text text = {0};
	char hash[sizeof(r->descriptors)] = "";

	safe_close(fd);
	if (u->facts) {
		hash_of(u->facts, hash, sizeof(hash));
	}
	/* It was unplugged, or came out of a reset as another one, while nobody looked. */
	if (!u->facts || u->facts->instance != r->instance || strcmp(hash, r->descriptors) != 0) {
		return -ESTALE;
	}
	if (charge_take(&u->usbfs, &b->usbfs, b->config.usb.usbfs_memory, "the host", &text) != 0) {
		log_warn("%s: %s", d->name, text.sentence);
		return -EBUSY;
	}
	u->interfaces = r->interfaces;
	/* Unless its record says more. */
	u->host_drivers = 0;
	u->configuration = u->facts->configuration;
	return 0;
}

void usb_adopt_claim(struct device_usb *u, const struct usb_record *record)
{
	u->host_drivers = record->host_drivers;
	u->configuration = (uint8_t)record->configuration;
}
