/* SPDX-License-Identifier: MIT
 * Records of what was taken from the host: written, replaced, read by the next broker.
 */
#include "broker/usb-record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/kill-each.h"
#include "tests/unit/test.h"

static char dir[64];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test-usb-record-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command); // NOLINT(cert-env33-c): our own directory
}

struct seen {
	unsigned int n;
	struct usb_record last;
};

static void on_record(void *userdata, const struct usb_record *record)
{
	struct seen *s = userdata;

	s->n++;
	s->last = *record;
}

static struct seen read_all(void)
{
	struct seen s = {0};

	assert_int_equal(usb_record_each(dir, on_record, &s), 0);
	return s;
}

static const struct usb_record stick = {
	.key = "usb:0000:00:14.0-2.4",
	.instance = 12345678901234,
	.host_drivers = 0x80000001,
	.configuration = 1,
};

static void written_and_read(void **state)
{
	struct usb_record again = stick;
	struct seen s = read_all();

	assert_int_equal(s.n, 0);
	assert_int_equal(usb_record_write(dir, &stick), 0);
	again.host_drivers = 3;
	assert_int_equal(usb_record_write(dir, &again), 0);
	s = read_all();
	assert_int_equal(s.n, 1);
	assert_string_equal(s.last.key, stick.key);
	assert_true(s.last.instance == stick.instance);
	assert_int_equal(s.last.host_drivers, 3);
	assert_int_equal(s.last.configuration, 1);
	usb_record_remove(dir, stick.key);
	usb_record_remove(dir, stick.key);
	s = read_all();
	assert_int_equal(s.n, 0);
}

static void bad_keys(void **state)
{
	struct usb_record bad = stick;

	snprintf(bad.key, sizeof(bad.key), "usb:../../etc/passwd");
	assert_int_equal(usb_record_write(dir, &bad), -EINVAL);
	snprintf(bad.key, sizeof(bad.key), "usb:a\nb");
	assert_int_equal(usb_record_write(dir, &bad), -EINVAL);
	snprintf(bad.key, sizeof(bad.key), ".new");
	assert_int_equal(usb_record_write(dir, &bad), -EINVAL);
}

/* Half a file, another's name, a number too many: removed, and nothing is told. */
static void what_is_no_record(void **state)
{
	static const char *const texts[] = {
		"",
		"devbroker-claim 1\nkey=usb:x\n",
		"devbroker-claim 1\nkey=usb:other\ninstance=1\ninterfaces=1\nconfiguration=1\n",
		"devbroker-claim 1\nkey=usb:x\ninstance=1\ninterfaces=1\nconfiguration=256\n",
		"devbroker-claim 2\nkey=usb:x\ninstance=1\ninterfaces=1\nconfiguration=1\n",
	};
	char path[128];

	assert_int_equal(usb_record_write(dir, &stick), 0);
	usb_record_remove(dir, stick.key);
	snprintf(path, sizeof(path), "%s/claims/usb:x", dir);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		FILE *f = fopen(path, "we");
		struct seen s;

		assert_non_null(f);
		fputs(texts[i], f);
		fclose(f);
		s = read_all();
		assert_int_equal(s.n, 0);
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void write_anew(void *userdata)
{
	if (usb_record_write(dir, userdata) != 0) {
		_exit(1);
	}
}

/* Killed at each system call of its writing: the next broker finds the old or the new record. */
static void killed_while_writing(void **state)
{
	struct usb_record again = stick;
	unsigned int n, n_old = 0, n_new = 0;

	again.host_drivers = 3;
	for (n = 1;; n++) {
		struct seen s;

		assert_int_equal(usb_record_write(dir, &stick), 0);
		if (!kill_at(n, write_anew, &again)) {
			break;
		}
		s = read_all();
		assert_int_equal(s.n, 1);
		assert_true(s.last.instance == stick.instance && s.last.configuration == 1);
		if (s.last.host_drivers == stick.host_drivers) {
			n_old++;
		} else {
			assert_int_equal(s.last.host_drivers, 3);
			n_new++;
		}
	}
	assert_true(n > 8 && n_old > 4 && n_new > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(written_and_read, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_record, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_while_writing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
