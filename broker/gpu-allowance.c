/* SPDX-License-Identifier: MIT
 *
 * A renderer may do to its ends of the bells what it likes, and the broker must not wait for it.
 * `grant` is a socket pair: whether a send waits is said with each one, while of an eventfd the
 * other side could make a write wait. `want` is an eventfd that is never read: edge-triggered epoll
 * tells of each ringing.
 */
#include "broker/gpu-allowance.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "broker/config.h"
#include "protocol/allowance.h"

void gpu_allowance_init(struct gpu_allowance *a)
{
	*a = (struct gpu_allowance){.fd = -1, .grant = -1, .want = -1};
}

int gpu_allowance_create(struct gpu_allowance *a)
{
	return allowance_create(&a->fd, &a->page);
}

static void disconnect(struct gpu_allowance *a)
{
	a->want_source = sd_event_source_disable_unref(a->want_source);
	a->want = safe_close(a->want);
	a->grant = safe_close(a->grant);
}

void gpu_allowance_finish(struct gpu_allowance *a)
{
	disconnect(a);
	allowance_unmap(a->page);
	safe_close(a->fd);
	gpu_allowance_init(a);
}

int gpu_allowance_connect(struct gpu_allowance *a, sd_event *event, sd_event_io_handler_t wanted,
	void *userdata, int fds_out[static GPU_ALLOWANCE_FDS])
{
	_cleanup_close_ int theirs = -1, want = -1;
	int pair[2], r;

	disconnect(a);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	a->grant = pair[0];
	theirs = pair[1];
	a->want = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	want = fcntl(a->want, F_DUPFD_CLOEXEC, 0);
	if (a->want < 0 || want < 0) {
		return -errno;
	}
	r = sd_event_add_io(event, &a->want_source, a->want, EPOLLIN | EPOLLET, wanted, userdata);
	if (r < 0) {
		return r;
	}
	/* The last renderer may have written anything there. */
	a->page->version = ALLOWANCE_VERSION;
	fds_out[0] = a->fd;
	fds_out[1] = steal_fd(&theirs);
	fds_out[2] = steal_fd(&want);
	return 0;
}

void gpu_allowance_ring(const struct gpu_allowance *a)
{
	const uint64_t one = 1;

	/* One that does not read what is there is awake, or does not want to be. */
	_unused_ int r = a->grant >= 0 ? fd_send(a->grant, &one, sizeof(one), NULL, 0) : 0;
}

void gpu_allowance_limit(struct gpu_allowance *a, const struct gpu_limits *l, uint64_t memory_max)
{
	struct allowance_page *p = a->page;

	if (p) {
		atomic_store(&p->frames_per_sec, l->frame_rate);
		atomic_store(&p->contexts_max, l->contexts);
		atomic_store(&p->resources_max, l->resources);
		atomic_store(&p->memory_max, memory_max);
	}
}
