/* SPDX-License-Identifier: MIT
 *
 * The keys of a Match= line, an entry of a table each: how its value is read, and what it is
 * compared with. What a device says (serial, names) is compared by glob_match, whose time it can't
 * blow up.
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/glob.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/policy-match-internal.h"
#include "broker/usb-facts.h"

const char policy_no_memory[] = "more memory than there is";

/* Those of vm.c, and what is said of a VM that nobody knows. */
static const char *const policy_vm_states[] = {
	"gone", "up", "paused", "busy", "migrating", "error", "unknown"};

static const char *set_text(char **field, const char *value)
{
	*field = strdup(value);
	return *field ? NULL : policy_no_memory;
}

static const char *parse_text(struct policy_word *w, const char *value)
{
	return set_text(&w->pattern, value);
}

static bool is_hex_pattern(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)text[i]) && text[i] != '*' && text[i] != '?') {
			return false;
		}
	}
	return n > 0 && n <= 4;
}

/* "0781", "07??" or "*": a number and what of it counts. */
static bool whole_part(const char *text, size_t n, uint32_t *value, uint32_t *mask)
{
	if (n == 1 && *text == '*') {
		*value = *mask = 0;
		return true;
	}
	*value = *mask = 0;
	for (size_t i = 0; i < n; i++) {
		char digit[2] = {text[i], '\0'};

		*value = *value << 4 | (text[i] == '?' ? 0 : (uint32_t)strtoul(digit, NULL, 16));
		*mask = *mask << 4 | (text[i] == '?' ? 0 : 0xf);
	}
	return n == 4 && !memchr(text, '*', n);
}

static const char *parse_id(struct policy_word *w, const char *value)
{
	const char *colon = strchr(value, ':');
	uint32_t vid = 0, vid_mask = 0, pid = 0, pid_mask = 0;

	if (!colon || !is_hex_pattern(value, (size_t)(colon - value)) ||
		!is_hex_pattern(colon + 1, strlen(colon + 1))) {
		return "VID:PID in hexadecimal (as in 0781:* or 046d:c52b)";
	}
	w->id_whole = whole_part(value, (size_t)(colon - value), &vid, &vid_mask) &&
		      whole_part(colon + 1, strlen(colon + 1), &pid, &pid_mask);
	w->id = vid << 16 | pid;
	w->id_mask = vid_mask << 16 | pid_mask;
	return set_text(&w->pattern, value);
}

static const struct {
	const char *name;
	const char *triple;
} class_names[] = {
	{"audio", "01"},
	{"communication", "02"},
	{"hid", "03"},
	{"keyboard", "03:01:01"},
	{"mouse", "03:01:02"},
	{"image", "06"},
	{"printer", "07"},
	{"storage", "08"},
	{"hub", "09"},
	{"data", "0a"},
	{"smartcard", "0b"},
	{"video", "0e"},
	{"wireless", "e0"},
	{"application", "fe"},
	{"dfu", "fe:01"},
	{"vendor", "ff"},
};

/* "08", "08:06:50", "08:*:50": parts that are missing are any. */
static bool parse_class(struct policy_class *c, const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(class_names); i++) {
		if (strcmp(class_names[i].name, text) == 0) {
			text = class_names[i].triple;
			break;
		}
	}
	for (size_t i = 0; i < 3; i++) {
		c->any[i] = !*text || *text == '*';
		if (c->any[i]) {
			text += *text == '*';
		} else if (isxdigit((unsigned char)text[0]) && isxdigit((unsigned char)text[1])) {
			char part[3] = {text[0], text[1], '\0'};

			c->value[i] = (uint8_t)strtoul(part, NULL, 16);
			text += 2;
		} else {
			return false;
		}
		if (*text == ':' && i < 2) {
			text++;
		} else if (*text) {
			return false;
		}
	}
	return true;
}

static const char *parse_classes(struct policy_word *w, const char *value)
{
	_cleanup_free_ char *copy = strdup(value);
	char *save = NULL;

	if (!copy) {
		return policy_no_memory;
	}
	for (const char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		if (w->n_classes == POLICY_CLASSES_MAX ||
			!parse_class(&w->classes[w->n_classes++], one)) {
			return "at most 16 classes separated by commas, each a name (storage, hid, "
			       "keyboard, …) or CC[:SS[:PP]] in hexadecimal";
		}
	}
	return w->n_classes > 0 ? NULL : "a class";
}

static const char *parse_removable(struct policy_word *w, const char *value)
{
	if (strcmp(value, "removable") != 0 && strcmp(value, "fixed") != 0 &&
		strcmp(value, "unknown") != 0) {
		return "removable, fixed or unknown";
	}
	return set_text(&w->pattern, value);
}

/* Tenths of Mbit/s, so that low speed is a number. */
static bool speed_tenths(const char *text, uint64_t *out)
{
	static const struct {
		const char *name;
		uint64_t tenths;
	} names[] = {{"low", 15}, {"full", 120}, {"high", 4800}, {"super", 50000},
		{"super+", 100000}, {"1.5", 15}};
	uint64_t n;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i].name, text) == 0) {
			*out = names[i].tenths;
			return true;
		}
	}
	if (parse_u64(text, 1, 1000000, &n) < 0) {
		return false;
	}
	*out = n * 10;
	return true;
}

static const char *parse_speed(struct policy_word *w, const char *value)
{
	return speed_tenths(value, &w->number)
		       ? NULL
		       : "low, full, high, super, super+ or a number of Mbit/s";
}

static const char *parse_seconds(struct policy_word *w, const char *value)
{
	return parse_u64(value, 0, UINT32_MAX, &w->number) == 0 ? NULL : "a number of seconds";
}

/* "1:" and hexadecimal digits, or a pattern of these. */
static const char *parse_hash(struct policy_word *w, const char *value)
{
	return value[strspn(value, "0123456789abcdef:*?")] || !*value
		       ? "VERSION:HEX, as devbroker show prints it"
		       : set_text(&w->pattern, value);
}

/* Whether a VM can be in a state that pattern means. */
static bool is_vm_state(const char *pattern)
{
	for (size_t i = 0; i < ARRAY_SIZE(policy_vm_states); i++) {
		if (glob_match(pattern, policy_vm_states[i])) {
			return true;
		}
	}
	return false;
}

static const char *parse_vm_state(struct policy_word *w, const char *value)
{
	const char *colon = strchr(value, ':');

	if (!colon) {
		return "VM:STATE (as in win11:up)";
	}
	w->name = strndup(value, (size_t)(colon - value));
	if (!w->name) {
		return policy_no_memory;
	}
	if (!config_name_ok(w->name) || !is_vm_state(colon + 1)) {
		return "VM:STATE, where STATE is gone, up, paused, busy, migrating, error or "
		       "unknown";
	}
	return set_text(&w->pattern, colon + 1);
}

static bool compare(const struct policy_word *w, uint64_t n)
{
	switch (w->comparison) {
	case LESS:
		return n < w->number;
	case LESS_OR_IS:
		return n <= w->number;
	case MORE:
		return n > w->number;
	case MORE_OR_IS:
		return n >= w->number;
	default:
		return n == w->number;
	}
}

static bool class_is(const struct policy_class *p, const struct usb_class *c)
{
	return (p->any[0] || p->value[0] == c->base) && (p->any[1] || p->value[1] == c->sub) &&
	       (p->any[2] || p->value[2] == c->protocol);
}

static bool class_in(const struct policy_word *w, const struct usb_class *c)
{
	for (size_t i = 0; i < w->n_classes; i++) {
		if (class_is(&w->classes[i], c)) {
			return true;
		}
	}
	return false;
}

static bool holds_id(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	char id[16];

	if (w->id_whole) {
		return (((uint32_t)f->vendor << 16 | f->product) & w->id_mask) == w->id;
	}
	snprintf(id, sizeof(id), "%04x:%04x", f->vendor, f->product);
	return glob_match_nocase(w->pattern, id);
}

#define HOLDS_TEXT(name, field)                                                  \
	static bool name(const struct policy_word *w, const struct usb_facts *f, \
		const struct policy_context *context)                            \
	{                                                                        \
		return glob_match(w->pattern, field);                            \
	}

HOLDS_TEXT(holds_serial, f->serial)
HOLDS_TEXT(holds_vendor, f->manufacturer)
HOLDS_TEXT(holds_product, f->product_name)
HOLDS_TEXT(holds_removable, f->removable)
HOLDS_TEXT(holds_hash, f->descriptor_hash)

/* The key without its "usb:", which every one has. */
static const char *place_of(const char *key)
{
	return strncmp(key, "usb:", 4) == 0 ? key + 4 : key;
}

static bool holds_port(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	return glob_match(place_of(w->pattern), place_of(f->key));
}

/* A device behind the hub at C-2 is at C-2.N. */
static bool holds_below(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	char pattern[256];

	snprintf(pattern, sizeof(pattern), "%.250s.*", place_of(w->pattern));
	return glob_match(pattern, place_of(f->key));
}

static bool holds_class(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	for (size_t i = 0; i < f->n_classes; i++) {
		if (class_in(w, &f->classes[i])) {
			return true;
		}
	}
	return class_in(w, &f->class) && f->class.base != 0;
}

/* Every interface's, and there is one: a device that shows nothing is within no set. */
static bool holds_classes_within(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	for (size_t i = 0; i < f->n_classes; i++) {
		if (!class_in(w, &f->classes[i])) {
			return false;
		}
	}
	/* Without udev the other altsettings are not known: then it is not known to be within. */
	return f->n_classes > 0 && f->classes_complete;
}

static bool holds_speed(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	uint64_t n;

	return speed_tenths(f->speed, &n) && compare(w, n);
}

static bool holds_udev(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	const char *value = usb_facts_property(f, w->name);

	return value && glob_match(w->pattern, value);
}

static bool holds_vm_state(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	const char *state = context->vm_state(context->userdata, w->name);

	return glob_match(w->pattern, state ? state : "unknown");
}

static void selects_id(const struct policy_word *w, struct policy_selector *out)
{
	if (w->id_whole && w->id_mask == UINT32_MAX) {
		out->kind = POLICY_SELECTS_ID;
	} else if (w->id_whole && w->id_mask == 0xffff0000) {
		out->kind = POLICY_SELECTS_VENDOR;
	}
	out->number = w->id;
}

static void selects_serial(const struct policy_word *w, struct policy_selector *out)
{
	if (!glob_is_pattern(w->pattern)) {
		out->kind = POLICY_SELECTS_SERIAL;
		out->text = w->pattern;
	}
}

static void selects_port(const struct policy_word *w, struct policy_selector *out)
{
	if (!glob_is_pattern(w->pattern)) {
		out->kind = POLICY_SELECTS_PORT;
		out->text = place_of(w->pattern);
	}
}

void policy_selectors_of(
	const struct usb_facts *f, struct policy_selector out[POLICY_SELECTS_COUNT_])
{
	const uint32_t vendor = (uint32_t)f->vendor << 16;
	const struct policy_selector all[] = {
		[POLICY_SELECTS_NOTHING] = {.text = ""},
		[POLICY_SELECTS_SERIAL] = {.text = f->serial},
		[POLICY_SELECTS_PORT] = {.text = place_of(f->key)},
		[POLICY_SELECTS_ID] = {.number = vendor | f->product, .text = ""},
		[POLICY_SELECTS_VENDOR] = {.number = vendor, .text = ""},
	};

	static_assert(ARRAY_SIZE(all) == POLICY_SELECTS_COUNT_, "one per kind");
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		out[i] = all[i];
		out[i].kind = (enum policy_selects)i;
	}
}

static bool holds_since_boot(const struct policy_word *w, const struct usb_facts *f,
	const struct policy_context *context)
{
	return compare(w, context->since_boot);
}

static const struct policy_key keys[] = {
	{.name = "id", .parse = parse_id, .holds = holds_id, .selects = selects_id},
	{.name = "serial", .parse = parse_text, .holds = holds_serial, .selects = selects_serial},
	{.name = "vendor", .parse = parse_text, .holds = holds_vendor},
	{.name = "product", .parse = parse_text, .holds = holds_product},
	{.name = "class", .parse = parse_classes, .holds = holds_class},
	{.name = "classes-within", .parse = parse_classes, .holds = holds_classes_within},
	{.name = "port", .parse = parse_text, .holds = holds_port, .selects = selects_port},
	{.name = "below", .parse = parse_text, .holds = holds_below},
	{.name = "removable", .parse = parse_removable, .holds = holds_removable},
	{.name = "speed", .parse = parse_speed, .holds = holds_speed, .compares = true},
	{.name = "hash", .parse = parse_hash, .holds = holds_hash},
	{.name = "vm-state", .parse = parse_vm_state, .holds = holds_vm_state, .is_volatile = true},
	{.name = "since-boot", .parse = parse_seconds, .holds = holds_since_boot, .compares = true},
};

static const struct policy_key udev_key = {
	.name = "udev.", .parse = parse_text, .holds = holds_udev};

static void refuse_key(const struct config_place *place, const char *name)
{
	char known[256] = "udev.PROPERTY", shown[64];

	for (size_t i = ARRAY_SIZE(keys); i-- > 0;) {
		char rest[sizeof(known)];

		memcpy(rest, known, sizeof(rest));
		snprintf(known, sizeof(known), "%s, %.200s", keys[i].name, rest);
	}
	(void)config_refuse(place, "there is no key \"%s\"; there are: %s",
		log_escape(name, strlen(name), shown, sizeof(shown)), known);
}

const struct policy_key *policy_find_key(
	struct policy_word *w, const char *name, const struct config_place *place)
{
	if (strncmp(name, udev_key.name, strlen(udev_key.name)) == 0) {
		w->name = strdup(name + strlen(udev_key.name));
		if (w->name && w->name[0]) {
			return &udev_key;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].name, name) == 0) {
			return &keys[i];
		}
	}
	refuse_key(place, name);
	return NULL;
}
