/* SPDX-License-Identifier: MIT
 * What a broker that comes after this one has to know of a lease: its record in RUN-DIR/workers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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
	char qmp_id[32]; /* "": it was never told of one */
	uint64_t worker; /* pid; 0: it has none that outlives its broker */
	char cookie[36]; /* that the worker knows: 32 hexadecimal digits, or "" */
	uint64_t bytes;  /* that it was started with */
	uint64_t transfers;
	/* lease::options */
	bool keep_drivers_off;
	bool last_input;
	bool no_reset;
	bool by_policy;
	/* Times, CLOCK_MONOTONIC µs. */
	uint64_t asked;
	uint64_t connect;
	uint64_t connected_at;
	uint64_t configure;
	uint64_t configured_at;
	/* A device of the host. */
	uint64_t instance;
	char hash[40];
	uint32_t interfaces;
	/* A disk. */
	uint64_t image_dev;
	uint64_t image_ino;
	uint64_t image_rdev;
	char serial[64];
	char speed[8];
	bool read_only;
	char path[4096];
};

extern const struct record_kind lease_record_kind;
