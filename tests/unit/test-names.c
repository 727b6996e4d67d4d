/* SPDX-License-Identifier: MIT
 * What a name that a person types may mean.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/device-disk.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "tests/unit/fake-spawner.h"
#include "tests/unit/test.h"

struct names {
	struct broker broker;
	struct spawner spawner;
};

static void add_disk(struct names *t, const char *name, const char *serial)
{
	const struct device_disk_options o = {
		.name = name,
		.serial = serial,
		.speed = "super",
		.image_fd = memfd_create(name, MFD_CLOEXEC),
	};
	struct refusal_text text = {0};
	struct device *d;

	assert_int_equal(ftruncate(o.image_fd, 1 << 20), 0);
	assert_int_equal(device_add_disk(&t->broker, &o, &d, &text), 0);
}

static void add_vm(struct names *t, const char *name)
{
	struct vm_options o = {.name = name, .qmp = "/nonexistent/qmp"};
	struct refusal_text text = {0};
	struct vm *vm;

	quota_limits_default(&o.limits);
	assert_int_equal(vm_add(&t->broker, &o, &vm, &text), 0);
}

static int set_up(void **state)
{
	static struct names t;
	struct config config = {0};

	t = (struct names){0};
	list_init(&config.vms);
	list_init(&config.disks);
	assert_int_equal(broker_init(&t.broker, &config, &t.spawner), 0);
	t.broker.run_dir = "/nonexistent"; /* nothing here outlives its broker */
	t.spawner.event = t.broker.event;
	add_disk(&t, "stick", "AAAA00000001");
	add_disk(&t, "stick2", "BBBB00000002");
	add_disk(&t, "stack", "st");
	add_disk(&t, "other", "stick");
	add_vm(&t, "win");
	add_vm(&t, "win11");
	add_vm(&t, "winter");
	add_vm(&t, "linux");
	*state = &t;
	return 0;
}

static int tear_down(void **state)
{
	struct names *t = *state;

	broker_finish(&t->broker);
	return 0;
}

static void test_devices(void **state)
{
	static const struct {
		const char *typed;
		int result;
		const char *name; /* what is meant */
	} cases[] = {
		{"disk:stick", 0, "disk:stick"},
		{"stick", 0, "disk:stick"}, /* before stick2's beginning and other's serial */
		{"stick2", 0, "disk:stick2"},
		{"BBBB00000002", 0, "disk:stick2"},
		{"st", 0, "disk:stack"}, /* a serial in full stands over prefixes */
		{"stic", REFUSAL_AMBIGUOUS, NULL},
		{"sta", 0, "disk:stack"},
		{"disk:sta", 0, "disk:stack"},
		{"disk:", REFUSAL_AMBIGUOUS, NULL},
		{"o", 0, "disk:other"},
		{"BBBB", REFUSAL_NOT_FOUND, NULL}, /* serials only in full */
		{"tick", REFUSAL_NOT_FOUND, NULL},
		{"STICK", REFUSAL_NOT_FOUND, NULL},
		{"stick22", REFUSAL_NOT_FOUND, NULL},
		{"usb:stick", REFUSAL_NOT_FOUND, NULL},
		{"", REFUSAL_NOT_FOUND, NULL},
	};
	struct names *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct refusal_text text = {0};
		struct device *d = NULL;
		int r = broker_find_device(&t->broker, cases[i].typed, &d, &text);

		if (r != cases[i].result || (r == 0 && strcmp(d->name, cases[i].name) != 0) ||
			(r != 0 && (d || !text.sentence[0]))) {
			fail_msg("%s: %d, %s (%s)", cases[i].typed, r, d ? d->name : "none",
				text.sentence);
		}
	}
}

static void test_candidates(void **state)
{
	struct names *t = *state;
	struct refusal_text text = {0};
	struct device *d;
	char name[16];

	assert_int_equal(broker_find_device(&t->broker, "stic", &d, &text), REFUSAL_AMBIGUOUS);
	assert_non_null(strstr(text.sentence, "disk:stick, disk:stick2"));
	assert_null(strstr(text.sentence, "stack"));
	/* Many of them are counted, and cut. */
	for (int i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "many%02d", i);
		add_disk(t, name, NULL);
	}
	assert_int_equal(broker_find_device(&t->broker, "many", &d, &text), REFUSAL_AMBIGUOUS);
	assert_non_null(strstr(text.sentence, "any of 30"));
	assert_non_null(strstr(text.sentence, "disk:many07"));
	assert_null(strstr(text.sentence, "disk:many08"));
}

static void test_vms(void **state)
{
	struct names *t = *state;
	struct refusal_text text = {0};
	struct vm *vm = NULL;

	assert_int_equal(broker_find_vm(&t->broker, "win", &vm, &text), 0);
	assert_string_equal(vm->name, "win");
	assert_int_equal(broker_find_vm(&t->broker, "wint", &vm, &text), 0);
	assert_string_equal(vm->name, "winter");
	assert_int_equal(broker_find_vm(&t->broker, "l", &vm, &text), 0);
	assert_string_equal(vm->name, "linux");
	vm = NULL;
	assert_int_equal(broker_find_vm(&t->broker, "wi", &vm, &text), REFUSAL_AMBIGUOUS);
	assert_non_null(strstr(text.sentence, "win, win11, winter"));
	assert_int_equal(broker_find_vm(&t->broker, "", &vm, &text), REFUSAL_NOT_FOUND);
	assert_int_equal(broker_find_vm(&t->broker, "windows", &vm, &text), REFUSAL_NOT_FOUND);
	assert_null(vm);
}

/* What was typed is shown, but not as it is. */
static void test_escaped(void **state)
{
	struct names *t = *state;
	struct refusal_text text = {0};
	struct device *d;
	char big[5000];

	assert_int_equal(
		broker_find_device(&t->broker, "a\nb\x1b[31m", &d, &text), REFUSAL_NOT_FOUND);
	assert_null(strchr(text.sentence, '\n'));
	assert_null(strchr(text.sentence, '\x1b'));
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(broker_find_device(&t->broker, big, &d, &text), REFUSAL_NOT_FOUND);
	assert_true(strlen(text.sentence) < 200);
}

/* The serial number that is made from a name is the same for ever: guests know their sticks by it.
 */
static void test_made_serials(void **state)
{
	struct names *t = *state;
	struct refusal_text text = {0};
	struct device *d;

	add_disk(t, "made", NULL);
	add_disk(t, "made2", NULL);
	assert_int_equal(broker_find_device(&t->broker, "made", &d, &text), 0);
	assert_string_equal(d->serial, "38BF41493C3622F7");
	assert_int_equal(strlen(d->serial), 16);
	assert_int_equal(strspn(d->serial, "0123456789ABCDEF"), 16);
	assert_int_equal(broker_find_device(&t->broker, "made2", &d, &text), 0);
	assert_string_equal(d->serial, "A31EB4714FFD14BF");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_devices),
		TEST(test_candidates),
		TEST(test_vms),
		TEST(test_escaped),
		TEST(test_made_serials),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
