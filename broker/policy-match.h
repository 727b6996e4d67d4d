/* SPDX-License-Identifier: MIT
 * The words of a Match= line: what they ask of a device, and whether it is so.
 *
 * id=VID:PID  serial=  vendor=  product=  class=  classes-within=  port=  below=  removable=
 * speed=  hash=  udev.PROPERTY=  vm-state=VM:STATE  since-boot<SECONDS; each with ! before it for
 * the contrary; see devbroker-policy(5).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "broker/config-file.h"

struct usb_facts;

/* What is so beside the device itself. */
struct policy_context {
	/* The state of a VM ("up"), or NULL if there is none of that name. */
	const char *(*vm_state)(void *userdata, const char *vm);
	void *userdata;
	uint64_t since_boot; /* seconds */
};

#define POLICY_WORDS_MAX   32 /* in one line */
#define POLICY_CLASSES_MAX 16 /* in one word */

struct policy_word;

/* One Match= line: all words must be so. */
struct policy_match {
	size_t n_words;
	struct policy_word *words;
};

/* Reads value, which stands at place. 0; -ENOMEM; or REFUSAL_CONFIG with the column of the bad
 * word. */
int policy_match_parse(
	const char *value, const struct config_place *place, struct policy_match *out) _must_check_;
void policy_match_finish(struct policy_match *m);

/* NULL if all words are so; otherwise the first that is not, as it was written. */
const char *policy_match_fails(const struct policy_match *m, const struct usb_facts *f,
	const struct policy_context *context);
/* Whether it asks for something that changes without the device: vm-state or since-boot. */
bool policy_match_is_volatile(const struct policy_match *m);
