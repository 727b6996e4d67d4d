/* SPDX-License-Identifier: MIT
 * How a device is lent: what a user says with attach, a rule with its keys.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct lease_options {
	uint64_t bytes_in_flight;     /* at most; 0: what the VM gives to each */
	uint32_t transfers_in_flight; /* the same */
	uint32_t interfaces;          /* that the VM sees, a bit for each number; 0: all */
	bool keep_drivers_off;        /* the host's drivers stay away afterwards */
	bool last_input;              /* even the host's last keyboard or pointer */
	bool no_reset;                /* it is given back as the VM left it */
	bool read_only;               /* what it stores can't be changed */
	bool allow_firmware;          /* its firmware may be replaced (USB's DFU class) */
	bool by_policy;               /* nobody asked for it: a rule did */
};

bool lease_options_equal(const struct lease_options *a, const struct lease_options *b);
/* Whether a VM sees and may do the same with both. */
bool lease_options_same_view(const struct lease_options *a, const struct lease_options *b);

/* Numbers of interfaces, 0 to 31, with commas between them ("0,2"). 0 or -EINVAL. */
int lease_interfaces_parse(const char *text, uint32_t *out) _must_check_;

#define LEASE_INTERFACES_TEXT 96
/* The same the other way round; "" for 0. Returns out. */
const char *lease_interfaces_print(uint32_t interfaces, char out[LEASE_INTERFACES_TEXT]);
