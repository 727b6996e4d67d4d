/* SPDX-License-Identifier: MIT
 * The usbredir stream of a guest, into the engine with a random device behind it. Four bytes are
 * the device's seed and kind, the rest is what the guest sends.
 */
#include <assert.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/random-device.h"

#define TRANSFERS_MAX 24
#define BYTES_MAX     (3 * 1024 * 1024)
#define TURNS_MAX     20000

static void on_state(void *userdata, uint32_t state, uint64_t connect_ns)
{
	assert(state < WORKER_STATE_COUNT_);
}

static void on_finished(void *userdata, uint32_t reason, int error, const char *detail)
{
	struct world *w = userdata;

	assert(!w->finished);
	w->finished = true;
	w->reason = reason;
}

static const struct engine_listener listener = {.state = on_state, .finished = on_finished};

static void turn(struct world *w)
{
	static uint8_t unread[65536];
	struct engine_counters n;

	random_device_step(w);
	must(sd_event_run(w->event, 0) >= 0);
	engine_turn(w->engine);
	engine_count(w->engine, &n);
	assert(n.in_flight <= TRANSFERS_MAX && n.in_flight_bytes <= BYTES_MAX);
	assert(n.in_flight > 0 || n.in_flight_bytes == 0);
	if (w->peer >= 0 && w->reading) {
		while (recv(w->peer, unread, sizeof(unread), 0) > 0) {
		}
	}
}

static void play(struct world *w, const uint8_t *data, size_t size)
{
	for (size_t at = 0; at < size && !w->finished;) {
		ssize_t n = send(w->peer, data + at, size - at, MSG_NOSIGNAL);

		at += n > 0 ? (size_t)n : 0;
		turn(w);
	}
	for (int i = 0; i < 16 && !w->finished; i++) {
		turn(w);
	}
	close(w->peer);
	w->peer = -1;
	for (int i = 0; i < TURNS_MAX && !w->finished; i++) {
		turn(w);
	}
	/* An end always comes. */
	assert(w->finished);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct engine_options o = {
		.max_transfers = TRANSFERS_MAX,
		.max_bytes = BYTES_MAX,
		.listener = &listener,
		.userdata = &w,
	};
	int fds[2];

	if (size < 4) {
		return 0;
	}
	memset(&w, 0, sizeof(w));
	w.random = (uint32_t)data[0] << 8 | data[1] | 0x10000;
	w.reading = !(data[2] & 1);
	w.fake.super = data[2] & 2;
	w.fake.configuration = !(data[2] & 4);
	w.fake.any_data = true;
	w.fake.backend.ops = &random_device_ops;
	list_init(&w.fake.submitted);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	must(sd_event_new(&w.event) >= 0);
	w.peer = fds[1];
	o.event = w.event;
	o.stream_fd = fds[0];
	o.backend = &w.fake.backend;
	must(engine_create(&o, &w.engine) == 0);
	play(&w, data + 4, size - 4);
	engine_destroy(w.engine);
	sd_event_unref(w.event);
	return 0;
}
