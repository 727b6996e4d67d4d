/* SPDX-License-Identifier: MIT */
#include "tests/gpu/gpu-paged.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "tests/gpu/sim-3d.h"

#define MEMORY (64U << 20)

static void drop(struct paged *p)
{
	allowance_unmap(p->page);
	safe_close(p->page_fd);
	safe_close(p->grant);
	safe_close(p->want);
}

static int connect_backend(struct paged *p, bool virgl, int cpu)
{
	char fds[3][16];
	const char *argv[] = {getenv("GPU_PAGED_BACKEND"), getenv("DEVBROKER_GPU"), fds[0], fds[1],
		fds[2], virgl ? "--virgl" : NULL, NULL};
	const struct sim_options o = {.argv = argv,
		.cpu = cpu,
		.memory = MEMORY,
		.width = PAGED_WIDTH,
		.height = PAGED_HEIGHT,
		.features = virgl ? SIM_FEATURES_3D : SIM_FEATURES,
		.quiet = getenv("GPU_CASE_QUIET") != NULL};

	snprintf(fds[0], sizeof(fds[0]), "%d", p->page_fd);
	snprintf(fds[1], sizeof(fds[1]), "%d", p->grant);
	snprintf(fds[2], sizeof(fds[2]), "%d", p->want);
	return sim_start(&p->sim, &o);
}

int paged_start(struct paged *p, bool virgl, int cpu)
{
	int r;

	*p = (struct paged){.page_fd = -1, .grant = -1, .want = -1};
	p->grant = eventfd(0, EFD_NONBLOCK);
	p->want = eventfd(0, EFD_NONBLOCK);
	r = p->grant < 0 || p->want < 0 ? -errno : allowance_create(&p->page_fd, &p->page);
	if (r == 0) {
		r = fd_set_cloexec(p->page_fd, false);
	}
	if (r == 0) {
		r = connect_backend(p, virgl, cpu);
	}
	if (r < 0) {
		drop(p);
	}
	return r;
}

bool paged_stop(struct paged *p)
{
	struct sim_backend *b = &p->sim.backend;
	int status;

	b->vhost = safe_close(b->vhost);
	status = sim_backend_wait(b, 5000);
	sim_stop(&p->sim);
	drop(p);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void paged_ring(struct paged *p)
{
	const uint64_t one = 1;

	_unused_ ssize_t n = write(p->grant, &one, sizeof(one));
}

void paged_grant(struct paged *p, uint64_t ns)
{
	atomic_store(&p->page->granted_ns, ns);
	paged_ring(p);
}

uint64_t paged_wanted(struct paged *p)
{
	uint64_t n = 0;

	return read(p->want, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

pid_t paged_renderer(struct paged *p, pid_t not )
{
	int64_t end = now_ms() + 20000;

	while (now_ms() < end) {
		pid_t pid = sim_backend_find(&p->sim.backend, "--renderer");

		if (pid > 0 && pid != not ) {
			return pid;
		}
		poll(NULL, 0, 5);
	}
	return -1;
}

uint64_t paged_cpu_ns(pid_t pid)
{
	clockid_t id;

	return clock_getcpuclockid(pid, &id) == 0 ? clock_ns(id) : 0;
}
