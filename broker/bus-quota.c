/* SPDX-License-Identifier: MIT
 * Quotas of VMs: Broker1.SetQuota changes them while everything runs; VM1.Quota shows them.
 */
#include <errno.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/vm-record.h"
#include "broker/vm.h"

/* What is in use stays in use: it counts, and nothing more is given until it is less. */
static void take_limits(struct vm *vm, const struct quota_limits *l)
{
	vm->limits = *l;
	vm->devices.limit = l->devices;
	vm->bytes.limit = l->devices * l->bytes_in_flight;
	vm->transfers.limit = (uint64_t)l->devices * l->transfers_in_flight;
}

static int apply(struct vm *vm, const struct quota_limits *l, struct refusal_text *text)
{
	const struct quota_limits before = vm->limits;
	int r = quota_limits_check(l, text);

	if (r != 0) {
		return r;
	}
	take_limits(vm, l);
	r = vm_pace_apply(vm);
	if (r < 0) {
		take_limits(vm, &before);
		return r;
	}
	if (!vm->from_config) {
		vm_note_limits(vm);
	}
	log_info("vm %s: limits changed: devices %u, bandwidth %llu B/s, %llu transfers/s (0: no "
		 "limit)",
		vm->name, l->devices, (unsigned long long)l->bandwidth,
		(unsigned long long)l->transfer_rate);
	vm_changed(vm);
	return 0;
}

int bus_on_set_quota(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct quota_limits l = {0};
	const struct bus_option options[] = {
		{"devices", 'u', &l.devices},
		{"bytes-in-flight", 't', &l.bytes_in_flight},
		{"transfers-in-flight", 'u', &l.transfers_in_flight},
		{"bandwidth", 't', &l.bandwidth},
		{"transfers-per-second", 't', &l.transfer_rate},
	};
	struct refusal_text text = {0};
	const char *name = NULL;
	struct vm *vm = NULL;
	int r = sd_bus_message_read(m, "s", &name);

	if (r >= 0) {
		r = broker_find_vm(bus_broker(c), name, &vm, &text);
	}
	if (r == 0) {
		l = vm->limits;
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0) {
		r = apply(vm, &l, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, "", name ? name : "", error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, "", vm->name, "", "Its limits were changed.");
	/* Whether it is so after a restart, too. */
	return sd_bus_reply_method_return(m, "b", !vm->from_config);
}

int bus_get_quota(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	struct quota bandwidth = {.name = "bandwidth", .limit = vm->limits.bandwidth};
	struct quota rate = {.name = "transfers-per-second", .limit = vm->limits.transfer_rate};
	const struct quota *const quotas[] = {
		&vm->devices, &vm->bytes, &vm->transfers, &bandwidth, &rate, &vm->gpu_memory};
	int r = sd_bus_message_open_container(reply, 'a', "{s(tt)}");

	vm_pace_used(vm, &bandwidth.used, &rate.used);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(quotas); i++) {
		r = sd_bus_message_append(
			reply, "{s(tt)}", quotas[i]->name, quotas[i]->used, quotas[i]->limit);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}
