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
	uint64_t since_boot; /* seconds from the host's boot until the device appeared */
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
/* Whether it asks for something that changes without the device: vm-state. */
bool policy_match_is_volatile(const struct policy_match *m);

/* Something that a line names in full, so that it holds for no device that has it otherwise. */
enum policy_selects {
	POLICY_SELECTS_NOTHING,
	POLICY_SELECTS_SERIAL,
	POLICY_SELECTS_PORT,
	POLICY_SELECTS_ID,
	POLICY_SELECTS_VENDOR,
	POLICY_SELECTS_COUNT_,
};

struct policy_selector {
	enum policy_selects kind;
	uint32_t number;  /* VID << 16 | PID, or VID << 16 */
	const char *text; /* borrowed, "" if it has none */
};

/* The most telling one of m. */
void policy_match_selector(const struct policy_match *m, struct policy_selector *out);
/* What a device has of each kind; out[POLICY_SELECTS_NOTHING] is one of these too. */
void policy_selectors_of(
	const struct usb_facts *f, struct policy_selector out[POLICY_SELECTS_COUNT_]);
