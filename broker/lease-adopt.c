/* SPDX-License-Identifier: MIT
 *
 * A lease that an earlier broker made, taken over with its worker. What the worker says counts for
 * how far it is; what the record says, for everything that only a broker knows. Where the two do
 * not make a lease that could have gone on, it is made nonetheless, so that it owes what every
 * lease owes at its end, and released.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/adopt.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/lease-internal.h"
#include "broker/vm.h"
#include "broker/ways.h"
#include "broker/worker.h"

static void restore(struct lease *l, const struct lease_record *r)
{
	l->id = strtoull(r->id, NULL, 16);
	for (size_t i = 0; i < sizeof(l->cookie); i++) {
		const char digits[] = {r->cookie[2 * i], r->cookie[2 * i + 1], '\0'};

		l->cookie[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	l->kept = true;
	l->tries = r->tries;
	l->plugged = r->plugged;
	l->vmm_pid = (pid_t)r->vmm;
	snprintf(l->qmp_id, sizeof(l->qmp_id), "%s", r->qmp_id);
	l->asked_usec = r->asked;
	l->connect_usec = r->connect;
	l->connected_at = r->connected_at;
	l->configure_usec = r->configure;
	l->configured_at = r->configured_at;
	l->taken = true;
}

/* What its worker may use. -errno or REFUSAL_QUOTA: the limits are lower than they were. */
static int charge(struct lease *l, const struct lease_record *r, struct refusal_text *text)
{
	struct vm *vm = l->vm;
	int e = charge_take(&l->bytes, &vm->bytes, r->bytes, vm->name, text);

	return e == 0 ? charge_take(&l->transfers, &vm->transfers, r->transfers, vm->name, text)
		      : e;
}

/* Goes on where it was; l may be gone when it returns. */
static void go_on(struct lease *l, const struct lease_record *r, const struct worker_held *says)
{
	bool connected = says->connect_ns != 0;

	if (strcmp(r->state, lease_state_name(LEASE_RELEASING)) == 0) {
		l->state = LEASE_CONFIGURED;
		lease_begin_release(l, lease_reason_of(r->reason), r->detail, r->retry);
		return;
	}
	l->state = LEASE_CONNECTING;
	l->plugged = l->plugged || connected;
	if (!l->plugged) {
		lease_failed(l, LEASE_REASON_QMP_FAILED,
			"An earlier devbrokerd ended while it was being plugged.", true);
		return;
	}
	if (!connected) {
		lease_set_state(l, LEASE_CONNECTING);
		return;
	}
	if (l->connected_at == 0) {
		lease_attached(l, says->connect_ns);
	} else {
		l->state = LEASE_ATTACHED;
	}
	if (says->state == WORKER_STATE_CONFIGURED) {
		lease_configured(l);
	} else if (says->state == WORKER_STATE_EJECTED) {
		lease_begin_release(l, LEASE_REASON_GUEST_EJECTED, NULL, false);
	} else {
		lease_watch_attached(l);
		lease_set_state(l, LEASE_ATTACHED);
	}
}

static void undo(struct lease *l)
{
	way_return(l->way, true);
	charge_return(&l->devices);
	list_remove(&l->link);
	l->vm->n_leases--;
	l->device->lease = NULL;
	free(l);
}

int lease_adopt(struct adoption *a, struct device *d, struct vm *vm)
{
	struct broker *b = d->broker;
	const struct lease_record *r = &a->record;
	struct refusal_text text = {0};
	struct lease *l;
	int e = lease_new(d, vm, &r->options, &l, &text);

	if (e != 0) {
		log_warn("%s: %s", d->name, e < 0 ? strerror(-e) : text.sentence);
		return -EBUSY;
	}
	if (vm->ways && r->way > 0) {
		l->way = ways_adopt(vm->ways, l, r->way - 1);
	}
	if (!l->way != !vm->ways) {
		/* It is reached otherwise now. */
		undo(l);
		return -EBUSY;
	}
	e = d->ops->adopt(d, l, r, steal_fd(&a->image_fd));
	if (e < 0) {
		undo(l);
		return e;
	}
	restore(l, r);
	e = worker_adopt(b, d->ops->program, d->name, steal_fd(&a->control), a->pid,
		steal_fd(&a->pidfd), a->uid_slot, &lease_worker_ops, l, &l->worker);
	if (e < 0) {
		lease_failed(l, LEASE_REASON_WORKER_DIED, strerror(-e), true);
		return 0;
	}
	log_info("%s: in vm %s since before devbrokerd was started; worker %d goes on", d->name,
		vm->name, (int)a->pid);
	vm_pace_tell(vm, l->worker);
	e = charge(l, r, &text);
	if (e != 0) {
		l->state = LEASE_CONFIGURED;
		lease_failed(l, LEASE_REASON_QUOTA, text.sentence, false);
	} else if (a->says.sandbox_stages != b->config.sandbox_stages) {
		l->state = LEASE_CONFIGURED;
		lease_failed(l, LEASE_REASON_WORKER_FAILED,
			"The sandbox is configured otherwise now.", true);
	} else {
		go_on(l, r, &a->says);
	}
	vm_changed(vm);
	return 0;
}
