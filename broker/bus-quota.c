/* SPDX-License-Identifier: MIT
 * Quotas of VMs: Broker1.SetQuota changes them while everything runs; VM1.Quota shows them.
 */
#include <errno.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/gpu-arbiter.h"
#include "broker/gpu.h"
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

static bool usb_differs(const struct vm *vm, const struct quota_limits *l)
{
	const struct quota_limits *is = &vm->limits;

	return l->devices != is->devices || l->bytes_in_flight != is->bytes_in_flight ||
	       l->transfers_in_flight != is->transfers_in_flight || l->bandwidth != is->bandwidth ||
	       l->transfer_rate != is->transfer_rate;
}

/* Of a GPU, as they are and as they are to be. */
struct gpu_wanted {
	struct gpu_limits limits;
	uint64_t memory;
	const char *share; // may be NULL
};

static void gpu_now(const struct vm *vm, struct gpu_wanted *out)
{
	*out = (struct gpu_wanted){.limits = vm->gpu_limits, .memory = vm->gpu_memory.limit};
}

static int check_gpu(const struct vm *vm, struct gpu_wanted *w, struct refusal_text *text)
{
	int r;

	if (!vm->gpu) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give it one: [gpu] memory= in its file; see devbroker-vm.conf(5).",
			"vm %s has no GPU", vm->name);
	}
	r = gpu_share_read(w->share, &w->limits, text);
	if (r == 0) {
		r = gpu_memory_check(vm->name, w->memory, text);
	}
	if (r == 0) {
		r = gpu_limits_check(&w->limits, text);
	}
	return r != 0 ? r : gpu_check_share(vm->gpu, &w->limits, text);
}

static bool gpu_differs(const struct vm *vm, const struct gpu_wanted *w)
{
	const struct gpu_limits *is = &vm->gpu_limits, *l = &w->limits;

	return w->share || w->memory != vm->gpu_memory.limit || l->frame_rate != is->frame_rate ||
	       l->contexts != is->contexts || l->resources != is->resources;
}

static void apply_gpu(struct vm *vm, const struct gpu_wanted *w)
{
	char share[32];

	vm->gpu_limits = w->limits;
	vm->gpu_memory.limit = w->memory;
	gpu_limits_changed(vm->gpu);
	if (!vm->from_config) {
		vm_note_limits(vm);
	}
	log_info("vm %s: its GPU's limits changed: share %s, %u frames/s, %u contexts, %u "
		 "resources (0: no limit), %llu bytes",
		vm->name, gpu_share_print(&w->limits, share, sizeof(share)), w->limits.frame_rate,
		w->limits.contexts, w->limits.resources, (unsigned long long)w->memory);
	vm_changed(vm);
}

int bus_on_set_quota(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct quota_limits l = {0};
	struct gpu_wanted gpu = {0};
	const struct bus_option options[] = {
		{"devices", 'u', &l.devices},
		{"bytes-in-flight", 't', &l.bytes_in_flight},
		{"transfers-in-flight", 'u', &l.transfers_in_flight},
		{"bandwidth", 't', &l.bandwidth},
		{"transfers-per-second", 't', &l.transfer_rate},
		{"gpu-share", 's', &gpu.share},
		{"gpu-frame-rate", 'u', &gpu.limits.frame_rate},
		{"gpu-memory", 't', &gpu.memory},
		{"gpu-contexts", 'u', &gpu.limits.contexts},
		{"gpu-resources", 'u', &gpu.limits.resources},
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
		gpu_now(vm, &gpu);
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0 && gpu_differs(vm, &gpu)) {
		r = check_gpu(vm, &gpu, &text);
	}
	if (r == 0 && (usb_differs(vm, &l) || !gpu_differs(vm, &gpu))) {
		r = apply(vm, &l, &text);
	}
	if (r == 0 && gpu_differs(vm, &gpu)) {
		apply_gpu(vm, &gpu);
	}
	if (r != 0) {
		return bus_fail_call(c, "", name ? name : "", error, r, &text);
	}
	bus_audit(c, AUDIT_CHANGE, "", vm->name, "", "Its limits were changed.");
	/* Whether it is so after a restart, too. */
	return sd_bus_reply_method_return(m, "b", !vm->from_config);
}

static int append(sd_bus_message *reply, const struct quota *q)
{
	return sd_bus_message_append(reply, "{s(tt)}", q->name, q->used, q->limit);
}

static int append_gpu(sd_bus_message *reply, const struct vm *vm)
{
	const struct gpu_limits *l = &vm->gpu_limits;
	struct gpu_status s;
	int r = 0;

	gpu_status(vm->gpu, &s);
	const struct quota quotas[] = {
		{"gpu-share", (s.permille + 5) / 10, l->percent},
		{"gpu-frame-rate", s.frames_per_sec, l->frame_rate},
		{"gpu-contexts", s.counters.contexts, l->contexts},
		{"gpu-resources", s.counters.resources, l->resources},
	};

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(quotas); i++) {
		r = append(reply, &quotas[i]);
	}
	return r;
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
		r = append(reply, quotas[i]);
	}
	if (r >= 0 && vm->gpu) {
		r = append_gpu(reply, vm);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}
