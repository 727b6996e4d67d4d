/* SPDX-License-Identifier: MIT
 *
 * Where something is hidden or write-protected the guest sees one configuration, the one that was
 * active when it was lent, rewritten (usb/guard-descriptors.c): numbers of interfaces mean nothing
 * in another. The engine reads the same descriptors, so that endpoints and altsettings that are not
 * shown don't exist for it either, whatever the guest asks for. What is left for here are control
 * requests, which name interfaces and endpoints in their index, and commands of storage
 * (usb/guard-storage.c).
 *
 * Requests to the device as a whole pass, but for a write-protected one those of a vendor or a
 * class: nobody knows what they do. Firmware is what USB's own class for it (DFU 1.1) replaces;
 * loaders of a vendor's own can't be known.
 */
#include "usb/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "usb/descriptors.h"
#include "usb/guard-internal.h"

/* USB 2.0, 9.3, 9.4; bulk-only transport, 3; DFU 1.1, 3 */
enum {
	TYPE_MASK = 0x60,
	TYPE_STANDARD = 0x00,
	TYPE_CLASS = 0x20,
	TYPE_VENDOR = 0x40,
	RECIPIENT_MASK = 0x1f,
	RECIPIENT_DEVICE = 0,
	RECIPIENT_INTERFACE = 1,
	RECIPIENT_ENDPOINT = 2,
	DIRECTION_IN = 0x80,
	GET_DESCRIPTOR = 6,
	SET_DESCRIPTOR = 7,
	DESCRIPTOR_DEVICE = 1,
	DESCRIPTOR_CONFIG = 2,
	DESCRIPTOR_QUALIFIER = 6,
	DESCRIPTOR_OTHER_SPEED = 7,
	DEVICE_N_CONFIGS = 17,
	CONFIG_VALUE = 5,
	BULK_ONLY_RESET = 0xff,
	BULK_ONLY_MAX_LUN = 0xfe,
	DFU_DETACH = 0,
	DFU_DNLOAD = 1,
};

#define CONTROL_SLOTS (1u << 0 | 1u << 16)

int guard_create(const struct guard_options *options, const struct guard_ops *ops, void *userdata,
	struct guard **out)
{
	struct guard *g = calloc(1, sizeof(*g));

	if (!g) {
		return -ENOMEM;
	}
	g->options = *options;
	g->ops = ops;
	g->userdata = userdata;
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		guard_unit_init(&g->units[i], g);
		guard_uas_init(&g->uas[i], g);
	}
	*out = g;
	return 0;
}

void guard_destroy(struct guard *g)
{
	free(g);
}

/* ---- What the guest sees ---- */

static int rewrite(struct guard *g, const struct usb_description *device)
{
	const struct guard_rules rules = {
		.interfaces = g->options.interfaces,
		.guards_storage = g->options.read_only,
	};
	struct guard_view view = {0};
	size_t size =
		guard_rewrite(&rules, device->config, device->config_size, g->shown.config, &view);

	g->rewrites = g->rewrites || g->options.read_only || view.hidden != 0 ||
		      (view.beyond && g->options.interfaces != UINT32_MAX);
	if (!g->rewrites) {
		return 0;
	}
	if (size == 0 || view.interfaces == 0 || (g->options.read_only && view.storage == 0)) {
		return -EOPNOTSUPP;
	}
	g->view = view;
	g->pinned = device->config[CONFIG_VALUE];
	g->shown.config_size = size;
	memcpy(g->shown.device, device->device, sizeof(g->shown.device));
	g->shown.device[DEVICE_N_CONFIGS] = 1;
	g->shown.speed = device->speed;
	return 0;
}

int guard_describe(
	struct guard *g, const struct usb_description *device, struct usb_description *view_out)
{
	int r = 0;

	if (device->config_size > sizeof(device->config)) {
		return -EBADMSG;
	}
	g->firmware = guard_find_class(
		device->config, device->config_size, GUARD_CLASS_APPLICATION, GUARD_SUBCLASS_DFU);
	if (device->config_size == 0 && g->pinned != 0) {
		/* Not configured for now; it still is the device that is shown. */
		*view_out = g->shown;
		view_out->config_size = 0;
		return 0;
	}
	if (g->pinned != 0 && (device->config_size <= CONFIG_VALUE ||
				      device->config[CONFIG_VALUE] != g->pinned)) {
		return -EBADMSG;
	}
	r = rewrite(g, device);
	if (r == 0) {
		*view_out = g->rewrites ? g->shown : *device;
	}
	return r;
}

bool guard_may_configure(const struct guard *g, uint8_t value)
{
	return !g->rewrites || value == 0 || value == g->pinned;
}

/* ---- Which transfers it wants ---- */

static struct guard_unit *unit_of(struct guard *g, uint8_t interface)
{
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		if (g->units[i].used && g->units[i].interface == interface) {
			return &g->units[i];
		}
	}
	return NULL;
}

/* The first endpoint of each direction is the transport's; others have no business there. */
static void add_unit(struct guard *g, const struct descriptors *d, const struct usb_alt *alt)
{
	struct guard_unit *u = NULL;
	uint32_t all = 0;

	for (size_t i = 0; i < GUARD_UNITS_MAX && !u; i++) {
		u = g->units[i].used ? NULL : &g->units[i];
	}
	for (size_t i = 0; i < alt->n_endpoints; i++) {
		const struct usb_endpoint *e = &d->endpoints[alt->first_endpoint + i];
		uint32_t slot = 1u << descriptors_slot(e->address);

		if (u && e->type == USB_ENDPOINT_BULK && !(all & slot)) {
			uint8_t *address = e->address & 0x80 ? &u->in : &u->out;
			uint16_t *packet = e->address & 0x80 ? &u->in_packet : &u->out_packet;

			*packet = *address ? *packet : e->max_packet_size;
			*address = *address ? *address : e->address;
		}
		all |= slot;
	}
	g->watched |= all;
	g->blocked |= all;
	if (u && u->in && u->out && u->in_packet && u->out_packet) {
		u->used = true;
		u->interface = alt->interface;
		g->blocked &= ~(1u << descriptors_slot(u->in) | 1u << descriptors_slot(u->out));
	}
}

/* Its pipes are four bulk endpoints, each of its own, in the right directions. */
static bool pipes_ok(const struct descriptors *d, const struct usb_alt *alt, const uint8_t *pipes)
{
	unsigned int found = 0;

	for (unsigned int pipe = UAS_COMMAND; pipe < UAS_PIPES; pipe++) {
		bool in = pipe == UAS_STATUS || pipe == UAS_DATA_IN;

		if ((pipes[pipe] & 0x8f) != pipes[pipe] || !(pipes[pipe] & 0x80) == in) {
			return false;
		}
		for (size_t i = 0; i < alt->n_endpoints; i++) {
			const struct usb_endpoint *e = &d->endpoints[alt->first_endpoint + i];

			found += e->address == pipes[pipe] && e->type == USB_ENDPOINT_BULK;
		}
	}
	return found == UAS_PIPES - UAS_COMMAND && pipes[UAS_STATUS] != pipes[UAS_DATA_IN] &&
	       pipes[UAS_COMMAND] != pipes[UAS_DATA_OUT];
}

static void add_uas(struct guard *g, const struct descriptors *d, const struct usb_alt *alt)
{
	struct guard_uas *u = NULL;
	uint32_t all = 0;

	for (size_t i = 0; i < GUARD_UNITS_MAX && !u; i++) {
		u = g->uas[i].used ? NULL : &g->uas[i];
	}
	for (size_t i = 0; i < alt->n_endpoints; i++) {
		all |= 1u << descriptors_slot(d->endpoints[alt->first_endpoint + i].address);
	}
	g->watched |= all;
	g->blocked |= all;
	if (!u) {
		return;
	}
	guard_find_pipes(g->shown.config, g->shown.config_size, alt->interface, alt->alt, u->pipes);
	if (pipes_ok(d, alt, u->pipes)) {
		u->used = true;
		u->interface = alt->interface;
	}
}

void guard_update(struct guard *g, const struct descriptors *d)
{
	g->watched = g->blocked = 0;
	if (g->rewrites || (g->firmware && !g->options.allow_firmware)) {
		g->watched = CONTROL_SLOTS;
	}
	if (!g->options.read_only) {
		return;
	}
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		g->units[i].used = false;
		g->units[i].in = g->units[i].out = 0;
		g->uas[i].used = false;
	}
	for (size_t i = 0; i < d->n_interfaces; i++) {
		const struct usb_alt *alt = &d->alts[d->interfaces[i].active];

		if (alt->class == GUARD_CLASS_STORAGE && alt->protocol == GUARD_PROTOCOL_UAS) {
			add_uas(g, d, alt);
		} else if (alt->class == GUARD_CLASS_STORAGE) {
			add_unit(g, d, alt);
		}
	}
}

uint32_t guard_watched(const struct guard *g)
{
	return g->watched;
}

uint32_t guard_streamed(const struct guard *g)
{
	uint32_t slots = 0;

	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		for (unsigned int pipe = UAS_STATUS; g->uas[i].used && pipe < UAS_PIPES; pipe++) {
			slots |= 1u << descriptors_slot(g->uas[i].pipes[pipe]);
		}
	}
	return slots;
}

/* ---- Control requests ---- */

static bool shows_interface(const struct guard *g, uint8_t number)
{
	return number < 32 && g->view.interfaces & UINT32_C(1) << number;
}

static bool is_storage(const struct guard *g, uint8_t number)
{
	return g->options.read_only && number < 32 && g->view.storage & UINT32_C(1) << number;
}

/* Interface number or endpoint address. */
static uint8_t index_of(const struct usb_setup *s)
{
	return s->index & 0xff;
}

static bool to_interface_ok(const struct guard *g, const struct usb_setup *s)
{
	uint8_t type = s->request_type & TYPE_MASK;

	if (!shows_interface(g, index_of(s))) {
		return false;
	}
	if (!is_storage(g, index_of(s)) || type == TYPE_STANDARD) {
		return true;
	}
	return type == TYPE_CLASS &&
	       (s->request == BULK_ONLY_RESET || s->request == BULK_ONLY_MAX_LUN);
}

static bool to_endpoint_ok(const struct guard *g, const struct usb_setup *s)
{
	uint8_t address = index_of(s);
	uint32_t slot = 1u << descriptors_slot(address);

	if ((address & 0x0f) == 0) {
		return true;
	}
	if (!(g->view.endpoints & slot)) {
		return false;
	}
	return (s->request_type & TYPE_MASK) == TYPE_STANDARD ||
	       !(g->options.read_only && g->watched & slot);
}

/* Reads or writes descriptors that are rewritten, other than from here. */
static bool bypasses(const struct usb_setup *s)
{
	uint8_t type = (uint8_t)(s->value >> 8);

	if ((s->request_type & TYPE_MASK) != TYPE_STANDARD) {
		return false;
	}
	if (s->request == SET_DESCRIPTOR) {
		return true;
	}
	/* A device with two speeds would tell its other configuration: this one has one speed. */
	return s->request == GET_DESCRIPTOR &&
	       (type == DESCRIPTOR_DEVICE || type == DESCRIPTOR_CONFIG ||
		       type == DESCRIPTOR_QUALIFIER || type == DESCRIPTOR_OTHER_SPEED);
}

static bool replaces_firmware(const struct guard *g, const struct usb_setup *s)
{
	uint8_t recipient = s->request_type & RECIPIENT_MASK;

	if (g->options.allow_firmware || g->firmware == 0 || s->request_type & DIRECTION_IN ||
		(s->request_type & TYPE_MASK) != TYPE_CLASS ||
		(s->request != DFU_DETACH && s->request != DFU_DNLOAD)) {
		return false;
	}
	if (recipient == RECIPIENT_INTERFACE) {
		return index_of(s) < 32 && g->firmware & UINT32_C(1) << index_of(s);
	}
	/* A device may not look closely to whom it is. */
	return recipient != RECIPIENT_ENDPOINT;
}

static bool may_pass(const struct guard *g, const struct usb_setup *s)
{
	if (replaces_firmware(g, s)) {
		return false;
	}
	if (!g->rewrites) {
		return true;
	}
	if (bypasses(s)) {
		return false;
	}
	switch (s->request_type & RECIPIENT_MASK) {
	case RECIPIENT_INTERFACE:
		return to_interface_ok(g, s);
	case RECIPIENT_ENDPOINT:
		return to_endpoint_ok(g, s);
	default:
		return !g->options.read_only || (s->request_type & TYPE_MASK) == TYPE_STANDARD;
	}
}

/* What is read of the device itself and answered from here. NULL: something else. */
static const uint8_t *find_answer(
	const struct guard *g, const struct usb_setup *s, size_t *size_out)
{
	if (!g->rewrites || s->request_type != DIRECTION_IN || s->request != GET_DESCRIPTOR) {
		return NULL;
	}
	if (s->value == DESCRIPTOR_DEVICE << 8) {
		*size_out = sizeof(g->shown.device);
		return g->shown.device;
	}
	if (s->value == DESCRIPTOR_CONFIG << 8) {
		*size_out = g->shown.config_size;
		return g->shown.config;
	}
	return NULL;
}

static void submit_control(struct guard *g, struct transfer *t)
{
	const struct usb_setup *s = &t->setup;
	struct guard_unit *u;
	size_t size = 0;
	const uint8_t *answer = find_answer(g, s, &size);

	if (answer) {
		size = MIN(size, (size_t)t->length);
		if (size > 0) {
			memcpy(t->data, answer, size);
		}
		guard_complete(g, t, TRANSFER_OK, (uint32_t)size);
		return;
	}
	if (!may_pass(g, s)) {
		g->ops->refused(g->userdata);
		guard_complete(g, t, TRANSFER_STALL, 0);
		return;
	}
	u = unit_of(g, index_of(s));
	if (u && g->options.read_only && s->request == BULK_ONLY_RESET &&
		(s->request_type & (TYPE_MASK | RECIPIENT_MASK)) ==
			(TYPE_CLASS | RECIPIENT_INTERFACE)) {
		guard_unit_reset(u);
	}
	g->ops->submit(g->userdata, t);
}

/* ---- Transfers ---- */

static struct guard_unit *unit_at(struct guard *g, uint8_t address)
{
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		struct guard_unit *u = &g->units[i];

		if (u->used && (address == u->in || address == u->out)) {
			return u;
		}
	}
	return NULL;
}

static struct guard_uas *uas_at(struct guard *g, uint8_t address)
{
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		struct guard_uas *u = &g->uas[i];

		if (u->used && memchr(u->pipes + UAS_COMMAND, address, UAS_PIPES - UAS_COMMAND)) {
			return u;
		}
	}
	return NULL;
}

void guard_submit(struct guard *g, struct transfer *t)
{
	struct guard_unit *u;
	struct guard_uas *uas;

	if (t->type == TRANSFER_CONTROL) {
		submit_control(g, t);
		return;
	}
	u = t->type == TRANSFER_BULK ? unit_at(g, t->endpoint) : NULL;
	if (u) {
		guard_unit_submit(u, t);
		return;
	}
	uas = t->type == TRANSFER_BULK ? uas_at(g, t->endpoint) : NULL;
	if (uas) {
		guard_uas_submit(uas, t);
		return;
	}
	g->ops->refused(g->userdata);
	guard_complete(g, t, TRANSFER_STALL, 0);
}

void guard_completed(struct guard *g, struct transfer *t)
{
	if (t->guard_unit > GUARD_UNITS_MAX) {
		guard_uas_completed(&g->uas[t->guard_unit - 1 - GUARD_UNITS_MAX], t);
	} else {
		guard_unit_completed(&g->units[t->guard_unit - 1], t);
	}
	t->guard_unit = 0;
}

void guard_continue(struct guard *g)
{
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		guard_unit_run(&g->units[i]);
		guard_uas_run(&g->uas[i]);
	}
}

void guard_cancel(struct guard *g, struct transfer *t)
{
	list_remove(&t->backend);
	guard_complete(g, t, TRANSFER_CANCELLED, 0);
}

void guard_forget(struct guard *g, int interface)
{
	for (size_t i = 0; i < GUARD_UNITS_MAX; i++) {
		if (interface < 0 || g->units[i].interface == interface) {
			guard_unit_reset(&g->units[i]);
		}
		if (interface < 0 || g->uas[i].interface == interface) {
			guard_uas_reset(&g->uas[i]);
		}
	}
}
