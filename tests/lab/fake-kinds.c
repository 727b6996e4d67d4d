/* SPDX-License-Identifier: MIT
 *
 * The kinds of fake-device: a vendor's device that answers at once, a microphone, and those that
 * mean harm. Numbers in descriptors are those of USB 2.0, chapter 9, and of Audio Devices 1.0.
 */
#include "tests/lab/fake-device.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define VENDOR 0x1209 /* pid.codes; the products are its test ids */

enum {
	DT_DEVICE = 1,
	DT_CONFIG = 2,
	DT_STRING = 3,
	DT_BOS = 15,
};

#define INTERFACE(number, alt, endpoints, class, subclass, protocol) \
	9, 4, (number), (alt), (endpoints), (class), (subclass), (protocol), 0
#define ENDPOINT(address, type, size, interval) \
	7, 5, (address), (type), (size)&0xff, (size) >> 8, (interval)

static size_t put(uint8_t *data, size_t max, size_t at, const void *more, size_t size)
{
	if (at + size > max) {
		return at;
	}
	memcpy(data + at, more, size);
	return at + size;
}

/* Bulk both ways and interrupt IN. */
static size_t vendor_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	static const uint8_t d[] = {INTERFACE(0, 0, 3, 0xff, 0, 0), ENDPOINT(0x81, 2, 512, 0),
		ENDPOINT(0x02, 2, 512, 0), ENDPOINT(0x83, 3, 64, 4)};

	*n_out = 1;
	return put(data, max, 0, d, sizeof(d));
}

/* One channel of 16 bits at 48 kHz, 96 bytes a millisecond: what a host can check by counting. */
static size_t microphone_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	static const uint8_t d[] = {
		INTERFACE(0, 0, 0, 1, 1, 0),
		9,
		0x24,
		1,
		0x00,
		0x01,
		30,
		0,
		1,
		1, /* header */
		12,
		0x24,
		2,
		1,
		0x01,
		0x02,
		0,
		1,
		0,
		0,
		0,
		0, /* input terminal 1: microphone */
		9,
		0x24,
		3,
		2,
		0x01,
		0x01,
		0,
		1,
		0,                           /* output terminal 2: USB, from 1 */
		INTERFACE(1, 0, 0, 1, 2, 0), /* idle */
		INTERFACE(1, 1, 1, 1, 2, 0),
		7,
		0x24,
		1,
		2,
		1,
		0x01,
		0x00, /* of terminal 2, PCM */
		11,
		0x24,
		2,
		1,
		1,
		2,
		16,
		1,
		0x80,
		0xbb,
		0x00, /* 1 channel, 2 bytes, 48000 */
		9,
		5,
		0x81,
		0x05,
		96,
		0,
		1,
		0,
		0, /* isochronous, asynchronous, every frame */
		7,
		0x25,
		1,
		0,
		0,
		0,
		0,
	};

	*n_out = 2;
	return put(data, max, 0, d, sizeof(d));
}

static size_t many_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	size_t at = 0;

	for (uint8_t i = 0; i < 40; i++) {
		const uint8_t d[] = {
			INTERFACE(i, 0, 1, 0xff, 0, 0), ENDPOINT(0x81 + i % 15, 2, 512, 0)};

		at = put(data, max, at, d, sizeof(d));
	}
	*n_out = 40;
	return at;
}

/* Numbers with holes, of interfaces and altsettings, none of them in order. */
static size_t sparse_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	static const uint8_t d[] = {
		INTERFACE(7, 200, 1, 0xff, 0, 0),
		ENDPOINT(0x81, 2, 512, 0),
		INTERFACE(7, 0, 1, 0xff, 0, 0),
		ENDPOINT(0x81, 2, 512, 0),
		INTERFACE(0, 255, 1, 0xff, 0, 0),
		ENDPOINT(0x02, 2, 512, 0),
		INTERFACE(0, 0, 0, 0xff, 0, 0),
		INTERFACE(31, 9, 1, 0xff, 0, 0),
		ENDPOINT(0x83, 3, 64, 4),
	};

	*n_out = 3;
	return put(data, max, 0, d, sizeof(d));
}

/* Lengths of zero, lengths beyond the end. */
static size_t crooked_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	static const uint8_t d[] = {
		INTERFACE(0, 0, 9, 0xff, 0, 0),
		ENDPOINT(0x81, 2, 512, 0),
		3,
		5,
		0x02, /* an endpoint of three bytes */
		2,
		0x24,
		ENDPOINT(0x83, 3, 0xffff, 255),
		INTERFACE(1, 0, 255, 0xff, 0, 0),
		5,
		0x30,
		255,
		31,
		0xff, /* a companion of nothing */
		0,
		5,
		0,
		0, /* no length at all: everything behind it is lost */
		255,
		4,
		0,
		0,
	};

	*n_out = 2;
	return put(data, max, 0, d, sizeof(d));
}

/* wTotalLength: 65 535 */
static void lie(uint8_t type, uint8_t *data, size_t max, size_t *size)
{
	if (type == DT_CONFIG) {
		data[2] = 0xff;
		data[3] = 0xff;
	}
}

static void cut(uint8_t type, uint8_t *data, size_t max, size_t *size)
{
	if (type == DT_STRING) {
		data[0] = 255;             /* says 255 bytes, has 5 */
		memset(data + 2, 0xd8, 3); /* half a surrogate pair */
		*size = 5;
	}
}

/* A vendor's interface whose firmware can be replaced: DFU 1.1, 4.1. */
static size_t firmware_interfaces(uint8_t *data, size_t max, uint8_t *n_out)
{
	static const uint8_t dfu[] = {
		INTERFACE(1, 0, 0, 0xfe, 1, 1), 9, 0x21, 0x0d, 0xff, 0, 0, 4, 0x10, 1};
	size_t size = vendor_interfaces(data, max, n_out);

	*n_out = 2;
	return put(data, max, size, dfu, sizeof(dfu));
}

static const struct fake_kind kinds[] = {
	{"vendor", FAKE_SPEED_HIGH, 0x0001, true, true, vendor_interfaces, NULL},
	{"microphone", FAKE_SPEED_FULL, 0x0002, true, true, microphone_interfaces, NULL},
	{"silent", FAKE_SPEED_HIGH, 0x0003, true, false, vendor_interfaces, NULL},
	{"stuck", FAKE_SPEED_HIGH, 0x0004, false, false, vendor_interfaces, NULL},
	{"many", FAKE_SPEED_HIGH, 0x0005, true, true, many_interfaces, NULL},
	{"sparse", FAKE_SPEED_HIGH, 0x0006, true, true, sparse_interfaces, NULL},
	{"lying", FAKE_SPEED_HIGH, 0x0007, true, true, vendor_interfaces, lie},
	{"crooked", FAKE_SPEED_HIGH, 0x0008, true, true, crooked_interfaces, cut},
	{"firmware", FAKE_SPEED_HIGH, 0x0009, true, true, firmware_interfaces, NULL},
};

const struct fake_kind *fake_kind_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strcmp(kinds[i].name, name) == 0) {
			return &kinds[i];
		}
	}
	return NULL;
}

static size_t device_descriptor(const struct fake_device *d, uint8_t *data, size_t max)
{
	/* The one that it turns into is what an attacker wants: a keyboard by its ids. */
	unsigned int vendor = d->turned ? 0x046d : VENDOR;
	unsigned int product = d->turned ? 0xc31c : d->kind->product;
	bool super = d->kind->speed == FAKE_SPEED_SUPER;
	const uint8_t bytes[] = {18, DT_DEVICE, 0x00, super ? 3 : 2, 0, 0, 0, super ? 9 : 64,
		vendor & 0xff, (uint8_t)(vendor >> 8), product & 0xff, (uint8_t)(product >> 8),
		0x00, 0x01, 1, 2, 3, 1};

	return put(data, max, 0, bytes, sizeof(bytes));
}

static size_t config_descriptor(const struct fake_device *d, uint8_t *data, size_t max)
{
	uint8_t n = 0;
	size_t size = 9 + d->kind->interfaces(data + 9, max - 9, &n);
	const uint8_t bytes[] = {
		9, DT_CONFIG, size & 0xff, (uint8_t)(size >> 8), n, 1, 0, 0x80, 50};

	memcpy(data, bytes, sizeof(bytes));
	return size;
}

static size_t string_descriptor(const struct fake_device *d, uint8_t index, uint8_t *data)
{
	const char *texts[] = {"", "devbroker lab", d->kind->name, d->serial};
	size_t n = 2;

	if (index >= ARRAY_SIZE(texts)) {
		return 0;
	}
	if (index == 0) {
		data[n++] = 0x09;
		data[n++] = 0x04;
	}
	for (const char *c = texts[index]; *c && n < 254; c++) {
		data[n++] = (uint8_t)*c;
		data[n++] = 0;
	}
	data[0] = (uint8_t)n;
	data[1] = DT_STRING;
	return n;
}

static int get_descriptor(
	const struct fake_device *d, const uint8_t *setup, uint8_t *data, size_t max, size_t *size)
{
	switch (setup[3]) {
	case DT_DEVICE:
		*size = device_descriptor(d, data, max);
		break;
	case DT_CONFIG:
		*size = setup[2] == 0 ? config_descriptor(d, data, max) : 0;
		break;
	case DT_STRING:
		*size = string_descriptor(d, setup[2], data);
		break;
	default:
		*size = 0;
	}
	if (*size > 0 && d->kind->spoil) {
		d->kind->spoil(setup[3], data, max, size);
	}
	return *size > 0 ? 0 : -EPIPE;
}

int fake_control(const struct fake_device *d, const uint8_t setup[8], uint8_t *data, size_t max,
	size_t *size_out)
{
	*size_out = 0;
	if (setup[0] == 0x80 && setup[1] == 6) {
		return get_descriptor(d, setup, data, max, size_out);
	}
	if ((setup[0] & 0x80) == 0) {
		/* SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE, a sample rate: all is well. */
		return 0;
	}
	/* GET_STATUS and what the audio class asks for: zeros; GET_CONFIGURATION: 1. */
	memset(data, 0, 8);
	data[0] = setup[0] == 0x80 && setup[1] == 8;
	*size_out = setup[6] < 8 ? setup[6] : 8;
	return (setup[0] & 0x60) == 0x40 ? -EPIPE : 0;
}

int fake_data(const struct fake_device *d, uint8_t ep, uint8_t *data, int *length)
{
	if (!d->kind->answers) {
		return FAKE_NEVER;
	}
	if (ep & 0x80) {
		for (int i = 0; i < *length; i++) {
			data[i] = (uint8_t)i;
		}
	}
	return 0;
}

uint16_t fake_sample(uint32_t position)
{
	/* A saw tooth: a packet that is lost, doubled or out of order breaks it. Never silence. */
	return (uint16_t)(position % 20000 + 1);
}
