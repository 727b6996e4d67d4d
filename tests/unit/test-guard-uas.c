/* SPDX-License-Identifier: MIT
 * A UAS disk that can't be written: with streams and without, a guest that behaves, and one that
 * does anything.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/guard-fixture.h"
#include "usb/bytes.h"
#include "usb/guard-internal.h"

enum { COMMAND = 0x04, STATUS = 0x81, DATA_IN = 0x82, DATA_OUT = 0x03 };

static const uint8_t config[] = {9, 2, 62, 0, 1, 1, 0, 0x80, 50, /* one interface */
	9, 4, 0, 0, 4, 8, 6, 0x62, 0,                            /* UAS */
	7, 5, COMMAND, 2, 0, 2, 0, 4, 0x24, 1, 0,                /**/
	7, 5, STATUS, 2, 0, 2, 0, 4, 0x24, 2, 0,                 /**/
	7, 5, DATA_IN, 2, 0, 2, 0, 4, 0x24, 3, 0,                /**/
	7, 5, DATA_OUT, 2, 0, 2, 0, 4, 0x24, 4, 0};

static const struct guard_options read_only = {.interfaces = UINT32_MAX, .read_only = true};

static void set_device(struct guarded *g)
{
	memcpy(g->device.config, config, sizeof(config));
	g->device.config_size = sizeof(config);
}

static int setup(void **state)
{
	struct guarded *g = test_calloc(1, sizeof(*g));

	*state = g;
	set_device(g);
	return guarded_start(g, &read_only);
}

static int teardown(void **state)
{
	guarded_finish(*state);
	test_free(*state);
	return 0;
}

static enum fate send(struct guarded *g, struct packet *p, uint8_t endpoint, uint32_t stream,
	const void *data, uint32_t size)
{
	*p = (struct packet){.t = {.type = TRANSFER_BULK,
				     .endpoint = endpoint,
				     .length = size,
				     .stream_id = stream}};
	if (data) {
		memcpy(p->data, data, size);
	}
	return guarded_send(g, p);
}

static enum fate command(
	struct guarded *g, struct packet *p, uint16_t tag, const char *cdb, size_t n)
{
	uint8_t iu[32] = {1};

	put_be16(iu + 2, tag);
	memcpy(iu + 16, cdb, n);
	return send(g, p, COMMAND, 0, iu, sizeof(iu));
}

#define COMMAND_IU(g, p, tag, cdb) command(g, p, tag, cdb, sizeof(cdb) - 1)
#define WRITE_1                    "\x2a\0\0\0\0\x07\0\0\x01\0"
#define READ_1                     "\x28\0\0\0\0\x07\0\0\x01\0"
#define MODE_SENSE                 "\x1a\0\x3f\0\xc0\0"

static void check_sense(const struct packet *p, uint16_t tag, uint8_t key, uint8_t code)
{
	assert_int_equal(p->t.status, TRANSFER_OK);
	assert_int_equal(p->t.actual, 34);
	assert_int_equal(p->data[0], 3);
	assert_int_equal(get_be16(p->data + 2), tag);
	assert_int_equal(p->data[6], 2);
	assert_int_equal(get_be16(p->data + 14), 18);
	assert_int_equal(p->data[16 + 2], key);
	assert_int_equal(p->data[16 + 12], code);
}

static void device_says(struct guarded *g, struct packet *status, uint8_t id, uint16_t tag)
{
	uint8_t iu[16] = {id};

	put_be16(iu + 2, tag);
	guarded_complete(g, status, TRANSFER_OK, iu, sizeof(iu));
}

/* As Linux does it: status, data, command. */
static void a_write_over_streams(void **state)
{
	struct guarded *g = *state;
	struct packet status, data, p;

	assert_int_equal(send(g, &status, STATUS, 5, NULL, 112), FATE_HELD);
	assert_int_equal(send(g, &data, DATA_OUT, 5, NULL, 512), FATE_HELD);
	assert_int_equal(COMMAND_IU(g, &p, 5, WRITE_1), FATE_DONE);
	assert_int_equal(p.t.actual, 32);
	assert_int_equal(guarded_fate(g, &status), FATE_DONE);
	check_sense(&status, 5, 7, 0x27);
	assert_int_equal(guarded_fate(g, &data), FATE_DONE);
	assert_int_equal(data.t.actual, 512);
	assert_int_equal(g->refused, 1);
	assert_int_equal(g->n_at_device, 0);
	/* Data of a vendor's command, which would come IN. */
	assert_int_equal(send(g, &status, STATUS, 5, NULL, 112), FATE_HELD);
	assert_int_equal(send(g, &data, DATA_IN, 5, NULL, 512), FATE_HELD);
	assert_int_equal(COMMAND_IU(g, &p, 5, "\xc1"), FATE_DONE);
	assert_int_equal(guarded_fate(g, &data), FATE_DONE);
	assert_int_equal(data.t.actual, 0);
	check_sense(&status, 5, 5, 0x20);
}

static void reads_over_streams(void **state)
{
	struct guarded *g = *state;
	struct packet status[2], data[2], p[2];

	for (int i = 0; i < 2; i++) {
		uint16_t tag = (uint16_t)(255 + i);

		assert_int_equal(send(g, &status[i], STATUS, tag, NULL, 112), FATE_HELD);
		assert_int_equal(send(g, &data[i], DATA_IN, tag, NULL, 512), FATE_HELD);
		assert_int_equal(COMMAND_IU(g, &p[i], tag, READ_1), FATE_AT_DEVICE);
		assert_int_equal(guarded_fate(g, &status[i]), FATE_AT_DEVICE);
		assert_int_equal(guarded_fate(g, &data[i]), FATE_AT_DEVICE);
		guarded_complete(g, &p[i], TRANSFER_OK, NULL, 32);
	}
	for (int i = 0; i < 2; i++) {
		guarded_complete(g, &data[i], TRANSFER_OK, NULL, 512);
		device_says(g, &status[i], 3, (uint16_t)(255 + i));
	}
	assert_int_equal(g->refused, 0);
	/* That stream is the next command's. */
	assert_int_equal(send(g, &status[0], STATUS, 255, NULL, 112), FATE_HELD);
	guard_cancel(g->guard, &status[0].t);
}

static void without_streams(void **state)
{
	struct guarded *g = *state;
	struct packet status[3], data, p;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(send(g, &status[i], STATUS, 0, NULL, 112), FATE_HELD);
	}
	assert_int_equal(COMMAND_IU(g, &p, 1, MODE_SENSE), FATE_AT_DEVICE);
	assert_int_equal(guarded_fate(g, &status[0]), FATE_AT_DEVICE);
	assert_int_equal(guarded_fate(g, &status[1]), FATE_HELD);
	guarded_complete(g, &p, TRANSFER_OK, NULL, 32);
	assert_int_equal(COMMAND_IU(g, &p, 2, WRITE_1), FATE_DONE);
	check_sense(&status[1], 2, 7, 0x27);
	/* READ READY takes one more. */
	device_says(g, &status[0], 6, 1);
	assert_int_equal(guarded_fate(g, &status[2]), FATE_AT_DEVICE);
	assert_int_equal(send(g, &data, DATA_IN, 0, NULL, 192), FATE_AT_DEVICE);
	memset(data.data, 0, sizeof(data.data));
	guarded_complete(g, &data, TRANSFER_OK, NULL, 192);
	assert_int_equal(data.data[2], 0x80);
	assert_int_equal(data.data[1], 0);
	device_says(g, &status[2], 3, 1);
	assert_int_equal(send(g, &status[0], STATUS, 0, NULL, 112), FATE_HELD);
	/* What the device stalls is over. */
	assert_int_equal(COMMAND_IU(g, &p, 3, READ_1), FATE_AT_DEVICE);
	guarded_complete(g, &p, TRANSFER_STALL, NULL, 0);
	assert_int_equal(guarded_fate(g, &status[0]), FATE_AT_DEVICE);
	guarded_complete(g, &status[0], TRANSFER_IO_ERROR, NULL, 0);
}

static void no_command_breaks_it_until_the_reset(void **state)
{
	static const struct {
		uint8_t iu[40];
		uint32_t size;
	} bad[] = {
		{{0}, 0},
		{{1, 0, 0, 1}, 4},
		{{1, 0, 0, 1}, 31},
		{{1, 0, 0, 1}, 33},
		{{1, 0, 0, 0}, 32},
		{{1, 0, 1, 1}, 32},
		{{1, 0, 0xff, 0xff}, 32},
		{{2, 0, 0, 1}, 32},
		{{5, 0, 0, 1}, 32},
	};
	static const uint8_t more[32] = {1, 0, 0, 1, 0, 0, 4};
	struct guarded *g = *state;
	struct packet p, status;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(send(g, &status, STATUS, 0, NULL, 112), FATE_HELD);
		assert_int_equal(send(g, &p, COMMAND, 0, bad[i].iu, bad[i].size), FATE_DONE);
		assert_int_equal(p.t.status, TRANSFER_STALL);
		assert_int_equal(status.t.status, TRANSFER_STALL);
		assert_int_equal(COMMAND_IU(g, &p, 1, READ_1), FATE_DONE);
		assert_int_equal(p.t.status, TRANSFER_STALL);
		guard_forget(g->guard, 0);
	}
	assert_int_equal(g->n_at_device, 0);
	/* A command of more than 16 bytes is one that isn't known. */
	assert_int_equal(send(g, &p, COMMAND, 0, more, sizeof(more)), FATE_DONE);
	assert_int_equal(p.t.status, TRANSFER_OK);
	assert_int_equal(send(g, &status, STATUS, 0, NULL, 112), FATE_DONE);
	check_sense(&status, 1, 5, 0x20);
	assert_int_equal(
		send(g, &p, COMMAND, 0, "\5\0\0\1\x08\0\0\0\0\0\0\0\0\0\0", 16), FATE_AT_DEVICE);
	guarded_complete(g, &p, TRANSFER_OK, NULL, 16);
}

static void without_its_pipes_it_is_hidden(void **state)
{
	for (size_t at = 18; at + 11 <= sizeof(config); at += 11) {
		struct guarded g = {0};

		set_device(&g);
		g.device.config[at + 9] = 7;
		assert_int_equal(guarded_start(&g, &read_only), -EOPNOTSUPP);
		guarded_finish(&g);
	}
	for (size_t at = 18; at + 11 <= sizeof(config); at += 11) {
		struct guarded g = {0};
		struct packet p;

		/* An endpoint that goes the other way: nothing passes. */
		set_device(&g);
		g.device.config[at + 2] ^= 0x80;
		assert_int_equal(guarded_start(&g, &read_only), 0);
		assert_int_equal(
			COMMAND_IU(&g, &p, 1, READ_1), at == 18 ? FATE_AT_DEVICE : FATE_DONE);
		guarded_finish(&g);
	}
}

/* ---- A guest and a device that do anything ---- */

static void check_at_device(struct chaos *c)
{
	for (size_t i = 0; i < c->g.n_at_device; i++) {
		const struct transfer *t = c->g.at_device[i];

		assert_int_not_equal(t->endpoint, DATA_OUT);
		if (t->endpoint == COMMAND && t->data[0] == 1) {
			assert_int_equal(t->length, 32);
			assert_int_equal(t->data[6], 0);
			assert_int_equal(guard_judge(t->data + 16, 16), GUARD_READS);
		} else if (t->endpoint == COMMAND) {
			assert_int_equal(t->length, 16);
			assert_int_equal(t->data[0], 5);
		}
	}
}

static void guest_sends(struct chaos *c, struct packet *p)
{
	static const uint8_t likely[] = {0x28, 0x2a, 0x1a, 0x5a, 0x03, 0x00, 0x2f, 0x9e, 0x85};
	static const uint8_t pipes[] = {COMMAND, COMMAND, STATUS, STATUS, DATA_IN, DATA_OUT};
	uint8_t endpoint = pipes[chaos_random(c, ARRAY_SIZE(pipes))], iu[40];
	uint32_t stream = chaos_random(c, 2) ? chaos_random(c, 4) : chaos_random(c, 300);

	if (endpoint != COMMAND) {
		send(&c->g, p, endpoint, stream, NULL,
			chaos_random(c, 3) ? 112 : chaos_random(c, 513));
		return;
	}
	for (size_t i = 0; i < sizeof(iu); i++) {
		iu[i] = (uint8_t)chaos_random(c, 256);
	}
	iu[0] = (uint8_t)(chaos_random(c, 30) ? 1 : chaos_random(c, 8));
	put_be16(iu + 2,
		(uint16_t)(chaos_random(c, 100) ? 1 + chaos_random(c, 3) : chaos_random(c, 300)));
	iu[6] = (uint8_t)(chaos_random(c, 10) ? 0 : iu[6]);
	iu[16] = chaos_random(c, 3) ? likely[chaos_random(c, sizeof(likely))] : iu[16];
	c->commands += send(&c->g, p, COMMAND, 0, iu,
			       chaos_random(c, 100) ? 32 : chaos_random(c, 41)) == FATE_AT_DEVICE;
}

static void device_does(struct chaos *c, struct packet *p)
{
	static const enum transfer_status status[] = {
		TRANSFER_OK, TRANSFER_OK, TRANSFER_OK, TRANSFER_STALL, TRANSFER_IO_ERROR};
	uint32_t size = chaos_random(c, 3) ? p->t.length : chaos_random(c, p->t.length + 1);

	if (p->t.endpoint != COMMAND) {
		p->data[0] = (uint8_t)(chaos_random(c, 5) ? 3 : chaos_random(c, 9));
		put_be16(p->data + 2, (uint16_t)chaos_random(c, 5));
	}
	guarded_complete(&c->g, p, status[chaos_random(c, ARRAY_SIZE(status))], NULL, size);
}

static void one_round(uint32_t seed)
{
	static const struct chaos_ops ops = {guest_sends, device_does, check_at_device, 50};
	struct chaos *c = test_calloc(1, sizeof(*c));
	struct packet p;

	c->random = seed;
	set_device(&c->g);
	assert_int_equal(guarded_start(&c->g, &read_only), 0);
	chaos_run(c, &ops, 4000);
	assert_int_equal(COMMAND_IU(&c->g, &p, 1, READ_1), FATE_AT_DEVICE);
	guarded_complete(&c->g, &p, TRANSFER_OK, NULL, 32);
	guarded_finish(&c->g);
	test_free(c);
}

static void anything(void **state)
{
	for (uint32_t seed = 1; seed <= 30; seed++) {
		one_round(seed);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_write_over_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_over_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(without_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(
			no_command_breaks_it_until_the_reset, setup, teardown),
		cmocka_unit_test(without_its_pipes_it_is_hidden),
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
