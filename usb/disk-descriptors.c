/* SPDX-License-Identifier: MIT
 *
 * Sources: USB 2.0 chapter 9, USB 3.2 chapter 9, bulk-only transport 1.0 chapter 4.
 *
 * The ids are 1d6b:0104, which the Linux Foundation gives to gadgets without a vendor id of their
 * own ("Multifunction Composite Gadget"): no guest has a quirk for it. The project has no id yet;
 * bcdDevice and the strings tell the stick apart.
 */
#include "usb/disk-descriptors.h"

#include <string.h>

#include "base/checked.h"
#include "usb/bytes.h"

#define VENDOR_ID  0x1d6b
#define PRODUCT_ID 0x0104
#define BCD_DEVICE 0x0100

enum {
	DESC_DEVICE = 1,
	DESC_CONFIG = 2,
	DESC_STRING = 3,
	DESC_INTERFACE = 4,
	DESC_ENDPOINT = 5,
	DESC_QUALIFIER = 6,
	DESC_OTHER_SPEED = 7,
	DESC_BOS = 15,
	DESC_CAPABILITY = 16,
	DESC_COMPANION = 48,
};

enum { STRING_LANGUAGES, STRING_VENDOR, STRING_PRODUCT, STRING_SERIAL };

uint16_t disk_max_packet(enum usb_speed speed)
{
	return speed == USB_SPEED_SUPER ? 1024 : speed == USB_SPEED_HIGH ? 512 : 64;
}

size_t disk_device_descriptor(enum usb_speed speed, uint8_t out[18])
{
	memset(out, 0, 18);
	out[0] = 18;
	out[1] = DESC_DEVICE;
	put_le16(out + 2, speed == USB_SPEED_SUPER ? 0x0300 : 0x0200);
	out[7] = speed == USB_SPEED_SUPER ? 9 : 64; /* of endpoint 0; an exponent at SuperSpeed */
	put_le16(out + 8, VENDOR_ID);
	put_le16(out + 10, PRODUCT_ID);
	put_le16(out + 12, BCD_DEVICE);
	out[14] = STRING_VENDOR;
	out[15] = STRING_PRODUCT;
	out[16] = STRING_SERIAL;
	out[17] = 1; /* configurations */
	return 18;
}

static size_t endpoint(enum usb_speed speed, uint8_t address, uint8_t *out)
{
	memset(out, 0, 7);
	out[0] = 7;
	out[1] = DESC_ENDPOINT;
	out[2] = address;
	out[3] = 0x02; /* bulk */
	put_le16(out + 4, disk_max_packet(speed));
	if (speed != USB_SPEED_SUPER) {
		return 7;
	}
	memset(out + 7, 0, 6);
	out[7] = 6;
	out[8] = DESC_COMPANION;
	out[9] = 15; /* bMaxBurst: 16 packets; no streams */
	return 13;
}

static size_t config(enum usb_speed speed, uint8_t type, uint8_t *out)
{
	size_t size = 9 + 9;

	memset(out, 0, size);
	out[9] = 9;
	out[10] = DESC_INTERFACE;
	out[9 + 4] = 2;    /* endpoints */
	out[9 + 5] = 0x08; /* mass storage */
	out[9 + 6] = 0x06; /* SCSI transparent command set */
	out[9 + 7] = 0x50; /* bulk-only transport */
	size += endpoint(speed, DISK_BULK_IN, out + size);
	size += endpoint(speed, DISK_BULK_OUT, out + size);
	out[0] = 9;
	out[1] = type;
	put_le16(out + 2, (uint16_t)size);
	out[4] = 1;                                  /* interfaces */
	out[5] = 1;                                  /* bConfigurationValue */
	out[7] = 0x80;                               /* bus-powered */
	out[8] = speed == USB_SPEED_SUPER ? 12 : 50; /* 96 mA in units of 8, 100 mA of 2 */
	return size;
}

size_t disk_config_descriptor(enum usb_speed speed, uint8_t *out)
{
	return config(speed, DESC_CONFIG, out);
}

static size_t string(const char *text, uint8_t *out)
{
	size_t n = MIN(strlen(text), (size_t)126);

	out[0] = (uint8_t)(2 + 2 * n);
	out[1] = DESC_STRING;
	for (size_t i = 0; i < n; i++) { /* printable ASCII to UTF-16LE */
		out[2 + 2 * i] = (uint8_t)text[i];
		out[3 + 2 * i] = 0;
	}
	return out[0];
}

static size_t string_descriptor(const struct disk_strings *strings, uint8_t index, uint8_t *out)
{
	switch (index) {
	case STRING_LANGUAGES:
		out[0] = 4;
		out[1] = DESC_STRING;
		put_le16(out + 2, 0x0409); /* English (United States) */
		return 4;
	case STRING_VENDOR:
		return string("devbroker", out);
	case STRING_PRODUCT:
		return string(strings->product, out);
	case STRING_SERIAL:
		return string(strings->serial, out);
	default:
		return 0;
	}
}

/* What a high-speed device would be at full speed (USB 2.0, 9.6.2). */
static size_t qualifier(uint8_t *out)
{
	memset(out, 0, 10);
	out[0] = 10;
	out[1] = DESC_QUALIFIER;
	put_le16(out + 2, 0x0200);
	out[7] = 64;
	out[8] = 1;
	return 10;
}

static size_t bos(uint8_t *out)
{
	static const uint8_t bytes[] = {
		5,
		DESC_BOS,
		22,
		0,
		2, /* two capabilities */
		/* USB 2.0 extension: link power management, which USB 3 asks for */
		7,
		DESC_CAPABILITY,
		2,
		0x02,
		0,
		0,
		0,
		/* SuperSpeed: no LTM; speeds high and super; all functions from high speed on; no
		 * exit latency from U1 and U2 */
		10,
		DESC_CAPABILITY,
		3,
		0,
		0x0c,
		0,
		2,
		0,
		0,
		0,
	};

	memcpy(out, bytes, sizeof(bytes));
	return sizeof(bytes);
}

size_t disk_descriptor(enum usb_speed speed, const struct disk_strings *strings, uint8_t type,
	uint8_t index, uint8_t *out)
{
	bool high = speed == USB_SPEED_HIGH;

	if (type == DESC_STRING) {
		return string_descriptor(strings, index, out);
	}
	if (index != 0) {
		return 0;
	}
	switch (type) {
	case DESC_DEVICE:
		return disk_device_descriptor(speed, out);
	case DESC_CONFIG:
		return config(speed, DESC_CONFIG, out);
	case DESC_QUALIFIER:
		return high ? qualifier(out) : 0;
	case DESC_OTHER_SPEED:
		return high ? config(USB_SPEED_FULL, DESC_OTHER_SPEED, out) : 0;
	case DESC_BOS:
		return speed == USB_SPEED_SUPER ? bos(out) : 0;
	default:
		return 0;
	}
}
