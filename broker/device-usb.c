/* SPDX-License-Identifier: MIT */
#include "broker/device-usb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/claim-run.h"
#include "broker/usb-facts.h"
#include "broker/usb-host.h"
#include "broker/worker.h"

static const struct device_ops usb_ops;

struct device_usb *device_usb(struct device *d)
{
	return d->ops == &usb_ops ? list_entry(d, struct device_usb, device) : NULL;
}

static const struct device_usb *usb_of(const struct device *d)
{
	return list_entry(d, const struct device_usb, device);
}

static int usb_worker(struct device *d, struct worker_args *args)
{
	const struct device_usb *u = device_usb(d);

	worker_args_add(args, "--device-fd=5");
	worker_args_add(args, "--interfaces=%u", u->interfaces);
	worker_args_add(args, "--usbfs-memory=%llu", (unsigned long long)u->usbfs.amount);
	if (d->lease->options.read_only) {
		worker_args_add(args, "--read-only");
	}
	if (d->lease->options.allow_firmware) {
		worker_args_add(args, "--allow-firmware");
	}
	return u->node;
}

static void usb_destroy(struct device *d)
{
	struct device_usb *u = list_entry(d, struct device_usb, device);

	usb_claim_finish(u);
	sd_event_source_disable_unref(u->again);
	free(u);
}

static const char *usb_description(const struct device *d)
{
	return usb_of(d)->description;
}

static const char *usb_speed(const struct device *d)
{
	return usb_of(d)->speed;
}

static const char *usb_path(const struct device *d)
{
	return usb_of(d)->path;
}

static uint64_t usb_size(const struct device *d)
{
	return 0;
}

static bool usb_read_only(const struct device *d)
{
	return d->lease && d->lease->options.read_only;
}

static const struct device_ops usb_ops = {
	.kind = "usb",
	.program = SPAWNER_USB,
	.check = usb_claim_check,
	.take = usb_claim_take,
	.worker = usb_worker,
	.give_back = usb_claim_give_back,
	.message = usb_claim_message,
	.note = usb_adopt_note,
	.adopt = usb_adopt,
	.lease_ended = usb_host_lease_ended,
	.destroy = usb_destroy,
	.description = usb_description,
	.speed = usb_speed,
	.path = usb_path,
	.size = usb_size,
	.read_only = usb_read_only,
};

/* They are copied: facts go when the device does, and it may have to be shown a little longer. */
static void describe(struct device_usb *u)
{
	const struct usb_facts *f = u->facts;

	snprintf(u->description, sizeof(u->description), "%04x:%04x %.60s%s%.80s", f->vendor,
		f->product, f->manufacturer, f->manufacturer[0] && f->product_name[0] ? " " : "",
		f->product_name);
	snprintf(u->speed, sizeof(u->speed), "%.15s", f->speed);
	snprintf(u->path, sizeof(u->path), "%.63s", f->devnode);
}

int device_usb_add(struct broker *b, const struct usb_facts *facts, struct device_usb **out,
	struct refusal_text *text)
{
	struct device_usb *u = calloc(1, sizeof(*u));
	struct device *d;
	int r;

	if (!u) {
		return -ENOMEM;
	}
	d = &u->device;
	list_init(&d->link);
	d->ops = &usb_ops;
	d->broker = b;
	d->name = strdup(facts->key);
	d->serial = strdup(facts->serial);
	u->facts = facts;
	u->node = u->run_node = u->run_authorized = -1;
	r = d->name && d->serial ? device_check_new(b, d->name, text) : -ENOMEM;
	if (r != 0) {
		device_destroy(d);
		return r;
	}
	describe(u);
	device_add(d);
	*out = u;
	return 0;
}

void device_usb_update(struct device_usb *u, const struct usb_facts *facts)
{
	u->facts = facts;
	describe(u);
	bus_usb_changed(u->device.broker, &u->device);
}

void device_usb_gone(struct device_usb *u)
{
	struct lease *l = u->device.lease;

	u->facts = NULL;
	if (!l) {
		device_usb_settle(u);
		return;
	}
	if (l->worker && l->worker->ready) {
		/* An idle worker would not notice. */
		worker_unplugged(l->worker);
	}
	lease_release(l, LEASE_REASON_DEVICE_GONE);
}

void device_usb_settle(struct device_usb *u)
{
	struct device *d = &u->device;
	struct broker *b = d->broker;
	_cleanup_free_ char *name = NULL;

	if (u->run || u->restoring || d->lease) {
		return;
	}
	if (u->facts) {
		usb_host_reconcile(u);
		return;
	}
	name = strdup(d->name);
	if (device_remove(d, NULL) == 0 && name) {
		/* The next one may have come to its place meanwhile. */
		usb_host_look(b, name);
	}
}
