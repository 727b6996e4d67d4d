/* SPDX-License-Identifier: MIT */
#include "broker/gpu-reserve.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/quota.h"
#include "broker/vm.h"

#define RESERVATIONS_MAX 256
#define BYTES_MIN        (UINT64_C(16) << 20)

struct reservation {
	struct list link; // gpu_reservations::all
	struct gpu_reservations *of;
	struct vm *vm;
	struct charge charge;
	int fd;
	sd_event_source *source;
};

static void end(struct reservation *r)
{
	list_remove(&r->link);
	r->of->n--;
	charge_return(&r->charge);
	sd_event_source_disable_unref(r->source);
	safe_close(r->fd);
	free(r);
}

/* Nothing is read: what a holder writes stays in its own socket. */
static int on_hangup(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct reservation *r = userdata;
	struct vm *vm = r->vm;

	(void)source;
	(void)fd;
	(void)revents;
	end(r);
	vm_changed(vm);
	return 0;
}

void gpu_reservations_init(struct gpu_reservations *r)
{
	list_init(&r->all);
	r->n = 0;
}

void gpu_reservations_finish(struct gpu_reservations *r)
{
	struct reservation *one, *next;

	list_for_each_safe (one, next, &r->all, link) {
		end(one);
	}
}

int gpu_reservations_add(struct gpu_reservations *r, struct vm *vm, uint64_t bytes, int *fd_out,
	struct refusal_text *text)
{
	struct reservation *one;
	int pair[2], err;

	if (bytes < BYTES_MIN) {
		return refuse(text, REFUSAL_INVALID, "less than 16 MiB can't be reserved");
	}
	if (r->n >= RESERVATIONS_MAX) {
		return refuse(text, REFUSAL_QUOTA, "vm %s: %d reservations are the most", vm->name,
			RESERVATIONS_MAX);
	}
	one = calloc(1, sizeof(*one));
	if (!one) {
		return -ENOMEM;
	}
	err = charge_take(&one->charge, &vm->gpu_memory, bytes, vm->name, text);
	if (err != 0) {
		free(one);
		return err;
	}
	one->of = r;
	one->vm = vm;
	one->fd = -1;
	list_init(&one->link);
	list_append(&r->all, &one->link);
	r->n++;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		err = -errno;
		end(one);
		return err;
	}
	one->fd = pair[0];
	err = sd_event_add_io(vm->broker->event, &one->source, one->fd, EPOLLHUP, on_hangup, one);
	if (err < 0) {
		end(one);
		safe_close(pair[1]);
		return err;
	}
	*fd_out = pair[1];
	vm_changed(vm);
	return 0;
}
