/* SPDX-License-Identifier: MIT
 * The virtual stick against random hosts: 100,000 steps from a fixed seed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "tests/unit/stick.h"
#include "tests/unit/test.h"
#include "usb/bytes.h"

static const uint8_t sync10[10] = {0x35};

static uint32_t rnd_state;

static uint32_t rnd(uint32_t below)
{
	rnd_state = rnd_state * 1664525 + 1013904223;
	return (rnd_state >> 8) % below;
}

#define STEPS   100000
#define IN_HAND 24

/* A random host's next CDB: mostly what exists, over a small medium, with some garbage. */
static void random_cdb(uint8_t *cdb)
{
	static const uint8_t ops[] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x23,
		0x25, 0x28, 0x2a, 0x2f, 0x35, 0x42, 0x55, 0x5a, 0x88, 0x8a, 0x8f, 0x91, 0x9e, 0xa0,
		0xa8, 0xaa, 0xaf};

	for (int i = 0; i < 16; i++) {
		cdb[i] = rnd(4) ? 0 : (uint8_t)rnd(256);
	}
	cdb[0] = rnd(20) ? ops[rnd(ARRAY_SIZE(ops))] : (uint8_t)rnd(256);
	if (cdb[0] == 0x1b) {
		cdb[4] &= 0xfd; /* an ejected medium would end the fun */
	}
	if (rnd(2)) { /* a few blocks, somewhere near */
		memset(cdb + 1, 0, 15);
		cdb[5] = (uint8_t)rnd(64);
		cdb[8] = (uint8_t)rnd(4);
		if (cdb[0] >= 0xa8) {
			cdb[9] = (uint8_t)rnd(4);
			cdb[8] = 0;
		} else if (cdb[0] >= 0x88 && cdb[0] <= 0x91) {
			cdb[9] = cdb[5];
			cdb[5] = 0;
			cdb[13] = (uint8_t)rnd(4);
		}
	}
}

struct crowd {
	struct stick s;
	struct piece hand[IN_HAND];
	bool held[IN_HAND];
	bool stalled;
};

static void note_stall(struct stick *s, struct transfer *t)
{
	struct crowd *c = (struct crowd *)(void *)s;

	c->stalled |= t->status == TRANSFER_STALL;
}

/* A free piece, or NULL while all are with the stick. */
static struct piece *random_piece(struct crowd *c, uint8_t endpoint, uint32_t length)
{
	unsigned start = rnd(IN_HAND);

	for (unsigned k = 0; k < IN_HAND; k++) {
		unsigned i = (start + k) % IN_HAND;

		if (c->held[i] && c->hand[i].done) {
			piece_free(&c->hand[i]);
			c->held[i] = false;
		}
		if (!c->held[i]) {
			c->held[i] = true;
			piece_init(&c->hand[i], endpoint, length);
			return &c->hand[i];
		}
	}
	return NULL;
}

static void random_transfer(struct crowd *c, uint8_t endpoint, uint32_t length)
{
	struct piece *p = rnd(60) ? random_piece(c, endpoint, length) : NULL;

	if (p) {
		stick_submit(&c->s, p);
	}
}

/* A command as a host would send it, but for what is left out, swapped, or cut here and there. */
static void random_command(struct crowd *c)
{
	struct piece *p = random_piece(c, 0x02, 31);
	uint32_t length = rnd(5) * 512 + (rnd(4) ? 0 : rnd(64)), sent = 0;
	bool in = rnd(2), status_first = rnd(10) == 0;
	uint8_t cdb[16];

	if (!p) {
		return;
	}
	random_cdb(cdb);
	if (cdb[0] == 0x0a || (cdb[0] & 0x1f) == 0x0a || cdb[0] == 0x42) {
		in = rnd(20) == 0;
	} else if ((cdb[0] & 0x1f) == 0x08 || cdb[0] == 0x12) {
		in = rnd(20) != 0;
	}
	stick_cbw(&c->s, p->data, length, in, cdb, 16);
	if (rnd(100) == 0) {
		p->data[rnd(31)] ^= 1;
	}
	stick_submit(&c->s, p);
	if (status_first) {
		random_transfer(c, 0x81, 13);
	}
	while (sent < length) {
		uint32_t n = rnd(3) ? length - sent : MIN(length - sent, 512U * (1 + rnd(2)));

		random_transfer(c, in ? 0x81 : 0x02, n);
		sent += n;
	}
	if (!status_first) {
		random_transfer(c, 0x81, 13);
	}
}

static void random_request(struct stick *s)
{
	switch (rnd(8)) {
	case 0:
		s->backend->ops->reset(s->backend);
		break;
	case 1:
		s->backend->ops->set_configuration(s->backend, 1);
		break;
	case 2:
		s->backend->ops->set_interface(s->backend, 0, 0);
		break;
	case 3:
	case 4:
		stick_control(s, 0x21, 0xff, 0, 0, NULL, 0, NULL);
		break;
	case 5:
		stick_control(s, 0x02, 3, 0, rnd(2) ? 0x81 : 0x02, NULL, 0, NULL);
		break;
	default:
		stick_clear_halt(s, 0x81);
		stick_clear_halt(s, 0x02);
		break;
	}
}

static void random_step(struct crowd *c)
{
	static const uint32_t lengths[] = {0, 1, 12, 13, 31, 36, 512, 1024, 2048, 4096};
	unsigned i = rnd(IN_HAND);

	if (c->stalled && rnd(3)) {
		c->stalled = false;
		if (rnd(4) == 0) {
			stick_control(&c->s, 0x21, 0xff, 0, 0, NULL, 0, NULL);
		}
		stick_clear_halt(&c->s, 0x81);
		stick_clear_halt(&c->s, 0x02);
	} else if (rnd(100) == 0) {
		random_request(&c->s);
	} else if (rnd(50) == 0) {
		random_transfer(c, rnd(2) ? 0x81 : 0x02, lengths[rnd(ARRAY_SIZE(lengths))]);
	} else if (rnd(30) == 0 && c->held[i] && !c->hand[i].done) {
		c->s.backend->ops->cancel(c->s.backend, &c->hand[i].t);
	} else if (rnd(2)) {
		random_command(c);
	} else {
		sd_event_run(c->s.event, rnd(50) ? 0 : 1000);
	}
}

/* Whatever comes: every transfer completes exactly once, within its buffer (stick.c looks), the
 * queues empty by a bus reset, and the stick still works. */
static void random_hosts(void **state)
{
	struct crowd *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	rnd_state = 20240613;
	stick_open(&c->s, stick_image(64 * 512), false, USB_SPEED_HIGH);
	c->s.on_complete = note_stall;
	for (unsigned step = 0; step < STEPS; step++) {
		random_step(c);
	}
	c->s.backend->ops->reset(c->s.backend);
	for (unsigned i = 0; i < IN_HAND; i++) {
		if (c->held[i]) {
			stick_wait(&c->s, &c->hand[i]);
			piece_free(&c->hand[i]);
		}
	}
	assert_int_equal(c->s.in_flight, 0);
	stick_ready(&c->s);
	assert_int_equal(stick_command(&c->s, sync10, 10, false, NULL, 0, NULL), 0);
	stick_close(&c->s);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
