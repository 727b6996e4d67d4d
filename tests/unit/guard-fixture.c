/* SPDX-License-Identifier: MIT */
#include "tests/unit/guard-fixture.h"

#include <string.h>

#include "usb/bytes.h"

const uint8_t guarded_config[] = {9, 2, 165, 0, 5, 1, 4, 0xa0, 50, /* five interfaces */
	8, 11, 0, 2, 2, 2, 1, 0,                                   /* association: 0 and 1 */
	9, 4, 0, 0, 1, 2, 2, 1, 0,                                 /* 0: CDC ACM */
	5, 0x24, 0x06, 0, 1,                                       /* union of 0 and 1 */
	7, 5, 0x81, 3, 8, 0, 10,                                   /**/
	9, 4, 1, 0, 2, 10, 0, 0, 0,                                /* 1: CDC data */
	7, 5, 0x82, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0,            /**/
	9, 4, 2, 0, 2, 8, 6, 0x50, 0,                              /* 2: stick, bulk-only */
	7, 5, 0x83, 2, 0, 2, 0, 7, 5, 0x03, 2, 0, 2, 0,            /**/
	9, 4, 2, 1, 2, 8, 6, 0x62, 0,                              /* 2, alt 1: UAS */
	7, 5, 0x84, 2, 0, 2, 0, 4, 0x24, 3, 0,                     /**/
	7, 5, 0x04, 2, 0, 2, 0, 4, 0x24, 1, 0,                     /**/
	9, 4, 5, 0, 0, 0xfe, 1, 1, 0,                              /* 5: DFU */
	9, 0x21, 0x0b, 0xff, 0, 0, 4, 0x10, 1,                     /* DFU functional */
	9, 4, 7, 0, 1, 3, 1, 1, 0,                                 /* 7: keyboard */
	7, 5, 0x87, 3, 8, 0, 10};
const size_t guarded_config_size = sizeof(guarded_config);

static const uint8_t device_descriptor[18] = {
	18, 1, 0, 2, 0, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 0x01, 0x02, 0, 0, 0, 2};

static void on_submit(void *userdata, struct transfer *t)
{
	struct guarded *g = userdata;

	assert_false(t->held);
	assert_true(g->n_at_device < FIXTURE_MAX);
	g->at_device[g->n_at_device++] = t;
	t->submitted = true;
}

static void on_complete(void *userdata, struct transfer *t)
{
	struct guarded *g = userdata;

	assert_false(t->held);
	assert_false(t->refused);
	assert_true(t->actual <= t->length);
	t->refused = true; /* here: done */
	g->done++;
}

static void on_refused(void *userdata)
{
	((struct guarded *)userdata)->refused++;
}

static const struct guard_ops ops = {
	.submit = on_submit,
	.complete = on_complete,
	.refused = on_refused,
};

int guarded_start(struct guarded *g, const struct guard_options *options)
{
	int r;

	if (g->device.config_size == 0) {
		memcpy(g->device.config, guarded_config, sizeof(guarded_config));
		put_le16(g->device.config + 2, sizeof(guarded_config));
		g->device.config_size = sizeof(guarded_config);
	}
	memcpy(g->device.device, device_descriptor, sizeof(device_descriptor));
	g->device.speed = USB_SPEED_HIGH;
	assert_int_equal(guard_create(options, &ops, g, &g->guard), 0);
	r = guard_describe(g->guard, &g->device, &g->view);
	if (r == 0) {
		assert_int_equal(descriptors_parse(&g->view, &g->descriptors), 0);
		guard_update(g->guard, &g->descriptors);
	}
	return r;
}

void guarded_finish(struct guarded *g)
{
	guard_destroy(g->guard);
}

enum fate guarded_fate(const struct guarded *g, const struct packet *p)
{
	if (p->t.refused) {
		return FATE_DONE;
	}
	for (size_t i = 0; i < g->n_at_device; i++) {
		if (g->at_device[i] == &p->t) {
			return FATE_AT_DEVICE;
		}
	}
	assert_true(p->t.held);
	return FATE_HELD;
}

enum fate guarded_send(struct guarded *g, struct packet *p)
{
	list_init(&p->t.backend);
	p->t.data = p->data;
	p->t.capacity = sizeof(p->data);
	if (guard_watched(g->guard) >> descriptors_slot(p->t.endpoint) & 1) {
		guard_submit(g->guard, &p->t);
	} else {
		on_submit(g, &p->t);
	}
	return guarded_fate(g, p);
}

enum fate guarded_control(struct guarded *g, struct packet *p, uint8_t request_type,
	uint8_t request, uint16_t value, uint16_t index, uint32_t size)
{
	*p = (struct packet){
		.t = {.type = TRANSFER_CONTROL,
			.endpoint = request_type & 0x80,
			.length = size,
			.setup = {request_type, request, value, index, (uint16_t)size}},
	};
	return guarded_send(g, p);
}

enum fate guarded_bulk(
	struct guarded *g, struct packet *p, uint8_t endpoint, const void *data, uint32_t size)
{
	*p = (struct packet){
		.t = {.type = TRANSFER_BULK, .endpoint = endpoint, .length = size},
	};
	assert_true(size <= sizeof(p->data));
	if (data) {
		memcpy(p->data, data, size);
	}
	return guarded_send(g, p);
}

void guarded_complete(struct guarded *g, struct packet *p, enum transfer_status status,
	const void *data, uint32_t size)
{
	size_t i = 0;

	while (i < g->n_at_device && g->at_device[i] != &p->t) {
		i++;
	}
	assert_true(i < g->n_at_device);
	g->at_device[i] = g->at_device[--g->n_at_device];
	p->t.status = (uint8_t)status;
	p->t.actual = size;
	if (data) {
		memcpy(p->data, data, size);
	}
	if (p->t.guard_unit) {
		guard_completed(g->guard, &p->t);
		on_complete(g, &p->t);
		guard_continue(g->guard);
	} else {
		on_complete(g, &p->t);
	}
}

uint32_t chaos_random(struct chaos *c, uint32_t n)
{
	c->random = c->random * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)(c->random >> 8) * n >> 24);
}

static void settle(struct chaos *c)
{
	for (size_t i = 0; i < CHAOS_PACKETS; i++) {
		struct packet *p = &c->packets[i];

		if (c->used[i] && guarded_fate(&c->g, p) == FATE_HELD) {
			p->t.cancelled = true;
			guard_cancel(c->g.guard, &p->t);
		} else if (c->used[i] && guarded_fate(&c->g, p) == FATE_AT_DEVICE) {
			p->t.cancelled = true;
			guarded_complete(&c->g, p, TRANSFER_CANCELLED, NULL, 0);
		}
		c->used[i] = false;
	}
}

void chaos_run(struct chaos *c, const struct chaos_ops *acts, unsigned int steps)
{
	for (unsigned int step = 0; step < steps; step++) {
		size_t i = chaos_random(c, CHAOS_PACKETS);
		struct packet *p = &c->packets[i];

		if (!c->used[i]) {
			c->used[i] = true;
			c->sent++;
			acts->send(c, p);
		} else if (guarded_fate(&c->g, p) == FATE_DONE) {
			c->used[i] = false;
		} else if (guarded_fate(&c->g, p) == FATE_AT_DEVICE) {
			acts->complete(c, p);
		} else if (chaos_random(c, 4) == 0) {
			p->t.cancelled = true;
			guard_cancel(c->g.guard, &p->t);
		}
		if (acts->resets && chaos_random(c, acts->resets) == 0) {
			guard_forget(c->g.guard, -1);
		}
		acts->check(c);
	}
	settle(c);
	assert_int_equal(c->g.n_at_device, 0);
	assert_int_equal(c->g.done, c->sent);
	assert_true(c->commands > 10);
	guard_forget(c->g.guard, -1);
}
