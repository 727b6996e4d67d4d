/* SPDX-License-Identifier: MIT */
#include "broker/device.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/vm.h"

void worker_args_add(struct worker_args *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int n;

	if (a->overflow || a->n == ARRAY_SIZE(a->args)) {
		a->overflow = true;
		return;
	}
	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room) {
		a->overflow = true;
		return;
	}
	a->args[a->n++] = a->text + a->used;
	a->used += (size_t)n + 1;
}

enum lease_state device_state(const struct device *d)
{
	return d->lease ? d->lease->state : LEASE_PRESENT;
}

const char *device_reason(const struct device *d)
{
	return lease_reason_code(d->lease ? d->lease->reason : d->reason);
}

const char *device_detail(const struct device *d)
{
	return d->lease ? d->lease->detail : d->detail;
}

void device_changed(struct device *d)
{
	bus_device_changed(d->broker, d);
}

int device_check_new(struct broker *b, const char *name, struct refusal_text *text)
{
	struct device *other;

	if (b->n_devices >= BROKER_DEVICES_MAX) {
		return refuse(text, REFUSAL_QUOTA, "there are %u devices, and more are not allowed",
			b->n_devices);
	}
	list_for_each (other, &b->devices, link) {
		if (strcmp(other->name, name) == 0) {
			return refuse(text, REFUSAL_EXISTS, "there is a %s already", name);
		}
	}
	return 0;
}

void device_add(struct device *d)
{
	d->since = wall_usec();
	list_append(&d->broker->devices, &d->link);
	d->broker->n_devices++;
	log_info("%s: present", d->name);
	bus_device_added(d->broker, d);
}

int device_remove(struct device *d, struct refusal_text *text)
{
	if (d->lease) {
		return refuse(text, REFUSAL_BUSY, "%s is %s, vm %s", d->name,
			lease_state_name(d->lease->state), d->lease->vm->name);
	}
	bus_device_removed(d->broker, d);
	log_info("%s: removed", d->name);
	device_destroy(d);
	return 0;
}

void device_destroy(struct device *d)
{
	if (!d) {
		return;
	}
	assert(!d->lease);
	if (!list_empty(&d->link)) {
		list_remove(&d->link);
		d->broker->n_devices--;
	}
	free(d->serial);
	free(d->name);
	d->ops->destroy(d);
}
