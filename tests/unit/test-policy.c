/* SPDX-License-Identifier: MIT
 * Where a device shall be, by its udev properties.
 */
#include "broker/policy.h"

#include <string.h>

#include "broker/usb-facts.h"
#include "tests/unit/test.h"

/* properties: sorted, as udev's are read; ends with NULL. */
static struct policy_decision decide(const char *const *properties)
{
	struct usb_facts f = {.properties = (char **)(uintptr_t)properties};
	struct policy_decision d;

	while (properties[f.n_properties]) {
		f.n_properties++;
	}
	memset(&d, 0xa5, sizeof(d));
	policy_decide(&f, &d);
	return d;
}

#define DECIDE(...) decide((const char *const[]){__VA_ARGS__, NULL})

static void nothing_said(void **state)
{
	struct policy_decision d = DECIDE("DEVNAME=/dev/bus/usb/001/002", "ID_MODEL=x");

	assert_int_equal(d.action, POLICY_HOST);
	assert_string_equal(d.why, "");
	assert_string_equal(d.vm, "");
}

static void to_a_vm(void **state)
{
	struct policy_decision d = DECIDE("DEVBROKER_VM=win11");

	assert_int_equal(d.action, POLICY_ATTACH);
	assert_string_equal(d.vm, "win11");
	assert_false(d.options.keep_drivers_off);
	assert_false(d.options.last_input);
	assert_string_equal(d.why, "A udev rule gives it to vm win11 (DEVBROKER_VM).");

	d = DECIDE("DEVBROKER_HOST_DRIVERS=away", "DEVBROKER_LAST_INPUT=yes", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_ATTACH);
	assert_true(d.options.keep_drivers_off);
	assert_true(d.options.last_input);
}

/* The stronger word counts: nobody gets what is denied, whoever else wants it. */
static void said_twice(void **state)
{
	struct policy_decision d = DECIDE("DEVBROKER_ACTION=deny", "DEVBROKER_VM=win11");

	assert_int_equal(d.action, POLICY_DENY);
	d = DECIDE("DEVBROKER_ACTION=host", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_HOST);
	assert_true(d.why[0]);
}

static void no_sense(void **state)
{
	static const char *const bad[] = {"DEVBROKER_ACTION=", "DEVBROKER_ACTION=Deny",
		"DEVBROKER_VM=", "DEVBROKER_VM=../x", "DEVBROKER_VM=a b", "DEVBROKER_VM=\x1b[2J"};
	struct policy_decision d;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		d = DECIDE(bad[i]);
		assert_int_equal(d.action, POLICY_HOST);
		assert_non_null(strstr(d.why, "the host keeps it"));
		assert_null(strchr(d.why, '\x1b'));
	}
	d = DECIDE("DEVBROKER_HOST_DRIVERS=off", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_HOST);
	d = DECIDE("DEVBROKER_LAST_INPUT=perhaps", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_HOST);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_said),
		cmocka_unit_test(to_a_vm),
		cmocka_unit_test(said_twice),
		cmocka_unit_test(no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
