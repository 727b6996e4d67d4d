/* SPDX-License-Identifier: MIT
 *
 * Whether a USB device of the host could be lent as somebody wants it, told before anything is
 * done.
 */
#include "broker/broker.h"
#include "broker/device-usb.h"
#include "broker/usb-facts.h"
#include "broker/usb-guard.h"

#define USB_STORAGE 0x08 /* class of interfaces */

/* What the guest would see of it. The worker looks again, at the device itself. */
static int check_view(
	const struct device_usb *u, const struct lease_options *options, struct refusal_text *text)
{
	const struct usb_facts *f = u->facts;
	uint32_t shown = options->interfaces ? options->interfaces : UINT32_MAX, there = 0;
	char missing[LEASE_INTERFACES_TEXT], all[LEASE_INTERFACES_TEXT];
	bool storage = false;

	if (!options->interfaces && !options->read_only) {
		return 0;
	}
	for (size_t i = 0; i < f->n_interfaces; i++) {
		uint32_t bit = f->interfaces[i].number < 32 ? 1u << f->interfaces[i].number : 0;

		there |= bit;
		storage = storage || ((shown & bit) && f->interfaces[i].class.base == USB_STORAGE);
	}
	if (f->configuration == 0) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED, "Lend all of it.",
			"%s is not configured: nobody knows what its interfaces are",
			u->device.name);
	}
	if (options->interfaces & ~there) {
		lease_interfaces_print(options->interfaces & ~there, missing);
		return refuse_with(text, REFUSAL_INVALID, "See them: devbroker show DEVICE",
			"%s has no interface %s, only %s", u->device.name, missing,
			lease_interfaces_print(there, all));
	}
	if (options->read_only && !storage) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED, "Lend it without read-only.",
			"%s has no storage that could be write-protected", u->device.name);
	}
	return 0;
}

int usb_claim_check(
	struct device *d, const struct lease_options *options, struct refusal_text *text)
{
	const struct device_usb *u = device_usb(d);
	const struct usb_facts *f = u->facts;
	int r;

	if (!f) {
		return refuse(text, REFUSAL_NOT_FOUND, "%s was unplugged", d->name);
	}
	if (u->decision.action == POLICY_IGNORE) {
		return refuse_with(text, REFUSAL_DENIED, "See why: devbroker explain DEVICE",
			"%s is the host's: %s", d->name, u->decision.why);
	}
	if (u->denied) {
		/* Deauthorised: its interfaces are not there. */
		return refuse_with(text, REFUSAL_DENIED, "Change the rule that denies it.",
			"%s is denied to all", d->name);
	}
	for (size_t i = 0; i < f->n_interfaces; i++) {
		if (f->interfaces[i].number >= 32) {
			return refuse_with(text, REFUSAL_NOT_SUPPORTED, "It can't be lent.",
				"%s has an interface %u; the kernel can't lend those above 31",
				d->name, f->interfaces[i].number);
		}
	}
	r = check_view(u, options, text);
	return r != 0 ? r
		      : usb_guard_check(
				&usb_guard_host, f->syspath, d->name, options->last_input, text);
}
