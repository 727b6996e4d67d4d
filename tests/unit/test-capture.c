/* SPDX-License-Identifier: MIT
 * Records of a capture: which are taken for some, what stands in them, and what is lost when nobody
 * reads.
 */
#include "usb/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/capture.h"
#include "tests/unit/test.h"
#include "usb/transfer.h"

static void each_bad_record_is_refused(void **state)
{
	static const struct {
		uint32_t size, original;
		size_t there;
		int r;
	} all[] = {
		{24, 0, 24, 0},
		{24, 0, 23, -EAGAIN},
		{24, 0, 0, -EAGAIN},
		{24 + 64, 64, 24 + 64, 0},
		{24 + 64, 64, 24 + 63, -EAGAIN},
		{24 + 64, 1 << 20, 24 + 64, 0},
		{24 + CAPTURE_PACKET_MAX, CAPTURE_PACKET_MAX, 24, -EAGAIN},
		{23, 0, 24, -EBADMSG},
		{0, 0, 24, -EBADMSG},
		{24, 64, 24, -EBADMSG},
		{24 + 63, 63, 200, -EBADMSG},
		{24 + 65, 64, 200, -EBADMSG},
		{24 + CAPTURE_PACKET_MAX + 1, UINT32_MAX, 200, -EBADMSG},
		{UINT32_MAX, UINT32_MAX, 200, -EBADMSG},
	};
	uint8_t data[200] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const struct capture_record r = {.size = all[i].size, .original = all[i].original};
		struct capture_record out = {.size = 7};

		memcpy(data, &r, sizeof(r));
		assert_int_equal(capture_record_decode(data, all[i].there, &out), all[i].r);
		assert_int_equal(out.size, all[i].r == 0 ? all[i].size : 7);
	}
}

struct place {
	sd_event *event;
	struct capture *capture;
	int reads;
	uint8_t data[1 << 22];
	size_t n; /* read so far */
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	int fds[2];

	if (!p || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0 || sd_event_new(&p->event) < 0) {
		return -1;
	}
	p->reads = fds[0];
	*state = p;
	return capture_create(p->event,
		&(struct capture_options){.fd = fds[1], .bus = 3, .device = 9}, &p->capture);
}

static int tear_down(void **state)
{
	struct place *p = *state;

	capture_destroy(p->capture);
	close(p->reads);
	sd_event_unref(p->event);
	free(p);
	return 0;
}

/* Everything that is to be had. */
static void read_all(struct place *p)
{
	ssize_t n;

	do {
		assert_true(capture_turn(p->capture));
		n = read(p->reads, p->data + p->n, sizeof(p->data) - p->n);
		p->n += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	assert_int_equal(errno, EAGAIN);
}

/* The record at *at, which goes on to the next. */
static const struct capture_usb *next(
	struct place *p, size_t *at, struct capture_record *r, struct capture_usb *u)
{
	assert_int_equal(capture_record_decode(p->data + *at, p->n - *at, r), 0);
	memset(u, 0, sizeof(*u));
	memcpy(u, p->data + *at + sizeof(*r), r->size > sizeof(*r) ? sizeof(*u) : 0);
	*at += r->size;
	return u;
}

static void isochronous_packets_keep_their_places(void **state)
{
	struct place *p = *state;
	struct iso_packet packets[] = {{.length = 4, .actual = 4},
		{.length = 4, .actual = 2, .status = TRANSFER_IO_ERROR}, {.length = 4}};
	uint8_t bytes[] = "abcdefghijkl";
	struct transfer t = {.type = TRANSFER_ISO,
		.endpoint = 0x81,
		.packets = packets,
		.n_packets = 3,
		.data = bytes,
		.length = 12,
		.actual = 6};
	struct capture_record r;
	struct capture_usb u;
	struct capture_iso iso[3];
	size_t at = 0;

	capture_submitted(p->capture, &t);
	capture_completed(p->capture, &t);
	read_all(p);
	next(p, &at, &r, &u);
	assert_int_equal(u.type, 'S');
	assert_int_equal(u.captured, sizeof(iso));
	assert_int_equal(u.length, 12);
	assert_int_equal(u.flag_data, '<');
	assert_int_equal(u.status, -EINPROGRESS);
	next(p, &at, &r, &u);
	assert_int_equal(at, p->n);
	assert_int_equal(u.type, 'C');
	assert_int_equal(u.transfer, CAPTURE_ISO);
	assert_int_equal(u.bus, 3);
	assert_int_equal(u.device, 9);
	assert_int_equal(u.flag_setup, '-');
	assert_int_equal(u.n_iso, 3);
	assert_int_equal(u.u.iso.errors, 1);
	assert_int_equal(u.length, 6);
	assert_int_equal(u.captured, sizeof(iso) + 6);
	assert_int_equal(r.original, r.size - sizeof(r));
	memcpy(iso, p->data + at - 6 - sizeof(iso), sizeof(iso));
	assert_int_equal(iso[1].offset, 4);
	assert_int_equal(iso[1].length, 2);
	assert_int_equal(iso[1].status, -EPROTO);
	assert_int_equal(iso[2].length, 0);
	assert_memory_equal(p->data + at - 6, "abcdef", 6);
}

static void what_is_lost_is_told(void **state)
{
	struct place *p = *state;
	_cleanup_free_ uint8_t *bytes = calloc(1, TRANSFER_BYTES_MAX);
	struct transfer t = {.type = TRANSFER_BULK,
		.endpoint = 2,
		.data = bytes,
		.length = TRANSFER_BYTES_MAX,
		.actual = TRANSFER_BYTES_MAX};
	struct capture_record r;
	struct capture_usb u;
	size_t at = 0, whole = 0;

	for (int i = 0; i < 20; i++) {
		capture_submitted(p->capture, &t);
		assert_true(capture_turn(p->capture));
	}
	/* Longer than Wireshark takes: cut. And nobody asked for more than fits. */
	read_all(p);
	while (at < p->n) {
		next(p, &at, &r, &u);
		if (r.original > 0) {
			whole++;
			assert_int_equal(r.size - sizeof(r), CAPTURE_PACKET_MAX);
			assert_int_equal(r.original, 64 + TRANSFER_BYTES_MAX);
		}
	}
	assert_in_range(whole, 4, 8);
	assert_int_equal(r.dropped, 20 - whole);
	p->n = at = 0;
	capture_completed(p->capture, &t);
	read_all(p);
	next(p, &at, &r, &u);
	assert_int_equal(r.dropped, 20 - whole);
	assert_int_equal(u.flag_data, '>');
	/* Nobody reads any more. */
	close(p->reads);
	p->reads = -1;
	capture_completed(p->capture, &t);
	assert_false(capture_turn(p->capture));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_bad_record_is_refused),
		cmocka_unit_test_setup_teardown(
			isochronous_packets_keep_their_places, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_lost_is_told, set_up, tear_down),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
