/* SPDX-License-Identifier: MIT
 * A guest and a device that do anything, thousands of times: whatever they do, the device gets no
 * OUT transfer but whole commands that read, nothing is lost, and a reset makes all well again.
 */
#include <string.h>

#include "tests/unit/guard-fixture.h"
#include "usb/bytes.h"
#include "usb/guard-internal.h"

enum { IN = 0x83, OUT = 0x03, STEPS = 4000, ROUNDS = 30 };

static void make_out(struct chaos *c, uint8_t *data, uint32_t *size)
{
	static const uint8_t likely[] = {0x28, 0x2a, 0x1a, 0x5a, 0x03, 0x00, 0x2f, 0x9e, 0x85};

	for (uint32_t i = 0; i < 512; i++) {
		data[i] = (uint8_t)chaos_random(c, 256);
	}
	*size = chaos_random(c, 30) ? 31 : chaos_random(c, 513);
	put_le32(data, chaos_random(c, 20) ? 0x43425355 : chaos_random(c, 1 << 20));
	put_le32(data + 4, chaos_random(c, 3));
	put_le32(data + 8,
		chaos_random(c, 4) ? chaos_random(c, 1200) : chaos_random(c, 2) * UINT32_MAX);
	data[12] = chaos_random(c, 20) ? (uint8_t)(chaos_random(c, 2) << 7) : data[12];
	data[13] = (uint8_t)chaos_random(c, chaos_random(c, 20) ? 2 : 32);
	data[14] = (uint8_t)(chaos_random(c, 20) ? 6 + chaos_random(c, 11) : chaos_random(c, 256));
	data[15] = chaos_random(c, 3) ? likely[chaos_random(c, sizeof(likely))] : data[15];
}

static void check_at_device(struct chaos *c)
{
	for (size_t i = 0; i < c->g.n_at_device; i++) {
		const struct transfer *t = c->g.at_device[i];

		if (t->endpoint != OUT) {
			continue;
		}
		assert_int_equal(t->length, 31);
		assert_int_equal(get_le32(t->data), 0x43425355);
		assert_true(t->data[12] == 0x80 || get_le32(t->data + 8) == 0);
		assert_int_equal(guard_judge(t->data + 15, t->data[14]), GUARD_READS);
	}
}

static void guest_sends(struct chaos *c, struct packet *p)
{
	uint8_t data[512];
	uint32_t size;

	if (chaos_random(c, 12) == 0) {
		guarded_control(&c->g, p, 0x21, 0xff, 0, 2, 0);
	} else if (chaos_random(c, 2)) {
		static const uint32_t sizes[] = {13, 512, 18, 0, 1, 192};

		guarded_bulk(&c->g, p, IN, NULL, sizes[chaos_random(c, 6)]);
	} else {
		make_out(c, data, &size);
		c->commands += guarded_bulk(&c->g, p, OUT, data, size) == FATE_AT_DEVICE;
	}
}

static void device_does(struct chaos *c, struct packet *p)
{
	static const enum transfer_status status[] = {
		TRANSFER_OK, TRANSFER_OK, TRANSFER_OK, TRANSFER_STALL, TRANSFER_IO_ERROR};
	uint32_t size = chaos_random(c, 3) ? p->t.length : chaos_random(c, p->t.length + 1);

	p->data[0] = 0x55;
	guarded_complete(&c->g, p, status[chaos_random(c, ARRAY_SIZE(status))], NULL, size);
}

static void one_round(uint32_t seed)
{
	static const struct guard_options options = {.interfaces = UINT32_MAX, .read_only = true};
	static const struct chaos_ops ops = {guest_sends, device_does, check_at_device, 0};
	struct chaos *c = test_calloc(1, sizeof(*c));
	struct packet p;

	c->random = seed;
	assert_int_equal(guarded_start(&c->g, &options), 0);
	chaos_run(c, &ops, STEPS);
	assert_int_equal(guarded_bulk(&c->g, &p, OUT,
				 "USBC\0\0\0\0\0\0\0\0\0\0\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 31),
		FATE_AT_DEVICE);
	guarded_complete(&c->g, &p, TRANSFER_OK, NULL, 31);
	guarded_finish(&c->g);
	test_free(c);
}

static void anything(void **state)
{
	for (uint32_t seed = 1; seed <= ROUNDS; seed++) {
		one_round(seed);
	}
}

/* The rewriting of random descriptors, and of real ones with random bytes in them. */
static void any_descriptors(void **state)
{
	struct chaos *c = test_calloc(1, sizeof(*c));
	struct guard_view view;
	uint8_t *in = test_calloc(1, 600), *out = test_calloc(1, 600);

	c->random = 42;
	for (int round = 0; round < 20000; round++) {
		const struct guard_rules rules = {
			chaos_random(c, 2) ? UINT32_MAX : chaos_random(c, 256), chaos_random(c, 2)};
		size_t size = chaos_random(c, (uint32_t)guarded_config_size + 1), n;

		memcpy(in, guarded_config, guarded_config_size);
		for (uint32_t k = chaos_random(c, 8); k > 0; k--) {
			in[chaos_random(c, (uint32_t)guarded_config_size)] =
				(uint8_t)chaos_random(c, 256);
		}
		n = guard_rewrite(&rules, in, size, out, &view);
		assert_true(n <= size);
		if (n > 0) {
			assert_int_equal(get_le16(out + 2), n);
			assert_int_equal(view.interfaces & ~rules.interfaces, 0);
		}
	}
	test_free(in);
	test_free(out);
	test_free(c);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(anything),
		cmocka_unit_test(any_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
