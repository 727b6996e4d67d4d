/* SPDX-License-Identifier: MIT
 *
 * Random transfers, cancels and requests on backend-libusb over stub devices that stall, hang, have
 * no memory, take their time and go away, seeded. What must hold however it goes: each transfer
 * comes back exactly once and each request is answered once (tests/unit/fake-engine.c looks), a
 * loss is told once, and nothing is left of the budget (destroy asserts it).
 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <time.h>

#include "base/checked.h"
#include "tests/unit/fake-engine.h"
#include "usb/descriptors.h"

#define ROUNDS  400
#define STEPS   300
#define OUT_MAX 100
#define MEMORY  (64u * 1024)

static const char *const devices[] = {
	"",
	"latency=50",
	"hang=81",
	"hang=1 slow=1",
	"stall=7 slow=1",
	"short=3 latency=10",
	"memory=50000 latency=20",
	"memory=3000",
	"gone=40",
	"gone=100 latency=30 slow=1",
	"busy_after=5",
	"iso=50 interrupt=100",
	"speed=2",
};

static uint32_t rnd(uint32_t *state, uint32_t n)
{
	*state = *state * 1664525u + 1013904223u;
	return (uint32_t)(((uint64_t)*state * n) >> 32);
}

struct walk {
	struct fake_engine e;
	uint32_t random;
	unsigned int asked; /* requests; answered are e.n_answers */
};

static void submit(struct walk *w)
{
	static const uint8_t endpoints[] = {STUB_BULK_IN, STUB_BULK_OUT, STUB_INTERRUPT_IN,
		STUB_INTERRUPT_OUT, STUB_ISO_IN, STUB_ISO_OUT, STUB_STREAM_IN, STUB_STREAM_OUT,
		0x0f};
	static const uint8_t types[] = {TRANSFER_BULK, TRANSFER_BULK, TRANSFER_INTERRUPT,
		TRANSFER_INTERRUPT, TRANSFER_ISO, TRANSFER_ISO, TRANSFER_BULK, TRANSFER_BULK,
		TRANSFER_BULK};
	uint32_t i = rnd(&w->random, ARRAY_SIZE(endpoints));
	uint32_t length = rnd(&w->random, 8) ? rnd(&w->random, 5000) : rnd(&w->random, 100000);
	struct fake_transfer *f;

	if (types[i] == TRANSFER_ISO) {
		uint32_t n = 1 + rnd(&w->random, ISO_PACKETS_MAX);

		f = fake_transfer_new(&w->e, TRANSFER_ISO, endpoints[i], n * 192);
		f->t.packets = f->packets;
		f->t.n_packets = n;
		for (uint32_t k = 0; k < n; k++) {
			f->packets[k].length = 192;
		}
	} else {
		f = fake_transfer_new(&w->e, types[i], endpoints[i], length);
		f->t.stream_id = types[i] == TRANSFER_BULK ? rnd(&w->random, 3) : 0;
	}
	fake_engine_submit(&w->e, f);
}

static void submit_control(struct walk *w)
{
	static const struct usb_setup setups[] = {
		{0x80, 6, 0x0100, 0, 18},
		{0xc0, STUB_REQUEST_SCRATCH, 0, 0, 4096},
		{0x40, STUB_REQUEST_SCRATCH, 0, 0, 4000},
		{0x40, STUB_REQUEST_STALL, 0, 0, 0},
		{0x02, 1, 0, STUB_BULK_IN, 0},
		{0x02, 1, 0, STUB_BULK_OUT, 0},
		{0x02, 1, 0, 0x8e, 0},
		{0xc0, STUB_REQUEST_SCRATCH, 0, 0, 5000},
	};
	const struct usb_setup *s = &setups[rnd(&w->random, ARRAY_SIZE(setups))];
	struct fake_transfer *f =
		fake_transfer_new(&w->e, TRANSFER_CONTROL, s->request_type & 0x80, s->length);

	f->t.setup = *s;
	fake_engine_submit(&w->e, f);
}

static void cancel(struct walk *w)
{
	uint32_t n = w->e.n_out ? rnd(&w->random, w->e.n_out) : 0;
	struct fake_transfer *f;

	list_for_each (f, &w->e.out, link) {
		if (n-- == 0) {
			if (!f->cancelled) {
				fake_engine_cancel(&w->e, f);
			}
			return;
		}
	}
}

/* As the engine does: one at a time, and what it makes meaningless is cancelled before. */
static void request(struct walk *w)
{
	const uint32_t streams = 1u << (16 + 4) | 1u << 4;
	struct backend *b = w->e.backend;

	if (w->asked > w->e.n_answers) {
		return;
	}
	w->asked++;
	switch (rnd(&w->random, 6)) {
	case 0:
		b->ops->set_interface(b, (uint8_t)rnd(&w->random, 4), (uint8_t)rnd(&w->random, 6));
		break;
	case 1:
		fake_engine_cancel_all(&w->e);
		b->ops->reset(b);
		break;
	case 2:
		fake_engine_cancel_all(&w->e);
		b->ops->set_configuration(b, 1);
		break;
	case 3:
		fake_engine_cancel_all(&w->e);
		b->ops->set_configuration(b, (uint8_t)rnd(&w->random, 3));
		break;
	case 4:
		b->ops->alloc_streams(b, streams, 1 + rnd(&w->random, 20));
		break;
	default:
		b->ops->free_streams(b, streams);
		break;
	}
}

static void step(struct walk *w)
{
	uint32_t what = rnd(&w->random, 20);

	if (what < 8 && w->e.n_out < OUT_MAX) {
		submit(w);
	} else if (what < 10 && w->e.n_out < OUT_MAX) {
		submit_control(w);
	} else if (what < 13) {
		cancel(w);
	} else if (what == 13) {
		request(w);
	} else if (what == 14 && w->e.asked_configuration >= 0) {
		w->e.asked_configuration = -1;
		backend_libusb_configured(w->e.backend, rnd(&w->random, 2) ? 0 : -1);
	} else if (what == 15 && rnd(&w->random, 200) == 0) {
		backend_libusb_unplugged(w->e.backend);
	} else {
		assert_true(sd_event_run(w->e.event, rnd(&w->random, 3) ? 0 : 1000) >= 0);
	}
}

static void walk(uint32_t seed)
{
	struct walk w = {.random = seed * 2654435761u};
	const char *stub = devices[rnd(&w.random, ARRAY_SIZE(devices))];
	int r = fake_engine_start(&w.e, stub, MEMORY, rnd(&w.random, 2));

	for (int i = 0; r == 0 && i < STEPS; i++) {
		step(&w);
	}
	/* The end, as the engine makes it. */
	if (w.asked > w.e.n_answers) {
		fake_engine_cancel_all(&w.e);
		for (int i = 0; i < 5000 && w.asked > w.e.n_answers; i++) {
			if (w.e.asked_configuration >= 0) {
				w.e.asked_configuration = -1;
				backend_libusb_configured(w.e.backend, 0);
			}
			assert_true(sd_event_run(w.e.event, 1000) >= 0);
		}
	}
	fake_engine_cancel_all(&w.e);
	fake_engine_settle(&w.e, w.asked);
	assert_true(w.e.n_lost <= 1);
	fake_engine_stop(&w.e);
}

static void test_random(void **state)
{
	for (uint32_t seed = 1; seed <= ROUNDS; seed++) {
		walk(seed);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
	uint64_t seed;

	/* One round, to look into. */
	if (argc == 2 && parse_u64(argv[1], 0, UINT32_MAX, &seed) == 0) {
		walk((uint32_t)seed);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
