/* SPDX-License-Identifier: MIT
 * Where a device shall be: by rules, and where there is none by its udev properties.
 */
#include "broker/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/usb-facts.h"
#include "tests/unit/test.h"

static char dir[64];
static struct policy *policy;
static const char *win11_state = "gone";

static const char *vm_state(void *userdata, const char *vm)
{
	return strcmp(vm, "win11") == 0 ? win11_state : NULL;
}

static struct policy_decision decide_facts(const struct usb_facts *f)
{
	const struct policy_context context = {.vm_state = vm_state, .since_boot = 100};
	struct policy_decision d;

	memset(&d, 0xa5, sizeof(d));
	policy_decide(policy, f, &context, NULL, &d);
	return d;
}

/* properties: sorted, as udev's are read; ends with NULL. */
static struct policy_decision decide(const char *const *properties)
{
	static char nothing[] = "";
	struct usb_facts f = {
		.properties = (char **)(uintptr_t)properties, .key = nothing, .serial = nothing};

	while (properties[f.n_properties]) {
		f.n_properties++;
	}
	return decide_facts(&f);
}

#define DECIDE(...) decide((const char *const[]){__VA_ARGS__, NULL})

static void nothing_said(void **state)
{
	struct policy_decision d = DECIDE("DEVNAME=/dev/bus/usb/001/002", "ID_MODEL=x");

	assert_int_equal(d.action, POLICY_HOLD);
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
	assert_int_equal(d.action, POLICY_HOLD);
	assert_true(d.why[0]);
}

static void no_sense(void **state)
{
	static const char *const bad[] = {"DEVBROKER_ACTION=", "DEVBROKER_ACTION=Deny",
		"DEVBROKER_VM=", "DEVBROKER_VM=../x", "DEVBROKER_VM=a b", "DEVBROKER_VM=\x1b[2J"};
	struct policy_decision d;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		d = DECIDE(bad[i]);
		assert_int_equal(d.action, POLICY_HOLD);
		assert_non_null(strstr(d.why, "the host keeps it"));
		assert_null(strchr(d.why, '\x1b'));
	}
	d = DECIDE("DEVBROKER_HOST_DRIVERS=off", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_HOLD);
	d = DECIDE("DEVBROKER_LAST_INPUT=perhaps", "DEVBROKER_VM=win11");
	assert_int_equal(d.action, POLICY_HOLD);
}

static void write_rules(const char *file, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/policy.d", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/policy.d/%s", dir, file);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* In the place of what was loaded before. */
static void load(const char *text)
{
	struct refusal_text why = {0};
	struct policy *fresh = NULL;

	write_rules("10-test.conf", text);
	if (policy_load(dir, &fresh, &why) != 0) {
		fail_msg("%s", why.sentence);
	}
	policy_destroy(policy);
	policy = fresh;
}

/* Facts have their texts to themselves, and are not changed here. */
#define T(text) ((char *)(uintptr_t)(text))

/* A stick as Linux shows one. */
static struct usb_facts stick(void)
{
	static char *properties[] = {
		T("ID_MODEL=Cruzer"), T("ID_PATH=pci-0000:00:14.0-usb-0:2.4:1.0"), NULL};
	struct usb_facts f = {
		.key = T("usb:0000:00:14.0-2.4"),
		.vendor = 0x0781,
		.product = 0x5567,
		.serial = T("4C530001"),
		.manufacturer = T("SanDisk"),
		.product_name = T("Cruzer Blade"),
		.speed = T("480"),
		.removable = T("removable"),
		.descriptor_hash = "1:00112233445566778899aabbccddeeff",
		.classes = {{0x08, 0x06, 0x50}},
		.n_classes = 1,
		.classes_complete = true,
		.properties = properties,
		.n_properties = 2,
	};

	return f;
}

static bool matches(const char *words)
{
	struct usb_facts f = stick();
	struct policy_decision d;
	char text[512];

	snprintf(text, sizeof(text), "[rule x]\nMatch=%s\nAction=deny\n", words);
	load(text);
	d = decide_facts(&f);
	return d.action == POLICY_DENY;
}

static void every_key(void **state)
{
	static const char *const hold[] = {"id=0781:5567", "id=0781:*", "id=07?1:55??", "id=*:5567",
		"id=07*:*", "!id=0782:*", "serial=4C53*", "serial=\"4C530001\"", "vendor=San?isk",
		"product=\"Cruzer Bl*\"", "product=Cruzer\" \"Blade", "class=08", "class=storage",
		"class=08:06", "class=03,08:*:50", "!class=keyboard,mouse", "classes-within=08,03",
		"port=0000:00:14.0-2.4", "port=usb:0000:00:14.0-*", "below=0000:00:14.0-2",
		"below=usb:*-2", "!below=0000:00:14.0-2.4", "removable=removable", "speed=high",
		"speed=480", "speed<super", "speed>=full", "speed<=high", "!speed>high",
		"hash=1:0011*", "udev.ID_MODEL=Cruzer", "udev.ID_PATH=pci-*", "!udev.ID_MODEL=x",
		"!udev.NOT_THERE=*", "vm-state=win11:gone", "vm-state=other:unknown",
		"since-boot>60", "since-boot<=100", "hash=1:00112233445566778899aabbccddeeff",
		"vm-state=win11:g*", "id=0781:* serial=4C* class=storage"};
	static const char *const fail[] = {"id=0782:5567", "id=07?2:*", "!id=0781:*", "serial=4C53",
		"vendor=sandisk", "product=\"Cruzer Blad\"", "class=03", "class=08:07",
		"class=keyboard", "classes-within=03", "port=0000:00:14.0-2",
		"below=0000:00:14.0-2.4", "below=0000:00:14.0-3", "removable=fixed", "speed=super",
		"speed>high", "speed<480", "hash=2:*", "udev.ID_MODEL=", "udev.NOT_THERE=*",
		"vm-state=win11:up", "since-boot<60", "id=0781:* serial=x"};

	for (size_t i = 0; i < ARRAY_SIZE(hold); i++) {
		if (!matches(hold[i])) {
			fail_msg("%s does not match", hold[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(fail); i++) {
		if (matches(fail[i])) {
			fail_msg("%s matches", fail[i]);
		}
	}
}

/* A device that shows nothing, or of which not all is known, is within no set of classes. */
static void within_what_is_known(void **state)
{
	struct usb_facts f = stick();

	load("[rule x]\nMatch=classes-within=storage,hid\nAction=deny\n");
	assert_int_equal(decide_facts(&f).action, POLICY_DENY);
	f.classes[f.n_classes++] = (struct usb_class){0x03, 0x01, 0x01};
	assert_int_equal(decide_facts(&f).action, POLICY_DENY);
	f.classes[f.n_classes++] = (struct usb_class){0x0e, 0x01, 0x00};
	assert_int_equal(decide_facts(&f).action, POLICY_HOLD);
	f.n_classes = 1;
	f.classes_complete = false;
	assert_int_equal(decide_facts(&f).action, POLICY_HOLD);
	f.classes_complete = true;
	f.n_classes = 0;
	assert_int_equal(decide_facts(&f).action, POLICY_HOLD);
}

static void every_action(void **state)
{
	struct usb_facts f = stick();
	struct policy_decision d;

	load("[rule s]\nMatch=id=0781:*\nAction=attach "
	     "win11\nHostDrivers=away\nLastInput=yes\nReset=no\nReadOnly=yes\n"
	     "AllowFirmware=yes\nInterfaces=0,2\nBytesInFlight=2M\nTransfersInFlight=7\n");
	d = decide_facts(&f);
	assert_int_equal(d.action, POLICY_ATTACH);
	assert_string_equal(d.vm, "win11");
	assert_true(d.options.keep_drivers_off && d.options.last_input && d.options.no_reset);
	assert_true(d.options.read_only && d.options.allow_firmware);
	assert_int_equal(d.options.interfaces, 5);
	assert_int_equal(d.options.bytes_in_flight, 2 << 20);
	assert_int_equal(d.options.transfers_in_flight, 7);
	assert_string_equal(d.why, "Rule s (policy.d/10-test.conf:1) gives it to vm win11.");
	load("[rule s]\nAction=offer win11 kiosk\n");
	d = decide_facts(&f);
	assert_int_equal(d.action, POLICY_OFFER);
	assert_int_equal(d.rule->n_vms, 2);
	assert_string_equal(d.why, "Rule s (policy.d/10-test.conf:1) offers it to win11 kiosk.");
	assert_string_equal(d.rule->vms[1], "kiosk");
	load("[rule s]\nAction=hold\n");
	d = decide_facts(&f);
	assert_int_equal(d.action, POLICY_HOLD);
	assert_true(d.why[0]);
	load("[rule s]\nAction=ignore\n");
	assert_int_equal(decide_facts(&f).action, POLICY_IGNORE);
}

/* Files by name, rules in their order, any line of a rule; the first decides, before udev. */
static void the_first_decides(void **state)
{
	struct usb_facts f = stick();

	write_rules("05-first.conf", "[rule none]\nMatch=id=0000:*\nAction=deny\n");
	load("[rule a]\nMatch=serial=nobody\nMatch=class=storage\nAction=attach a\n"
	     "[rule b]\nAction=attach b\n");
	assert_string_equal(decide_facts(&f).vm, "a");
	write_rules("05-first.conf", "[rule c]\nMatch=class=storage\nAction=attach c\n");
	load("[rule a]\nAction=attach a\n");
	assert_string_equal(decide_facts(&f).vm, "c");
	assert_string_equal(DECIDE("DEVBROKER_VM=udevs").vm, "a");
	write_rules("05-first.conf", "");
	load("");
	assert_string_equal(DECIDE("DEVBROKER_VM=udevs").vm, "udevs");
}

static void broken_rules(void **state)
{
	static const struct {
		const char *text;
		const char *sentence;
	} all[] = {
		{"Action=deny\n",
			"policy.d/10-test.conf:1:1: a section must come before the first key"},
		{"[rule]\nAction=deny\n", "policy.d/10-test.conf:1:1: a rule needs a name without "
					  "blanks: [rule NAME]"},
		{"[rule a b]\n", "policy.d/10-test.conf:1:1: a rule needs a name without blanks: "
				 "[rule NAME]"},
		{"[rules a]\n", "policy.d/10-test.conf:1:1: unknown section [rules a]; known "
				"sections: [rule]"},
		{"[rule a]\nMatch=id=0781:*\n",
			"policy.d/10-test.conf:1:1: Action= in [rule] is missing"},
		{"[rule a]\n[rule b]\nAction=deny\n",
			"policy.d/10-test.conf:1:1: Action= in [rule] is missing"},
		{"[rule a]\nAction=deny\nAction=hold\n",
			"policy.d/10-test.conf:3:1: key \"Action\" is given twice; first in line "
			"2"},
		{"[rule a]\nAction=attach\n", "policy.d/10-test.conf:2:8: Action=attach is not "
					      "attach VM, offer VM…, hold, deny or ignore"},
		{"[rule a]\nAction = deny win11\n",
			"policy.d/10-test.conf:2:10: Action=deny win11 is not attach VM, offer "
			"VM…, hold, deny or ignore"},
		{"[rule a]\nAction=offer a ../b\n",
			"policy.d/10-test.conf:2:16: Action=../b is not the name of a VM"},
		{"[rule a]\nMatch=id=0781:* bogus=1\nAction=deny\n",
			"policy.d/10-test.conf:2:17: there is no key \"bogus\"; there are: id, "
			"serial, vendor, product, class, "
			"classes-within, port, below, removable, speed, hash, vm-state, "
			"since-boot, udev.PROPERTY"},
		{"[rule a]\nMatch=  serial\nAction=deny\n",
			"policy.d/10-test.conf:2:9: \"serial\" is not key=value"},
		{"[rule a]\nMatch=serial<4\nAction=deny\n",
			"policy.d/10-test.conf:2:7: serial takes only ="},
		{"[rule a]\nMatch=id=781\nAction=deny\n",
			"policy.d/10-test.conf:2:7: id=781 is not VID:PID in hexadecimal (as in "
			"0781:* or 046d:c52b)"},
		{"[rule a]\nMatch=product=\"x y\nAction=deny\n",
			"policy.d/10-test.conf:2:7: a quote is not closed"},
		{"[rule a]\nMatch=speed=fast\nAction=deny\n",
			"policy.d/10-test.conf:2:7: speed=fast is not low, full, "
			"high, super, super+ or a number of Mbit/s"},
		{"[rule a]\nAction=deny\nReset=perhaps\n",
			"policy.d/10-test.conf:3:7: Reset=perhaps is not yes or no"},
		{"[rule a]\n  Acction=deny\n",
			"policy.d/10-test.conf:2:3: unknown key \"Acction\" in [rule a] "
			"(did you mean Action?); known keys: Match, Action, HostDrivers, "
			"LastInput, Reset, ReadOnly, AllowFirmware, Interfaces, BytesInFlight, "
			"TransfersInFlight, Follow"},
		{"[rule a]\nMatch=vm-state=win11:uup\nAction=deny\n",
			"policy.d/10-test.conf:2:7: vm-state=win11:uup is not VM:STATE, where "
			"STATE is gone, up, paused, busy, migrating, error or unknown"},
		{"[rule a]\nMatch=hash=xyz\nAction=deny\n",
			"policy.d/10-test.conf:2:7: hash=xyz is not VERSION:HEX, as devbroker "
			"show prints it"},
		{"[rule a]\nAction=hold\nInterfaces=0,32\n",
			"policy.d/10-test.conf:3:12: Interfaces=0,32 is not numbers from 0 to 31 "
			"with commas between them (as in 0,2)"},
		{"[rule a]\nAction=hold\nBytesInFlight=3\n",
			"policy.d/10-test.conf:3:15: BytesInFlight=3 is not a size from 1M to "
			"32M"},
		{"[rule a]\nAction=hold\nTransfersInFlight=0\n",
			"policy.d/10-test.conf:3:19: TransfersInFlight=0 is not a number from 1 "
			"to 1024"},
		{"[rule a]\nAction=hold\nFollow=60\n",
			"policy.d/10-test.conf:3:8: Follow=60 is not SECONDS VID:PID…"},
		{"[rule a]\nAction=hold\nFollow=18d1:4ee0\n",
			"policy.d/10-test.conf:3:8: Follow=18d1:4ee0 is not a number of seconds "
			"from 1 to 3600, before the ids"},
		{"[rule a]\nAction=hold\nFollow=5 18d1:4ee0 18d1\n",
			"policy.d/10-test.conf:3:20: id=18d1 is not VID:PID in hexadecimal (as "
			"in 0781:* or 046d:c52b)"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct refusal_text why = {0};
		struct policy *none = NULL;

		write_rules("10-test.conf", all[i].text);
		assert_int_equal(policy_load(dir, &none, &why), REFUSAL_CONFIG);
		assert_string_equal(why.sentence, all[i].sentence);
		assert_null(none);
	}
	write_rules("10-test.conf", "");
}

struct trace {
	char text[512];
};

static void looked(void *userdata, const struct policy_rule *rule, size_t match, const char *failed)
{
	struct trace *t = userdata;
	size_t at = strlen(t->text);

	snprintf(t->text + at, sizeof(t->text) - at, "%s/%zu:%s ", rule->name, match,
		failed ? failed : "yes");
}

static void what_was_looked_at(void **state)
{
	const struct policy_context context = {.vm_state = vm_state};
	struct trace t = {""};
	const struct policy_trace trace = {.looked = looked, .userdata = &t};
	struct usb_facts f = stick();
	struct policy_decision d;

	load("[rule a]\nMatch=id=0781:* serial=x\nMatch=class=hid\nAction=deny\n"
	     "[rule b]\nMatch=class=storage\nAction=hold\n[rule c]\nAction=deny\n");
	policy_decide(policy, &f, &context, &trace, &d);
	assert_string_equal(t.text, "a/0:serial=x a/1:class=hid b/0:yes ");
	assert_string_equal(d.rule->name, "b");
	assert_false(policy->is_volatile);
	load("[rule a]\nMatch=vm-state=win11:up\nAction=attach win11\n");
	assert_true(policy->is_volatile);
	assert_int_equal(decide_facts(&f).action, POLICY_HOLD);
	win11_state = "up";
	assert_int_equal(decide_facts(&f).action, POLICY_ATTACH);
}

/* The same device in its boot loader: only with an id of the list, and never against a rule. */
static void followed(void **state)
{
	struct usb_facts f = stick();
	struct policy_decision d;
	const struct policy_rule *rule;

	load("[rule no]\nMatch=class=hid\nAction=ignore\n"
	     "[rule other]\nMatch=id=18d1:4ee1\nAction=attach other\n"
	     "[rule phone]\nMatch=id=0781:5567\nAction=attach win11\nReadOnly=yes\n"
	     "Follow=60 18d1:4ee? 0781:5568\n");
	rule = policy_rule_named(policy, "phone");
	assert_null(policy_rule_named(policy, "phones"));
	assert_int_equal(rule->follow_seconds, 60);
	assert_int_equal(rule->n_follow, 2);
	f.product = 0x5568;
	d = decide_facts(&f);
	assert_int_equal(d.action, POLICY_HOLD);
	policy_follow(rule, "kiosk", &f, &d);
	assert_int_equal(d.action, POLICY_ATTACH);
	assert_string_equal(d.vm, "kiosk");
	assert_ptr_equal(d.rule, rule);
	assert_true(d.options.read_only);
	/* Also where another rule would send it elsewhere. */
	f.vendor = 0x18d1;
	f.product = 0x4ee1;
	d = decide_facts(&f);
	assert_string_equal(d.vm, "other");
	policy_follow(rule, "win11", &f, &d);
	assert_string_equal(d.vm, "win11");
	/* But not where one forbids it. */
	f.classes[0].base = 0x03;
	d = decide_facts(&f);
	policy_follow(rule, "win11", &f, &d);
	assert_int_equal(d.action, POLICY_IGNORE);
	/* Nor with another id. */
	f = stick();
	f.product = 0x5569;
	d = decide_facts(&f);
	policy_follow(rule, "win11", &f, &d);
	assert_int_equal(d.action, POLICY_HOLD);
}

static void any_look(
	void *userdata, const struct policy_rule *rule, size_t match, const char *failed)
{
}

/* Rules of one, two or three lines of words that hold for some of the devices; the last for all. */
static char *random_rules(unsigned int n)
{
	static const char *const words[] = {"id=0781:5567", "id=0781:*", "id=0781:55??",
		"!id=0781:5567", "id=07?1:5567", "serial=4C530001", "serial=4C53*", "!serial=x",
		"serial=x", "port=0000:00:14.0-2.4", "port=usb:0000:00:14.0-2.4", "port=*-2.4",
		"!port=0000:00:14.0-2.4", "class=storage", "class=hid", "id=1234:5678", "id=*:*"};
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (unsigned int i = 0; i + 1 < n; i++) {
		fprintf(out, "[rule r%u]\nAction=%s\n", i, i % 3 ? "hold" : "deny");
		for (long lines = random() % 3; lines >= 0; lines--) {
			fprintf(out, "Match=%s %s\n", words[(size_t)random() % ARRAY_SIZE(words)],
				words[(size_t)random() % ARRAY_SIZE(words)]);
		}
	}
	fprintf(out, "[rule last]\nAction=hold\n");
	fclose(out);
	return text;
}

/* What the index leaves out could not have held: the same decision as by looking at every line. */
static void same_with_index(void **state)
{
	static char *serials[] = {T("4C530001"), T("x"), T("")};
	static char *keys[] = {T("usb:0000:00:14.0-2.4"), T("usb:c-1")};
	static const struct policy_trace trace = {.looked = any_look};
	const struct policy_context context = {.vm_state = vm_state};
	unsigned int matched = 0;

	srandom(7);
	for (unsigned int round = 0; round < 60; round++) {
		char *text = random_rules(6);

		load(text);
		free(text);
		for (unsigned int i = 0; i < 24; i++) {
			struct policy_decision fast, slow;
			struct usb_facts f = stick();

			f.serial = serials[i % 3];
			f.key = keys[i % 2];
			f.product = i % 4 < 2 ? 0x5567 : 0x5500;
			f.vendor = i < 16 ? 0x0781 : 0x1234;
			policy_decide(policy, &f, &context, NULL, &fast);
			policy_decide(policy, &f, &context, &trace, &slow);
			assert_non_null(slow.rule);
			assert_ptr_equal(fast.rule, slow.rule);
			matched += strcmp(slow.rule->name, "last") != 0;
		}
	}
	assert_in_range(matched, 300, 1300);
}

static int setup(void **state)
{
	struct refusal_text why = {0};

	snprintf(dir, sizeof(dir), "/tmp/test-policy-XXXXXX");
	umask(022);
	return mkdtemp(dir) ? policy_load(dir, &policy, &why) : -1;
}

static int teardown(void **state)
{
	char command[128];

	policy_destroy(policy);
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command); // NOLINT(cert-env33-c): our own directory
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_said),
		cmocka_unit_test(to_a_vm),
		cmocka_unit_test(said_twice),
		cmocka_unit_test(no_sense),
		cmocka_unit_test(every_key),
		cmocka_unit_test(within_what_is_known),
		cmocka_unit_test(every_action),
		cmocka_unit_test(the_first_decides),
		cmocka_unit_test(broken_rules),
		cmocka_unit_test(what_was_looked_at),
		cmocka_unit_test(followed),
		cmocka_unit_test(same_with_index),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
