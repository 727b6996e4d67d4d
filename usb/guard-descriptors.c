/* SPDX-License-Identifier: MIT
 *
 * A configuration descriptor is a header and, one behind the other, descriptors with a length and a
 * type each. What stands behind an interface's belongs to it up to the next interface or
 * association: class descriptors, endpoints, companions. Numbers stay what they are, so that class
 * descriptors and requests that name them mean what they meant; guests cope with gaps.
 *
 * The bytes are a device's. What doesn't fit ends it; what stands before counts, as the engine
 * reads it.
 */
#include <string.h>

#include "usb/bytes.h"
#include "usb/descriptors.h"
#include "usb/guard-internal.h"

/* USB 2.0, 9.6; Interface Association Descriptor ECN */
enum {
	CONFIG = 2,
	INTERFACE = 4,
	ENDPOINT = 5,
	ASSOCIATION = 11,
	PIPE_USAGE = 0x24, /* UAS, 6.2.1 */
	CONFIG_SIZE = 9,
	INTERFACE_SIZE = 9,
	ENDPOINT_SIZE = 7,
	ASSOCIATION_SIZE = 8,
	PIPE_USAGE_SIZE = 4,
	INTERFACES = 32,
};

/* What is known of each interface before the first is copied. */
struct survey {
	uint32_t all;
	uint32_t storage; /* some altsetting is mass storage */
	uint32_t bulk;    /* altsetting 0 is its bulk-only transport */
	uint32_t uas;     /* altsetting 0 is its UAS */
	uint32_t kept;
	bool beyond; /* some have no bit */
};

/* The next descriptor at *at, or NULL at the end. */
static const uint8_t *next(const uint8_t *config, size_t size, size_t *at)
{
	const uint8_t *p = config + *at;

	if (size - *at < 2 || p[0] < 2 || p[0] > size - *at) {
		return NULL;
	}
	*at += p[0];
	return p;
}

static bool is_config(const uint8_t *config, size_t size)
{
	return size >= CONFIG_SIZE && config[0] >= CONFIG_SIZE && config[0] <= size &&
	       config[1] == CONFIG;
}

static bool is_interface(const uint8_t *p)
{
	return p[1] == INTERFACE && p[0] >= INTERFACE_SIZE;
}

static uint32_t bit(uint8_t number)
{
	return number < INTERFACES ? UINT32_C(1) << number : 0;
}

static bool is_bulk_storage(const uint8_t *p)
{
	return p[5] == GUARD_CLASS_STORAGE && p[7] == GUARD_PROTOCOL_BULK_ONLY;
}

static bool is_uas_storage(const uint8_t *p)
{
	return p[5] == GUARD_CLASS_STORAGE && p[7] == GUARD_PROTOCOL_UAS;
}

/* Those above 31 have no bit, and go. */
static bool keeps(const struct guard_rules *rules, const struct survey *s, const uint8_t *p)
{
	uint32_t b = bit(p[2]);

	if (!(rules->interfaces & b) || !rules->guards_storage || !(s->storage & b)) {
		return rules->interfaces & b;
	}
	/* The device begins with altsetting 0, whatever the guest sees. */
	return ((s->bulk & b) && is_bulk_storage(p)) ||
	       ((s->uas & b) && is_uas_storage(p) && p[3] == 0);
}

void guard_find_pipes(const uint8_t *config, size_t size, uint8_t interface, uint8_t alt,
	uint8_t pipes_out[UAS_PIPES])
{
	const uint8_t *p;
	uint8_t endpoint = 0;
	bool inside = false;

	memset(pipes_out, 0, UAS_PIPES);
	if (!is_config(config, size)) {
		return;
	}
	for (size_t at = config[0]; (p = next(config, size, &at));) {
		if (p[1] == INTERFACE) {
			inside = is_interface(p) && p[2] == interface && p[3] == alt;
			endpoint = 0;
		} else if (p[1] == ENDPOINT && p[0] >= ENDPOINT_SIZE) {
			endpoint = p[2];
		} else if (inside && p[1] == PIPE_USAGE && p[0] >= PIPE_USAGE_SIZE &&
			   p[2] >= UAS_COMMAND && p[2] < UAS_PIPES && pipes_out[p[2]] == 0) {
			pipes_out[p[2]] = endpoint;
		}
	}
}

/* Without one of its pipes it is none. */
static bool has_pipes(const uint8_t *config, size_t size, const uint8_t *interface)
{
	uint8_t pipes[UAS_PIPES];

	guard_find_pipes(config, size, interface[2], interface[3], pipes);
	return pipes[UAS_COMMAND] && pipes[UAS_STATUS] && pipes[UAS_DATA_IN] && pipes[UAS_DATA_OUT];
}

static void survey(
	const struct guard_rules *rules, const uint8_t *config, size_t size, struct survey *s)
{
	const uint8_t *p;
	unsigned int units = 0;

	*s = (struct survey){0};
	for (size_t at = config[0]; (p = next(config, size, &at));) {
		if (!is_interface(p)) {
			continue;
		}
		s->all |= bit(p[2]);
		s->beyond |= bit(p[2]) == 0;
		if (p[5] == GUARD_CLASS_STORAGE) {
			s->storage |= bit(p[2]);
		}
		if ((is_bulk_storage(p) || (is_uas_storage(p) && has_pipes(config, size, p))) &&
			p[3] == 0 && !((s->bulk | s->uas) & bit(p[2])) &&
			(rules->interfaces & bit(p[2])) && units < GUARD_UNITS_MAX) {
			*(is_bulk_storage(p) ? &s->bulk : &s->uas) |= bit(p[2]);
			units++;
		}
	}
	for (size_t at = config[0]; (p = next(config, size, &at));) {
		if (is_interface(p) && keeps(rules, s, p)) {
			s->kept |= bit(p[2]);
		}
	}
}

/* An association of which some interfaces are gone: of those that are left, if they are still one
 * behind the other. False: it goes. */
static bool shrink_association(const struct survey *s, uint8_t *p)
{
	unsigned int first = 0, last = 0, n = 0;

	for (unsigned int i = p[2]; i < (unsigned int)p[2] + p[3]; i++) {
		if (i < INTERFACES && s->kept & UINT32_C(1) << i) {
			first = n == 0 ? i : first;
			last = i;
			n++;
		}
	}
	if (n == 0 || last - first + 1 != n) {
		return false;
	}
	p[2] = (uint8_t)first;
	p[3] = (uint8_t)n;
	return true;
}

size_t guard_rewrite(const struct guard_rules *rules, const uint8_t *config, size_t size,
	uint8_t *out, struct guard_view *view_out)
{
	struct guard_view view = {0};
	struct survey s;
	const uint8_t *p;
	size_t to;
	bool copying = true; /* of what stands before the first interface */

	if (!is_config(config, size)) {
		return 0;
	}
	survey(rules, config, size, &s);
	to = config[0];
	memcpy(out, config, to);
	for (size_t at = config[0]; (p = next(config, size, &at));) {
		if (p[1] == INTERFACE) {
			copying = is_interface(p) && keeps(rules, &s, p);
		} else if (p[1] == ASSOCIATION) {
			copying = p[0] >= ASSOCIATION_SIZE;
		} else if (p[1] == ENDPOINT && p[0] >= ENDPOINT_SIZE && copying) {
			view.endpoints |= UINT32_C(1) << descriptors_slot(p[2]);
		}
		if (copying) {
			memcpy(out + to, p, p[0]);
			if (p[1] == ASSOCIATION) {
				copying = shrink_association(&s, out + to);
			}
			to += copying ? p[0] : 0;
		}
	}
	view.interfaces = s.kept;
	view.hidden = s.all & ~s.kept;
	view.beyond = s.beyond;
	view.storage = s.kept & s.storage;
	put_le16(out + 2, (uint16_t)to);
	out[4] = (uint8_t)__builtin_popcount(s.kept);
	*view_out = view;
	return to;
}

uint32_t guard_find_class(const uint8_t *config, size_t size, uint8_t class, uint8_t subclass)
{
	const uint8_t *p;
	uint32_t found = 0;

	if (!is_config(config, size)) {
		return 0;
	}
	for (size_t at = config[0]; (p = next(config, size, &at));) {
		if (is_interface(p) && p[5] == class && p[6] == subclass) {
			found |= bit(p[2]);
		}
	}
	return found;
}
