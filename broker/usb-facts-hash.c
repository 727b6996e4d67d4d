/* SPDX-License-Identifier: MIT
 *
 * The hashes of a device's facts.
 *
 * descriptors_sha256 is of the raw bytes, and answers whether it is still the very same device.
 * descriptor_hash answers what kind of device it is, for rules and memory, so it must be the same
 * at every speed and in every port, and from one kernel to the next. In: ids, device release,
 * device class, the number of configurations, class triples of every interface and altsetting
 * (a stick that has grown a keyboard is another kind), manufacturer and product (clones share their
 * ids). Out, because they change with the speed: USB version, packet sizes, power, endpoints, BOS,
 * and the raw bytes with them. Out, because it tells twins apart, and rules ask for it by itself:
 * the serial number. Out, because drivers and programs change them: the active configuration,
 * altsettings in use. A change of this list is a new version.
 *
 * Each item goes in with its length before it, so that no two lists of items are one text.
 */
#include <sha2.h>
#include <stdio.h>
#include <string.h>

#include "broker/usb-facts-internal.h"

#define HASH_BYTES 16 /* of SHA-256 that are kept: nobody gains by finding a twin of his own */

static void add(SHA2_CTX *sha, const char *text)
{
	char length[16];
	int n = snprintf(length, sizeof(length), "%zu:", strlen(text));

	SHA256Update(sha, (const uint8_t *)length, (size_t)n);
	SHA256Update(sha, (const uint8_t *)text, strlen(text));
}

static void add_class(SHA2_CTX *sha, const struct usb_class *c)
{
	char text[8];

	snprintf(text, sizeof(text), "%02x%02x%02x", c->base, c->sub, c->protocol);
	add(sha, text);
}

/* Without udev's list of classes only those in use are known, which change: none is in then. */
static void hash_kind(struct usb_facts *f)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA2_CTX sha;
	char text[32];
	size_t used;

	SHA256Init(&sha);
	add(&sha, "devbroker descriptor hash 1");
	snprintf(text, sizeof(text), "%04x:%04x:%04x:%u", f->vendor, f->product, f->bcd_device,
		f->n_configurations);
	add(&sha, text);
	add_class(&sha, &f->class);
	add(&sha, f->manufacturer);
	add(&sha, f->product_name);
	for (size_t i = 0; f->classes_complete && i < f->n_classes; i++) {
		add_class(&sha, &f->classes[i]);
	}
	SHA256Final(digest, &sha);
	used = (size_t)snprintf(
		f->descriptor_hash, sizeof(f->descriptor_hash), "%d:", f->classes_complete ? 1 : 0);
	for (size_t i = 0; i < HASH_BYTES; i++) {
		used += (size_t)snprintf(f->descriptor_hash + used,
			sizeof(f->descriptor_hash) - used, "%02x", digest[i]);
	}
}

void usb_facts_hash(struct usb_facts *f)
{
	SHA2_CTX sha;

	SHA256Init(&sha);
	SHA256Update(&sha, f->descriptors, f->descriptors_size);
	SHA256Final(f->descriptors_sha256, &sha);
	hash_kind(f);
}
