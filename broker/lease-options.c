/* SPDX-License-Identifier: MIT */
#include "broker/lease-options.h"

#include <errno.h>
#include <stdio.h>

bool lease_options_same_view(const struct lease_options *a, const struct lease_options *b)
{
	return a->interfaces == b->interfaces && a->read_only == b->read_only &&
	       a->allow_firmware == b->allow_firmware;
}

bool lease_options_equal(const struct lease_options *a, const struct lease_options *b)
{
	return lease_options_same_view(a, b) && a->keep_drivers_off == b->keep_drivers_off &&
	       a->last_input == b->last_input && a->no_reset == b->no_reset &&
	       a->by_policy == b->by_policy && a->bytes_in_flight == b->bytes_in_flight &&
	       a->transfers_in_flight == b->transfers_in_flight;
}

int lease_interfaces_parse(const char *text, uint32_t *out)
{
	uint32_t mask = 0;

	for (;;) {
		unsigned int n = 0, digits = 0;

		for (; *text >= '0' && *text <= '9' && digits < 3; text++, digits++) {
			n = n * 10 + (unsigned int)(*text - '0');
		}
		if (digits == 0 || n > 31) {
			return -EINVAL;
		}
		mask |= UINT32_C(1) << n;
		if (*text == '\0') {
			break;
		}
		if (*text++ != ',') {
			return -EINVAL;
		}
	}
	*out = mask;
	return 0;
}

const char *lease_interfaces_print(uint32_t interfaces, char out[LEASE_INTERFACES_TEXT])
{
	size_t at = 0;

	out[0] = '\0';
	for (unsigned int i = 0; i < 32; i++) {
		if (interfaces & UINT32_C(1) << i) {
			at += (size_t)snprintf(
				out + at, LEASE_INTERFACES_TEXT - at, "%s%u", at ? "," : "", i);
		}
	}
	return out;
}
