/* SPDX-License-Identifier: MIT
 * The USB descriptors of the virtual stick, at high speed and SuperSpeed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "usb/backend.h"

#define DISK_BULK_IN    0x81
#define DISK_BULK_OUT   0x02
#define DISK_SERIAL_MAX 32

struct disk_strings {
	const char *product;
	const char *serial;
};

/* Largest packet of both bulk endpoints. */
uint16_t disk_max_packet(enum usb_speed speed);
size_t disk_device_descriptor(enum usb_speed speed, uint8_t out[18]);
/* The configuration with its interface and endpoints; out has USB_CONFIG_DESCRIPTOR_MAX bytes. */
size_t disk_config_descriptor(enum usb_speed speed, uint8_t *out);
/* Answers GET_DESCRIPTOR: type and index are wValue's bytes. out has USB_CONFIG_DESCRIPTOR_MAX
 * bytes. Returns the descriptor's whole length; 0: there is none. */
size_t disk_descriptor(enum usb_speed speed, const struct disk_strings *strings, uint8_t type,
	uint8_t index, uint8_t *out);
