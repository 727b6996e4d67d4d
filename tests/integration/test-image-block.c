/* SPDX-License-Identifier: MIT
 *
 * A real block device (a loop device; root only) as an image: checked, locked, discarded, and
 * refused while the host has it mounted, in a mount namespace of the test's own.
 */
#include "broker/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/test.h"
#include "usb/disk-io.h"

#define SIZE (8 * 1024 * 1024)

static char device[64];
static int loop = -1; /* LO_FLAGS_AUTOCLEAR: it goes with the last fd */

/* 0, or -1 where there is no loop device to be had. */
static int make_loop(void)
{
	struct loop_config c = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n;
	int file = memfd_create("loop", MFD_CLOEXEC);

	if (control < 0 || file < 0 || ftruncate(file, SIZE) < 0) {
		return -1;
	}
	c.fd = (unsigned)file;
	for (int i = 0; i < 8 && loop < 0; i++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(device, sizeof(device), "/dev/loop%d", n);
		loop = open(device, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &c) < 0) {
			close(loop);
			loop = -1;
		}
	}
	close(control);
	close(file);
	return loop >= 0 ? 0 : -1;
}

static void done(struct disk_io_request *r, int error)
{
	*(int *)r->userdata = error;
}

static int one(sd_event *e, struct disk_io *io, enum disk_io_op op, uint8_t *data)
{
	int result = 1;
	struct disk_io_request r = {.op = op,
		.offset = 8192,
		.length = 4096,
		.data = data,
		.done = done,
		.userdata = &result};

	disk_io_submit(io, &r);
	for (int i = 0; i < 500 && result == 1; i++) {
		assert_true(sd_event_run(e, 10000) >= 0);
	}
	return result;
}

static void a_block_device_is_an_image(void **state)
{
	static uint8_t data[4096];
	struct refusal_text text = {.sentence = ""};
	struct image_info info;
	struct disk_io *io;
	sd_event *e;
	uint64_t size;
	int fd = -1;

	assert_int_equal(image_open(device, false, &fd, &text), 0);
	assert_int_equal(image_check(fd, false, device, &info, &text), 0);
	assert_int_equal(info.size, SIZE);
	assert_true(info.block_device);
	assert_int_equal(image_lock(fd, false, device, &text), 0);
	assert_int_equal(disk_io_size(fd, &size), 0);
	assert_int_equal(size, SIZE);
	assert_true(sd_event_new(&e) >= 0);
	assert_int_equal(disk_io_create(fd, size, true, e, &io), 0);
	memset(data, 7, sizeof(data));
	assert_int_equal(one(e, io, DISK_IO_WRITE, data), 0);
	assert_int_equal(one(e, io, DISK_IO_FLUSH, NULL), 0);
	assert_true(disk_io_can_discard(io));
	assert_int_equal(one(e, io, DISK_IO_DISCARD, NULL), 0);
	assert_int_equal(one(e, io, DISK_IO_READ, data), 0);
	assert_int_equal(data[0], 0); /* this device's discard zeroes */
	disk_io_destroy(io);
	sd_event_unref(e);
}

static void a_mounted_one_is_busy(void **state)
{
	struct refusal_text text = {.sentence = ""};
	char dir[] = "/tmp/devbroker-test-block-XXXXXX", command[96];
	int fd = -1;

	snprintf(command, sizeof(command), "mkfs.ext4 -qF %s >/dev/null 2>&1", device);
	if (system(command) != 0 || unshare(CLONE_NEWNS) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		skip();
	}
	assert_non_null(mkdtemp(dir));
	if (mount(device, dir, "ext4", 0, NULL) < 0) {
		rmdir(dir);
		skip();
	}
	assert_int_equal(image_open(device, true, &fd, &text), 0);
	assert_int_equal(image_probe(fd, true, device, &text), REFUSAL_IMAGE_BUSY);
	assert_non_null(strstr(text.sentence, "is in use by this host itself"));
	assert_int_equal(image_lock(fd, true, device, &text), REFUSAL_IMAGE_BUSY);
	assert_int_equal(umount(dir), 0);
	assert_int_equal(image_lock(fd, true, device, &text), 0);
	close(fd);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_device_is_an_image),
		cmocka_unit_test(a_mounted_one_is_busy),
	};

	if (make_loop() < 0) {
		printf("skipped: no loop device can be made here\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
