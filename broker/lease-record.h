/* SPDX-License-Identifier: MIT
 * What a broker that comes after this one has to know of a lease: its record in RUN-DIR/workers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/lease-options.h"
#include "broker/record.h"

/* Numbers are those of struct lease, struct device_usb and struct image_info. */
struct lease_record {
	char id[20]; /* 16 hexadecimal digits: the file's name; ID.sock is its worker's socket */
	char device[128];
	char vm[64];
	char state[16]; /* lease_state_name: decided, connecting, attached, configured, releasing */
	char reason[24]; /* lease_reason_code: why it is releasing, or waits */
	char detail[256];
	bool retry;
	uint32_t tries;
	bool plugged;    /* the VMM has its device */
	uint64_t vmm;    /* pid of the VMM; 0: unknown */
	char qmp_id[32]; /* "": it was never told of one */
	uint32_t way;    /* number of the VM's way that it has, and one; 0: it has none */
	uint64_t worker; /* pid; 0: it has none that outlives its broker */
	char cookie[36]; /* that the worker knows: 32 hexadecimal digits, or "" */
	uint64_t bytes;  /* that it was started with */
	uint64_t transfers;
	struct lease_options options;
	/* Times, CLOCK_MONOTONIC µs. */
	uint64_t asked;
	uint64_t connect;
	uint64_t connected_at;
	uint64_t configure;
	uint64_t configured_at;
	/* A device of the host. */
	uint64_t instance;
	char descriptors[68]; /* SHA-256 of them, hexadecimal */
	uint32_t interfaces;
	/* A disk. */
	uint64_t image_dev;
	uint64_t image_ino;
	uint64_t image_rdev;
	char serial[64];
	char speed[8];
	bool read_only;
	bool cdrom;
	bool nbd; /* of an NBD server, this export */
	char export[256];
	char path[4096];
};

extern const struct record_kind lease_record_kind;
