/* SPDX-License-Identifier: MIT
 *
 * RUN-DIR/workers/ID is the record of a lease from its decision to its end, ID.sock the socket of
 * its worker. The record is written before what it says becomes true: a worker that is told to
 * outlive its broker can always be found.
 */
#include "broker/lease-keep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/lease-record.h"
#include "broker/lease.h"
#include "broker/vm.h"
#include "broker/ways.h"
#include "broker/worker.h"

#define USEC_PER_SEC UINT64_C(1000000)

static void format_id(const struct lease *l, char id[20])
{
	snprintf(id, 20, "%016" PRIx64, l->id);
}

int lease_socket_path(const struct broker *b, const char *id, char *out, size_t size)
{
	int n = snprintf(out, size, "%s/%s/%s.sock", b->run_dir, lease_record_kind.directory, id);

	return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int bind_socket(const struct broker *b, const char *id)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r = record_make_directory(b->run_dir, &lease_record_kind);

	if (fd < 0) {
		return -errno;
	}
	if (r == 0) {
		r = lease_socket_path(b, id, addr.sun_path, sizeof(addr.sun_path));
	}
	if (r < 0) {
		return r;
	}
	/* That of the worker before. */
	unlink(addr.sun_path);
	return bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : steal_fd(&fd);
}

int lease_keep_listen(struct lease *l)
{
	struct broker *b = l->device->broker;
	char id[20];
	int fd;

	l->kept = false;
	memset(l->cookie, 0, sizeof(l->cookie));
	if (b->config.worker_orphan_seconds == 0) {
		return -1;
	}
	format_id(l, id);
	fd = bind_socket(b, id);
	if (fd < 0) {
		log_warn("%s: its worker will end with this devbrokerd: %s", l->device->name,
			strerror(-fd));
		return -1;
	}
	/* Can't fail for 16 bytes once the pool is up. */
	_unused_ ssize_t got = getrandom(l->cookie, sizeof(l->cookie), 0);
	l->kept = true;
	return fd;
}

static void fill(const struct lease *l, struct lease_record *r)
{
	format_id(l, r->id);
	snprintf(r->device, sizeof(r->device), "%s", l->device->name);
	snprintf(r->vm, sizeof(r->vm), "%s", l->vm->name);
	snprintf(r->state, sizeof(r->state), "%s", lease_state_name(l->state));
	snprintf(r->reason, sizeof(r->reason), "%s", lease_reason_code(l->reason));
	log_escape(l->detail, strlen(l->detail), r->detail, sizeof(r->detail));
	r->retry = l->retry;
	r->tries = l->tries;
	r->plugged = l->plugged;
	r->way = l->way ? way_number(l->way) + 1 : 0;
	r->vmm = (uint64_t)l->vmm_pid;
	snprintf(r->qmp_id, sizeof(r->qmp_id), "%s", l->qmp_id);
	if (l->worker && l->kept) {
		r->worker = (uint64_t)worker_pid(l->worker);
		for (size_t i = 0; i < sizeof(l->cookie); i++) {
			snprintf(r->cookie + 2 * i, 3, "%02x", l->cookie[i]);
		}
	}
	r->bytes = l->bytes.amount;
	r->transfers = l->transfers.amount;
	r->options = l->options;
	r->asked = l->asked_usec;
	r->connect = l->connect_usec;
	r->connected_at = l->connected_at;
	r->configure = l->configure_usec;
	r->configured_at = l->configured_at;
	l->device->ops->note(l->device, r);
}

static int write_note(const struct lease *l)
{
	_cleanup_free_ struct lease_record *r = calloc(1, sizeof(*r));

	if (!r) {
		return -ENOMEM;
	}
	fill(l, r);
	return record_write(l->device->broker->run_dir, &lease_record_kind, r->id, r);
}

void lease_note(struct lease *l)
{
	int r = write_note(l);

	if (r < 0) {
		log_warn("%s: can't write down what became of it: %s. Another devbrokerd will not "
			 "know of it.",
			l->device->name, strerror(-r));
	}
}

void lease_keep_worker(struct lease *l)
{
	struct broker *b = l->device->broker;
	int r;

	if (!l->kept) {
		return;
	}
	r = write_note(l);
	if (r < 0) {
		l->kept = false;
		log_warn("%s: its worker will end with this devbrokerd: %s", l->device->name,
			strerror(-r));
		return;
	}
	worker_keep(l->worker, l->cookie, b->config.worker_orphan_seconds * USEC_PER_SEC);
}

void lease_forget_note(struct lease *l)
{
	struct broker *b = l->device->broker;
	char id[20], path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

	format_id(l, id);
	record_remove(b->run_dir, &lease_record_kind, id);
	if (lease_socket_path(b, id, path, sizeof(path)) == 0) {
		unlink(path);
	}
}
