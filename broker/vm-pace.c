/* SPDX-License-Identifier: MIT */
#include "broker/vm-pace.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/lease.h"
#include "broker/vm.h"
#include "broker/worker.h"
#include "protocol/pace.h"

void vm_pace_init(struct vm_pace *p)
{
	*p = (struct vm_pace){.fd = -1};
}

void vm_pace_finish(struct vm_pace *p)
{
	if (p->page) {
		munmap(p->page, sizeof(*p->page));
	}
	safe_close(p->fd);
	vm_pace_init(p);
}

/* Sealed, so that no worker can take it from under us. */
static int create(struct vm_pace *p)
{
	_cleanup_close_ int fd = memfd_create("usb-pace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *page;

	if (fd < 0 || ftruncate(fd, sizeof(*p->page)) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		return -errno;
	}
	page = mmap(NULL, sizeof(*p->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		return -errno;
	}
	p->page = page;
	p->fd = steal_fd(&fd);
	return 0;
}

int vm_pace_apply(struct vm *vm)
{
	const struct quota_limits *l = &vm->limits;
	bool is_new = !vm->pace.page;
	struct lease *lease, *tmp;
	int r = 0;

	if (is_new) {
		if (l->bandwidth == 0 && l->transfer_rate == 0) {
			return 0;
		}
		r = create(&vm->pace);
	}
	if (r < 0) {
		return r;
	}
	pace_set(vm->pace.page, l->bandwidth, l->transfer_rate);
	if (is_new) {
		list_for_each_safe (lease, tmp, &vm->leases, link) {
			if (lease->worker && lease->worker->ready) {
				vm_pace_tell(vm, lease->worker);
			}
		}
	}
	return 0;
}

void vm_pace_tell(struct vm *vm, struct worker *w)
{
	int r = vm->pace.page ? worker_pace(w, vm->pace.fd) : 0;

	if (r < 0) {
		log_warn("%s: vm %s: can't tell its worker the VM's limits: %s; ending it", w->name,
			vm->name, strerror(-r));
		worker_kill(w);
	}
}

void vm_pace_used(const struct vm *vm, uint64_t *bytes_out, uint64_t *transfers_out)
{
	const struct lease *l;

	*bytes_out = *transfers_out = 0;
	list_for_each (l, &vm->leases, link) {
		if (l->worker) {
			*bytes_out += l->worker->bytes_in_per_sec + l->worker->bytes_out_per_sec;
			*transfers_out += l->worker->transfers_per_sec;
		}
	}
}
