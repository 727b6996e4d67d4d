/* SPDX-License-Identifier: MIT
 *
 * A renderer may do to its ends of the bells what it likes, and the broker must not wait for it:
 * so they are socket pairs and not eventfds, of which the other side could make a write or a read
 * wait. One that rings all the time is not listened to all the time.
 */
#include "broker/gpu-allowance.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "broker/config.h"
#include "protocol/allowance.h"

/* More than a socket holds. */
#define RINGS_MAX 1024

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

/* Their end, which does not wait unless they make it. */
static int make_bell(int *ours_out)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	*ours_out = pair[0];
	return pair[1];
}

int gpu_allowance_connect(struct gpu_allowance *a, sd_event *event, sd_event_io_handler_t wanted,
	void *userdata, int fds_out[static GPU_ALLOWANCE_FDS])
{
	_cleanup_close_ int grant = -1, want = -1;
	int r;

	disconnect(a);
	grant = make_bell(&a->grant);
	want = grant < 0 ? grant : make_bell(&a->want);
	if (want < 0) {
		return want;
	}
	r = sd_event_add_io(event, &a->want_source, a->want, EPOLLIN, wanted, userdata);
	if (r < 0) {
		return r;
	}
	/* The last renderer may have written anything there. */
	a->page->version = ALLOWANCE_VERSION;
	fds_out[0] = a->fd;
	fds_out[1] = steal_fd(&grant);
	fds_out[2] = steal_fd(&want);
	return 0;
}

void gpu_allowance_heard(struct gpu_allowance *a)
{
	sd_event_source_set_enabled(a->want_source, SD_EVENT_OFF);
}

void gpu_allowance_listen(struct gpu_allowance *a)
{
	uint64_t any;
	ssize_t n;

	if (!a->want_source) {
		return;
	}
	for (int i = 0; i < RINGS_MAX; i++) {
		n = recv(a->want, &any, sizeof(any), MSG_DONTWAIT);
		if (n < 0) {
			break;
		}
		if (n == 0) {
			a->want_source = sd_event_source_disable_unref(a->want_source);
			return;
		}
	}
	sd_event_source_set_enabled(a->want_source, SD_EVENT_ON);
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
