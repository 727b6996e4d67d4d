/* SPDX-License-Identifier: MIT */
#include "tests/unit/engine-fixture.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "usb/bytes.h"

#define CAPS (1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7)
#define HEAD 16

/* Interface 0: HID with 0x81 interrupt IN. Interface 5 (sparse): nothing at alt 0, and at alt 7
 * bulk 0x82 and 0x02, interrupt OUT 0x03. Interface 6: nothing at alt 0, and at alt 1 isochronous
 * 0x84 (two packets of 64 bytes per microframe) and 0x05 (32 bytes). */
static const uint8_t config_descriptor[] = {9, 2, 105, 0, 3, 1, 0, 0xa0, 50, /* configuration 1 */
	9, 4, 0, 0, 1, 3, 1, 1, 0,                                           /* interface 0 */
	9, 0x21, 0x11, 1, 0, 1, 0x22, 63, 0,                                 /* HID */
	7, 5, 0x81, 3, 8, 0, 10,                                             /* 0x81 */
	9, 4, 5, 0, 0, 0xff, 0, 0, 0, /* interface 5, alt 0 */
	9, 4, 5, 7, 3, 0xff, 0, 0, 0, /* interface 5, alt 7 */
	7, 5, 0x82, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0, 7, 5, 0x03, 3, 16, 0, 4, /**/
	9, 4, 6, 0, 0, 1, 2, 0, 0, /* interface 6, alt 0 */
	9, 4, 6, 1, 2, 1, 2, 0, 0, /* interface 6, alt 1 */
	7, 5, 0x84, 1, 64, 8, 1, 7, 5, 0x05, 1, 32, 0, 1};

static const uint8_t device_descriptor[18] = {
	18, 1, 0, 2, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0x01, 0x02, 0, 0, 0, 1};

static struct fixture *of(struct backend *b)
{
	return (struct fixture *)(void *)((char *)b - offsetof(struct fixture, backend));
}

static int fake_describe(struct backend *b, struct usb_description *out)
{
	*out = of(b)->description;
	return 0;
}

static void fake_submit(struct backend *b, struct transfer *t)
{
	struct fixture *f = of(b);

	assert_true(f->n_queued < FIXTURE_QUEUED_MAX);
	f->queued[f->n_queued++] = t;
}

void complete(struct fixture *f, size_t i, enum transfer_status status, const char *data)
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
	struct fixture *f = of(b);

	f->description.config_size = value ? sizeof(config_descriptor) : 0;
	fake_request(f);
}

static void fake_set_interface(struct backend *b, uint8_t interface, uint8_t alt)
{
	fake_request(of(b));
}

static void fake_reset(struct backend *b)
{
	fake_request(of(b));
}

static void fake_alloc_streams(struct backend *b, uint32_t endpoints, uint32_t n_streams)
{
	of(b)->stream_endpoints = endpoints;
	of(b)->n_streams = n_streams;
	fake_request(of(b));
}

static void fake_free_streams(struct backend *b, uint32_t endpoints)
{
	of(b)->stream_endpoints = endpoints;
	of(b)->n_streams = 0;
	fake_request(of(b));
}

static void fake_quiesce(struct backend *b)
{
	b->sink->quiesced(b->sink_data, 0);
}

static const struct backend_ops fake_ops = {
	.name = "fake",
	.isochronous = true,
	.bulk_receiving = true,
	.describe = fake_describe,
	.submit = fake_submit,
	.cancel = fake_cancel,
	.set_configuration = fake_set_configuration,
	.set_interface = fake_set_interface,
	.reset = fake_reset,
	.alloc_streams = fake_alloc_streams,
	.free_streams = fake_free_streams,
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
	snprintf(f->detail, sizeof(f->detail), "%s", detail);
}

static const struct engine_listener listener = {.state = on_state, .finished = on_finished};

void turn(struct fixture *f)
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

void say(struct fixture *f, uint32_t type, uint32_t id, const void *body, size_t size)
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

const uint8_t *expect(struct fixture *f, int type, uint32_t id, size_t *size_out)
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

void expect_nothing(struct fixture *f)
{
	turn(f);
	assert_int_equal(f->n_in, 0);
}

void greet(struct fixture *f)
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
	expect(f, INTERFACE_INFO, 0, NULL);
	expect(f, DEVICE_CONNECT, 0, NULL);
	assert_int_equal(f->state, WORKER_STATE_ATTACHED);
}

void configure(struct fixture *f)
{
	say(f, SET_CONFIGURATION, 1, "\1", 1);
	expect(f, EP_INFO, 0, NULL);
	expect(f, INTERFACE_INFO, 0, NULL);
	assert_memory_equal(expect(f, CONFIGURATION_STATUS, 1, NULL), "\0\1", 2);
	assert_int_equal(f->state, WORKER_STATE_CONFIGURED);
}

void set_alt(struct fixture *f, uint8_t interface, uint8_t alt)
{
	const uint8_t body[2] = {interface, alt}, status[3] = {0, interface, alt};

	say(f, SET_ALT, 2, body, 2);
	expect(f, EP_INFO, 0, NULL);
	expect(f, INTERFACE_INFO, 0, NULL);
	assert_memory_equal(expect(f, ALT_STATUS, 2, NULL), status, 3);
}

void bring_up(struct fixture *f)
{
	greet(f);
	configure(f);
	set_alt(f, 5, 7);
}

int fixture_setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));
	int pair[2];
	struct engine_options options = {.max_transfers = FIXTURE_TRANSFERS,
		.max_bytes = 1 << 20,
		.listener = &listener,
		.userdata = f};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_true(sd_event_new(&f->event) >= 0);
	f->guest = pair[0];
	f->ops = fake_ops;
	f->backend.ops = &f->ops;
	f->description.speed = USB_SPEED_HIGH;
	memcpy(f->description.device, device_descriptor, sizeof(device_descriptor));
	memcpy(f->description.config, config_descriptor, sizeof(config_descriptor));
	f->description.config_size = sizeof(config_descriptor);
	options.event = f->event;
	options.stream_fd = pair[1];
	options.backend = &f->backend;
	assert_int_equal(engine_create(&options, &f->engine), 0);
	turn(f);
	*state = f;
	return 0;
}

int fixture_teardown(void **state)
{
	struct fixture *f = *state;

	engine_destroy(f->engine);
	sd_event_unref(f->event);
	safe_close(f->guest);
	test_free(f);
	return 0;
}
