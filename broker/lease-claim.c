/* SPDX-License-Identifier: MIT
 *
 * The way in: from the decision to a worker that has what it needs. Everything is charged
 * and taken before the worker exists; what can be refused now is refused now.
 */
#include "broker/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/lease-internal.h"
#include "broker/lease-keep.h"
#include "broker/vm.h"
#include "broker/ways.h"
#include "broker/worker.h"

/* What becomes its end of the stream; l->stream_fd the VM's, unless that has it already. */
static int open_stream(struct lease *l)
{
	int pair[2], fd;

	if (l->way) {
		fd = way_take(l->way);
		return fd >= 0 ? fd : -ENOTCONN;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	l->stream_fd = pair[1];
	return pair[0];
}

static int start_worker(struct lease *l)
{
	struct device *d = l->device;
	struct broker *b = d->broker;
	struct worker_args args = {0};
	_cleanup_close_ int ours = -1, listener = lease_keep_listen(l);
	int device_fd, r;

	worker_args_add(&args, "--stream-fd=4");
	worker_args_add(&args, "--max-transfers=%" PRIu64, l->transfers.amount);
	worker_args_add(&args, "--max-bytes=%" PRIu64, l->bytes.amount);
	worker_args_add(&args, "--sandbox=%s", b->config.sandbox);
	worker_args_add(&args, "--name=%s", d->name);
	device_fd = d->ops->worker(d, &args);
	if (listener >= 0) {
		worker_args_add(&args, "--listen-fd=6");
	}
	if (args.overflow) {
		return -E2BIG;
	}
	ours = open_stream(l);
	if (ours < 0) {
		return ours;
	}
	r = worker_start(b, d->ops->program, d->name, args.args, args.n,
		(const int[]){ours, device_fd, listener}, listener >= 0 ? 3 : 2, &lease_worker_ops,
		l, &l->worker);
	if (r == 0) {
		/* Another broker waits for its end before it lends the device again. */
		lease_note(l);
	}
	return r;
}

/* What a refusal of the device means for its lease, and whether time may mend it. */
static void refused(struct lease *l, int r, const struct refusal_text *text)
{
	static const struct {
		enum refusal refusal;
		enum lease_reason reason;
		bool retry;
	} meanings[] = {
		{REFUSAL_IMAGE_BUSY, LEASE_REASON_IMAGE_BUSY, true},
		{REFUSAL_IMAGE_INVALID, LEASE_REASON_IMAGE_INVALID, false},
		{REFUSAL_QUOTA, LEASE_REASON_QUOTA, false},
		{REFUSAL_BUSY, LEASE_REASON_DEVICE_BUSY, true},
		{REFUSAL_NOT_FOUND, LEASE_REASON_DEVICE_GONE, false},
		{REFUSAL_DENIED, LEASE_REASON_DENIED, false},
	};

	if (r < 0) {
		lease_failed(l, LEASE_REASON_WORKER_FAILED, strerror(-r), true);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++) {
		if (meanings[i].refusal == (enum refusal)r) {
			lease_failed(l, meanings[i].reason, text->sentence, meanings[i].retry);
			return;
		}
	}
	lease_failed(l, LEASE_REASON_WORKER_FAILED, text->sentence, false);
}

void lease_taken(struct lease *l, int r, const struct refusal_text *text)
{
	l->taking = false;
	l->taken = r == 0;
	if (l->state == LEASE_RELEASING) {
		lease_release_step(l);
		return;
	}
	if (r == 0) {
		r = start_worker(l);
	}
	if (r == -ENOTCONN && l->way) {
		lease_way_lost(l);
	} else if (r != 0) {
		refused(l, r, text);
	}
}

/* Charges what the worker will use, then takes the device. */
static void claim(struct lease *l)
{
	struct vm *vm = l->vm;
	struct refusal_text text = {0};
	const struct lease_options *o = &l->options;
	uint64_t bytes = vm->limits.bytes_in_flight, transfers = vm->limits.transfers_in_flight;
	int r;

	/* A rule can give less than the VM gives to each, never more. */
	bytes = o->bytes_in_flight ? MIN(bytes, o->bytes_in_flight) : bytes;
	transfers = o->transfers_in_flight ? MIN(transfers, o->transfers_in_flight) : transfers;
	r = charge_take(&l->bytes, &vm->bytes, bytes, vm->name, &text);
	if (r == 0) {
		r = charge_take(&l->transfers, &vm->transfers, transfers, vm->name, &text);
	}
	l->detail[0] = '\0';
	l->reason = LEASE_REASON_NONE;
	lease_set_state(l, LEASE_CLAIMING);
	if (r != 0) {
		refused(l, r, &text);
		return;
	}
	l->taking = true;
	l->device->ops->take(l->device, l);
}

void lease_reconcile(struct lease *l)
{
	if (l->state != LEASE_DECIDED || l->timer || l->device->broker->stopping) {
		return;
	}
	if (!vm_reachable(l->vm)) {
		return;
	}
	if (l->vm->ways) {
		l->way = ways_reserve(l->vm->ways, l);
		if (!l->way) {
			/* It is looked at again when one is connected. */
			return;
		}
	}
	claim(l);
}

int lease_new(struct device *d, struct vm *vm, const struct lease_options *options,
	struct lease **out, struct refusal_text *text)
{
	struct lease *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		return -ENOMEM;
	}
	r = vm_check_ways(vm, text);
	if (r == 0) {
		r = charge_take(&l->devices, &vm->devices, 1, vm->name, text);
	}
	if (r != 0) {
		free(l);
		return r;
	}
	/* Can't fail for 8 bytes once the pool is up. */
	_unused_ ssize_t got = getrandom(&l->id, sizeof(l->id), 0);
	l->device = d;
	l->vm = vm;
	l->state = LEASE_DECIDED;
	l->options = *options;
	l->stream_fd = -1;
	l->asked_usec = now_usec();
	list_append(&vm->leases, &l->link);
	vm->n_leases++;
	d->lease = l;
	d->reason = LEASE_REASON_NONE;
	d->detail[0] = '\0';
	*out = l;
	return 0;
}

int lease_decide(struct device *d, struct vm *vm, const struct lease_options *options,
	struct refusal_text *text)
{
	struct lease *l;
	int r = lease_new(d, vm, options, &l, text);

	if (r != 0) {
		return r;
	}
	if (!vm_reachable(vm)) {
		lease_set_reason(l,
			vm->state == VM_BUSY ? LEASE_REASON_VM_BUSY : LEASE_REASON_VM_GONE, NULL);
	} else if (vm->ways && !ways_free(vm->ways)) {
		lease_set_reason(l, LEASE_REASON_NONE, "It waits for a slot that is connected.");
	}
	lease_set_state(l, LEASE_DECIDED);
	vm_changed(vm);
	lease_reconcile(l);
	return 0;
}

int lease_create(struct device *d, struct vm *vm, const struct lease_options *options,
	struct refusal_text *text)
{
	struct broker *b = d->broker;
	int r;

	if (d->lease) {
		if (d->lease->vm == vm && d->lease->state != LEASE_RELEASING) {
			if (lease_options_same_view(&d->lease->options, options)) {
				return 0;
			}
			return refuse_with(text, REFUSAL_BUSY,
				"Take it out first: devbroker detach DEVICE",
				"%s is %s, vm %s, with other options", d->name,
				lease_state_name(d->lease->state), vm->name);
		}
		return refuse(text, REFUSAL_BUSY, "%s is %s, vm %s", d->name,
			lease_state_name(d->lease->state), d->lease->vm->name);
	}
	if (b->stopping) {
		return refuse_with(
			text, REFUSAL_BUSY, "Start it again first.", "devbrokerd is stopping");
	}
	/* What is wrong with it now is told now, not when the VM comes. */
	r = d->ops->check(d, options, text);
	return r == 0 ? lease_decide(d, vm, options, text) : r;
}
