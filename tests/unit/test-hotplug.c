/* SPDX-License-Identifier: MIT
 * With a sysfs of its own and udev's messages over real netlink, the kernel's queue and all.
 */
#include "broker/hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/log.h"
#include "broker/usb-facts.h"
#include "tests/unit/fake-sysfs.h"
#include "tests/unit/test.h"

#define XHCI "pci0000:00/0000:00:14.0"
#define HS   XHCI "/usb1"
#define SS   XHCI "/usb2"
#define KEY  "usb:0000:00:14.0-"

/* What was told, as "+key", "~key", "-key", with blanks between. */
struct told {
	sd_event *event;
	struct hotplug *hotplug;
	char text[64 * 1024];
	unsigned int n;
};

static void tell(struct told *t, char what, const struct usb_facts *f)
{
	size_t used = strlen(t->text);

	snprintf(t->text + used, sizeof(t->text) - used, "%s%c%s", used ? " " : "", what,
		f->key + strlen(KEY));
	t->n++;
	/* Whoever is told can look it up, but for what is gone. */
	assert_true(hotplug_find(t->hotplug, f->key) == (what == '-' ? NULL : f));
}

static void appeared(void *userdata, const struct usb_facts *f)
{
	tell(userdata, '+', f);
}

static void changed(void *userdata, const struct usb_facts *old, const struct usb_facts *f)
{
	assert_string_equal(old->key, f->key);
	assert_false(usb_facts_equal(old, f));
	tell(userdata, '~', f);
}

static void gone(void *userdata, const struct usb_facts *f)
{
	tell(userdata, '-', f);
}

static const struct hotplug_ops ops = {appeared, changed, gone};

static void plug(const char *path, const char *speed)
{
	fake_plug(&(struct fake_device){
		.path = path, .ids = "951:1666:110", .class = "000000", .speed = speed});
}

/* The same, and udev has seen to it. */
static void plug_known(const char *path, const char *speed)
{
	plug(path, speed);
	fake_initialized(path, "");
}

static int set_up(void **state)
{
	struct told *t = calloc(1, sizeof(*t));

	fake_sysfs_reset();
	fake_controller(XHCI, "pci");
	fake_plug(&(struct fake_device){.path = HS, .ids = "1d6b:2:601", .class = "090001"});
	fake_plug(&(struct fake_device){
		.path = SS, .ids = "1d6b:3:601", .class = "090003", .speed = "5000"});
	fake_peers(HS, 5, SS, 2);
	fake_initialized(HS, "");
	fake_initialized(SS, "");
	assert_true(sd_event_new(&t->event) >= 0);
	assert_int_equal(hotplug_create(t->event, &ops, t, &t->hotplug), 0);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct told *t = *state;

	hotplug_destroy(t->hotplug);
	sd_event_unref(t->event);
	free(t);
	return 0;
}

/* Runs the loop until nothing has happened for usec. */
static void run(struct told *t, uint64_t usec)
{
	int r;

	while ((r = sd_event_run(t->event, usec)) > 0) {
	}
	assert_int_equal(r, 0);
}

static void expect(struct told *t, const char *text)
{
	run(t, 0);
	assert_string_equal(t->text, text);
	t->text[0] = '\0';
	t->n = 0;
}

static void start(struct told *t, const char *text)
{
	assert_int_equal(hotplug_start(t->hotplug), 0);
	expect(t, text);
}

static void event(const char *action, const char *path)
{
	assert_int_equal(fake_event(action, path, "usb_device"), 0);
}

static void test_present_at_start(void **state)
{
	struct told *t = *state;

	plug_known(HS "/1-1", NULL);
	/* udev has not come to this one. */
	plug(HS "/1-2", NULL);
	start(t, "+0 +1 +ss0");
	assert_null(hotplug_warning(t->hotplug));
	assert_int_equal(hotplug_find(t->hotplug, KEY "1")->vendor, 0x951);
	fake_initialized(HS "/1-2", "");
	event("add", HS "/1-2");
	expect(t, "+2");
}

/* Between listening and listing: told once. */
static void test_no_gap_at_start(void **state)
{
	struct told *t = *state;

	plug_known(HS "/1-1", NULL);
	event("add", HS "/1-1");
	start(t, "+0 +1 +ss0");
	event("bind", HS "/1-1");
	expect(t, "");
}

static void test_comes_changes_goes(void **state)
{
	struct told *t = *state;

	start(t, "+0 +ss0");
	plug(HS "/1-1", NULL);
	fake_interface(HS "/1-1", "1-1:1.0", "080650", NULL);
	event("add", HS "/1-1");
	expect(t, "");
	fake_initialized(HS "/1-1", "E:DEVBROKER_VM=win11\n");
	event("add", HS "/1-1");
	event("bind", HS "/1-1");
	expect(t, "+1");
	/* A driver came: udev's event is about the interface. */
	fake_link(HS "/1-1/1-1:1.0", "driver", "/sys/bus/usb/drivers/usb-storage");
	assert_int_equal(fake_event("bind", HS "/1-1/1-1:1.0", "usb_interface"), 0);
	expect(t, "~1");
	assert_string_equal(hotplug_find(t->hotplug, KEY "1")->interfaces[0].driver, "usb-storage");
	fake_initialized(HS "/1-1", "E:DEVBROKER_VM=other\n");
	event("change", HS "/1-1");
	expect(t, "~1");
	fake_remove(HS "/1-1");
	event("remove", HS "/1-1");
	expect(t, "-1");
	event("remove", HS "/1-1");
	expect(t, "");
}

/* Another one, so fast that every event is about the new one. */
static void test_replugged(void **state)
{
	struct told *t = *state;

	plug_known(HS "/1-1", NULL);
	start(t, "+0 +1 +ss0");
	fake_remove(HS "/1-1");
	plug(HS "/1-1", NULL);
	/* udev still has to see to it. */
	event("remove", HS "/1-1");
	expect(t, "-1");
	fake_initialized(HS "/1-1", "");
	event("add", HS "/1-1");
	expect(t, "+1");
	fake_remove(HS "/1-1");
	plug_known(HS "/1-1", NULL);
	event("remove", HS "/1-1");
	event("add", HS "/1-1");
	expect(t, "-1 +1");
}

static void test_other_half(void **state)
{
	struct told *t = *state;

	plug_known(HS "/1-5", NULL);
	start(t, "+0 +5 +ss0");
	/* Comes again at its full speed; the events in an order that udev does not promise. */
	fake_remove(HS "/1-5");
	plug_known(SS "/2-2", "5000");
	event("add", SS "/2-2");
	event("remove", HS "/1-5");
	expect(t, "-5 +5");
	assert_string_equal(hotplug_find(t->hotplug, KEY "5")->sysname, "2-2");
	/* The peer link goes with the hub; the key stays. */
	fake_remove(SS "/2-0:1.0");
	fake_initialized(SS "/2-2", "E:NEW=1\n");
	event("change", SS "/2-2");
	expect(t, "~5");
}

static void test_two_at_one_place(void **state)
{
	struct told *t = *state;

	plug_known(HS "/1-5", NULL);
	start(t, "+0 +5 +ss0");
	plug_known(SS "/2-2", "5000");
	event("add", SS "/2-2");
	expect(t, "+ss2");
	fake_remove(HS "/1-5");
	event("remove", HS "/1-5");
	expect(t, "-5");
	plug_known(HS "/1-5", NULL);
	event("add", HS "/1-5");
	event("change", SS "/2-2");
	expect(t, "+5");
	fake_remove(SS "/2-2");
	fake_remove(HS "/1-5");
	event("remove", SS "/2-2");
	event("remove", HS "/1-5");
	expect(t, "-ss2 -5");
}

/* Many events are one look. */
static void test_coalesced(void **state)
{
	struct told *t = *state;

	start(t, "+0 +ss0");
	plug_known(HS "/1-1", NULL);
	for (int i = 0; i < 1000; i++) {
		event("change", HS "/1-1");
		event("change", HS "/1-9");
	}
	expect(t, "+1");
}

/* More events than the kernel keeps: what they were about is found out all the same. */
static void test_overflow(void **state)
{
	struct told *t = *state;
	char path[64];

	plug(HS "/1-1", NULL);
	plug(HS "/1-2", NULL);
	fake_initialized(HS "/1-1", "");
	fake_initialized(HS "/1-2", "");
	start(t, "+0 +1 +2 +ss0");
	/* No event is about these. */
	fake_remove(HS "/1-1");
	for (int i = 3; i < 6; i++) {
		snprintf(path, sizeof(path), HS "/1-%d", i);
		plug_known(path, NULL);
	}
	for (int i = 0; i < 1000; i++) {
		event("change", HS "/1-2");
	}
	run(t, 500000);
	expect(t, "");
	for (int i = 0; i < 60000; i++) {
		event("change", HS "/1-2");
	}
	run(t, 500000);
	expect(t, "-1 +3 +4 +5");
}

static void test_without_udev(void **state)
{
	struct told *t = *state;
	struct hotplug *h;

	fake_udev(false);
	plug(HS "/1-1", NULL);
	assert_int_equal(hotplug_create(t->event, &ops, t, &h), 0);
	assert_non_null(hotplug_warning(h));
	hotplug_destroy(t->hotplug);
	t->hotplug = h;
	start(t, "+0 +1 +ss0");
	/* Where no event comes from, somebody who knows can say it. */
	fake_remove(HS "/1-1");
	hotplug_poke(h, "/sys/devices/" HS "/1-1");
	expect(t, "-1");
}

static void test_too_many(void **state)
{
	struct told *t = *state;
	char path[64];

	for (int i = 1; i < HOTPLUG_DEVICES_MAX + 1; i++) {
		snprintf(path, sizeof(path), HS "/1-%d", i);
		plug_known(path, NULL);
	}
	assert_int_equal(hotplug_start(t->hotplug), 0);
	assert_int_equal(t->n, HOTPLUG_DEVICES_MAX);
	assert_non_null(hotplug_warning(t->hotplug));
	/* Room for one of the two that were left out, which no event is about. */
	t->text[0] = '\0';
	fake_remove(HS "/1-7");
	event("remove", HS "/1-7");
	run(t, 300000);
	assert_memory_equal(t->text, "-7 +", 4);
	assert_int_equal(t->n, HOTPLUG_DEVICES_MAX + 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_present_at_start, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_gap_at_start, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_comes_changes_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_replugged, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_half, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_two_at_one_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_coalesced, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_overflow, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_without_udev, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many, set_up, tear_down),
	};

	return fake_sysfs_enter() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
