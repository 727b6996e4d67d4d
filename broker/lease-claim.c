/* SPDX-License-Identifier: MIT
 *
 * The way in: from the decision to a worker that has what it needs. Everything is charged and
 * locked before the worker exists; what can be refused now is refused now.
 */
#include "broker/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/lease-internal.h"
#include "broker/vm.h"
#include "broker/worker.h"

static int start_worker(struct lease *l)
{
	struct device *d = l->device;
	struct broker *b = d->broker;
	char speed[32], serial[160], product[128], transfers[48], bytes[48], sandbox[96], name[96];
	const char *args[12] = {"--stream-fd=4", "--disk-fd=5", speed, serial, product, transfers,
		bytes, sandbox, name};
	size_t n_args = 9;
	_cleanup_close_ int ours = -1;
	int pair[2];

	snprintf(speed, sizeof(speed), "--speed=%s", d->disk.speed);
	snprintf(serial, sizeof(serial), "--serial=%s", d->serial);
	snprintf(product, sizeof(product), "--product=%s", d->name + strlen("disk:"));
	snprintf(transfers, sizeof(transfers), "--max-transfers=%" PRIu64, l->transfers.amount);
	snprintf(bytes, sizeof(bytes), "--max-bytes=%" PRIu64, l->bytes.amount);
	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", b->config.sandbox);
	snprintf(name, sizeof(name), "--name=%s", d->name);
	if (d->disk.read_only) {
		args[n_args++] = "--read-only";
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	ours = pair[0];
	l->stream_fd = pair[1];
	return worker_start(b, SPAWNER_USB, d->name, args, n_args,
		(const int[]){ours, d->disk.image_fd}, 2, &lease_worker_ops, l, &l->worker);
}

/* Takes what the worker will use, in the order in which it can be refused. */
static int take(struct lease *l, struct refusal_text *text)
{
	struct device *d = l->device;
	struct vm *vm = l->vm;
	int r = device_open(d, text);

	if (r == 0) {
		r = charge_take(&l->bytes, &vm->bytes, vm->limits.bytes_in_flight, vm->name, text);
	}
	if (r == 0) {
		r = charge_take(&l->transfers, &vm->transfers, vm->limits.transfers_in_flight,
			vm->name, text);
	}
	if (r == 0) {
		r = image_lock(d->disk.image_fd, d->disk.read_only,
			d->disk.path ? d->disk.path : d->name, text);
		l->locked = r == 0;
	}
	return r;
}

static void claim(struct lease *l)
{
	struct refusal_text text = {0};
	int r = take(l, &text);

	l->detail[0] = '\0';
	l->reason = LEASE_REASON_NONE;
	lease_set_state(l, LEASE_CLAIMING);
	if (r == 0) {
		r = start_worker(l);
	}
	if (r < 0) {
		lease_failed(l, LEASE_REASON_WORKER_FAILED, strerror(-r), true);
	} else if (r == REFUSAL_IMAGE_BUSY) {
		lease_failed(l, LEASE_REASON_IMAGE_BUSY, text.sentence, true);
	} else if (r == REFUSAL_QUOTA) {
		lease_failed(l, LEASE_REASON_QUOTA, text.sentence, false);
	} else if (r > 0) {
		lease_failed(l, LEASE_REASON_IMAGE_INVALID, text.sentence, false);
	}
}

void lease_reconcile(struct lease *l)
{
	if (l->state != LEASE_DECIDED || l->timer || l->device->broker->stopping) {
		return;
	}
	if (vm_reachable(l->vm)) {
		claim(l);
	}
}

int lease_create(struct device *d, struct vm *vm, struct refusal_text *text)
{
	struct broker *b = d->broker;
	struct lease *l;
	int r;

	if (d->lease) {
		if (d->lease->vm == vm && d->lease->state != LEASE_RELEASING) {
			return 0;
		}
		return refuse(text, REFUSAL_BUSY, "%s is %s, vm %s", d->name,
			lease_state_name(d->lease->state), d->lease->vm->name);
	}
	if (b->stopping) {
		return refuse_with(
			text, REFUSAL_BUSY, "Start it again first.", "devbrokerd is stopping");
	}
	/* What is wrong with the image now is told now, not when the VM comes. */
	r = device_open(d, text);
	if (r == 0) {
		r = image_probe(d->disk.image_fd, d->disk.read_only,
			d->disk.path ? d->disk.path : d->name, text);
	}
	if (r != 0) {
		return r;
	}
	l = calloc(1, sizeof(*l));
	if (!l) {
		return -ENOMEM;
	}
	r = charge_take(&l->devices, &vm->devices, 1, vm->name, text);
	if (r != 0) {
		free(l);
		return r;
	}
	l->device = d;
	l->vm = vm;
	l->stream_fd = -1;
	l->asked_usec = now_usec();
	list_append(&vm->leases, &l->link);
	vm->n_leases++;
	d->lease = l;
	d->reason = LEASE_REASON_NONE;
	d->detail[0] = '\0';
	if (!vm_reachable(vm)) {
		lease_set_reason(l,
			vm->state == VM_BUSY ? LEASE_REASON_VM_BUSY : LEASE_REASON_VM_GONE, NULL);
	}
	lease_set_state(l, LEASE_DECIDED);
	vm_changed(vm);
	lease_reconcile(l);
	return 0;
}
