/* SPDX-License-Identifier: MIT */
#include "broker/usb-facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fake-sysfs.h"
#include "tests/unit/test.h"

#define XHCI "pci0000:00/0000:00:14.0"
#define HS   XHCI "/usb1"
#define SS   XHCI "/usb2"

/* One xHCI controller: USB 2 ports 1 to 8 on bus 1, SuperSpeed ports 1 to 3 on bus 2. Connector B
 * is USB 2 port 5 and SuperSpeed port 2; SuperSpeed port 3 has no half that the kernel knows. */
static int set_up(void **state)
{
	fake_sysfs_reset();
	fake_controller(XHCI, "pci");
	fake_plug(&(struct fake_device){.path = HS, .ids = "1d6b:2:601", .class = "090001"});
	fake_plug(&(struct fake_device){
		.path = SS, .ids = "1d6b:3:601", .class = "090003", .speed = "10000"});
	fake_interface(HS, "1-0:1.0", "090000", "hub");
	fake_interface(SS, "2-0:1.0", "090000", "hub");
	fake_peers(HS, 5, SS, 2);
	return 0;
}

static struct usb_facts *must_read(const char *path)
{
	struct usb_facts *f = NULL;
	char syspath[512];

	snprintf(syspath, sizeof(syspath), "/sys/devices/%s", path);
	assert_int_equal(usb_facts_read(syspath, false, NULL, &f), 0);
	return f;
}

static void expect_key(const char *path, const char *key, const char *parent)
{
	struct usb_facts *f = must_read(path);

	assert_string_equal(f->key, key);
	assert_string_equal(f->parent_key, parent);
	usb_facts_destroy(f);
}

static void plug(const char *path, const char *class, const char *speed)
{
	fake_plug(&(struct fake_device){
		.path = path, .ids = "0951:1666:110", .class = class, .speed = speed});
}

static void test_everything(void **state)
{
	static const struct fake_device stick = {.path = HS "/1-4",
		.ids = "0951:1666:110",
		.class = "000000",
		.serial = "60A44C",
		.manufacturer = "Kingston",
		.product = "DataTraveler 3.0"};
	unsigned int devnum = fake_plug(&stick);
	struct usb_facts *f;
	char expected[64];

	fake_interface(stick.path, "1-4:1.1", "030101", NULL);
	fake_interface(stick.path, "1-4:1.0", "080650", "usb-storage");
	fake_text(HS "/1-4/1-4:1.1", "authorized", "0\n");
	fake_text(HS "/1-4/1-4:1.1", "bAlternateSetting", " 2\n");
	fake_initialized(stick.path, "E:ID_USB_INTERFACES=:080662:080650:030101:080650:\n"
				     "E:DEVBROKER_VM=win11\n");
	f = must_read(stick.path);
	assert_string_equal(f->key, "usb:0000:00:14.0-4");
	assert_string_equal(f->own_key, "usb:0000:00:14.0-hs4");
	assert_string_equal(f->parent_key, "usb:0000:00:14.0-0");
	assert_string_equal(f->controller, "0000:00:14.0");
	assert_string_equal(f->syspath, "/sys/devices/" HS "/1-4");
	assert_string_equal(f->sysname, "1-4");
	assert_string_equal(f->bus, "usb1");
	snprintf(expected, sizeof(expected), "/dev/bus/usb/001/%03u", devnum);
	assert_string_equal(f->devnode, expected);
	assert_int_equal(f->busnum, 1);
	assert_int_equal(f->devnum, devnum);
	assert_int_equal(f->vendor, 0x0951);
	assert_int_equal(f->product, 0x1666);
	assert_int_equal(f->bcd_device, 0x0110);
	assert_string_equal(f->serial, "60A44C");
	assert_string_equal(f->manufacturer, "Kingston");
	assert_string_equal(f->product_name, "DataTraveler 3.0");
	assert_string_equal(f->speed, "480");
	assert_string_equal(f->removable, "removable");
	assert_true(f->authorized);
	assert_false(f->hub);
	assert_int_equal(f->n_configurations, 1);
	assert_int_equal(f->configuration, 1);

	assert_int_equal(f->n_interfaces, 2);
	assert_int_equal(f->interfaces[0].number, 0);
	assert_string_equal(f->interfaces[0].driver, "usb-storage");
	assert_true(f->interfaces[0].authorized);
	assert_string_equal(usb_facts_interface(f, 1)->driver, "");
	assert_false(usb_facts_interface(f, 1)->authorized);
	assert_int_equal(usb_facts_interface(f, 1)->altsetting, 2);
	assert_null(usb_facts_interface(f, 2));

	assert_true(f->classes_complete);
	assert_int_equal(f->n_classes, 3);
	assert_memory_equal(f->classes, "\x03\x01\x01\x08\x06\x50\x08\x06\x62", 9);
	assert_string_equal(usb_facts_property(f, "DEVBROKER_VM"), "win11");
	assert_string_equal(usb_facts_property(f, "DEVTYPE"), "usb_device");
	assert_null(usb_facts_property(f, "DEVBROKER"));
	/* sha256sum of the eight bytes */
	assert_int_equal(f->descriptors_size, 8);
	assert_memory_equal(f->descriptors, "\x12\x01\x00\x02\x00\x00\x00\x40", 8);
	assert_memory_equal(f->descriptors_sha256, "\xfc\x5a\xc7\x56", 4);
	usb_facts_destroy(f);
}

static void test_companions(void **state)
{
	/* The same connector, at both speeds; and one that has only the fast half. */
	plug(HS "/1-5", "000000", "480");
	plug(SS "/2-2", "000000", "5000");
	plug(SS "/2-3", "000000", "5000");
	expect_key(HS "/1-5", "usb:0000:00:14.0-5", "usb:0000:00:14.0-0");
	expect_key(SS "/2-2", "usb:0000:00:14.0-5", "usb:0000:00:14.0-ss0");
	expect_key(SS "/2-3", "usb:0000:00:14.0-ss3", "usb:0000:00:14.0-ss0");
	/* Ports of equal numbers are not one connector by that. */
	plug(HS "/1-2", "000000", "480");
	plug(HS "/1-3", "000000", "480");
	expect_key(HS "/1-2", "usb:0000:00:14.0-2", "usb:0000:00:14.0-0");
	expect_key(HS "/1-3", "usb:0000:00:14.0-3", "usb:0000:00:14.0-0");
}

static void test_hubs(void **state)
{
	/* A USB 3 hub at connector B, a hub behind it, a stick behind that, at both speeds. */
	plug(HS "/1-5", "090002", "480");
	fake_interface(HS "/1-5", "1-5:1.0", "090001", "hub");
	plug(SS "/2-2", "090003", "5000");
	fake_interface(SS "/2-2", "2-2:1.0", "090000", "hub");
	plug(SS "/2-2/2-2.4", "090003", "5000");
	plug(SS "/2-2/2-2.4/2-2.4.1", "000000", "5000");
	expect_key(HS "/1-5", "usb:0000:00:14.0-5", "usb:0000:00:14.0-0");
	expect_key(SS "/2-2", "usb:0000:00:14.0-ss2", "usb:0000:00:14.0-ss0");
	/* The hub's ports have no peers yet: the connector that the hub is in has one. */
	expect_key(SS "/2-2/2-2.4/2-2.4.1", "usb:0000:00:14.0-5.4.1", "usb:0000:00:14.0-ss2.4");
	fake_peers(HS "/1-5", 4, SS "/2-2", 4);
	expect_key(SS "/2-2/2-2.4/2-2.4.1", "usb:0000:00:14.0-5.4.1", "usb:0000:00:14.0-ss2.4");
	plug(HS "/1-5/1-5.4", "090001", "480");
	plug(HS "/1-5/1-5.4/1-5.4.1", "000000", "12");
	expect_key(HS "/1-5/1-5.4/1-5.4.1", "usb:0000:00:14.0-5.4.1", "usb:0000:00:14.0-5.4");
	/* The firmware says that the ports of this hub are crossed. */
	fake_peers(HS "/1-5", 7, SS "/2-2", 4);
	expect_key(SS "/2-2/2-2.4/2-2.4.1", "usb:0000:00:14.0-5.7.1", "usb:0000:00:14.0-ss2.4");
	/* A hub by its interface alone. */
	plug(HS "/1-6", "000000", "480");
	fake_interface(HS "/1-6", "1-6:1.0", "090000", NULL);
	struct usb_facts *f = must_read(HS "/1-6");
	assert_true(f->hub);
	usb_facts_destroy(f);
}

static void test_controllers(void **state)
{
	/* Behind a bridge, on a platform bus, and a platform device that a PCI device made. */
	fake_controller("pci0000:00/0000:00:1c.0", "pci");
	fake_controller("pci0000:00/0000:00:1c.0/0000:03:00.0", "pci");
	plug("pci0000:00/0000:00:1c.0/0000:03:00.0/usb12", "090001", "480");
	plug("pci0000:00/0000:00:1c.0/0000:03:00.0/usb12/12-3", "000000", "480");
	expect_key("pci0000:00/0000:00:1c.0/0000:03:00.0/usb12/12-3", "usb:0000:03:00.0-3",
		"usb:0000:03:00.0-0");
	expect_key("pci0000:00/0000:00:1c.0/0000:03:00.0/usb12", "usb:0000:03:00.0-0", "");
	fake_controller("platform/dummy_hcd.0", "platform");
	plug("platform/dummy_hcd.0/usb3", "090001", "480");
	plug("platform/dummy_hcd.0/usb3/3-1", "000000", "480");
	expect_key("platform/dummy_hcd.0/usb3/3-1", "usb:dummy_hcd.0-1", "usb:dummy_hcd.0-0");
	fake_controller("pci0000:00/0000:00:0d.0", "pci");
	fake_controller("pci0000:00/0000:00:0d.0/xhci-hcd.1.auto", "platform");
	plug("pci0000:00/0000:00:0d.0/xhci-hcd.1.auto/usb4", "090003", "5000");
	plug("pci0000:00/0000:00:0d.0/xhci-hcd.1.auto/usb4/4-1", "000000", "5000");
	expect_key("pci0000:00/0000:00:0d.0/xhci-hcd.1.auto/usb4/4-1", "usb:0000:00:0d.0-ss1",
		"usb:0000:00:0d.0-ss0");
}

static void test_hostile_texts(void **state)
{
	char many[4097], *end;
	struct usb_facts *f;

	memset(many, 'A', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	fake_plug(&(struct fake_device){.path = HS "/1-1",
		.ids = "1:2:3",
		.class = "ff0000",
		.serial = "\x1b]0;owned\x07\nE:DEVBROKER_VM=x",
		.manufacturer = many,
		.product = "\xff\xc0\x80ok \xe2\x80\xae rev \xef\xbf\xbf ü \xed\xa0\x80"});
	f = must_read(HS "/1-1");
	assert_string_equal(f->serial, "\\x1b]0;owned\\x07\\x0aE:DEVBROKER_VM=x");
	assert_string_equal(f->product_name,
		"\\xff\\xc0\\x80ok \\xe2\\x80\\xae rev \\xef\\xbf\\xbf ü \\xed\\xa0\\x80");
	assert_int_equal(strlen(f->manufacturer), USB_FACTS_TEXT_MAX);
	end = f->manufacturer + USB_FACTS_TEXT_MAX - 4;
	assert_string_equal(end, "A...");
	assert_null(usb_facts_property(f, "DEVBROKER_VM"));
	usb_facts_destroy(f);
}

/* More than there can be of everything. */
static void test_hostile_counts(void **state)
{
	static char lines[200 * 32 + 64], blob[USB_FACTS_DESCRIPTORS_MAX + 100];
	size_t used = 0;
	struct usb_facts *f;

	plug(HS "/1-1", "ff0000", "480");
	for (int i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "1-1:1.%d", i);
		fake_interface(HS "/1-1", name, "ff0000", NULL);
	}
	for (int i = 0; i < 200; i++) {
		used += (size_t)snprintf(lines + used, sizeof(lines) - used, "E:A%d=%d\n", i, i);
	}
	snprintf(lines + used, sizeof(lines) - used, "E:DEVBROKER_VM=win11\n");
	fake_initialized(HS "/1-1", lines);
	fake_file(HS "/1-1", "descriptors", blob, sizeof(blob));
	f = must_read(HS "/1-1");
	assert_int_equal(f->n_interfaces, USB_FACTS_INTERFACES_MAX);
	assert_int_equal(f->n_properties, USB_FACTS_PROPERTIES_MAX);
	assert_null(f->properties[USB_FACTS_PROPERTIES_MAX]);
	assert_string_equal(usb_facts_property(f, "DEVBROKER_VM"), "win11");
	assert_int_equal(f->descriptors_size, USB_FACTS_DESCRIPTORS_MAX);
	usb_facts_destroy(f);
}

static void test_no_such_list(void **state)
{
	static const char *const bad[] = {"", ":", ":080650", "080650",
		":08065:", ":0806500:", ":08065g:", ":080650",
		":080650::", "::", ":-80650:", ": 80650:"};

	plug(HS "/1-1", "000000", "480");
	fake_interface(HS "/1-1", "1-1:1.0", "080650", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct usb_facts *f;
		char line[64];

		snprintf(line, sizeof(line), "E:ID_USB_INTERFACES=%s\n", bad[i]);
		fake_initialized(HS "/1-1", line);
		f = must_read(HS "/1-1");
		assert_false(f->classes_complete);
		assert_int_equal(f->n_classes, 1);
		assert_memory_equal(f->classes, "\x08\x06\x50", 3);
		assert_int_equal(f->descriptor_hash[0], '0');
		usb_facts_destroy(f);
	}
}

/* Reads the hash of what has just been changed at path. */
static void read_hash(const char *path, char out[36])
{
	struct usb_facts *f = must_read(path);

	memcpy(out, f->descriptor_hash, 36);
	usb_facts_destroy(f);
}

static void test_hash(void **state)
{
	static const char known[] = "E:ID_USB_INTERFACES=:080650:080662:\n";
	static const struct {
		const char *attr, *text;
		bool same;
	} changes[] = {
		{"serial", "twin", true},
		{"authorized", "0", true},
		{"idProduct", "1667", false},
		{"bcdDevice", "0111", false},
		{"bDeviceClass", "ef", false},
		{"bNumConfigurations", "2", false},
		{"manufacturer", "Kings", false},
		{"product", "tonData", false},
	};
	struct fake_device slow = {.path = HS "/1-5",
		.ids = "0951:1666:110",
		.class = "000000",
		.serial = "1",
		.manufacturer = "Kingston",
		.product = "Data"};
	struct fake_device fast = slow;
	char first[36], other[36];

	fake_plug(&slow);
	fake_initialized(slow.path, known);
	read_hash(slow.path, first);
	/* Computed once by hand, as written in usb-facts-hash.c: a new value is a new version. */
	assert_string_equal(first, "1:ea1dcc166f057e7108b48edba03ed376");
	fast.path = SS "/2-2";
	fast.speed = "5000";
	fake_plug(&fast);
	fake_file(fast.path, "descriptors", "\x12\x01\x00\x03", 4);
	fake_initialized(fast.path, "E:ID_USB_INTERFACES=:080662:080650:\n");
	read_hash(fast.path, other);
	assert_string_equal(first, other);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		fake_remove(fast.path);
		fake_plug(&fast);
		fake_initialized(fast.path, known);
		fake_text(fast.path, changes[i].attr, "%s\n", changes[i].text);
		read_hash(fast.path, other);
		assert_int_equal(strcmp(first, other) == 0, changes[i].same);
	}
	fake_initialized(slow.path, "E:ID_USB_INTERFACES=:080650:080662:030101:\n");
	read_hash(slow.path, other);
	assert_string_not_equal(first, other);
}

static void test_udev_first(void **state)
{
	struct usb_facts *f = NULL;

	plug(HS "/1-1", "000000", "480");
	assert_int_equal(usb_facts_read("/sys/devices/" HS "/1-1", true, NULL, &f), -EAGAIN);
	fake_initialized(HS "/1-1", "");
	assert_int_equal(usb_facts_read("/sys/devices/" HS "/1-1", true, NULL, &f), 0);
	usb_facts_destroy(f);
}

static void test_half_a_device(void **state)
{
	static const char *const needed[] = {"uevent", "idVendor", "idProduct", "bcdDevice",
		"busnum", "devnum", "bDeviceClass", "bNumConfigurations", "descriptors"};
	struct usb_facts *f = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		char file[512];

		plug(HS "/1-1", "000000", "480");
		snprintf(file, sizeof(file), "/sys/devices/" HS "/1-1/%s", needed[i]);
		assert_int_equal(remove(file), 0);
		assert_int_equal(
			usb_facts_read("/sys/devices/" HS "/1-1", false, NULL, &f), -ENODEV);
		assert_null(f);
		fake_remove(HS "/1-1");
	}
	assert_int_equal(usb_facts_read("/sys/devices/" HS "/1-1", false, NULL, &f), -ENODEV);
}

static void test_compare(void **state)
{
	static const struct {
		const char *attr, *text;
	} identity[] = {
		{"idVendor", "1234"},
		{"bcdDevice", "0999"},
		{"bDeviceProtocol", "01"},
		{"descriptors", "other"},
	};
	struct usb_facts *a, *b;

	fake_plug(&(struct fake_device){
		.path = HS "/1-1", .ids = "1:2:3", .class = "000000", .serial = "s"});
	fake_interface(HS "/1-1", "1-1:1.0", "080650", "usb-storage");
	a = must_read(HS "/1-1");
	b = must_read(HS "/1-1");
	assert_true(usb_facts_equal(a, b));
	usb_facts_destroy(b);
	/* Another driver: something changed, and it still is the same device. */
	fake_link(HS "/1-1/1-1:1.0", "driver", "/sys/bus/usb/drivers/usbfs");
	b = must_read(HS "/1-1");
	assert_false(usb_facts_equal(a, b));
	assert_true(usb_facts_same_device(a, b));
	usb_facts_destroy(b);
	fake_initialized(HS "/1-1", "E:DEVBROKER_VM=win11\n");
	fake_link(HS "/1-1/1-1:1.0", "driver", "/sys/bus/usb/drivers/usb-storage");
	b = must_read(HS "/1-1");
	assert_false(usb_facts_equal(a, b));
	usb_facts_destroy(b);
	for (size_t i = 0; i < ARRAY_SIZE(identity); i++) {
		fake_text(HS "/1-1", identity[i].attr, "%s\n", identity[i].text);
		b = must_read(HS "/1-1");
		assert_false(usb_facts_same_device(a, b));
		usb_facts_destroy(a);
		a = b;
	}
	usb_facts_destroy(a);
}

/* The strings are behind the device's lock: with what was read before they are not read again,
 * unless it is another device. */
static void test_strings_are_read_once(void **state)
{
	struct fake_device d = {
		.path = HS "/1-1", .ids = "1:2:3", .class = "000000", .serial = "first"};
	struct usb_facts *a, *b = NULL;

	fake_plug(&d);
	a = must_read(HS "/1-1");
	fake_text(HS "/1-1", "serial", "second\n");
	assert_int_equal(usb_facts_read(a->syspath, false, a, &b), 0);
	assert_string_equal(b->serial, "first");
	assert_true(usb_facts_equal(a, b));
	usb_facts_destroy(b);
	fake_remove(HS "/1-1");
	d.serial = "third";
	fake_plug(&d);
	assert_int_equal(usb_facts_read(a->syspath, false, a, &b), 0);
	assert_string_equal(b->serial, "third");
	assert_int_not_equal(a->instance, b->instance);
	usb_facts_destroy(b);
	usb_facts_destroy(a);
}

/* libsystemd has another order of them each time. */
static void test_sets_have_an_order(void **state)
{
	plug(HS "/1-1", "000000", "480");
	fake_initialized(HS "/1-1",
		"S:c/3\nS:a/1\nS:b/2\nG:seat\nG:devbroker\nG:uaccess\nQ:seat\nQ:devbroker\nV:1\n");
	for (int i = 0; i < 20; i++) {
		struct usb_facts *f = must_read(HS "/1-1");

		assert_string_equal(usb_facts_property(f, "TAGS"), ":devbroker:seat:uaccess:");
		assert_string_equal(usb_facts_property(f, "CURRENT_TAGS"), ":devbroker:seat:");
		assert_string_equal(
			usb_facts_property(f, "DEVLINKS"), "/dev/a/1 /dev/b/2 /dev/c/3");
		usb_facts_destroy(f);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_everything, set_up),
		cmocka_unit_test_setup(test_companions, set_up),
		cmocka_unit_test_setup(test_hubs, set_up),
		cmocka_unit_test_setup(test_controllers, set_up),
		cmocka_unit_test_setup(test_hostile_texts, set_up),
		cmocka_unit_test_setup(test_hostile_counts, set_up),
		cmocka_unit_test_setup(test_no_such_list, set_up),
		cmocka_unit_test_setup(test_hash, set_up),
		cmocka_unit_test_setup(test_sets_have_an_order, set_up),
		cmocka_unit_test_setup(test_udev_first, set_up),
		cmocka_unit_test_setup(test_half_a_device, set_up),
		cmocka_unit_test_setup(test_compare, set_up),
		cmocka_unit_test_setup(test_strings_are_read_once, set_up),
	};

	return fake_sysfs_enter() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
