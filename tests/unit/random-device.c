/* SPDX-License-Identifier: MIT */
#include "tests/unit/random-device.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/test.h"

uint32_t rnd(struct world *w, uint32_t n)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 17;
	w->random ^= w->random << 5;
	return w->random % n;
}

/* The device: bulk in and out with streams at SuperSpeed, interrupt in and out, an interface whose
 * altsettings are 0, 3 and 200, with endpoints that repeat others, and one with isochronous
 * endpoints both ways. */
static const uint8_t config_bytes[] = {
	9, 2, 0, 0, 3, 1, 0, 0x80, 50,                        //
	9, 4, 0, 0, 4, 8, 6, 0x50, 0,                         //
	7, 5, 0x81, 2, 0, 2, 0, 6, 0x30, 0, 3, 0, 0,          //
	7, 5, 0x02, 2, 0, 2, 0, 6, 0x30, 0, 3, 0, 0,          //
	7, 5, 0x83, 3, 64, 0, 0, 7, 5, 0x04, 3, 64, 0, 4,     //
	9, 4, 9, 0, 0, 3, 0, 0, 0,                            //
	9, 4, 9, 3, 1, 3, 0, 0, 0, 7, 5, 0x85, 3, 8, 0x18, 1, //
	9, 4, 9, 200, 1, 3, 0, 0, 0, 7, 5, 0x81, 1, 8, 0, 1,  //
	9, 4, 7, 0, 2, 1, 2, 0, 0,                            //
	7, 5, 0x86, 1, 0, 2, 1, 7, 5, 0x07, 1, 200, 0, 1,     //
};

static int fake_describe(struct backend *b, struct usb_description *out)
{
	struct fake *f = (struct fake *)b;
	static const uint8_t device[18] = {18, 1, 0, 2, 0, 0, 0, 64, 1, 2, 3, 4, 5, 6, 0, 0, 0, 1};

	out->speed = f->super ? USB_SPEED_SUPER : USB_SPEED_HIGH;
	memcpy(out->device, device, sizeof(device));
	out->device[16] = f->identity;
	if (f->configuration != 0) {
		memcpy(out->config, config_bytes, sizeof(config_bytes));
		out->config[5] = f->configuration;
		out->config_size = sizeof(config_bytes);
	}
	return 0;
}

static struct world *world_of(struct backend *b)
{
	return list_entry(b, struct world, fake.backend);
}

static enum transfer_status some_status(struct world *w)
{
	return rnd(w, 8) != 0 ? TRANSFER_OK : (enum transfer_status)rnd(w, 7);
}

/* The device's own lengths and statuses, some of them lies. */
static void complete_packets(struct world *w, struct transfer *t)
{
	for (uint32_t i = 0; i < t->n_packets; i++) {
		struct iso_packet *p = &t->packets[i];

		p->actual = rnd(w, 16) == 0 ? UINT32_MAX : rnd(w, p->length + 1);
		p->status = (uint8_t)some_status(w);
	}
}

static void complete(struct world *w, struct transfer *t, enum transfer_status status)
{
	list_remove(&t->backend);
	complete_packets(w, t);
	t->status = (uint8_t)status;
	t->actual = status == TRANSFER_OK ? t->length : rnd(w, t->length + 1);
	if (rnd(w, 8) == 0) {
		t->actual = rnd(w, t->length + 1);
	}
	w->fake.backend.sink->completed(w->fake.backend.sink_data, t);
}

/* Every packet has its place within the buffer, and the table its own. */
static void check_packets(const struct transfer *t)
{
	uint32_t sum = 0;

	assert_int_equal(t->type == TRANSFER_ISO, t->n_packets > 0);
	if (t->type != TRANSFER_ISO) {
		return;
	}
	assert_true(t->n_packets <= ISO_PACKETS_MAX);
	for (uint32_t i = 0; i < t->n_packets; i++) {
		sum += t->packets[i].length;
	}
	assert_int_equal(sum, t->length);
	assert_true((uint8_t *)t->packets >= t->data + t->length);
	assert_true((uint8_t *)(t->packets + t->n_packets) <= t->data + t->capacity);
}

static void fake_submit(struct backend *b, struct transfer *t)
{
	struct world *w = world_of(b);

	assert_true(t->length <= t->capacity);
	check_packets(t);
	w->fake.seen[t->type][transfer_is_in(t)]++;
	w->fake.seen_streams += t->stream_id != 0;
	if (!transfer_is_in(t) && t->length > 0 && !w->fake.any_data) {
		assert_int_equal(t->data[0], 0xa5);
		assert_int_equal(t->data[t->length - 1], 0xa5);
	}
	if (transfer_is_in(t) && t->length > 0) {
		t->data[0] = t->data[t->length - 1] = 0x5a;
	}
	list_append(&w->fake.submitted, &t->backend);
	/* A URB that fails at once ends its stream: not always. */
	if (rnd(w, 3) == 0) {
		complete(w, t, t->type == TRANSFER_ISO && rnd(w, 8) ? TRANSFER_OK : some_status(w));
	}
}

static void fake_cancel(struct backend *b, struct transfer *t)
{
	struct world *w = world_of(b);

	if (rnd(w, 2) == 0) {
		complete(w, t, rnd(w, 2) ? TRANSFER_CANCELLED : TRANSFER_OK);
	}
}

static void answer(struct world *w)
{
	/* A failed reset ends it all: rarely, or nothing else is seen. */
	bool fails = rnd(w, w->fake.asked == ASKED_RESET ? 200 : 8) == 0;

	if (w->fake.asked == ASKED_RESET && rnd(w, 200) == 0) {
		w->fake.identity++;
	}

	w->fake.asked = ASKED_NOTHING;
	w->fake.backend.sink->request_done(
		w->fake.backend.sink_data, fails ? TRANSFER_STALL : TRANSFER_OK);
}

static void ask(struct world *w, int what)
{
	assert_int_equal(w->fake.asked, ASKED_NOTHING);
	w->fake.asked = what;
	if (rnd(w, 2) == 0) {
		answer(w);
	}
}

static void fake_set_configuration(struct backend *b, uint8_t value)
{
	struct world *w = world_of(b);

	w->fake.configuration = value;
	ask(w, ASKED_REQUEST);
}

static void fake_set_interface(struct backend *b, uint8_t interface, uint8_t alt)
{
	ask(world_of(b), ASKED_REQUEST);
}

static void fake_reset(struct backend *b)
{
	ask(world_of(b), ASKED_RESET);
}

static void fake_alloc_streams(struct backend *b, uint32_t endpoints, uint32_t n_streams)
{
	assert_true(n_streams >= 1 && n_streams <= 8);
	assert_true(endpoints != 0 && (endpoints & ~(1u << 17 | 1u << 2)) == 0);
	ask(world_of(b), ASKED_REQUEST);
}

static void fake_free_streams(struct backend *b, uint32_t endpoints)
{
	assert_true(endpoints != 0 && (endpoints & ~(1u << 17 | 1u << 2)) == 0);
	ask(world_of(b), ASKED_REQUEST);
}

static void fake_quiesce(struct backend *b)
{
	struct world *w = world_of(b);

	assert_true(list_empty(&w->fake.submitted));
	w->fake.quiesce = true;
}

const struct backend_ops random_device_ops = {
	.name = "random",
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

void random_device_step(struct world *w)
{
	struct transfer *t = list_first(&w->fake.submitted, struct transfer, backend);

	if (t && rnd(w, 2) == 0) {
		bool fine = t->type == TRANSFER_ISO && rnd(w, 8);

		complete(w, t,
			t->cancelled ? TRANSFER_CANCELLED
			: fine       ? TRANSFER_OK
				     : some_status(w));
	}
	if (w->fake.asked != ASKED_NOTHING && rnd(w, 4) == 0) {
		answer(w);
	}
	if (w->fake.quiesce && rnd(w, 4) == 0) {
		w->fake.quiesce = false;
		w->fake.backend.sink->quiesced(w->fake.backend.sink_data, rnd(w, 8) ? 0 : EIO);
	}
}
