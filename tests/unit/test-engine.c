/* SPDX-License-Identifier: MIT
 *
 * The engine between a fake backend and a guest that speaks usbredir in raw bytes: what a disk does
 * not have (interrupt endpoints, altsettings, requests that take time, a device that goes away).
 */
#include "usb/engine.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"

enum {
	HELLO = 0,
	DEVICE_CONNECT = 1,
	DEVICE_DISCONNECT = 2,
	RESET = 3,
	EP_INFO = 5,
	SET_CONFIGURATION = 6,
	CONFIGURATION_STATUS = 8,
	SET_ALT = 9,
	ALT_STATUS = 11,
	START_INTERRUPT = 15,
	STOP_INTERRUPT = 16,
	INTERRUPT_STATUS = 17,
	CANCEL = 21,
	DISCONNECT_ACK = 24,
	CONTROL = 100,
	BULK = 101,
	INTERRUPT = 103,
};

#define CAPS       (1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6)
#define HEAD       16
#define QUEUED_MAX 64

/* Interface 0: HID with 0x81 interrupt IN. Interface 5 (sparse): nothing at alt 0, and at alt 7
 * bulk 0x82 and 0x02, interrupt OUT 0x03. */
static const uint8_t config_descriptor[] = {9, 2, 73, 0, 2, 1, 0, 0xa0, 50, /* configuration 1 */
	9, 4, 0, 0, 1, 3, 1, 1, 0,                                          /* interface 0 */
	9, 0x21, 0x11, 1, 0, 1, 0x22, 63, 0,                                /* HID */
	7, 5, 0x81, 3, 8, 0, 10,                                            /* 0x81 */
	9, 4, 5, 0, 0, 0xff, 0, 0, 0,                                       /* interface 5, alt 0 */
	9, 4, 5, 7, 3, 0xff, 0, 0, 0,                                       /* interface 5, alt 7 */
	7, 5, 0x82, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0, 7, 5, 0x03, 3, 16, 0, 4};

struct fixture {
	sd_event *event;
	struct engine *engine;
	int guest;
	uint8_t in[1 << 16];
	size_t n_in;
	/* the fake device */
	struct backend backend;
	struct transfer *queued[QUEUED_MAX];
	size_t n_queued;
	uint8_t configuration;
	unsigned int requests;
	bool requests_wait;
	bool cancel_waits;
	/* what the listener heard */
	uint32_t state;
	bool finished;
	uint32_t reason;
};

static struct fixture *of(struct backend *b)
{
	return (struct fixture *)(void *)((char *)b - offsetof(struct fixture, backend));
}

static int fake_describe(struct backend *b, struct usb_description *out)
{
	static const uint8_t device[18] = {
		18, 1, 0, 2, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0x01, 0x02, 0, 0, 0, 1};

	*out = (struct usb_description){.speed = USB_SPEED_HIGH};
	memcpy(out->device, device, sizeof(device));
	if (of(b)->configuration) {
		memcpy(out->config, config_descriptor, sizeof(config_descriptor));
		out->config_size = sizeof(config_descriptor);
	}
	return 0;
}

static void fake_submit(struct backend *b, struct transfer *t)
{
	struct fixture *f = of(b);

	assert_true(f->n_queued < QUEUED_MAX);
	f->queued[f->n_queued++] = t;
}

/* Completes the transfer that was queued at place i. */
static void complete(struct fixture *f, size_t i, enum transfer_status status, const char *data)
{
	struct transfer *t = f->queued[i];

	assert_true(i < f->n_queued);
	memmove(f->queued + i, f->queued + i + 1, (--f->n_queued - i) * sizeof(*f->queued));
	t->status = status;
	t->actual = t->endpoint & 0x80 ? 0 : t->length;
	if (data) {
		t->actual = (uint32_t)strlen(data);
		memcpy(t->data, data, t->actual);
	}
	f->backend.sink->completed(f->backend.sink_data, t);
}

static void fake_cancel(struct backend *b, struct transfer *t)
{
	struct fixture *f = of(b);

	if (f->cancel_waits) {
		return;
	}
	for (size_t i = 0; i < f->n_queued; i++) {
		if (f->queued[i] == t) {
			complete(f, i, TRANSFER_CANCELLED, NULL);
			return;
		}
	}
	fail_msg("cancel of what the backend does not have");
}

static void fake_request(struct fixture *f)
{
	f->requests++;
	if (!f->requests_wait) {
		f->backend.sink->request_done(f->backend.sink_data, TRANSFER_OK);
	}
}

static void fake_set_configuration(struct backend *b, uint8_t value)
{
	of(b)->configuration = value;
	fake_request(of(b));
}

static void fake_set_interface(struct backend *b, uint8_t interface, uint8_t alt)
{
	fake_request(of(b));
}

static void fake_reset(struct backend *b)
{
	fake_request(of(b));
}

static void fake_quiesce(struct backend *b)
{
	b->sink->quiesced(b->sink_data, 0);
}

static const struct backend_ops fake_ops = {
	.name = "fake",
	.describe = fake_describe,
	.submit = fake_submit,
	.cancel = fake_cancel,
	.set_configuration = fake_set_configuration,
	.set_interface = fake_set_interface,
	.reset = fake_reset,
	.quiesce = fake_quiesce,
};

static void on_state(void *userdata, uint32_t state, uint64_t connect_ns)
{
	((struct fixture *)userdata)->state = state;
}

static void on_finished(void *userdata, uint32_t reason, int error, const char *detail)
{
	struct fixture *f = userdata;

	assert_false(f->finished);
	f->finished = true;
	f->reason = reason;
}

static const struct engine_listener listener = {.state = on_state, .finished = on_finished};

static void turn(struct fixture *f)
{
	/* Until nothing is left to do. */
	while (sd_event_run(f->event, 0) > 0) {
		engine_turn(f->engine);
	}
	engine_turn(f->engine);
	while (f->n_in < sizeof(f->in)) {
		ssize_t n = recv(f->guest, f->in + f->n_in, sizeof(f->in) - f->n_in, MSG_DONTWAIT);

		if (n <= 0) {
			break;
		}
		f->n_in += (size_t)n;
	}
}

static void say(struct fixture *f, uint32_t type, uint32_t id, const void *body, size_t size)
{
	uint8_t packet[HEAD + 4096] = {0};

	put_le32(packet, type);
	put_le32(packet + 4, (uint32_t)size);
	put_le32(packet + 8, id);
	memcpy(packet + HEAD, body, size);
	assert_int_equal(write(f->guest, packet, HEAD + size), HEAD + size);
	turn(f);
}

/* Takes the oldest packet. Returns its type, or -1 if there is none. */
static int heard(struct fixture *f, uint32_t *id_out, uint8_t *body, size_t *size_out)
{
	size_t size;
	int type;

	if (f->n_in < HEAD) {
		return -1;
	}
	type = (int)get_le32(f->in);
	size = get_le32(f->in + 4);
	assert_true(f->n_in >= HEAD + size && size <= 4096);
	*id_out = get_le32(f->in + 8);
	memcpy(body, f->in + HEAD, size);
	*size_out = size;
	f->n_in -= HEAD + size;
	memmove(f->in, f->in + HEAD + size, f->n_in);
	return type;
}

/* The next packet must be of that type and id; its body stays in the fixture's own buffer. */
static const uint8_t *expect(struct fixture *f, int type, uint32_t id, size_t *size_out)
{
	static uint8_t body[4096];
	size_t size = 0;
	uint32_t got = 0;

	turn(f);
	assert_int_equal(heard(f, &got, body, &size), type);
	assert_int_equal(got, id);
	if (size_out) {
		*size_out = size;
	}
	return body;
}

static void expect_nothing(struct fixture *f)
{
	turn(f);
	assert_int_equal(f->n_in, 0);
}

static void greet(struct fixture *f)
{
	uint8_t hello[12 + 68] = {0};

	put_le32(hello + 4, 68);
	put_le32(hello + 12 + 64, CAPS);
	assert_int_equal(write(f->guest, hello, sizeof(hello)), sizeof(hello));
	turn(f);
	/* Its hello has a 32-bit id. */
	f->n_in -= sizeof(hello);
	memmove(f->in, f->in + sizeof(hello), f->n_in);
	expect(f, EP_INFO, 0, NULL);
	expect(f, 4, 0, NULL);
	expect(f, DEVICE_CONNECT, 0, NULL);
	assert_int_equal(f->state, WORKER_STATE_ATTACHED);
}

static void configure(struct fixture *f)
{
	say(f, SET_CONFIGURATION, 1, "\1", 1);
	expect(f, EP_INFO, 0, NULL);
	expect(f, 4, 0, NULL);
	assert_memory_equal(expect(f, CONFIGURATION_STATUS, 1, NULL), "\0\1", 2);
	assert_int_equal(f->state, WORKER_STATE_CONFIGURED);
}

static void set_alt_7(struct fixture *f)
{
	say(f, SET_ALT, 2, "\5\7", 2);
	expect(f, EP_INFO, 0, NULL);
	expect(f, 4, 0, NULL);
	assert_memory_equal(expect(f, ALT_STATUS, 2, NULL), "\0\5\7", 3);
}

/* With every endpoint in use. */
static void bring_up(struct fixture *f)
{
	greet(f);
	configure(f);
	set_alt_7(f);
}

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));
	int pair[2];
	struct engine_options options = {
		.max_transfers = 8, .max_bytes = 1 << 20, .listener = &listener, .userdata = f};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_true(sd_event_new(&f->event) >= 0);
	f->guest = pair[0];
	f->backend.ops = &fake_ops;
	f->configuration = 1;
	options.event = f->event;
	options.stream_fd = pair[1];
	options.backend = &f->backend;
	assert_int_equal(engine_create(&options, &f->engine), 0);
	turn(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	engine_destroy(f->engine);
	sd_event_unref(f->event);
	safe_close(f->guest);
	test_free(f);
	return 0;
}

static const uint8_t bulk_in_512[10] = {0x82, 0, 0, 2};
static const uint8_t bulk_out_3[13] = {0x02, 0, 3, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'};

static void test_interrupt_in(void **state)
{
	struct fixture *f = *state;
	const uint8_t *body;
	size_t size;

	greet(f);
	configure(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 10, NULL), "\0\x81", 2);
	/* Two wait at the device; each report is sent on unasked, with ids that count up. */
	assert_int_equal(f->n_queued, 2);
	for (uint32_t i = 0; i < 5; i++) {
		complete(f, 0, TRANSFER_OK, "report");
		body = expect(f, INTERRUPT, i, &size);
		assert_int_equal(body[0], 0x81);
		assert_int_equal(size, 4 + 6);
		assert_memory_equal(body + 4, "report", 6);
		assert_int_equal(f->n_queued, 2);
	}
	say(f, START_INTERRUPT, 11, "\x81", 1);
	assert_int_equal(expect(f, INTERRUPT_STATUS, 11, NULL)[0], TRANSFER_INVALID);
	say(f, STOP_INTERRUPT, 12, "\x81", 1);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 12, NULL), "\0\x81", 2);
	assert_int_equal(f->n_queued, 0);
	expect_nothing(f);
}

static void test_interrupt_stall_ends_it(void **state)
{
	struct fixture *f = *state;

	greet(f);
	configure(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	complete(f, 0, TRANSFER_STALL, NULL);
	assert_memory_equal(expect(f, INTERRUPT_STATUS, 0, NULL), "\4\x81", 2);
	assert_int_equal(f->n_queued, 0);
	say(f, START_INTERRUPT, 13, "\x81", 1);
	assert_int_equal(expect(f, INTERRUPT_STATUS, 13, NULL)[0], TRANSFER_OK);
	assert_int_equal(f->n_queued, 2);
}

static void test_interrupt_out(void **state)
{
	struct fixture *f = *state;
	const uint8_t packet[7] = {0x03, 0, 3, 0, 'x', 'y', 'z'};

	greet(f);
	configure(f);
	/* Its altsetting is not active yet. */
	say(f, INTERRUPT, 20, packet, sizeof(packet));
	assert_int_equal(expect(f, INTERRUPT, 20, NULL)[1], TRANSFER_INVALID);
	set_alt_7(f);
	say(f, INTERRUPT, 21, packet, sizeof(packet));
	assert_int_equal(f->n_queued, 1);
	assert_memory_equal(f->queued[0]->data, "xyz", 3);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_memory_equal(expect(f, INTERRUPT, 21, NULL), "\3\0\3\0", 4);
}

static void test_bulk_both_ways(void **state)
{
	struct fixture *f = *state;
	struct engine_counters n;
	const uint8_t *body;
	size_t size;

	bring_up(f);
	say(f, BULK, 30, bulk_out_3, sizeof(bulk_out_3));
	say(f, BULK, 31, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 2);
	assert_memory_equal(f->queued[0]->data, "abc", 3);
	/* In the order in which the device completes them. */
	complete(f, 1, TRANSFER_OK, "short");
	body = expect(f, BULK, 31, &size);
	assert_int_equal(size, 10 + 5);
	assert_memory_equal(body + 10, "short", 5);
	complete(f, 0, TRANSFER_OK, NULL);
	assert_int_equal(expect(f, BULK, 30, &size)[1], TRANSFER_OK);
	assert_int_equal(size, 10);
	engine_count(f->engine, &n);
	assert_int_equal(n.transfers, 2);
	assert_int_equal(n.bytes_in, 5);
	assert_int_equal(n.bytes_out, 3);
	assert_int_equal(n.in_flight, 0);
	assert_int_equal(n.in_flight_bytes, 0);
	assert_int_equal(n.in_flight_peak, 2);
}

static void test_count_is_bounded(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	for (uint32_t i = 0; i < 20; i++) {
		say(f, BULK, 100 + i, bulk_in_512, sizeof(bulk_in_512));
	}
	assert_int_equal(f->n_queued, 8);
	for (uint32_t i = 8; i < 20; i++) {
		assert_int_equal(expect(f, BULK, 100 + i, NULL)[1], TRANSFER_IO_ERROR);
	}
	complete(f, 3, TRANSFER_OK, "x");
	expect(f, BULK, 103, NULL);
	say(f, BULK, 200, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 8);
	expect_nothing(f);
}

static void test_completion_and_cancel_cross(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 40, bulk_in_512, sizeof(bulk_in_512));
	say(f, CANCEL, 40, "", 0);
	say(f, CANCEL, 40, "", 0);
	expect_nothing(f);
	/* The device was faster: the guest has been promised a cancellation all the same. */
	complete(f, 0, TRANSFER_OK, "late");
	assert_int_equal(expect(f, BULK, 40, NULL)[1], TRANSFER_CANCELLED);
	say(f, CANCEL, 40, "", 0);
	expect_nothing(f);
}

static void test_requests_take_their_time(void **state)
{
	struct fixture *f = *state;

	greet(f);
	f->requests_wait = true;
	say(f, SET_CONFIGURATION, 50, "\1", 1);
	/* What follows must see its result: it waits in the socket. */
	say(f, SET_ALT, 51, "\5\7", 2);
	assert_int_equal(f->requests, 1);
	expect_nothing(f);
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_OK);
	turn(f);
	assert_int_equal(f->requests, 2);
	f->backend.sink->request_done(f->backend.sink_data, TRANSFER_IO_ERROR);
	turn(f);
	expect(f, EP_INFO, 0, NULL);
	expect(f, 4, 0, NULL);
	expect(f, CONFIGURATION_STATUS, 50, NULL);
	/* It failed: alt 0 is what is. */
	assert_memory_equal(expect(f, ALT_STATUS, 51, NULL), "\3\5\0", 3);
}

static void test_reset_cancels(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, START_INTERRUPT, 10, "\x81", 1);
	expect(f, INTERRUPT_STATUS, 10, NULL);
	say(f, BULK, 60, bulk_in_512, sizeof(bulk_in_512));
	assert_int_equal(f->n_queued, 3);
	say(f, RESET, 0, "", 0);
	assert_int_equal(f->n_queued, 0);
	assert_int_equal(expect(f, BULK, 60, NULL)[1], TRANSFER_CANCELLED);
}

static void test_device_lost(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, BULK, 70, bulk_in_512, sizeof(bulk_in_512));
	f->backend.sink->lost(f->backend.sink_data, ENODEV);
	turn(f);
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	assert_false(f->finished);
	say(f, DISCONNECT_ACK, 0, "", 0);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_DEVICE_LOST);
	assert_int_equal(f->n_queued, 0);
}

static void test_stop_waits_for_the_device(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	f->cancel_waits = true;
	say(f, BULK, 80, bulk_in_512, sizeof(bulk_in_512));
	engine_stop(f->engine, WORKER_DONE_DETACHED, 0, "");
	expect(f, DEVICE_DISCONNECT, 0, NULL);
	say(f, DISCONNECT_ACK, 0, "", 0);
	/* A transfer is still with the device: its buffer can't go. */
	assert_false(f->finished);
	complete(f, 0, TRANSFER_OK, "late");
	turn(f);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_DETACHED);
}

static void test_guest_closes(void **state)
{
	struct fixture *f = *state;

	bring_up(f);
	say(f, BULK, 90, bulk_in_512, sizeof(bulk_in_512));
	f->guest = safe_close(f->guest);
	turn(f);
	assert_true(f->finished);
	assert_int_equal(f->reason, WORKER_DONE_PEER_CLOSED);
	assert_int_equal(f->n_queued, 0);
}

static void test_control(void **state)
{
	struct fixture *f = *state;
	const uint8_t get[10] = {0x80, 6, 0x80, 0, 0, 1, 0, 0, 18, 0};
	const uint8_t set[12] = {0, 9, 0x21, 0, 0, 2, 0, 0, 2, 0, 'h', 'i'};
	const uint8_t forbidden[10] = {0, 9, 0x00, 0, 1, 0, 0, 0, 0, 0};
	size_t size;

	greet(f);
	configure(f);
	say(f, CONTROL, 95, get, sizeof(get));
	assert_int_equal(f->queued[0]->setup.request, 6);
	assert_int_equal(f->queued[0]->setup.value, 0x0100);
	complete(f, 0, TRANSFER_OK, "descriptor");
	expect(f, CONTROL, 95, &size);
	assert_int_equal(size, 10 + 10);
	say(f, CONTROL, 96, set, sizeof(set));
	assert_memory_equal(f->queued[0]->data, "hi", 2);
	complete(f, 0, TRANSFER_STALL, NULL);
	assert_int_equal(expect(f, CONTROL, 96, NULL)[3], TRANSFER_STALL);
	say(f, CONTROL, 97, forbidden, sizeof(forbidden));
	assert_int_equal(expect(f, CONTROL, 97, NULL)[3], TRANSFER_STALL);
	assert_int_equal(f->n_queued, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_interrupt_in),
		TEST(test_interrupt_stall_ends_it),
		TEST(test_interrupt_out),
		TEST(test_bulk_both_ways),
		TEST(test_count_is_bounded),
		TEST(test_completion_and_cancel_cross),
		TEST(test_requests_take_their_time),
		TEST(test_reset_cancels),
		TEST(test_device_lost),
		TEST(test_stop_waits_for_the_device),
		TEST(test_guest_closes),
		TEST(test_control),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
