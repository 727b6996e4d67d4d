/* SPDX-License-Identifier: MIT
 *
 * Whether a VM is there is known without polling: inotify says when its socket appears, a pidfd
 * when its VMM ends. In between the socket exists but does not answer (QEMU binds, then listens;
 * or another client has it): only then a timer tries again, less and less often. A VM that is
 * reached by its ways (broker/ways.h) is there while one of them is connected.
 */
#include "broker/vm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/gpu.h"
#include "broker/lease.h"
#include "broker/usb-host.h"
#include "broker/vm-options.h"
#include "broker/vm-record.h"
#include "broker/ways.h"
#include "protocol/worker.h"

#define USEC_PER_MSEC UINT64_C(1000)
#define RETRY_FIRST   (50 * USEC_PER_MSEC)
#define RETRY_LONGEST (5000 * USEC_PER_MSEC)
/* A socket that refuses connections is a dead VMM's after this many tries (about 13 s). */
#define RETRIES_REFUSED  8
#define NOBODY_ANSWERS   "nobody answers on its QMP socket"
#define NOBODY_CONNECTED "nobody is connected to it"
/* Calls that wait for one probe. */
#define WAITERS_MAX 64

static const char *const state_names[] = {"gone", "up", "paused", "busy", "migrating", "error"};
static_assert(ARRAY_SIZE(state_names) == VM_STATE_COUNT_, "one per state");

const char *vm_state_name(enum vm_state state)
{
	return state_names[state];
}

bool vm_reachable(const struct vm *vm)
{
	return vm->state == VM_UP || vm->state == VM_PAUSED;
}

void vm_changed(struct vm *vm)
{
	bus_vm_changed(vm->broker, vm);
}

static void set_state(struct vm *vm, enum vm_state state, const char *detail)
{
	if (vm->state == state && strcmp(vm->detail, detail) == 0) {
		return;
	}
	if (vm->state != state) {
		log_info("vm %s: %s%s%s", vm->name, vm_state_name(state), detail[0] ? ": " : "",
			detail);
	}
	vm->state = state;
	snprintf(vm->detail, sizeof(vm->detail), "%s", detail);
	vm_changed(vm);
	usb_host_vm_changed(vm->broker);
}

static void answer_waiters(struct vm *vm)
{
	struct vm_waiter *w;

	while ((w = list_first(&vm->waiters, struct vm_waiter, link))) {
		list_remove(&w->link);
		vm->n_waiters--;
		w->done(w);
	}
}

static void reconcile(struct vm *vm)
{
	struct lease *l, *next;

	list_for_each_safe (l, next, &vm->leases, link) {
		lease_reconcile(l);
	}
}

static void retry_later(struct vm *vm);

static void forget_vmm(struct vm *vm)
{
	vm->vmm_source = sd_event_source_disable_unref(vm->vmm_source);
	vm->vmm_pidfd = safe_close(vm->vmm_pidfd);
	vm->vmm_pid = 0;
}

static void became_gone(struct vm *vm, const char *detail)
{
	struct lease *l, *next;

	forget_vmm(vm);
	set_state(vm, VM_GONE, detail);
	list_for_each_safe (l, next, &vm->leases, link) {
		lease_vm_gone(l);
	}
}

static int on_vmm_exit(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct vm *vm = userdata;

	became_gone(vm, "its VMM has ended");
	/* The next one's socket may have come before this was known. */
	vm->retries = 0;
	retry_later(vm);
	return 0;
}

/* Who listens may be libvirt, not the VMM itself: then the process lives on, and the end of the
 * usbredir stream or a failed QMP run tells. */
static void watch_vmm(struct vm *vm, int sock)
{
	_cleanup_close_ int pidfd = -1;
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0 ||
		(vm->vmm_pidfd >= 0 && peer.pid == vm->vmm_pid)) {
		return;
	}
	forget_vmm(vm);
	pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	if (pidfd < 0) {
		return;
	}
	if (sd_event_add_io(vm->broker->event, &vm->vmm_source, pidfd, EPOLLIN, on_vmm_exit, vm) <
		0) {
		return;
	}
	vm->vmm_pidfd = steal_fd(&pidfd);
	vm->vmm_pid = peer.pid;
}

int vm_connect(struct vm *vm, int *fd_out)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		return -errno;
	}
	assert(strlen(vm->qmp) < sizeof(addr.sun_path));
	memcpy(addr.sun_path, vm->qmp, strlen(vm->qmp) + 1);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		/* EAGAIN: its backlog is full, which a VMM that hangs may cause. */
		return -errno;
	}
	watch_vmm(vm, fd);
	*fd_out = steal_fd(&fd);
	return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct vm *vm = userdata;

	vm->retry = sd_event_source_disable_unref(vm->retry);
	_unused_ int r = vm_probe(vm, NULL);
	return 0;
}

static void retry_later(struct vm *vm)
{
	uint64_t delay = vm->retries < 7 ? RETRY_FIRST << vm->retries : RETRY_LONGEST;
	struct stat st;

	if (vm->retry || vm->broker->stopping || stat(vm->qmp, &st) < 0 ||
		(vm->state == VM_GONE && vm->retries >= RETRIES_REFUSED)) {
		return;
	}
	vm->retries++;
	if (sd_event_add_time_relative(
		    vm->broker->event, &vm->retry, CLOCK_MONOTONIC, delay, 0, on_retry, vm) < 0) {
		log_error("vm %s: out of memory for a timer", vm->name);
	}
}

void vm_heard(struct vm *vm, enum qmp_outcome outcome, uint32_t qmp_state, const char *text)
{
	switch (outcome) {
	case QMP_OK:
	case QMP_REFUSED:
		vm->retries = qmp_state == QMP_VM_MIGRATING ? vm->retries : 0;
		if (qmp_state == QMP_VM_UNKNOWN) {
			return;
		}
		if (qmp_state == QMP_VM_MIGRATING) {
			set_state(vm, VM_MIGRATING, "it is being migrated in");
			retry_later(vm);
			return;
		}
		set_state(vm, qmp_state == QMP_VM_PAUSED ? VM_PAUSED : VM_UP,
			qmp_state == QMP_VM_STOPPED ? "its guest has stopped" : "");
		reconcile(vm);
		return;
	case QMP_GONE:
		became_gone(vm, NOBODY_ANSWERS);
		retry_later(vm);
		return;
	case QMP_CLOSED:
		/* Its end is being told by the pidfd, or it is between two lives. What it has
		 * stays until that is known. */
		set_state(vm, VM_ERROR, "its VMM closed the QMP connection");
		retry_later(vm);
		return;
	case QMP_BUSY:
		set_state(vm, VM_BUSY,
			"no greeting on its QMP socket: is another program connected to it?");
		retry_later(vm);
		return;
	default:
		set_state(vm, VM_ERROR, text[0] ? text : "its QMP answers make no sense");
		retry_later(vm);
	}
}

static void on_probed(
	void *userdata, enum qmp_outcome outcome, uint32_t qmp_state, const char *text)
{
	struct vm *vm = userdata;

	/* vm_heard has been called with the same. */
	vm->probe = NULL;
	answer_waiters(vm);
}

int vm_probe(struct vm *vm, struct vm_waiter *waiter)
{
	if (vm->ways) {
		/* It is known without asking. */
		return -EOPNOTSUPP;
	}
	if (waiter && vm->n_waiters >= WAITERS_MAX) {
		return -EAGAIN;
	}
	if (vm->broker->stopping) {
		/* Clients that keep asking must not keep it from ending. */
		return -ESHUTDOWN;
	}
	if (!vm->probe) {
		int r = qmp_run(vm, QMP_PROBE, "devbroker-probe", -1, on_probed, vm, &vm->probe);

		if (r < 0) {
			return r;
		}
	}
	if (waiter) {
		vm->n_waiters++;
		list_append(&vm->waiters, &waiter->link);
	}
	return 0;
}

static void watch_socket(struct vm *vm);

static int on_inotify(sd_event_source *source, const struct inotify_event *event, void *userdata)
{
	struct vm *vm = userdata;
	struct stat st;

	/* Directories like /run and /tmp are busy with other things. */
	if (event->len > 0 && strcmp(event->name, vm->watched) != 0) {
		return 0;
	}
	/* The directory itself, or one on the way, came, went or moved: watch what is there now. */
	watch_socket(vm);
	if (stat(vm->qmp, &st) == 0) {
		vm->retries = 0;
		if (!vm_reachable(vm)) {
			vm->retry = sd_event_source_disable_unref(vm->retry);
			_unused_ int r = vm_probe(vm, NULL);
		}
	}
	return 0;
}

/* Cuts the last name off path, which becomes the directory above it ("/" at the end), and copies it
 * to name. */
static void split_last(char *path, char *name, size_t size)
{
	char *slash = strrchr(path, '/');

	snprintf(name, size, "%s", slash + 1);
	slash[slash == path] = '\0';
}

/* Watches the nearest directory above the socket that exists, for the next name on the way. */
static void watch_socket(struct vm *vm)
{
	const uint32_t mask = IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
	char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int r;

	snprintf(dir, sizeof(dir), "%s", vm->qmp);
	vm->watch = sd_event_source_disable_unref(vm->watch);
	do {
		split_last(dir, vm->watched, sizeof(vm->watched));
		r = sd_event_add_inotify(vm->broker->event, &vm->watch, dir, mask, on_inotify, vm);
	} while (r < 0 && strcmp(dir, "/") != 0);
	if (r < 0) {
		log_warn("vm %s: can't watch %s: %s; it is noticed when something asks for it",
			vm->name, vm->qmp, strerror(-r));
	}
}

static int on_ways_turn(sd_event_source *source, void *userdata)
{
	struct vm *vm = userdata;

	vm->ways_turn = sd_event_source_disable_unref(vm->ways_turn);
	if (vm->over && vm->n_leases == 0 && !vm->broker->stopping) {
		struct refusal_text text = {0};

		_unused_ int r = vm_remove(vm, &text);
		return 0;
	}
	if (ways_connected(vm->ways)) {
		set_state(vm, VM_UP, "");
		reconcile(vm);
	} else if (vm->state != VM_GONE) {
		vm->vmm_pid = 0;
		became_gone(vm, NOBODY_CONNECTED);
	}
	vm_changed(vm);
	return 0;
}

void vm_ways_changed(struct vm *vm)
{
	if (!vm->ways || vm->ways_turn) {
		return;
	}
	/* From the loop: what is done then may end leases, and with them what brought us here. */
	if (sd_event_add_defer(vm->broker->event, &vm->ways_turn, on_ways_turn, vm) < 0) {
		log_error("vm %s: out of memory", vm->name);
	}
}

void vm_lease_ended(struct vm *vm)
{
	vm->over = vm->is_export;
	vm_ways_changed(vm);
}

void vm_remove_unused_exports(struct broker *b)
{
	struct vm *vm;

	list_for_each (vm, &b->vms, link) {
		if (vm->is_export && vm->n_leases == 0) {
			vm_lease_ended(vm);
		}
	}
}

int vm_check_ways(const struct vm *vm, struct refusal_text *text)
{
	if (!vm->ways || vm->n_leases < ways_count(vm->ways)) {
		return 0;
	}
	return refuse_with(text, REFUSAL_QUOTA,
		"Take a device out first (devbroker detach), or give the VM more slots.",
		"vm %s: all of its %u slot%s are in use", vm->name, ways_count(vm->ways),
		ways_count(vm->ways) == 1 ? "" : "s");
}

static int add_ways(struct vm *vm, const struct vm_options *o, struct refusal_text *text)
{
	const struct ways_options options = {
		.ways = o->ways, .listen_fd = o->listen_fd, .lasting = !o->is_export || o->keep};
	char where[STREAM_ADDRESS_TEXT];
	int r = ways_create(vm, &options, &vm->ways, where);

	vm->is_export = o->is_export;
	vm->keep = o->keep;
	if (r == -EADDRINUSE) {
		return refuse_with(text, REFUSAL_BUSY, "Use another one, or end what is there.",
			"%s: something else is there", where);
	}
	return r < 0 ? refuse_with(text, REFUSAL_NOT_SUPPORTED,
			       "See that the path, its group or the address exist on this host.",
			       "vm %s: can't listen%s%s: %s", o->name, where[0] ? " at " : "",
			       where, strerror(-r))
		     : 0;
}

int vm_add(struct broker *b, const struct vm_options *o, struct vm **out, struct refusal_text *text)
{
	char pool[GPU_POOL_NAME_SIZE];
	struct vm *vm;
	int r = vm_options_check(b, o, pool, text);

	if (r != 0) {
		return r;
	}
	vm = calloc(1, sizeof(*vm));
	if (!vm) {
		return -ENOMEM;
	}
	*vm = (struct vm){
		.broker = b,
		.from_config = o->from_config,
		.owners = o->owners ? *o->owners : (struct owners){0},
		.limits = o->limits,
		.devices = {.name = "devices", .limit = o->limits.devices},
		.bytes = {.name = "bytes-in-flight",
			.limit = o->limits.devices * o->limits.bytes_in_flight},
		.transfers = {.name = "transfers-in-flight",
			.limit = (uint64_t)o->limits.devices * o->limits.transfers_in_flight},
		.gpu_memory = {.name = "gpu-memory", .limit = o->gpu_memory},
		.gpu_limits = o->gpu_limits,
		.vmm_pidfd = -1,
	};
	vm_pace_init(&vm->pace);
	list_init(&vm->link);
	list_init(&vm->leases);
	list_init(&vm->qmp_queue);
	list_init(&vm->waiters);
	vm->name = strdup(o->name);
	vm->qmp = o->qmp ? strdup(o->qmp) : NULL;
	vm->bus = strdup(o->ways ? "" : o->bus ? o->bus : "xhci.0");
	if (!vm->name || (o->qmp && !vm->qmp) || !vm->bus) {
		vm_destroy(vm);
		return -ENOMEM;
	}
	r = vm_pace_apply(vm);
	if (r == 0 && o->ways) {
		r = add_ways(vm, o, text);
	}
	if (r != 0) {
		vm_destroy(vm);
		return r;
	}
	r = o->gpu_memory > 0 ? gpu_create(vm, o, pool, &vm->gpu) : 0;
	if (r < 0) {
		vm_destroy(vm);
		return refuse_with(text, REFUSAL_NOT_SUPPORTED,
			"See that the run directory can be written to.",
			"vm %s: its GPU's socket can't be made: %s", o->name, strerror(-r));
	}
	list_append(&b->vms, &vm->link);
	b->n_vms++;
	if (vm->qmp) {
		watch_socket(vm);
	}
	snprintf(vm->detail, sizeof(vm->detail), "%s", vm->qmp ? NOBODY_ANSWERS : NOBODY_CONNECTED);
	bus_vm_added(b, vm);
	_unused_ int probed = vm_probe(vm, NULL);
	usb_host_reconcile_all(b);
	if (!o->from_config) {
		vm_note(vm, o);
	}
	*out = vm;
	return 0;
}

int vm_remove(struct vm *vm, struct refusal_text *text)
{
	if (vm->n_leases > 0) {
		return refuse(text, REFUSAL_BUSY, "vm %s has %u device%s", vm->name, vm->n_leases,
			vm->n_leases == 1 ? "" : "s");
	}
	bus_vm_removed(vm->broker, vm);
	vm_forget_note(vm);
	vm_destroy(vm);
	return 0;
}

void vm_usage_add(struct vm_usage *u, const struct worker_pong *p)
{
	u->transfers += p->transfers;
	u->bytes_in += p->bytes_in;
	u->bytes_out += p->bytes_out;
	u->refused += p->refused;
	u->errors += p->errors;
}

void vm_destroy(struct vm *vm)
{
	if (!vm) {
		return;
	}
	assert(vm->n_leases == 0 && vm->devices.used == 0 && vm->bytes.used == 0 &&
		vm->transfers.used == 0);
	if (!list_empty(&vm->link)) {
		list_remove(&vm->link);
		vm->broker->n_vms--;
	}
	gpu_destroy(vm->gpu);
	ways_destroy(vm->ways);
	sd_event_source_disable_unref(vm->ways_turn);
	qmp_cancel_all(vm);
	answer_waiters(vm);
	forget_vmm(vm);
	sd_event_source_disable_unref(vm->watch);
	sd_event_source_disable_unref(vm->retry);
	vm_pace_finish(&vm->pace);
	free(vm->name);
	free(vm->qmp);
	free(vm->bus);
	free(vm);
}
