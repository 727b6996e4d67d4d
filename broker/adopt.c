/* SPDX-License-Identifier: MIT
 *
 * A broker that is killed, or replaced by a new version, leaves workers that go on serving. The
 * next one finds them before it lends anything, so that no device is ever lent twice:
 *
 *   1. It reads the records (broker/lease-keep.c) and connects to each worker's socket. Only the
 *      broker's user gets into that directory. The worker itself has called listen(2), so
 *      SO_PEERCRED is the worker's pid, from the kernel.
 *   2. It opens a pidfd of that pid, and only then sends ADOPT with the cookie. A worker answers it
 *      with HELD and the cookie; so it lived after the pidfd was opened, and the pid was not
 *      another process's by then.
 *   3. Where device and VM are what they were, worker and lease go on; broker/lease-adopt.c.
 *      Otherwise the worker is told to end: the guest sees the device go.
 *   4. Where the worker is gone, so is what it had of the device (claims, locks). The host's
 *      drivers come back as broker/usb-claim.c says, and what was to be lent is lent again.
 *
 * Nothing of this waits for a worker without bound, and nothing of it happens after start.
 */
#include "broker/adopt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device-disk.h"
#include "broker/device.h"
#include "broker/lease-keep.h"
#include "broker/process.h"
#include "broker/vm.h"
#include "broker/ways.h"
#include "broker/worker.h"

/* After SIGKILL; a process in the kernel's hands may need longer, and is then not waited for. */
#define KILL_WITHIN_MS 1000

static void adoption_destroy(struct adoption *a)
{
	list_remove(&a->link);
	safe_close(a->control);
	safe_close(a->pidfd);
	safe_close(a->image_fd);
	free(a);
}

static int connect_to(const char *path)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (fd < 0) {
		return -errno;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	return connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno
									     : steal_fd(&fd);
}

static uint32_t slot_of(const struct broker *b, uid_t uid)
{
	return uid >= b->uid_base && uid - b->uid_base < MIN(b->uid_count, BROKER_WORKERS_MAX)
		       ? uid - b->uid_base
		       : PROCESS_NO_SLOT;
}

static void decode_cookie(const char *text, uint8_t cookie[WORKER_COOKIE_SIZE])
{
	for (size_t i = 0; i < WORKER_COOKIE_SIZE; i++) {
		const char digits[] = {text[2 * i], text[2 * i + 1], '\0'};

		cookie[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
}

/* Steps 1 and 2, up to the question. */
static int ask(struct broker *b, struct adoption *a)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct ucred peer;
	socklen_t len = sizeof(peer);
	union worker_msg m;
	size_t size = worker_msg_init(&m, WORKER_MSG_ADOPT);
	int r = lease_socket_path(b, a->record.id, path, sizeof(path));

	if (r < 0) {
		return r;
	}
	a->control = connect_to(path);
	if (a->control < 0) {
		return a->control;
	}
	if (getsockopt(a->control, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
		return -errno;
	}
	/* The number may be missing in a record that was written while it was starting. */
	if (peer.pid <= 0 || (a->record.worker && (uint64_t)peer.pid != a->record.worker)) {
		return -ESRCH;
	}
	a->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	if (a->pidfd < 0) {
		return -errno;
	}
	a->pid = peer.pid;
	a->uid_slot = slot_of(b, peer.uid);
	decode_cookie(a->record.cookie, m.adopt.cookie);
	return fd_send(a->control, &m, size, NULL, 0);
}

/* Its answer. -EAGAIN: not yet. */
static int hear(struct adoption *a)
{
	uint8_t cookie[WORKER_COOKIE_SIZE];
	union worker_msg raw, m;
	size_t n_fds = 0;
	int fd = -1;
	ssize_t n = fd_recv(a->control, &raw, sizeof(raw), &fd, 1, &n_fds);

	if (n <= 0) {
		return n < 0 ? (int)n : -EPIPE;
	}
	a->image_fd = n_fds == 1 ? fd : -1;
	decode_cookie(a->record.cookie, cookie);
	if (worker_msg_decode(WORKER_TO_BROKER, &raw, (size_t)n, &m) < 0 ||
		m.header.type != WORKER_MSG_HELD || m.held.version != WORKER_PROTOCOL_VERSION ||
		memcmp(m.held.cookie, cookie, sizeof(cookie)) != 0) {
		return -EBADMSG;
	}
	a->says = m.held;
	a->held = true;
	return 0;
}

/* Whether the other end is still open, and so its process not another one. */
static bool hung_up(const struct adoption *a)
{
	struct pollfd p = {.fd = a->control};

	return a->control < 0 || poll(&p, 1, 0) < 0 || p.revents & (POLLHUP | POLLERR);
}

/* No sense can be made of it: if it lives, it ends. */
static void give_up(struct adoption *a, int error)
{
	struct pollfd p = {.fd = a->pidfd, .events = POLLIN};

	if (a->pidfd >= 0 && !hung_up(a)) {
		log_warn("%s: worker %d of an earlier devbrokerd: %s; ending it", a->record.device,
			(int)a->pid, strerror(-error));
		syscall(SYS_pidfd_send_signal, a->pidfd, SIGKILL, NULL, 0);
		/* Before its device is lent again. */
		poll(&p, 1, KILL_WITHIN_MS);
	}
	a->control = safe_close(a->control);
	a->pidfd = safe_close(a->pidfd);
	a->image_fd = safe_close(a->image_fd);
}

static void wait_for_answers(struct broker *b)
{
	uint64_t deadline = now_usec() + ADOPT_WITHIN_USEC;
	struct adoption *a;

	list_for_each (a, &b->adoptions, link) {
		struct pollfd p = {.fd = a->control, .events = POLLIN};
		int r = -EAGAIN;

		/* One after the other: all were asked before. */
		while (a->control >= 0 && r == -EAGAIN) {
			uint64_t now = now_usec();
			int ms = now < deadline ? (int)((deadline - now) / 1000) + 1 : 0;

			r = poll(&p, 1, ms) == 0 ? -ETIMEDOUT : hear(a);
		}
		if (a->control >= 0 && r < 0) {
			give_up(a, r);
		}
	}
}

static void on_record(void *userdata, const char *name, const void *record)
{
	struct broker *b = userdata;
	struct adoption *a = calloc(1, sizeof(*a));
	int r;

	if (!a) {
		log_error("devbrokerd: out of memory; lease %s is left alone", name);
		return;
	}
	memcpy(&a->record, record, sizeof(a->record));
	list_init(&a->link);
	a->control = a->pidfd = a->image_fd = -1;
	a->uid_slot = PROCESS_NO_SLOT;
	list_append(&b->adoptions, &a->link);
	r = a->record.cookie[0] ? ask(b, a) : 0;
	if (r < 0) {
		give_up(a, r);
	}
}

int adopt_begin(struct broker *b)
{
	int r = record_each(b->run_dir, &lease_record_kind, on_record, b);

	wait_for_answers(b);
	return r;
}

bool adopt_expects(const struct broker *b, const char *prefix, const char *name)
{
	const struct adoption *a;
	size_t n = strlen(prefix);

	list_for_each (a, &b->adoptions, link) {
		if (a->held && strncmp(a->record.device, prefix, n) == 0 &&
			strcmp(a->record.device + n, name) == 0) {
			return true;
		}
	}
	return false;
}

static void forget(struct broker *b, const struct adoption *a)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

	record_remove(b->run_dir, &lease_record_kind, a->record.id);
	if (lease_socket_path(b, a->record.id, path, sizeof(path)) == 0) {
		unlink(path);
	}
}

/* Its worker is gone: what was to be lent is lent again. Rules decide anew by themselves. */
static void lend_again(struct adoption *a, struct device *d, struct vm *vm)
{
	const struct lease_record *r = &a->record;
	struct refusal_text text = {0};
	bool releasing = strcmp(r->state, lease_state_name(LEASE_RELEASING)) == 0;
	int e;

	if (r->options.by_policy || (releasing && !r->retry) ||
		(vm->is_export && !ways_lasting(vm->ways) && r->cookie[0])) {
		return;
	}
	if (r->cookie[0]) {
		log_warn("%s: its worker ended with an earlier devbrokerd; vm %s gets it again",
			d->name, vm->name);
	}
	/* A worker that was just ending may have its image for a moment. */
	e = lease_decide(d, vm, &r->options, &text);
	if (e != 0) {
		log_warn("%s: not attached to vm %s: %s", d->name, vm->name,
			e < 0 ? strerror(-e) : text.sentence);
	}
}

/* A worker that was told to end, and is of no other interest. */
struct ending {
	struct broker *broker;
	char vm[64];
	struct worker *worker;
};

static void on_ended(void *userdata, enum worker_end end, int status)
{
	struct ending *e = userdata;
	struct vm *vm = broker_vm_named(e->broker, e->vm);

	worker_destroy(e->worker);
	if (vm) {
		/* That takes away what is left of it in the VMM. */
		_unused_ int r = vm_probe(vm, NULL);
	}
	free(e);
}

static void on_message(void *userdata, const union worker_msg *m)
{
}

static const struct worker_ops ending_ops = {.message = on_message, .ended = on_ended};

static void end_worker(struct broker *b, struct adoption *a)
{
	struct ending *e = calloc(1, sizeof(*e));
	int r = e ? worker_adopt(b, SPAWNER_USB, a->record.device, steal_fd(&a->control), a->pid,
			    steal_fd(&a->pidfd), a->uid_slot, &ending_ops, e, &e->worker)
		  : -ENOMEM;

	if (r < 0) {
		/* It ends when its broker has gone for long enough. */
		log_error("%s: can't end its worker: %s", a->record.device, strerror(-r));
		free(e);
		return;
	}
	log_warn("%s: it is not here as it was, or vm %s is not known any more; its worker %d ends",
		a->record.device, a->record.vm, (int)a->pid);
	e->broker = b;
	memcpy(e->vm, a->record.vm, sizeof(e->vm));
	worker_unplugged(e->worker);
	worker_detach(e->worker);
}

/* A disk that a client had added: its image comes from its worker. */
static struct device *device_of(struct broker *b, struct adoption *a)
{
	struct device *d = broker_device_named(b, a->record.device);

	if (!d && (a->image_fd >= 0 || (a->held && a->record.nbd))) {
		d = device_disk_recreate(b, &a->record, steal_fd(&a->image_fd));
	}
	return d;
}

/* False: that can't be now. */
static bool adopt_one(struct broker *b, struct adoption *a)
{
	struct device *d = device_of(b, a);
	struct vm *vm = broker_vm_named(b, a->record.vm);

	if (!d || !vm || d->lease) {
		return false;
	}
	if (a->held) {
		return lease_adopt(a, d, vm) == 0;
	}
	forget(b, a);
	lend_again(a, d, vm);
	return true;
}

void adopt_leases(struct broker *b, const char *prefix)
{
	struct adoption *a, *next;

	list_for_each_safe (a, next, &b->adoptions, link) {
		if (strncmp(a->record.device, prefix, strlen(prefix)) == 0 && adopt_one(b, a)) {
			adoption_destroy(a);
		}
	}
}

void adopt_finish(struct broker *b)
{
	struct adoption *a, *next;

	list_for_each_safe (a, next, &b->adoptions, link) {
		if (a->held) {
			end_worker(b, a);
		} else {
			log_warn("%s: it was lent to vm %s by an earlier devbrokerd, and is not "
				 "here any more",
				a->record.device, a->record.vm);
		}
		forget(b, a);
		adoption_destroy(a);
	}
	vm_remove_unused_exports(b);
}
