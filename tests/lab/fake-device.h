/* SPDX-License-Identifier: MIT
 * What the devices of fake-device are like: their descriptors and what they answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_ISO_MAX  128 /* packets in a transfer */
#define FAKE_ISO_SIZE 256 /* bytes in a packet */
#define FAKE_NEVER    1   /* for a status: no answer, ever */

/* enum usb_device_speed of the kernel */
enum fake_speed {
	FAKE_SPEED_FULL = 2,
	FAKE_SPEED_HIGH = 3,
	FAKE_SPEED_SUPER = 5,
};

struct fake_kind {
	const char *name;
	enum fake_speed speed;
	uint16_t product;
	bool cancels; /* a transfer that is cancelled ends */
	bool answers; /* data endpoints answer at once */
	/* Writes what follows the 9 bytes of the configuration's own descriptor; its length. */
	size_t (*interfaces)(uint8_t *data, size_t max, uint8_t *n_interfaces_out);
	/* Spoils what is about to be sent for GET_DESCRIPTOR. May be NULL. */
	void (*spoil)(uint8_t type, uint8_t *data, size_t max, size_t *size);
};

struct fake_device {
	const struct fake_kind *kind;
	const char *serial;
	bool turned; /* it is another one now */
};

/* NULL: there is none of that name. */
const struct fake_kind *fake_kind_find(const char *name);

/* Answers a control request: 0, a negative errno as in an URB's status, or FAKE_NEVER. */
int fake_control(const struct fake_device *d, const uint8_t setup[8], uint8_t *data, size_t max,
	size_t *size_out);
/* Answers a bulk or interrupt transfer of *length bytes, which may be made shorter. */
int fake_data(const struct fake_device *d, uint8_t ep, uint8_t *data, int *length);
/* The sample at a position of the endless recording of the "microphone". */
uint16_t fake_sample(uint32_t position);
