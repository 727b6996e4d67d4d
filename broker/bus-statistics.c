/* SPDX-License-Identifier: MIT
 * What devices and VMs did, as their workers said last. Their numbers are passed on, not believed.
 */
#include <string.h>

#include "broker/bus-internal.h"
#include "broker/device.h"
#include "broker/lease.h"
#include "broker/vm.h"
#include "broker/worker.h"

struct statistic {
	const char *name;
	uint64_t value;
};

static int append(sd_bus_message *reply, const struct statistic *s, size_t n)
{
	int r = sd_bus_message_open_container(reply, 'a', "{st}");

	for (size_t i = 0; r >= 0 && i < n; i++) {
		r = sd_bus_message_append(reply, "{st}", s[i].name, s[i].value);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* NULL: nobody serves it. */
static const struct worker *worker_of(const struct device *d)
{
	return d->lease ? d->lease->worker : NULL;
}

int bus_get_statistics(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	static const struct worker nobody;
	const struct worker *w = worker_of(userdata) ? worker_of(userdata) : &nobody;
	const struct worker_pong *p = &w->counters;
	const struct statistic all[] = {
		{"transfers", p->transfers},
		{"bytes-in", p->bytes_in},
		{"bytes-out", p->bytes_out},
		{"refused", p->refused},
		{"errors", p->errors},
		{"in-flight", p->in_flight},
		{"in-flight-bytes", p->in_flight_bytes},
		{"in-flight-peak", p->in_flight_peak},
		{"control", p->by_type[WORKER_TRANSFERS_CONTROL]},
		{"bulk", p->by_type[WORKER_TRANSFERS_BULK]},
		{"interrupt", p->by_type[WORKER_TRANSFERS_INTERRUPT]},
		{"isochronous", p->by_type[WORKER_TRANSFERS_ISO]},
		{"stalls", p->stalls},
		{"latency-usec", p->latency_usec},
		{"bytes-in-per-second", w->bytes_in_per_sec},
		{"bytes-out-per-second", w->bytes_out_per_sec},
		{"transfers-per-second", w->transfers_per_sec},
	};

	return append(reply, all, ARRAY_SIZE(all));
}

int bus_get_latency(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct worker *w = worker_of(userdata);

	return sd_bus_message_append_array(
		reply, 't', w ? w->counters.latency : NULL, w ? sizeof(w->counters.latency) : 0);
}

int bus_get_vm_statistics(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	struct vm_usage u = vm->ended;
	uint64_t bytes_per_sec, transfers_per_sec;
	const struct lease *l;

	list_for_each (l, &vm->leases, link) {
		if (l->worker) {
			vm_usage_add(&u, &l->worker->counters);
		}
	}
	vm_pace_used(vm, &bytes_per_sec, &transfers_per_sec);
	const struct statistic all[] = {
		{"transfers", u.transfers},
		{"bytes-in", u.bytes_in},
		{"bytes-out", u.bytes_out},
		{"refused", u.refused},
		{"errors", u.errors},
		{"bytes-per-second", bytes_per_sec},
		{"transfers-per-second", transfers_per_sec},
	};

	return append(reply, all, ARRAY_SIZE(all));
}
