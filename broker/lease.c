/* SPDX-License-Identifier: MIT
 *
 * The life of a lease. Level-triggered where it waits (lease_reconcile looks at what is, not at
 * what happened), event-driven where it runs:
 *
 *   decided      waits for its VM (or for the next try); costs a charge of one device
 *   claiming     charged, device taken, worker started; waits for its READY
 *   connecting   devbroker-qmp hands the other end of the stream to the VMM; waits for the hello
 *   attached     device_connect is written
 *   configured   the guest's driver is at work
 *   releasing    the worker was told (so the guest is), the VMM unplugs, the disk is flushed
 *
 * A lease leaves releasing only when its worker is reaped, no QMP operation of it runs and the
 * device is given back: then nothing of it is left anywhere, and it either ends or is decided
 * again.
 */
#include "broker/lease.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/device.h"
#include "broker/lease-internal.h"
#include "broker/lease-keep.h"
#include "broker/vm.h"
#include "broker/ways.h"
#include "broker/worker.h"

#define USEC_PER_SEC         UINT64_C(1000000)
#define TRIES_MAX            4 /* the first and three more: after 1, 2 and 4 s */
#define NOT_CONFIGURED_AFTER (10 * USEC_PER_SEC)
#define STEADY_AFTER         (60 * USEC_PER_SEC)

void lease_set_reason(struct lease *l, enum lease_reason reason, const char *detail)
{
	l->reason = reason;
	snprintf(l->detail, sizeof(l->detail), "%s",
		detail && detail[0] ? detail : lease_reason_sentence(reason));
}

void lease_set_state(struct lease *l, enum lease_state state)
{
	l->state = state;
	l->device->since = wall_usec();
	log_info("%s: %s, vm %s%s%s", l->device->name, lease_state_name(state), l->vm->name,
		l->detail[0] ? ": " : "", l->detail);
	lease_note(l);
	device_changed(l->device);
}

static void stop_timer(struct lease *l)
{
	l->timer = sd_event_source_disable_unref(l->timer);
}

static void start_timer(struct lease *l, uint64_t usec, sd_event_time_handler_t handler)
{
	stop_timer(l);
	if (sd_event_add_time_relative(l->device->broker->event, &l->timer, CLOCK_MONOTONIC, usec,
		    0, handler, l) < 0) {
		log_error("%s: out of memory for a timer", l->device->name);
	}
}

static void return_way(struct lease *l)
{
	way_return(l->way, l->reason == LEASE_REASON_VM_GONE);
	l->way = NULL;
}

static void return_charges(struct lease *l)
{
	return_way(l);
	charge_return(&l->bytes);
	charge_return(&l->transfers);
	charge_return(&l->devices);
}

/* The device is present again. */
static void lease_end(struct lease *l)
{
	struct device *d = l->device;
	struct broker *b = d->broker;
	struct vm *vm = l->vm;

	assert(!l->worker && !l->qmp && !l->taking && !l->taken);
	stop_timer(l);
	safe_close(l->stream_fd);
	return_charges(l);
	lease_forget_note(l);
	list_remove(&l->link);
	vm->n_leases--;
	d->lease = NULL;
	d->reason = l->reason;
	d->since = wall_usec();
	snprintf(d->detail, sizeof(d->detail), "%s", l->detail);
	snprintf(d->last_vm, sizeof(d->last_vm), "%s", vm->name);
	log_info("%s: present, was in vm %s: %s", d->name, vm->name, l->detail);
	audit_note(b->audit, &(struct audit_event){.action = AUDIT_END,
				     .uid = AUDIT_NOBODY,
				     .device = d->name,
				     .vm = vm->name,
				     .reason = lease_reason_code(l->reason),
				     .text = l->detail});
	free(l);
	device_changed(d);
	vm_changed(vm);
	vm_lease_ended(vm);
	if (d->ops->lease_ended) {
		d->ops->lease_ended(d);
	}
	broker_check_stopped(b);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct lease *l = userdata;

	stop_timer(l);
	lease_reconcile(l);
	return 0;
}

/* Everything of the last try is gone. */
static void released(struct lease *l)
{
	struct broker *b = l->device->broker;

	return_way(l);
	charge_return(&l->bytes);
	charge_return(&l->transfers);
	l->stream_fd = safe_close(l->stream_fd);
	l->plugged = l->kept = false;
	l->connect_usec = l->configure_usec = l->connected_at = l->configured_at = 0;
	stop_timer(l);
	if (b->stopping || !l->retry ||
		(l->tries >= TRIES_MAX && l->reason != LEASE_REASON_VM_GONE)) {
		if (l->retry && l->tries >= TRIES_MAX) {
			bus_refused(b, l->device->name, l->vm->name, l->reason, l->detail);
		}
		lease_end(l);
		return;
	}
	lease_set_state(l, LEASE_DECIDED);
	if (l->tries > 0) {
		start_timer(l, USEC_PER_SEC << (MIN(l->tries, TRIES_MAX) - 1), on_retry);
	} else {
		lease_reconcile(l);
	}
}

/* One that worked for a while has earned all its tries again. */
static void forgive(struct lease *l)
{
	if (l->configured_at > 0 && now_usec() - l->configured_at > STEADY_AFTER) {
		l->tries = 0;
	}
}

static void on_unplugged(
	void *userdata, enum qmp_outcome outcome, uint32_t vm_state, const char *text)
{
	struct lease *l = userdata;

	bool other = l->vmm_pid > 0 && l->vm->vmm_pid > 0 && l->vmm_pid != l->vm->vmm_pid;

	l->qmp = NULL;
	l->plugged = false;
	if ((outcome != QMP_OK || other) && l->reason == LEASE_REASON_VMM_UNPLUGGED) {
		/* It was no unplug, but the beginning of the VMM's end. */
		lease_set_reason(l, LEASE_REASON_VM_GONE, NULL);
		l->retry = true;
		/* Or neither: one that lives, and hangs up each time, is tried less and less. */
		forgive(l);
		l->tries += !other && outcome != QMP_GONE && l->vm->state != VM_GONE;
	} else if (outcome != QMP_OK && outcome != QMP_GONE && outcome != QMP_CLOSED) {
		/* The VMM keeps a usb-redir device without a stream: harmless, but say so. */
		log_warn("%s: vm %s did not confirm the unplug: %s", l->device->name, l->vm->name,
			text[0] ? text : "no answer");
	}
	lease_release_step(l);
}

void lease_release_step(struct lease *l)
{
	if (l->qmp || l->giving_back || l->taking) {
		return;
	}
	/* Of a VM that is being asked for the first time nothing is known yet. */
	if (l->plugged && !l->vm->ways && (l->vm->state != VM_GONE || l->vm->probe)) {
		if (qmp_run(l->vm, QMP_DETACH, l->qmp_id, -1, on_unplugged, l, &l->qmp) == 0) {
			return;
		}
		l->plugged = false;
	}
	if (l->worker) {
		return;
	}
	if (l->taken) {
		l->giving_back = true;
		l->device->ops->give_back(l->device, l);
		return;
	}
	released(l);
}

void lease_given_back(struct lease *l)
{
	l->giving_back = l->taken = false;
	lease_release_step(l);
}

void lease_begin_release(struct lease *l, enum lease_reason reason, const char *detail, bool retry)
{
	if (l->state == LEASE_RELEASING) {
		/* A user's or the broker's word stands over what the worker says on its way out. */
		if (!retry && l->retry) {
			l->retry = false;
			lease_set_reason(l, reason, detail);
		}
		return;
	}
	lease_set_reason(l, reason, detail);
	l->retry = retry;
	stop_timer(l);
	lease_set_state(l, LEASE_RELEASING);
	if (l->worker) {
		if (l->worker->ready) {
			worker_detach(l->worker);
		} else {
			worker_kill(l->worker);
		}
	}
	lease_release_step(l);
}

void lease_failed(struct lease *l, enum lease_reason reason, const char *detail, bool retry)
{
	forgive(l);
	l->tries++;
	log_warn("%s: vm %s: %s", l->device->name, l->vm->name,
		detail && detail[0] ? detail : lease_reason_sentence(reason));
	if (!retry) {
		bus_refused(l->device->broker, l->device->name, l->vm->name, reason,
			detail && detail[0] ? detail : lease_reason_sentence(reason));
	}
	lease_begin_release(l, reason, detail, retry);
}

static void on_plugged(
	void *userdata, enum qmp_outcome outcome, uint32_t vm_state, const char *text)
{
	struct lease *l = userdata;

	l->qmp = NULL;
	/* After a timeout nobody knows. */
	l->plugged = outcome == QMP_OK || outcome == QMP_TIMEOUT || outcome == QMP_FAILED;
	if (l->state == LEASE_RELEASING) {
		lease_release_step(l);
		return;
	}
	switch (outcome) {
	case QMP_OK:
		if (!l->worker) {
			lease_begin_release(l, LEASE_REASON_VMM_UNPLUGGED, NULL, false);
			break;
		}
		l->vmm_pid = l->vm->vmm_pid;
		lease_note(l);
		break;
	case QMP_GONE:
		lease_begin_release(l, LEASE_REASON_VM_GONE, NULL, true);
		break;
	case QMP_CLOSED:
		/* If that was its end, lease_vm_gone will say so. */
		lease_failed(
			l, LEASE_REASON_QMP_FAILED, "The VMM closed the QMP connection.", true);
		break;
	case QMP_BUSY:
		lease_failed(l, LEASE_REASON_VM_BUSY, NULL, true);
		break;
	case QMP_REFUSED:
		lease_failed(l, LEASE_REASON_VMM_REFUSED, text, false);
		break;
	default:
		lease_failed(l, LEASE_REASON_QMP_FAILED, text, true);
	}
}

static void make_qmp_id(struct lease *l)
{
	uint64_t n = 0;

	/* Can't fail for 8 bytes once the pool is up. */
	_unused_ ssize_t got = getrandom(&n, sizeof(n), 0);
	snprintf(l->qmp_id, sizeof(l->qmp_id), "devbroker-%016" PRIx64, n);
}

static void on_ready(void *userdata, uint32_t stages)
{
	struct lease *l = userdata;
	int fd = steal_fd(&l->stream_fd);

	if (l->state != LEASE_CLAIMING) {
		safe_close(fd);
		return;
	}
	if (stages != l->device->broker->config.sandbox_stages) {
		safe_close(fd);
		lease_failed(
			l, LEASE_REASON_WORKER_FAILED, "its sandbox is not as configured", false);
		return;
	}
	vm_pace_tell(l->vm, l->worker);
	if (l->way) {
		/* Its worker has the VM's stream already. */
		l->plugged = true;
		lease_set_state(l, LEASE_CONNECTING);
		lease_keep_worker(l);
		return;
	}
	make_qmp_id(l);
	lease_set_state(l, LEASE_CONNECTING);
	lease_keep_worker(l);
	if (qmp_run(l->vm, QMP_ATTACH, l->qmp_id, fd, on_plugged, l, &l->qmp) < 0) {
		lease_failed(l, LEASE_REASON_QMP_FAILED, "out of memory", true);
	}
}

static int on_not_configured(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct lease *l = userdata;

	stop_timer(l);
	snprintf(l->detail, sizeof(l->detail),
		"The guest has not configured it for 10 s: has it a driver for it, and is it up?");
	log_warn("%s: vm %s: attached, but the guest has not configured it for 10 s",
		l->device->name, l->vm->name);
	device_changed(l->device);
	return 0;
}

void lease_watch_attached(struct lease *l)
{
	start_timer(l, NOT_CONFIGURED_AFTER, on_not_configured);
}

void lease_attached(struct lease *l, uint64_t connect_ns)
{
	l->connected_at = now_usec();
	/* The worker's own time is closer; believed only where it can be true. */
	if (connect_ns / 1000 >= l->asked_usec && connect_ns / 1000 <= l->connected_at) {
		l->connected_at = connect_ns / 1000;
	}
	l->connect_usec = l->connected_at - l->asked_usec;
	lease_watch_attached(l);
	lease_set_state(l, LEASE_ATTACHED);
}

void lease_configured(struct lease *l)
{
	if (l->configure_usec == 0) {
		l->configured_at = now_usec();
		l->configure_usec = l->configured_at - l->connected_at;
	}
	l->detail[0] = '\0';
	stop_timer(l);
	lease_set_state(l, LEASE_CONFIGURED);
	if (l->vm->state == VM_PAUSED) {
		/* A paused guest configures nothing: it goes on. */
		vm_heard(l->vm, QMP_OK, QMP_VM_RUNNING, "");
	}
}

static void on_message(void *userdata, const union worker_msg *m)
{
	struct lease *l = userdata;

	if (l->state == LEASE_RELEASING) {
		return;
	}
	if (m->header.type != WORKER_MSG_STATE) {
		if (l->device->ops->message) {
			l->device->ops->message(l->device, l, m);
		}
		return;
	}
	switch (m->state.state) {
	case WORKER_STATE_ATTACHED:
		if (l->state == LEASE_CONNECTING) {
			lease_attached(l, m->state.connect_ns);
		}
		break;
	case WORKER_STATE_CONFIGURED:
		if (l->state == LEASE_ATTACHED) {
			lease_configured(l);
		}
		break;
	case WORKER_STATE_EJECTED:
		lease_begin_release(l, LEASE_REASON_GUEST_EJECTED, NULL, false);
		break;
	default:
		break;
	}
}

void lease_way_lost(struct lease *l)
{
	struct ways *ways = l->vm->ways;

	/* One that the guest had was in order; who hangs up each time is tried less and less. */
	l->tries = l->configured_at > 0 ? 0 : l->tries + 1;
	lease_begin_release(l, LEASE_REASON_VM_GONE,
		ways_lasting(ways) ? NULL : "Its client has disconnected.", ways_lasting(ways));
}

static void on_done_by_itself(struct lease *l, const struct worker_done *done)
{
	switch (done->reason) {
	case WORKER_DONE_PEER_CLOSED:
		if (l->vm->ways) {
			lease_way_lost(l);
			break;
		}
		if (l->qmp) {
			/* A VMM that refuses closes the stream before it has said why: on_plugged
			 * goes on. */
			break;
		}
		/* The VMM died (its pidfd will say so), or somebody unplugged the device. */
		lease_begin_release(l, LEASE_REASON_VMM_UNPLUGGED, NULL, false);
		break;
	case WORKER_DONE_PEER_BAD:
		lease_failed(l, LEASE_REASON_PEER_VIOLATION, done->detail, false);
		break;
	case WORKER_DONE_DEVICE_LOST:
		if (done->error == ENODEV) {
			lease_failed(l, LEASE_REASON_DEVICE_GONE, NULL, false);
			break;
		}
		lease_failed(l, LEASE_REASON_IO_ERROR,
			done->detail[0] ? done->detail : strerror(done->error), false);
		break;
	case WORKER_DONE_DEVICE_BUSY:
		lease_failed(l, LEASE_REASON_DEVICE_BUSY, done->detail, true);
		break;
	case WORKER_DONE_NOT_SHOWN:
		lease_failed(l, LEASE_REASON_DENIED, done->detail, false);
		break;
	default:
		lease_failed(l, LEASE_REASON_WORKER_DIED, done->detail, true);
	}
}

static void on_ended(void *userdata, enum worker_end end, int status)
{
	struct lease *l = userdata;
	struct worker_done done = l->worker->done;
	bool was_ready = l->worker->ready;
	char detail[96] = "";

	vm_usage_add(&l->vm->ended, &l->worker->counters);
	worker_destroy(l->worker);
	l->worker = NULL;
	if (end == WORKER_END_DONE && done.reason == WORKER_DONE_DETACHED && done.error) {
		log_error("%s: flushing it failed: %s", l->device->name, strerror(done.error));
		if (l->state == LEASE_RELEASING) {
			lease_set_reason(l, LEASE_REASON_IO_ERROR,
				"Flushing it failed: what the guest "
				"wrote last may be lost.");
		}
	}
	if (l->state == LEASE_RELEASING) {
		lease_release_step(l);
		return;
	}
	switch (end) {
	case WORKER_END_DONE:
		on_done_by_itself(l, &done);
		break;
	case WORKER_END_HUNG:
		lease_failed(l, LEASE_REASON_WORKER_HUNG, NULL, true);
		break;
	case WORKER_END_SPAWN:
		lease_failed(l, LEASE_REASON_WORKER_FAILED, strerror(status), true);
		break;
	case WORKER_END_BAD:
		lease_failed(l, LEASE_REASON_WORKER_DIED, "It sent a malformed message.", true);
		break;
	default:
		if (status == PROCESS_STATUS_UNKNOWN) {
			/* No child of ours. */
			lease_failed(l, LEASE_REASON_WORKER_DIED, NULL, true);
			break;
		}
		snprintf(detail, sizeof(detail),
			status == -SIGSYS
				? "Its worker made a system call that its sandbox forbids."
			: status < 0 ? "Its worker was ended by signal %d."
				     : "Its worker ended with status %d.",
			abs(status));
		/* A worker that can't even close its sandbox will not do so the next time. */
		lease_failed(l, was_ready ? LEASE_REASON_WORKER_DIED : LEASE_REASON_WORKER_FAILED,
			detail, was_ready);
	}
}

const struct worker_ops lease_worker_ops = {
	.ready = on_ready,
	.message = on_message,
	.ended = on_ended,
};

void lease_release(struct lease *l, enum lease_reason reason)
{
	if (l->state == LEASE_DECIDED) {
		lease_set_reason(l, reason, NULL);
		lease_end(l);
		return;
	}
	lease_begin_release(l, reason, NULL, false);
}

void lease_retake(struct lease *l)
{
	lease_failed(l, LEASE_REASON_DEVICE_BUSY, "A driver of the host took it; it is lent anew.",
		true);
}

void lease_renew(struct lease *l)
{
	l->tries = 0;
	if (l->state == LEASE_DECIDED) {
		stop_timer(l);
		lease_reconcile(l);
		return;
	}
	lease_begin_release(
		l, LEASE_REASON_IO_ERROR, "Its image is there again; it is lent anew.", true);
}

void lease_vm_gone(struct lease *l)
{
	l->plugged = false;
	if (l->vm->ways && l->state == LEASE_DECIDED && l->timer) {
		/* Whoever hangs up each time is gone each time. */
		lease_set_reason(l, LEASE_REASON_VM_GONE, NULL);
		return;
	}
	/* What went wrong before went with it; its return is a fresh start. */
	l->tries = 0;
	if (l->state == LEASE_DECIDED) {
		stop_timer(l);
		lease_set_reason(l, LEASE_REASON_VM_GONE, NULL);
		device_changed(l->device);
		return;
	}
	if (l->state == LEASE_RELEASING) {
		/* It was the VMM's death that looked like an unplug, or made a try fail. */
		if (l->reason == LEASE_REASON_VMM_UNPLUGGED || l->retry) {
			lease_set_reason(l, LEASE_REASON_VM_GONE, NULL);
			l->retry = true;
		}
		lease_release_step(l);
		return;
	}
	lease_begin_release(l, LEASE_REASON_VM_GONE, NULL, true);
}
