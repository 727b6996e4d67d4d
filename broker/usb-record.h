/* SPDX-License-Identifier: MIT
 * What the broker took from the host, written down before it is taken: a broker that comes after
 * one that was killed gives it back.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"

struct usb_record {
	char key[128];
	uint64_t instance;     /* usb_facts::instance */
	uint32_t host_drivers; /* interfaces that had one, a bit each */
	uint32_t configuration;
};

/* One file per device in RUN-DIR/claims, replaced as a whole. 0 or -errno. */
int usb_record_write(const char *run_dir, const struct usb_record *record) _must_check_;
/* None is fine. */
void usb_record_remove(const char *run_dir, const char *key);
/* Calls found for each record there is; one that can't be read is removed. 0 or -errno. */
int usb_record_each(const char *run_dir,
	void (*found)(void *userdata, const struct usb_record *record),
	void *userdata) _must_check_;
