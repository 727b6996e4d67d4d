/* SPDX-License-Identifier: MIT
 *
 * Random guests on a random device, seeded: packets good and bad in pieces of any size, a guest
 * that stops reading for a while, a backend that completes, stalls, cancels and answers requests at
 * once or later, and every way to end. What must hold however it goes: each data packet is answered
 * exactly once, the bounds are kept, an end always comes, and nothing is left (engine_destroy
 * asserts it).
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "tests/unit/random-device.h"
#include "usb/redir-wire.h"

#define ROUNDS        400
#define STEPS         600
#define TRANSFERS_MAX 24
#define BYTES_MAX     (3 * 1024 * 1024)
/* What the engine may hold: unread replies, and those of what was in flight when that was too much;
 * and the socket's. */
#define UNREAD_MAX (4 * 1024 * 1024 + BYTES_MAX + 1024 * 1024)
#define OUT_MAX    (4 * 1024 * 1024)
#define IN_MAX     (2 * 1024 * 1024)

static void put(struct world *w, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		w->out[w->out_size++] = (uint8_t)(v >> 8 * i);
	}
}

static void put_frame(struct world *w, uint32_t type, uint32_t length, uint64_t id)
{
	put(w, type, 4);
	put(w, length, 4);
	put(w, id, w->ids64 ? 8 : 4);
}

/* Every other one differs from the next only in its high bits: those share a place in the engine's
 * table. */
static uint64_t shape_id(const struct world *w, uint64_t id)
{
	return w->ids64 && id % 2 ? (id & 7) | id << 46 : id;
}

static uint64_t new_id(struct world *w)
{
	/* Sometimes one that is in use, or was. */
	return shape_id(w, rnd(w, 16) == 0 ? w->next_id - rnd(w, 8) : ++w->next_id);
}

static uint8_t some_endpoint(struct world *w)
{
	static const uint8_t known[] = {
		0x00, 0x80, 0x81, 0x02, 0x81, 0x02, 0x83, 0x04, 0x85, 0x86, 0x07};

	return rnd(w, 10) == 0 ? (uint8_t)rnd(w, 256) : known[rnd(w, ARRAY_SIZE(known))];
}

static uint32_t some_length(struct world *w, uint32_t max)
{
	static const uint32_t up_to[] = {1, 64, 600, 5000, 70000, TRANSFER_BYTES_MAX + 1};

	uint32_t length = rnd(w, up_to[rnd(w, ARRAY_SIZE(up_to))]);

	return MIN(length, max);
}

static void put_payload(struct world *w, uint8_t endpoint, uint32_t length)
{
	if (!(endpoint & 0x80)) {
		memset(w->out + w->out_size, 0xa5, length);
		w->out_size += length;
	}
	w->sent++;
}

/* Isochronous packets want no answer. Mostly some that fill a URB or two. */
static void put_iso(struct world *w, uint8_t endpoint)
{
	for (uint32_t n = 1 + rnd(w, 12); n > 0; n--) {
		uint32_t length = rnd(w, rnd(w, 100) == 0 ? 400 : 201);

		put_frame(w, REDIR_ISO_PACKET, 4 + (endpoint & 0x80 ? 0 : length), 0);
		put(w, endpoint, 1);
		put(w, 0, 1);
		put(w, length, 2);
		if (!(endpoint & 0x80)) {
			memset(w->out + w->out_size, 0xa5, length);
			w->out_size += length;
		}
	}
}

static void put_data(struct world *w)
{
	uint8_t endpoint = w->lazy && rnd(w, 2) ? 0x81 : some_endpoint(w);
	bool in = endpoint & 0x80;
	uint32_t length;

	if (endpoint == 0x07 && rnd(w, 8)) {
		put_iso(w, endpoint);
		return;
	}
	switch (w->lazy && endpoint == 0x81 ? 1 : rnd(w, 3)) {
	case 0: {
		length = some_length(w, 0xffff);
		put_frame(w, REDIR_CONTROL_PACKET, 10 + (in ? 0 : length), new_id(w));
		put(w, endpoint, 1);
		put(w, rnd(w, 16), 1);
		put(w, (endpoint & 0x80) | rnd(w, 128), 1);
		put(w, 0, 5);
		put(w, length, 2);
		break;
	}
	case 1: {
		size_t header = w->bulk32 ? 10 : 8;

		length = some_length(w, w->bulk32 ? TRANSFER_BYTES_MAX : 0xffff);
		put_frame(w, REDIR_BULK_PACKET, (uint32_t)header + (in ? 0 : length), new_id(w));
		put(w, endpoint, 1);
		put(w, 0, 1);
		put(w, length & 0xffff, 2);
		put(w, rnd(w, w->fake.super ? 2 : 32) ? 0 : rnd(w, 10), 4);
		put(w, length >> 16, header - 8);
		break;
	}
	default:
		length = some_length(w, 0xffff);
		put_frame(w, REDIR_INTERRUPT_PACKET, 4 + (in ? 0 : length), new_id(w));
		put(w, endpoint, 1);
		put(w, 0, 1);
		put(w, length, 2);
		break;
	}
	put_payload(w, endpoint, length);
}

static void put_control(struct world *w)
{
	static const struct {
		uint8_t type, length;
	} kinds[] = {{3, 0}, {6, 1}, {6, 1}, {6, 1}, {7, 0}, {9, 2}, {10, 1}, {12, 3}, {13, 1},
		{15, 1}, {16, 1}, {18, 8}, {19, 4}, {21, 0}, {21, 0}, {21, 0}, {25, 10}, {26, 5},
		{12, 3}, {12, 3}, {12, 3}, {12, 3}, {13, 1}, {25, 10}, {18, 8}, {18, 8}};
	static const uint8_t alts[] = {0, 3, 200, 1};
	size_t k = rnd(w, ARRAY_SIZE(kinds));
	uint8_t type = kinds[k].type;

	put_frame(w, type, kinds[k].length, shape_id(w, w->next_id - rnd(w, 16)));
	switch (type) {
	case 6:
		put(w, rnd(w, 8) != 0, 1);
		break;
	case 9:
		put(w, rnd(w, 4) ? 9 : 0, 1);
		put(w, alts[rnd(w, ARRAY_SIZE(alts))], 1);
		break;
	case 12:
	case 13:
		put(w, rnd(w, 8) ? (rnd(w, 2) ? 0x86 : 0x07) : rnd(w, 256), 1);
		/* Those of no bounds are seldom, or nothing ever starts. */
		put(w, 1 + rnd(w, rnd(w, 8) ? 8 : 255), type == 12);
		put(w, 1 + rnd(w, rnd(w, 8) ? 4 : 255), type == 12);
		break;
	case 15:
	case 16:
		put(w, 0x80 | (rnd(w, 4) ? 3 : rnd(w, 16)), 1);
		break;
	case 18:
		put(w, rnd(w, 4) ? 1u << 17 | 1u << 2 : w->random, 4);
		put(w, rnd(w, 10), 4);
		break;
	case 19:
		put(w, rnd(w, 4) ? 1u << 17 | 1u << 2 : w->random, 4);
		break;
	case 25:
	case 26:
		put(w, w->fake.super ? rnd(w, 3) : 0, 4);
		put(w, 512 * rnd(w, 20) + (rnd(w, 8) == 0), type == 25 ? 4 : 0);
		put(w, rnd(w, 8) ? 0x81 : rnd(w, 256), 1);
		put(w, rnd(w, rnd(w, 8) ? 8 : 256), type == 25);
		break;
	default:
		for (size_t i = 0; i < kinds[k].length; i++) {
			put(w, rnd(w, 256), 1);
		}
		break;
	}
}

static void put_garbage(struct world *w)
{
	uint32_t length = rnd(w, 4) ? rnd(w, 64) : w->random;

	w->broken = true;
	put_frame(w, rnd(w, 110), length, w->random);
	for (uint32_t i = rnd(w, 64); i > 0; i--) {
		put(w, rnd(w, 256), 1);
	}
}

static void put_hello(struct world *w)
{
	uint32_t caps = 0xff & w->random;

	put_frame(w, REDIR_HELLO, 68, 0);
	memset(w->out + w->out_size, 'g', 63);
	w->out[w->out_size + 63] = 0;
	w->out_size += 64;
	put(w, caps, 4);
	w->ack = caps & 1 << 3;
	w->ids64 = caps & 1 << 5;
	w->bulk32 = caps & 1 << 6;
	w->streams = caps & 1;
	w->receiving = caps & 1 << 7;
}

/* The guest makes a packet, if there is room for a large one. */
static void guest_step(struct world *w)
{
	if (w->out_at == w->out_size) {
		w->out_at = w->out_size = 0;
	}
	if (w->broken || w->told || OUT_MAX - w->out_size < TRANSFER_BYTES_MAX + 64) {
		return;
	}
	if (rnd(w, 5000) == 0) {
		put_garbage(w);
	} else if (rnd(w, 5) == 0) {
		put_control(w);
	} else {
		put_data(w);
	}
}

static void guest_write(struct world *w)
{
	size_t left = w->out_size - w->out_at, piece = 1 + rnd(w, rnd(w, 2) ? 40 : 300000);
	size_t n = MIN(left, piece);
	ssize_t r = w->peer < 0 ? -1 : send(w->peer, w->out + w->out_at, n, MSG_NOSIGNAL);

	if (r > 0) {
		w->out_at += (size_t)r;
	}
}

static uint64_t get(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;

	while (bytes-- > 0) {
		v = v << 8 | p[bytes];
	}
	return v;
}

static void guest_sees(struct world *w, uint32_t type, const uint8_t *p, size_t length)
{
	if (type == 2) {
		w->told = true;
		if (w->ack) {
			put_frame(w, REDIR_DEVICE_DISCONNECT_ACK, 0, 0);
		}
		return;
	}
	if (type != REDIR_CONTROL_PACKET && type != REDIR_BULK_PACKET &&
		type != REDIR_INTERRUPT_PACKET) {
		return;
	}
	assert_true(length >= 4);
	if (type == REDIR_INTERRUPT_PACKET && p[0] & 0x80 && p[1] != TRANSFER_INVALID) {
		return; /* received, not answered */
	}
	w->answered++;
}

static void guest_read(struct world *w)
{
	size_t frame = w->ids64 ? 16 : 12, at = 0;
	ssize_t r = w->peer < 0 ? -1 : recv(w->peer, w->in + w->in_size, IN_MAX - w->in_size, 0);

	if (r > 0) {
		w->in_size += (size_t)r;
		w->received += (size_t)r;
	}
	while (w->in_size - at >= 12) {
		uint32_t type = (uint32_t)get(w->in + at, 4);
		size_t length = get(w->in + at + 4, 4);
		size_t header = type == REDIR_HELLO ? 12 : frame;

		assert_true(type <= 27 || (type >= 100 && type <= 104));
		assert_true(type != 104 || w->receiving);
		w->buffered += type == 104;
		w->isochronous += type == REDIR_ISO_PACKET;
		assert_true(length <= TRANSFER_BYTES_MAX + 16);
		if (w->in_size - at < header + length) {
			break;
		}
		guest_sees(w, type, w->in + at + header, length);
		at += header + length;
	}
	memmove(w->in, w->in + at, w->in_size - at);
	w->in_size -= at;
}

static void on_state(void *userdata, uint32_t state, uint64_t connect_ns)
{
	assert_true(state < WORKER_STATE_COUNT_);
}

static void on_finished(void *userdata, uint32_t reason, int error, const char *detail)
{
	struct world *w = userdata;

	assert_false(w->finished);
	w->finished = true;
	w->reason = reason;
}

static const struct engine_listener listener = {.state = on_state, .finished = on_finished};

static void turn(struct world *w)
{
	struct engine_counters n;

	assert_true(sd_event_run(w->event, 0) >= 0);
	engine_turn(w->engine);
	engine_count(w->engine, &n);
	assert_true(n.in_flight <= TRANSFERS_MAX);
	assert_true(n.in_flight_bytes <= BYTES_MAX);
	assert_true(n.bytes_in <= w->received + UNREAD_MAX);
	assert_true(n.in_flight > 0 || n.in_flight_bytes == 0);
}

/* Everything that the guest sent is taken and everything that was taken is answered. */
static void settle(struct world *w)
{
	for (int i = 0; i < 200000 && !w->finished; i++) {
		struct engine_counters n;

		guest_write(w);
		guest_read(w);
		random_device_step(w);
		turn(w);
		engine_count(w->engine, &n);
		if (w->out_at == w->out_size && w->answered == w->sent) {
			return;
		}
	}
}

/* A guest whose acknowledgement is lost in a spoilt packet is waited for a second. */
static void end(struct world *w)
{
	struct backend *b = &w->fake.backend;
	time_t until = time(NULL) + 5;

	switch (rnd(w, 4)) {
	case 0:
		engine_stop(w->engine, WORKER_DONE_DETACHED, 0, "");
		break;
	case 1:
		b->sink->lost(b->sink_data, ENODEV);
		break;
	default:
		w->peer = (close(w->peer), -1);
		break;
	}
	while (!w->finished && time(NULL) < until) {
		guest_read(w);
		guest_write(w);
		random_device_step(w);
		turn(w);
	}
	assert_true(w->finished);
}

static void play(struct world *w)
{
	for (int i = 0; i < (w->lazy ? 4 : 1) * STEPS && !w->finished; i++) {
		guest_step(w);
		guest_write(w);
		if (rnd(w, 100) == 0) {
			w->reading = !w->reading;
		}
		if (w->reading && !w->lazy) {
			guest_read(w);
		}
		random_device_step(w);
		turn(w);
	}
	if (!w->broken && !w->finished && !w->told && rnd(w, 4)) {
		settle(w);
		if (!w->told && !w->finished) {
			assert_int_equal(w->sent, w->answered);
		}
	}
	if (!w->finished) {
		end(w);
	}
}

static void run_round(uint32_t seed, struct world *w)
{
	int fds[2];
	struct engine_options o = {
		.max_transfers = TRANSFERS_MAX,
		.max_bytes = BYTES_MAX,
		.listener = &listener,
		.userdata = w,
	};
	uint8_t *out = w->out, *in = w->in;

	memset(w, 0, sizeof(*w));
	w->out = out;
	w->in = in;
	w->random = seed * 2654435761u + 1;
	w->reading = true;
	w->lazy = seed % 4 == 0;
	w->next_id = 100;
	w->fake.backend.ops = &random_device_ops;
	w->fake.configuration = 1;
	w->fake.super = seed % 3 != 0;
	list_init(&w->fake.submitted);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	w->peer = fds[1];
	assert_true(sd_event_new(&w->event) >= 0);
	o.event = w->event;
	o.stream_fd = fds[0];
	o.backend = &w->fake.backend;
	assert_int_equal(engine_create(&o, &w->engine), 0);
	put_hello(w);
	play(w);
	engine_destroy(w->engine);
	sd_event_unref(w->event);
	if (w->peer >= 0) {
		close(w->peer);
	}
}

static void test_random(void **state)
{
	static struct world w;
	unsigned int seen = 0;
	uint64_t iso_out = 0, iso_in = 0, streams = 0, buffered = 0;

	w.out = malloc(OUT_MAX);
	w.in = malloc(IN_MAX);
	assert_non_null(w.out);
	assert_non_null(w.in);
	for (uint32_t seed = 1; seed <= ROUNDS; seed++) {
		run_round(seed, &w);
		seen |= 1u << w.reason;
		iso_out += w.fake.seen[TRANSFER_ISO][0];
		iso_in += w.isochronous;
		streams += w.fake.seen_streams;
		buffered += w.buffered;
	}
	print_message("%u rounds: %" PRIu64 " isochronous URBs out, %" PRIu64
		      " packets in, %" PRIu64 " transfers in streams, %" PRIu64 " buffered\n",
		ROUNDS, iso_out, iso_in, streams, buffered);
	free(w.out);
	free(w.in);
	/* A generator that never reaches an end, or one of these, tests nothing. */
	assert_true(iso_out > 1000 && iso_in > 1000 && streams > 300 && buffered > 1000);
	assert_int_equal(seen, 1u << WORKER_DONE_DETACHED | 1u << WORKER_DONE_PEER_CLOSED |
				       1u << WORKER_DONE_PEER_BAD | 1u << WORKER_DONE_DEVICE_LOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
