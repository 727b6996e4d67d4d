/* SPDX-License-Identifier: MIT
 * What the host can't do without, asked of a made-up host: a tree like /sys, and two files like
 * those of /proc.
 */
#include "broker/usb-guard.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/unit/test.h"

#define USB   "devices/pci0000:00/0000:00:14.0/usb1/1-2"
#define OTHER "devices/pci0000:00/0000:00:14.0/usb1/1-20"

struct host {
	char dir[64];
	char sys[80];
	char mountinfo[80];
	char swaps[80];
	char device[160];
	struct usb_guard guard;
};

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void make_dirs(const struct host *h, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s/%s", h->sys, path);
	for (char *p = full + strlen(h->sys); *p; p++) {
		if (*p == '/' && p != full) {
			*p = '\0';
			mkdir(full, 0755);
			*p = '/';
		}
	}
	mkdir(full, 0755);
}

/* sys/PATH/NAME holds text. */
static void attribute(const struct host *h, const char *path, const char *name, const char *text)
{
	char full[PATH_MAX];

	make_dirs(h, path);
	snprintf(full, sizeof(full), "%s/%s/%s", h->sys, path, name);
	write_file(full, text);
}

/* A device at PATH/NAME, with its link in the class. */
static void class_device(
	const struct host *h, const char *class, const char *path, const char *name)
{
	char place[512], link[1024], target[1024];

	snprintf(place, sizeof(place), "%s/%s", path, name);
	make_dirs(h, place);
	snprintf(place, sizeof(place), "class/%s", class);
	make_dirs(h, place);
	snprintf(link, sizeof(link), "%s/class/%s/%s", h->sys, class, name);
	snprintf(target, sizeof(target), "../../%s/%s", path, name);
	assert_int_equal(symlink(target, link), 0);
}

static void block(const struct host *h, const char *path, const char *name, const char *dev)
{
	char place[512];

	class_device(h, "block", path, name);
	snprintf(place, sizeof(place), "%s/%s", path, name);
	attribute(h, place, "dev", dev);
}

static void input(const struct host *h, const char *path, const char *name, const char *key,
	const char *rel, const char *absolute)
{
	char place[512];

	class_device(h, "input", path, name);
	snprintf(place, sizeof(place), "%s/%s/device/capabilities", path, name);
	attribute(h, place, "key", key);
	attribute(h, place, "rel", rel);
	attribute(h, place, "abs", absolute);
}

static int setup(void **state)
{
	struct host *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	snprintf(h->dir, sizeof(h->dir), "/tmp/test-usb-guard-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	snprintf(h->sys, sizeof(h->sys), "%s/sys", h->dir);
	assert_int_equal(mkdir(h->sys, 0755), 0);
	snprintf(h->mountinfo, sizeof(h->mountinfo), "%s/mountinfo", h->dir);
	snprintf(h->swaps, sizeof(h->swaps), "%s/swaps", h->dir);
	write_file(h->mountinfo, "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n");
	write_file(h->swaps, "Filename\tType\tSize\tUsed\tPriority\n");
	h->guard = (struct usb_guard){.sys = h->sys, .mountinfo = h->mountinfo, .swaps = h->swaps};
	make_dirs(h, USB);
	snprintf(h->device, sizeof(h->device), "%s/" USB, h->sys);
	*state = h;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct host *h = *state;

	nftw(h->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(h);
	return 0;
}

static int check(const struct host *h, bool last_input, struct refusal_text *text)
{
	*text = (struct refusal_text){0};
	return usb_guard_check(&h->guard, h->device, "usb:x-2", last_input, text);
}

static void spare_device(void **state)
{
	const struct host *h = *state;
	struct refusal_text text;

	/* Its stick is not mounted; the twin on port 20 is. */
	block(h, USB "/1-2:1.0/host0/block", "sda", "8:0\n");
	block(h, OTHER "/1-20:1.0/host1/block", "sdb", "8:16\n");
	write_file(h->mountinfo, "22 1 8:16 / / rw - ext4 /dev/sdb rw\n");
	assert_int_equal(check(h, false, &text), 0);
}

static void mounted_disks(void **state)
{
	const struct host *h = *state;
	struct refusal_text text;

	block(h, USB "/1-2:1.0/host0/block", "sda", "8:0\n");
	block(h, USB "/1-2:1.0/host0/block/sda", "sda1", "8:1\n");
	write_file(h->mountinfo,
		"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n"
		"30 22 8:1 / /media/my\\040stick rw shared:1 - vfat /dev/sda1 rw\n");
	assert_int_equal(check(h, true, &text), REFUSAL_BUSY);
	assert_string_equal(text.sentence, "usb:x-2 is in use on the host: its sda1 is mounted at "
					   "/media/my stick");
	/* What the host needs is told before what it uses. */
	write_file(h->mountinfo, "30 22 8:1 / /media/stick rw - ext4 /dev/sda1 rw\n"
				 "31 22 8:1 /home /home rw - ext4 /dev/sda1 rw\n");
	assert_int_equal(check(h, true, &text), REFUSAL_DENIED);
	assert_string_equal(
		text.sentence, "the host runs from usb:x-2: its sda1 is mounted at /home");
	write_file(h->mountinfo, "22 1 8:0 / / rw - ext4 /dev/root rw\n");
	assert_int_equal(check(h, true, &text), REFUSAL_DENIED);
	/* Garbage in the file is nobody's mount. */
	write_file(h->mountinfo, "\n1\n1 2 3\n - \nx y z - - -\n8:0 8:0 8:0 8:0 8:0\n");
	assert_int_equal(check(h, true, &text), 0);
}

/* btrfs has numbers of its own: the source tells. */
static void mounted_by_source(void **state)
{
	const struct host *h = *state;
	struct refusal_text text;
	char line[256], dev[32];
	struct stat st;

	/* A path that surely is, and what it lies on, in the place of the stick. */
	assert_int_equal(stat(h->dir, &st), 0);
	snprintf(dev, sizeof(dev), "%u:%u\n", major(st.st_dev), minor(st.st_dev));
	block(h, USB "/1-2:1.0/host0/block", "sda", dev);
	snprintf(line, sizeof(line), "22 1 0:30 / / rw - btrfs %s rw\n", h->dir);
	write_file(h->mountinfo, line);
	assert_int_equal(check(h, true, &text), REFUSAL_DENIED);
}

static void swap_on_it(void **state)
{
	const struct host *h = *state;
	char line[256], dev[32];
	struct refusal_text text;
	struct stat st;

	assert_int_equal(stat(h->dir, &st), 0);
	snprintf(dev, sizeof(dev), "%u:%u\n", major(st.st_dev), minor(st.st_dev));
	block(h, USB "/1-2:1.0/host0/block", "sda", dev);
	write_file(h->mountinfo, "");
	assert_int_equal(check(h, true, &text), 0);
	snprintf(line, sizeof(line), "Filename Type\n%s/swaps\tfile\t1024\t0\t-2\n", h->dir);
	write_file(h->swaps, line);
	assert_int_equal(check(h, true, &text), REFUSAL_DENIED);
	assert_non_null(strstr(text.sentence, "swaps"));
}

static void what_lies_on_top(void **state)
{
	const struct host *h = *state;
	struct refusal_text text;

	block(h, USB "/1-2:1.0/host0/block", "sda", "8:0\n");
	block(h, "devices/virtual/block", "dm-0", "253:0\n");
	block(h, "devices/virtual/block", "dm-1", "253:1\n");
	make_dirs(h, USB "/1-2:1.0/host0/block/sda/holders/dm-0");
	make_dirs(h, "devices/virtual/block/dm-0/holders/dm-1");
	/* A ring would be a bug of somebody else's. */
	make_dirs(h, "devices/virtual/block/dm-1/holders/dm-0");
	assert_int_equal(check(h, true, &text), REFUSAL_BUSY);
	assert_non_null(strstr(text.sentence, "dm-0 lies on it"));
	write_file(h->mountinfo, "22 1 253:1 / / rw - ext4 /dev/mapper/root rw\n");
	assert_int_equal(check(h, true, &text), REFUSAL_DENIED);
}

static void last_inputs(void **state)
{
	/* As a kernel shows them: AT keyboard, USB mouse, tablet. */
	static const char keyboard[] =
		"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n";
	static const char mouse[] = "70000 0 0 0 0\n";
	const struct host *h = *state;
	struct refusal_text text;

	input(h, USB "/1-2:1.0/0003:0627:0001.0001/input/input5", "event5", keyboard, "0\n", "0\n");
	/* Volume keys and power buttons are no keyboard; a virtual one is nobody's desk. */
	input(h, "devices/LNXPWRBN:00/input/input0", "event0", "10000000000000 0\n", "0\n", "0\n");
	input(h, "devices/virtual/input/input9", "event9", keyboard, "0\n", "0\n");
	assert_int_equal(check(h, false, &text), REFUSAL_DENIED);
	assert_string_equal(text.sentence, "usb:x-2 is the host's last keyboard");
	assert_int_equal(check(h, true, &text), 0);
	input(h, OTHER "/1-20:1.0/input/input6", "event6", keyboard, "0\n", "0\n");
	assert_int_equal(check(h, false, &text), 0);
	/* It also is a pointer, and there is no other. */
	input(h, USB "/1-2:1.1/input/input7", "event7", mouse, "3\n", "0\n");
	assert_int_equal(check(h, false, &text), REFUSAL_DENIED);
	assert_string_equal(text.sentence, "usb:x-2 is the host's last pointer");
	/* A tablet moves absolutely. */
	input(h, OTHER "/1-20:1.1/input/input8", "event8", mouse, "0\n", "3\n");
	assert_int_equal(check(h, false, &text), 0);
}

static void without_answers(void **state)
{
	struct host *h = *state;
	struct refusal_text text;

	/* No block, no input class: a small kernel. */
	assert_int_equal(check(h, false, &text), 0);
	/* A disk, and nobody says what is mounted: it is not lent on a guess. */
	block(h, USB "/1-2:1.0/host0/block", "sda", "8:0\n");
	h->guard.mountinfo = "/nonexistent";
	assert_int_equal(check(h, false, &text), -ENOENT);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(spare_device, setup, teardown),
		cmocka_unit_test_setup_teardown(mounted_disks, setup, teardown),
		cmocka_unit_test_setup_teardown(mounted_by_source, setup, teardown),
		cmocka_unit_test_setup_teardown(swap_on_it, setup, teardown),
		cmocka_unit_test_setup_teardown(what_lies_on_top, setup, teardown),
		cmocka_unit_test_setup_teardown(last_inputs, setup, teardown),
		cmocka_unit_test_setup_teardown(without_answers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
