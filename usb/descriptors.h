/* SPDX-License-Identifier: MIT
 * The engine's own table of interfaces, altsettings and endpoints, read from raw descriptors with
 * bounds.
 *
 * Nothing in it is indexed by a number that a device or a guest chose: interface and altsetting
 * numbers are searched for, so that sparse or repeated ones are harmless.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "usb/backend.h"

/* usbredir's interface_info and ep_info have 32 slots each. */
#define USB_INTERFACES_MAX 32
#define USB_ENDPOINTS_MAX  32
/* Bulk streams per endpoint. The host's kernel keeps a ring for each, so a device's own limit (up
 * to 65536) would be a guest's way to its memory; Linux's uas wants 256 at most. */
#define USB_STREAMS_MAX 256
/* More than these can't stand in USB_CONFIG_DESCRIPTOR_MAX bytes. */
#define USB_ALTS_MAX          (USB_CONFIG_DESCRIPTOR_MAX / 9)
#define USB_ALT_ENDPOINTS_MAX (USB_CONFIG_DESCRIPTOR_MAX / 7)

/* Values of bmAttributes' low two bits; usbredir has the same. */
enum usb_endpoint_type {
	USB_ENDPOINT_CONTROL = 0,
	USB_ENDPOINT_ISO = 1,
	USB_ENDPOINT_BULK = 2,
	USB_ENDPOINT_INTERRUPT = 3,
	USB_ENDPOINT_NONE = 255,
};

struct usb_endpoint {
	uint8_t address;          /* bit 7: IN */
	uint8_t type;             /* enum usb_endpoint_type */
	uint8_t interval;         /* bInterval, at least 1 where the type has a period */
	uint8_t interface;        /* number of the interface it belongs to */
	uint16_t max_packet_size; /* bytes per (micro)frame, high-bandwidth packets included */
	/* The same with SuperSpeed's bursts: what one interval can bring. */
	uint16_t interval_bytes;
	uint16_t max_streams; /* of a SuperSpeed bulk endpoint, at most USB_STREAMS_MAX; 0: none */
};

struct usb_alt {
	uint8_t interface;
	uint8_t alt;
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
	uint16_t first_endpoint; /* in descriptors::endpoints */
	uint16_t n_endpoints;
};

struct usb_interface {
	uint8_t number;
	uint16_t active; /* in descriptors::alts */
};

struct descriptors {
	uint8_t speed; /* enum usb_speed */
	uint8_t class;
	uint8_t subclass;
	uint8_t protocol;
	uint16_t vendor;
	uint16_t product;
	uint16_t version;      /* bcdDevice */
	uint8_t configuration; /* bConfigurationValue, 0: not configured */
	size_t n_interfaces;
	struct usb_interface interfaces[USB_INTERFACES_MAX];
	size_t n_alts;
	struct usb_alt alts[USB_ALTS_MAX];
	size_t n_endpoints;
	struct usb_endpoint endpoints[USB_ALT_ENDPOINTS_MAX];
	/* What can be used now: endpoint 0 and the endpoints of the active altsettings, at
	 * descriptors_slot(address). type is USB_ENDPOINT_NONE where there is none. */
	struct usb_endpoint active[USB_ENDPOINTS_MAX];
};

/* usbredir's index of an endpoint address: 0 to 15 OUT, 16 to 31 IN. */
static inline unsigned int descriptors_slot(uint8_t address)
{
	return (address & 0x80 ? 16u : 0u) | (address & 0x0f);
}

/* Reads d into *out, every interface at altsetting 0 (or its first one). A configuration is read
 * up to the first descriptor that doesn't fit; what stands before counts.
 * -EBADMSG if the device descriptor is none: *out is untouched then. */
int descriptors_parse(const struct usb_description *d, struct descriptors *out) _must_check_;

/* Makes alt the active altsetting of interface. -ENOENT if there is no such pair. */
int descriptors_set_alt(struct descriptors *d, uint8_t interface, uint8_t alt) _must_check_;
/* 0 if the pair exists, -ENOENT otherwise. */
int descriptors_has_alt(const struct descriptors *d, uint8_t interface, uint8_t alt) _must_check_;
/* -ENOENT if there is no such interface. */
int descriptors_get_alt(const struct descriptors *d, uint8_t interface, uint8_t *out) _must_check_;

/* The endpoint that is in use at address, or NULL. Bits 4 to 6 of address must be 0. */
const struct usb_endpoint *descriptors_endpoint(const struct descriptors *d, uint8_t address);
