/* SPDX-License-Identifier: MIT
 * The virtual stick as a USB device: descriptors, requests on endpoint 0, and a whole good path.
 */
#include "usb/backend-disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/stick.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"
#include "usb/scsi.h"

#define MIB (1024 * 1024)

static const uint8_t test_unit_ready[6] = {0};

static void read_write_sync(void **state)
{
	static const uint8_t read10[10] = {0x28, 0, 0, 0, 0, 5, 0, 0, 8};
	static const uint8_t write10[10] = {0x2a, 0, 0, 0, 0, 5, 0, 0, 8};
	static const uint8_t sync10[10] = {0x35};
	uint8_t data[4096], back[4096], disk[4096];
	struct stick s;
	uint32_t n;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_HIGH);
	/* The first command hears of the power-on, once. */
	assert_int_equal(stick_command(&s, test_unit_ready, 6, false, NULL, 0, NULL), 1);
	assert_int_equal(stick_sense(&s), SENSE_POWER_ON);
	assert_int_equal(stick_command(&s, test_unit_ready, 6, false, NULL, 0, NULL), 0);
	assert_int_equal(stick_sense(&s), SENSE_NONE);

	assert_int_equal(stick_command(&s, read10, 10, true, back, 4096, &n), 0);
	assert_int_equal(n, 4096);
	assert_int_equal(get_be64(back), 5);
	assert_int_equal(get_be64(back + 4088), 12);

	for (size_t i = 0; i < sizeof(data); i++) {
		data[i] = (uint8_t)(i * 7 + i / 256);
	}
	assert_int_equal(stick_command(&s, write10, 10, false, data, 4096, NULL), 0);
	assert_int_equal(stick_command(&s, sync10, 10, false, NULL, 0, NULL), 0);
	assert_int_equal(pread(s.image, disk, 4096, 5 * 512), 4096);
	assert_memory_equal(disk, data, 4096);
	assert_int_equal(stick_command(&s, read10, 10, true, back, 4096, &n), 0);
	assert_memory_equal(back, data, 4096);
	stick_close(&s);
}

static int get_descriptor(struct stick *s, uint16_t value, uint8_t *d, uint16_t size, uint32_t *n)
{
	return stick_control(s, 0x80, 6, value, 0, d, size, n);
}

static void assert_string(struct stick *s, uint8_t index, const char *want)
{
	uint8_t d[255];
	uint32_t n;

	assert_int_equal(get_descriptor(s, (uint16_t)(0x0300 | index), d, 255, &n), TRANSFER_OK);
	assert_int_equal(n, 2 + 2 * strlen(want));
	assert_int_equal(d[0], n);
	assert_int_equal(d[1], 3);
	for (size_t i = 0; i < strlen(want); i++) {
		assert_int_equal(d[2 + 2 * i], want[i]);
		assert_int_equal(d[3 + 2 * i], 0);
	}
}

static void high_speed_descriptors(void **state)
{
	struct usb_description d;
	uint8_t b[512];
	struct stick s;
	uint32_t n;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_HIGH);
	assert_int_equal(s.backend->ops->describe(s.backend, &d), 0);
	assert_int_equal(d.speed, USB_SPEED_HIGH);
	assert_int_equal(d.config_size, 32);
	assert_int_equal(get_descriptor(&s, 0x0100, b, 64, &n), TRANSFER_OK);
	assert_int_equal(n, 18);
	assert_memory_equal(b, d.device, 18);
	assert_int_equal(b[2] | b[3] << 8, 0x0200);
	assert_int_equal(b[7], 64);
	assert_int_equal(get_descriptor(&s, 0x0200, b, 512, &n), TRANSFER_OK);
	assert_int_equal(n, 32);
	assert_memory_equal(b, d.config, 32);
	assert_memory_equal(b + 9, "\x09\x04\x00\x00\x02\x08\x06\x50\x00", 9);
	assert_memory_equal(b + 18, "\x07\x05\x81\x02\x00\x02\x00", 7);
	assert_memory_equal(b + 25, "\x07\x05\x02\x02\x00\x02\x00", 7);
	/* A short request gets the beginning. */
	assert_int_equal(get_descriptor(&s, 0x0200, b, 9, &n), TRANSFER_OK);
	assert_int_equal(n, 9);
	assert_int_equal(get_descriptor(&s, 0x0600, b, 10, &n), TRANSFER_OK);
	assert_memory_equal(b, "\x0a\x06\x00\x02\x00\x00\x00\x40\x01\x00", 10);
	assert_int_equal(get_descriptor(&s, 0x0700, b, 512, &n), TRANSFER_OK);
	assert_int_equal(n, 32);
	assert_int_equal(b[1], 7);
	assert_int_equal(b[18 + 4], 64);
	assert_int_equal(get_descriptor(&s, 0x0300, b, 255, &n), TRANSFER_OK);
	assert_memory_equal(b, "\x04\x03\x09\x04", 4);
	assert_string(&s, 1, "devbroker");
	assert_string(&s, 2, "devbroker stick");
	assert_string(&s, 3, STICK_SERIAL);
	assert_int_equal(get_descriptor(&s, 0x0304, b, 255, &n), TRANSFER_STALL);
	assert_int_equal(get_descriptor(&s, 0x03ee, b, 255, &n), TRANSFER_STALL);
	assert_int_equal(get_descriptor(&s, 0x0201, b, 255, &n), TRANSFER_STALL);
	assert_int_equal(get_descriptor(&s, 0x0f00, b, 255, &n), TRANSFER_STALL);
	stick_close(&s);
}

static void super_speed_descriptors(void **state)
{
	uint8_t b[512];
	struct stick s;
	uint32_t n;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_SUPER);
	assert_int_equal(get_descriptor(&s, 0x0100, b, 18, &n), TRANSFER_OK);
	assert_int_equal(b[2] | b[3] << 8, 0x0300);
	assert_int_equal(b[7], 9);
	assert_int_equal(get_descriptor(&s, 0x0200, b, 512, &n), TRANSFER_OK);
	assert_int_equal(n, 44);
	assert_int_equal(b[2], 44);
	assert_memory_equal(b + 18, "\x07\x05\x81\x02\x00\x04\x00\x06\x30\x0f\x00\x00\x00", 13);
	assert_memory_equal(b + 31, "\x07\x05\x02\x02\x00\x04\x00\x06\x30\x0f\x00\x00\x00", 13);
	assert_int_equal(get_descriptor(&s, 0x0f00, b, 5, &n), TRANSFER_OK);
	assert_memory_equal(b, "\x05\x0f\x16\x00\x02", 5);
	assert_int_equal(get_descriptor(&s, 0x0f00, b, 22, &n), TRANSFER_OK);
	assert_int_equal(n, 22);
	assert_memory_equal(b + 12, "\x0a\x10\x03\x00\x0c\x00\x02\x00\x00\x00", 10);
	assert_int_equal(get_descriptor(&s, 0x0600, b, 10, &n), TRANSFER_STALL);
	stick_close(&s);
}

static int simple(struct stick *s, uint8_t type, uint8_t request, uint16_t value, uint16_t index)
{
	return stick_control(s, type, request, value, index, NULL, 0, NULL);
}

static unsigned status_of(struct stick *s, uint8_t type, uint16_t index)
{
	uint8_t b[2] = {0xff, 0xff};
	uint32_t n;

	assert_int_equal(stick_control(s, type, 0, 0, index, b, 2, &n), TRANSFER_OK);
	assert_int_equal(n, 2);
	return b[0] | b[1] << 8;
}

static void control_requests(void **state)
{
	uint8_t b[8] = {0};
	struct stick s;
	uint32_t n;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_SUPER);
	assert_int_equal(status_of(&s, 0x80, 0), 0);
	assert_int_equal(simple(&s, 0x00, 3, 48, 0), TRANSFER_OK);
	assert_int_equal(status_of(&s, 0x80, 0), 4);
	assert_int_equal(simple(&s, 0x00, 3, 49, 0), TRANSFER_OK);
	assert_int_equal(simple(&s, 0x00, 1, 48, 0), TRANSFER_OK);
	assert_int_equal(status_of(&s, 0x80, 0), 8);
	assert_int_equal(simple(&s, 0x00, 3, 1, 0), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x00, 1, 1, 0), TRANSFER_OK);
	assert_int_equal(stick_control(&s, 0x00, 0x30, 0, 0, b, 6, &n), TRANSFER_OK);
	assert_int_equal(n, 6);
	assert_int_equal(simple(&s, 0x00, 0x31, 40, 0), TRANSFER_OK);
	assert_int_equal(status_of(&s, 0x81, 0), 0);
	assert_int_equal(stick_control(&s, 0x81, 0, 0, 1, b, 2, &n), TRANSFER_STALL);

	assert_int_equal(simple(&s, 0x02, 3, 0, 0x81), TRANSFER_OK);
	assert_int_equal(status_of(&s, 0x82, 0x81), 1);
	assert_int_equal(status_of(&s, 0x82, 0x02), 0);
	assert_int_equal(stick_bulk_in(&s, b, 8, &n), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x02, 1, 0, 0x81), TRANSFER_OK);
	assert_int_equal(status_of(&s, 0x82, 0x81), 0);
	assert_int_equal(simple(&s, 0x02, 3, 0, 0x83), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x02, 3, 1, 0x81), TRANSFER_STALL);

	assert_int_equal(stick_control(&s, 0x80, 8, 0, 0, b, 1, &n), TRANSFER_OK);
	assert_int_equal(b[0], 1);
	assert_int_equal(stick_control(&s, 0x81, 10, 0, 0, b, 1, &n), TRANSFER_OK);
	assert_int_equal(b[0], 0);
	b[0] = 0xff;
	assert_int_equal(stick_control(&s, 0xa1, 0xfe, 0, 0, b, 1, &n), TRANSFER_OK);
	assert_int_equal(n, 1);
	assert_int_equal(b[0], 0);
	assert_int_equal(stick_control(&s, 0xa1, 0xfe, 0, 1, b, 1, &n), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x21, 0xff, 0, 0), TRANSFER_OK);
	/* The engine's to answer, or nobody's. */
	assert_int_equal(simple(&s, 0x00, 5, 3, 0), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x00, 9, 1, 0), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x01, 11, 0, 0), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x40, 0xff, 0, 0), TRANSFER_STALL);
	assert_int_equal(stick_control(&s, 0xc0, 1, 0, 0, b, 8, &n), TRANSFER_STALL);
	stick_close(&s);

	stick_open(&s, stick_image(MIB), false, USB_SPEED_HIGH);
	assert_int_equal(simple(&s, 0x00, 3, 48, 0), TRANSFER_STALL);
	assert_int_equal(stick_control(&s, 0x00, 0x30, 0, 0, b, 6, &n), TRANSFER_STALL);
	assert_int_equal(simple(&s, 0x00, 0x31, 40, 0), TRANSFER_STALL);
	stick_close(&s);
}

static void configuration(void **state)
{
	struct usb_description d;
	uint8_t b[13];
	struct stick s;
	uint32_t n;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_HIGH);
	s.backend->ops->set_configuration(s.backend, 2);
	assert_int_equal(s.requests_done, 1);
	assert_int_equal(s.last_request_status, TRANSFER_STALL);
	s.backend->ops->set_configuration(s.backend, 0);
	assert_int_equal(s.last_request_status, TRANSFER_OK);
	assert_int_equal(s.backend->ops->describe(s.backend, &d), 0);
	assert_int_equal(d.config_size, 0);
	assert_int_equal(stick_bulk_in(&s, b, 13, &n), TRANSFER_INVALID);
	assert_int_equal(stick_control(&s, 0xa1, 0xfe, 0, 0, b, 1, &n), TRANSFER_STALL);
	s.backend->ops->set_interface(s.backend, 0, 0);
	assert_int_equal(s.last_request_status, TRANSFER_STALL);
	s.backend->ops->set_configuration(s.backend, 1);
	assert_int_equal(s.last_request_status, TRANSFER_OK);
	assert_int_equal(s.backend->ops->describe(s.backend, &d), 0);
	assert_int_equal(d.config_size, 32);
	s.backend->ops->set_interface(s.backend, 0, 1);
	assert_int_equal(s.last_request_status, TRANSFER_STALL);
	s.backend->ops->set_interface(s.backend, 0, 0);
	assert_int_equal(s.last_request_status, TRANSFER_OK);
	s.backend->ops->reset(s.backend);
	assert_int_equal(s.requests_done, 7);
	stick_ready(&s);
	stick_close(&s);
}

static void quiesce_flushes(void **state)
{
	struct stick s;

	stick_open(&s, stick_image(MIB), false, USB_SPEED_HIGH);
	s.backend->ops->quiesce(s.backend);
	s.backend->ops->quiesce(s.backend);
	stick_wait_count(&s, &s.quiesced, 1);
	assert_int_equal(s.quiesce_error, 0);
	stick_settle(&s, 10);
	assert_int_equal(s.quiesced, 1);
	stick_close(&s);
}

static void bad_images_are_refused(void **state)
{
	struct backend_disk_options o = {.speed = USB_SPEED_HIGH, .serial = STICK_SERIAL};
	struct backend *b = NULL;
	char why[128];
	int p[2];

	assert_true(sd_event_new(&o.event) >= 0);
	o.image_fd = stick_image(0);
	assert_int_equal(backend_disk_create(&o, &b), 0);
	assert_int_equal(backend_disk_open(b, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "smaller than a block"));
	b->ops->destroy(b);
	b = NULL;
	assert_int_equal(pipe(p), 0);
	o.image_fd = p[0];
	assert_int_equal(backend_disk_create(&o, &b), -ENOTSUP);
	assert_int_equal(fcntl(o.image_fd, F_GETFD), -1); /* taken even on error */
	close(p[1]);
	o.image_fd = stick_image(MIB);
	o.speed = USB_SPEED_FULL;
	assert_int_equal(backend_disk_create(&o, &b), -EINVAL);
	assert_null(b);
	sd_event_unref(o.event);
}

/* 1000 bytes are one block; the bytes behind it are out of reach. */
static void odd_sizes_are_rounded_down(void **state)
{
	static const uint8_t capacity[10] = {0x25};
	uint8_t d[8];
	struct stick s;

	stick_open(&s, stick_image(1000), false, USB_SPEED_HIGH);
	stick_ready(&s);
	assert_int_equal(stick_command(&s, capacity, 10, true, d, 8, NULL), 0);
	assert_int_equal(get_be32(d), 0);
	stick_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_write_sync),
		cmocka_unit_test(high_speed_descriptors),
		cmocka_unit_test(super_speed_descriptors),
		cmocka_unit_test(control_requests),
		cmocka_unit_test(configuration),
		cmocka_unit_test(quiesce_flushes),
		cmocka_unit_test(bad_images_are_refused),
		cmocka_unit_test(odd_sizes_are_rounded_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
