/* SPDX-License-Identifier: MIT
 * The guard between a guest that makes transfers and a device that has those that it was given.
 */
#pragma once

#include "tests/unit/test.h"
#include "usb/descriptors.h"
#include "usb/guard.h"
#include "usb/transfer.h"

#define FIXTURE_MAX 64

/* What became of a transfer. */
enum fate { FATE_HELD, FATE_AT_DEVICE, FATE_DONE };

struct guarded {
	struct guard *guard;
	struct usb_description device; /* before guard_describe */
	struct usb_description view;
	struct descriptors descriptors;
	struct transfer *at_device[FIXTURE_MAX];
	size_t n_at_device;
	unsigned int refused;
	uint64_t done;
};

struct packet {
	struct transfer t;
	uint8_t data[512];
};

/* A composite device: a serial line of two interfaces with an association (0 and 1, 0x81 interrupt,
 * 0x82 and 0x02 bulk), a stick with bulk-only and UAS altsettings (2, 0x83 and 0x03 bulk; 0x84,
 * 0x04), firmware upgrade (5), a keyboard (7, 0x87). */
extern const uint8_t guarded_config[];
extern const size_t guarded_config_size;

/* As an engine does at the start. 0 or what guard_describe said. */
int guarded_start(struct guarded *g, const struct guard_options *options) _must_check_;
void guarded_finish(struct guarded *g);

/* The guest sends p. */
enum fate guarded_send(struct guarded *g, struct packet *p);
enum fate guarded_fate(const struct guarded *g, const struct packet *p);
/* Control request without data of the guest's; IN has room for size bytes. */
enum fate guarded_control(struct guarded *g, struct packet *p, uint8_t request_type,
	uint8_t request, uint16_t value, uint16_t index, uint32_t size);
enum fate guarded_bulk(
	struct guarded *g, struct packet *p, uint8_t endpoint, const void *data, uint32_t size);
/* The device is done with p. */
void guarded_complete(struct guarded *g, struct packet *p, enum transfer_status status,
	const void *data, uint32_t size);

/* A guest and a device that do anything. */
#define CHAOS_PACKETS 24

struct chaos {
	uint32_t random;
	struct guarded g;
	struct packet packets[CHAOS_PACKETS];
	bool used[CHAOS_PACKETS];
	uint64_t sent;
	uint64_t commands; /* that reached the device */
};

struct chaos_ops {
	void (*send)(struct chaos *c, struct packet *p);     /* the guest */
	void (*complete)(struct chaos *c, struct packet *p); /* the device */
	void (*check)(struct chaos *c);                      /* what the device has */
	uint32_t resets; /* one in so many steps, for guard_forget; 0: none */
};

/* Less than n. */
uint32_t chaos_random(struct chaos *c, uint32_t n);
/* c is started. So many steps; then whatever is still going on is ended, nothing may be lost, and
 * everything is forgotten. */
void chaos_run(struct chaos *c, const struct chaos_ops *acts, unsigned int steps);
