/* SPDX-License-Identifier: MIT
 * What the guard shows of a device, and which control requests pass.
 */
#include "usb/guard.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/guard-fixture.h"
#include "usb/bytes.h"

#define BIT(n) (UINT32_C(1) << (n))

static const struct guard_options everything = {.interfaces = UINT32_MAX};
static const struct guard_options keyboard_only = {.interfaces = BIT(7)};
static const struct guard_options read_only = {.interfaces = UINT32_MAX, .read_only = true};

/* The header with another length and number of interfaces, then parts of the device's own. */
static void check_config(const struct guarded *g, const uint8_t *wanted, size_t size, uint8_t n)
{
	const uint8_t *c = g->view.config;

	assert_int_equal(g->view.config_size, 9 + size);
	assert_int_equal(get_le16(c + 2), 9 + size);
	assert_int_equal(c[4], n);
	assert_memory_equal(c + 5, guarded_config + 5, 4);
	assert_memory_equal(c + 9, wanted, size);
}

static void nothing_hidden_nothing_changed(void **state)
{
	struct guarded g = {0};

	assert_int_equal(guarded_start(&g, &everything), 0);
	assert_memory_equal(&g.view, &g.device, sizeof(g.view));
	/* Only control requests are looked at, because of the firmware. */
	assert_int_equal(guard_watched(g.guard), BIT(0) | BIT(16));
	assert_true(guard_may_configure(g.guard, 9));
	guarded_finish(&g);
}

static void without_firmware_nothing_is_watched(void **state)
{
	const struct guard_options allowed = {.interfaces = UINT32_MAX, .allow_firmware = true};
	struct guarded g = {0}, plain = {0};

	assert_int_equal(guarded_start(&g, &allowed), 0);
	assert_int_equal(guard_watched(g.guard), 0);
	guarded_finish(&g);
	memcpy(plain.device.config, guarded_config, 50);
	plain.device.config_size = 50; /* up to the serial line */
	assert_int_equal(guarded_start(&plain, &everything), 0);
	assert_int_equal(guard_watched(plain.guard), 0);
	guarded_finish(&plain);
}

static void one_interface(void **state)
{
	struct guarded g = {0};

	assert_int_equal(guarded_start(&g, &keyboard_only), 0);
	check_config(&g, guarded_config + guarded_config_size - 16, 16, 1);
	assert_int_equal(g.view.device[17], 1);
	assert_int_equal(g.descriptors.n_interfaces, 1);
	assert_int_equal(g.descriptors.interfaces[0].number, 7);
	assert_non_null(descriptors_endpoint(&g.descriptors, 0x87));
	assert_null(descriptors_endpoint(&g.descriptors, 0x83));
	assert_true(guard_may_configure(g.guard, 0) && guard_may_configure(g.guard, 1));
	assert_false(guard_may_configure(g.guard, 2));
	guarded_finish(&g);
}

/* An association of which one interface is left names that one alone. */
static void associations_shrink(void **state)
{
	static const struct {
		uint32_t interfaces;
		int first; /* -1: it is gone */
		int n;
	} all[] = {
		{BIT(0) | BIT(1), 0, 2}, {BIT(0), 0, 1}, {BIT(1) | BIT(7), 1, 1}, {BIT(2), -1, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const struct guard_options o = {.interfaces = all[i].interfaces};
		struct guarded g = {0};
		const uint8_t *p = g.view.config + 9;

		assert_int_equal(guarded_start(&g, &o), 0);
		assert_int_equal(p[1] == 11, all[i].first >= 0);
		if (all[i].first >= 0) {
			assert_int_equal(p[2], all[i].first);
			assert_int_equal(p[3], all[i].n);
			/* What follows is an interface's. */
			assert_int_equal(p[8 + 1], 4);
			assert_int_equal(p[8 + 2], all[i].first);
		}
		guarded_finish(&g);
	}
}

static void an_association_with_a_hole_goes(void **state)
{
	static const uint8_t config[] = {9, 2, 44, 0, 3, 1, 0, 0x80, 50, 8, 11, 0, 3, 2, 2, 1, 0, 9,
		4, 0, 0, 0, 255, 0, 0, 0, 9, 4, 1, 0, 0, 255, 0, 0, 0, 9, 4, 2, 0, 0, 255, 0, 0, 0};
	const struct guard_options o = {.interfaces = BIT(0) | BIT(2)};
	struct guarded g = {.device.config_size = sizeof(config)};

	memcpy(g.device.config, config, sizeof(config));
	assert_int_equal(guarded_start(&g, &o), 0);
	assert_int_equal(g.view.config_size, 27);
	assert_memory_equal(g.view.config + 9, config + 17, 9);
	assert_memory_equal(g.view.config + 18, config + 35, 9);
	guarded_finish(&g);
}

static void read_only_hides_uas(void **state)
{
	struct guarded g = {0};
	uint8_t alt = 9;

	assert_int_equal(guarded_start(&g, &read_only), 0);
	assert_int_equal(g.view.config[4], 5);
	assert_int_equal(g.view.config_size, guarded_config_size - 31);
	assert_int_equal(descriptors_has_alt(&g.descriptors, 2, 1), -ENOENT);
	assert_int_equal(descriptors_get_alt(&g.descriptors, 2, &alt), 0);
	assert_int_equal(alt, 0);
	assert_null(descriptors_endpoint(&g.descriptors, 0x04));
	assert_int_equal(guard_watched(g.guard), BIT(0) | BIT(16) | BIT(3) | BIT(19));
	guarded_finish(&g);
}

/* Altsetting 0 is where a device begins: if that is not bulk-only, the whole interface goes. */
static void what_can_not_be_protected(void **state)
{
	static const struct {
		uint8_t class, protocol;
		struct guard_options options;
	} all[] = {
		{8, 0x62, {.interfaces = UINT32_MAX, .read_only = true}},    /* UAS alone */
		{8, 0x00, {.interfaces = UINT32_MAX, .read_only = true}},    /* CBI */
		{0xff, 0x50, {.interfaces = UINT32_MAX, .read_only = true}}, /* no storage */
		{8, 0x50, {.interfaces = BIT(5), .read_only = true}},        /* hidden */
		{8, 0x50, {.interfaces = BIT(5)}},                           /* nothing left */
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const uint8_t config[] = {9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0,
			all[i].class, 6, all[i].protocol, 0};
		struct guarded g = {.device.config_size = sizeof(config)};

		memcpy(g.device.config, config, sizeof(config));
		assert_int_equal(guarded_start(&g, &all[i].options), -EOPNOTSUPP);
		guarded_finish(&g);
	}
}

static void another_configuration_is_no_view(void **state)
{
	struct guarded g = {0};
	struct usb_description view;

	assert_int_equal(guarded_start(&g, &keyboard_only), 0);
	g.device.config[5] = 2;
	assert_int_equal(guard_describe(g.guard, &g.device, &view), -EBADMSG);
	g.device.config_size = 0; /* unconfigured */
	assert_int_equal(guard_describe(g.guard, &g.device, &view), 0);
	assert_int_equal(view.config_size, 0);
	assert_int_equal(view.device[17], 1);
	guarded_finish(&g);
}

static void descriptors_are_read_from_here(void **state)
{
	struct guarded g = {0};
	struct packet p;

	assert_int_equal(guarded_start(&g, &keyboard_only), 0);
	assert_int_equal(guarded_control(&g, &p, 0x80, 6, 0x0200, 0, 9), FATE_DONE);
	assert_int_equal(p.t.actual, 9);
	assert_int_equal(get_le16(p.data + 2), 25);
	assert_int_equal(guarded_control(&g, &p, 0x80, 6, 0x0200, 0, 255), FATE_DONE);
	assert_int_equal(p.t.actual, 25);
	assert_memory_equal(p.data, g.view.config, 25);
	assert_int_equal(guarded_control(&g, &p, 0x80, 6, 0x0100, 0, 18), FATE_DONE);
	assert_int_equal(p.data[17], 1);
	assert_int_equal(guarded_control(&g, &p, 0x80, 6, 0x0100, 0, 8), FATE_DONE);
	assert_int_equal(p.t.actual, 8);
	/* The length is the packet's, whatever there is. */
	assert_int_equal(guarded_control(&g, &p, 0x80, 6, 0x0200, 0, 0), FATE_DONE);
	assert_int_equal(p.t.actual, 0);
	guarded_finish(&g);
}

/* Which requests pass, and which stall. */
static void control_requests(void **state)
{
	static const struct {
		const struct guard_options *options;
		uint8_t type, request;
		uint16_t value, index;
		bool passes;
	} all[] = {
		/* To the device. */
		{&keyboard_only, 0x80, 6, 0x0300, 0, true},  /* strings */
		{&keyboard_only, 0x80, 6, 0x0f00, 0, true},  /* BOS */
		{&keyboard_only, 0x80, 6, 0x0201, 0, false}, /* another configuration */
		{&keyboard_only, 0x80, 6, 0x0600, 0, false}, /* qualifier */
		{&keyboard_only, 0x80, 6, 0x0700, 0, false}, /* other speed */
		{&keyboard_only, 0x81, 6, 0x0200, 7, false}, /* by another way */
		{&keyboard_only, 0x00, 7, 0x0200, 0, false}, /* SET_DESCRIPTOR */
		{&keyboard_only, 0xc0, 1, 0, 0, true},       /* a vendor's */
		/* To interfaces and endpoints. */
		{&keyboard_only, 0x81, 6, 0x2200, 7, true}, /* HID report descriptor */
		{&keyboard_only, 0x21, 9, 0x0200, 7, true}, /* SET_REPORT */
		{&keyboard_only, 0x21, 9, 0x0200, 0x0107, true},
		{&keyboard_only, 0x21, 0x20, 0, 0, false}, /* SET_LINE_CODING to a hidden one */
		{&keyboard_only, 0x21, 0x20, 0, 39, false},
		{&keyboard_only, 0x41, 1, 0, 1, false},
		{&keyboard_only, 0x81, 0, 0, 2, false},   /* GET_STATUS of one */
		{&keyboard_only, 0x02, 1, 0, 0x87, true}, /* CLEAR_FEATURE */
		{&keyboard_only, 0x02, 1, 0, 0x83, false},
		{&keyboard_only, 0x82, 0, 0, 0x80, true},
		{&everything, 0x21, 0x20, 0, 0, true},
		{&everything, 0x80, 6, 0x0200, 0, true},
		/* Firmware. */
		{&everything, 0x21, 0, 1000, 5, false}, /* DETACH */
		{&everything, 0x21, 1, 0, 5, false},    /* DNLOAD */
		{&everything, 0x20, 1, 0, 5, false},    /* to the wrong recipient */
		{&everything, 0x23, 1, 0, 5, false},
		{&everything, 0xa1, 2, 0, 5, true}, /* UPLOAD */
		{&everything, 0xa1, 3, 0, 5, true}, /* GETSTATUS */
		{&everything, 0x21, 1, 0, 0, true}, /* SET_CUR to another interface */
		{&keyboard_only, 0x20, 1, 0, 0, false},
		/* Write-protected. */
		{&read_only, 0x21, 0xff, 0, 2, true},  /* Bulk-Only Mass Storage Reset */
		{&read_only, 0xa1, 0xfe, 0, 2, true},  /* Get Max LUN */
		{&read_only, 0x21, 0x00, 0, 2, false}, /* a command of CBI */
		{&read_only, 0x41, 0xff, 0, 2, false},
		{&read_only, 0xc1, 0xff, 0, 2, false},
		{&read_only, 0x40, 1, 0, 0, false}, /* a vendor's, to the device */
		{&read_only, 0x20, 0xff, 0, 2, false},
		{&read_only, 0x42, 1, 0, 0x03, false},
		{&read_only, 0x02, 1, 0, 0x03, true},
		{&read_only, 0x41, 1, 0, 7, true}, /* to something else */
		{&read_only, 0x80, 6, 0x0300, 0, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct guarded g = {0};
		struct packet p;
		enum fate fate;

		assert_int_equal(guarded_start(&g, all[i].options), 0);
		fate = guarded_control(
			&g, &p, all[i].type, all[i].request, all[i].value, all[i].index, 0);
		if (fate != (all[i].passes ? FATE_AT_DEVICE : FATE_DONE) ||
			(!all[i].passes && (p.t.status != TRANSFER_STALL || g.refused != 1))) {
			fail_msg("line %zu: %02x %02x to %04x", i, all[i].type, all[i].request,
				all[i].index);
		}
		guarded_finish(&g);
	}
}

static void firmware_may_be_allowed(void **state)
{
	const struct guard_options o = {.interfaces = BIT(5), .allow_firmware = true};
	struct guarded g = {0};
	struct packet p;

	assert_int_equal(guarded_start(&g, &o), 0);
	assert_int_equal(guarded_control(&g, &p, 0x21, 1, 0, 5, 0), FATE_AT_DEVICE);
	guarded_finish(&g);
}

/* Descriptors cut anywhere, and lengths that lie: never more than what there is. */
static void broken_descriptors(void **state)
{
	const struct guard_options o = {.interfaces = BIT(2) | BIT(7), .read_only = true};

	for (size_t at = 0; at < guarded_config_size; at++) {
		for (unsigned int value = 0; value < 256; value += at < 20 ? 1 : 51) {
			struct guarded g = {0};

			memcpy(g.device.config, guarded_config, guarded_config_size);
			g.device.config[at] = (uint8_t)value;
			g.device.config_size = guarded_config_size - (value & 1 ? at : 0);
			if (guarded_start(&g, &o) == 0) {
				assert_true(g.view.config_size <= g.device.config_size);
				assert_int_equal(get_le16(g.view.config + 2), g.view.config_size);
				assert_null(descriptors_endpoint(&g.descriptors, 0x82));
			}
			guarded_finish(&g);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_hidden_nothing_changed),
		cmocka_unit_test(without_firmware_nothing_is_watched),
		cmocka_unit_test(one_interface),
		cmocka_unit_test(associations_shrink),
		cmocka_unit_test(an_association_with_a_hole_goes),
		cmocka_unit_test(read_only_hides_uas),
		cmocka_unit_test(what_can_not_be_protected),
		cmocka_unit_test(another_configuration_is_no_view),
		cmocka_unit_test(descriptors_are_read_from_here),
		cmocka_unit_test(control_requests),
		cmocka_unit_test(firmware_may_be_allowed),
		cmocka_unit_test(broken_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
