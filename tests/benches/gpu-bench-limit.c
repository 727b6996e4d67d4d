/* SPDX-License-Identifier: MIT
 *
 * What tests/bench gpu-2d is held against: the same bytes through the same kind of socket, read by
 * the same display; the same bytes copied once; each frame copied and then sent, which is what a
 * backend has to do that keeps what it was given; and two processes that wake each other.
 */
#include "tests/benches/gpu-bench.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"

#define PINGS 20000

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* 0 in the child, which is on the backend's CPU and ends with this process. */
static pid_t child(void)
{
	pid_t pid = fork();

	if (pid < 0) {
		bench_fail("no process");
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bench_pin(BENCH_CPU_BACKEND);
	}
	return pid;
}

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		bench_fail("out of memory");
	}
	memset(p, 1, size);
	return p;
}

static void send_all(int fd, struct iovec *iov, size_t n)
{
	while (n > 0) {
		ssize_t sent = writev(fd, iov, (int)n);

		if (sent < 0) {
			_exit(0); /* the reader has seen enough */
		}
		while (n > 0 && (size_t)sent >= iov->iov_len) {
			sent -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + sent;
			iov->iov_len -= (size_t)sent;
		}
	}
}

struct tally {
	uint64_t frames, cpu;
};

/* Frames as a backend sends them, and what each costs, for ever. guest (may be NULL): each is
 * copied from there first. */
static void send_frames(
	int fd, const struct bench_size *size, void *pixels, const void *guest, struct tally *t)
{
	size_t bytes = (size_t)size->width * size->height * 4;
	struct {
		struct display_header h;
		struct display_scanout scanout;
	} on = {{DISPLAY_SCANOUT, 0, sizeof(on.scanout)}, {0, size->width, size->height}};
	struct {
		struct display_header h;
		struct display_update update;
	} up = {{DISPLAY_UPDATE, 0, (uint32_t)(sizeof(up.update) + bytes)},
		{0, 0, 0, size->width, size->height}};
	struct iovec first = {&on, sizeof(on)};

	signal(SIGPIPE, SIG_IGN);
	send_all(fd, &first, 1);
	for (;;) {
		struct iovec iov[2] = {{&up, sizeof(up)}, {pixels, bytes}};

		if (guest) {
			memcpy(pixels, guest, bytes);
		}
		send_all(fd, iov, 2);
		t->cpu = cpu_ns();
		t->frames++;
	}
}

static void socket_limit(const struct bench_size *size, void *pixels, const void *guest,
	struct tally *t, uint64_t for_ns, double *per_s, double *cpu_ms)
{
	struct sim_screen s;
	struct tally before;
	uint64_t begin, until, frames;
	int fd;
	pid_t pid;

	sim_screen_init(&s, size->width, size->height);
	s.drop_pixels = true;
	fd = sim_screen_connect(&s);
	*t = (struct tally){0};
	pid = child();
	if (pid == 0) {
		s.fd = safe_close(s.fd);
		send_frames(fd, size, pixels, guest, t);
	}
	close(fd);
	begin = now_ns();
	until = begin + for_ns / 5;
	before = *t;
	frames = 0;
	for (int part = 0; part < 2; part++) {
		while (now_ns() < until) {
			struct pollfd p = {.fd = s.fd, .events = POLLIN};

			if (poll(&p, 1, 1000) != 1 || !sim_screen_read(&s)) {
				bench_fail("the socket ended");
			}
		}
		if (part == 0) {
			before = *t;
			frames = s.scanouts[0].n_updates;
			begin = now_ns();
			until = begin + for_ns;
		}
	}
	*per_s = (double)(s.scanouts[0].n_updates - frames) * 1e9 / (double)(now_ns() - begin);
	*cpu_ms = (double)(t->cpu - before.cpu) / (double)MAX(t->frames - before.frames, 1U) / 1e6;
	sim_screen_finish(&s);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static double copy_limit(const struct bench_size *size, void *from, uint64_t for_ns)
{
	size_t bytes = (size_t)size->width * size->height * 4;
	uint8_t *to = shared(bytes);
	struct tally *t = shared(sizeof(*t));
	pid_t pid = child();
	double ms;

	if (pid == 0) {
		uint64_t begin = cpu_ns();

		for (t->frames = 0; cpu_ns() - begin < for_ns / 4; t->frames++) {
			memcpy(to, from, bytes);
			__asm__ volatile("" ::"r"(to) : "memory");
		}
		t->cpu = cpu_ns() - begin;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	ms = (double)t->cpu / (double)MAX(t->frames, 1U) / 1e6;
	munmap(to, bytes);
	munmap(t, sizeof(*t));
	return ms;
}

static void ping_limit(void)
{
	int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
	struct bench_samples samples = {0};
	uint64_t one = 1, begin;
	pid_t pid = child();

	if (pid == 0) {
		while (read(there, &one, sizeof(one)) > 0 && write(back, &one, sizeof(one)) > 0) {
		}
		_exit(0);
	}
	begin = now_ns();
	for (int i = 0; i < PINGS; i++) {
		uint64_t at = now_ns();

		if (write(there, &one, sizeof(one)) < 0 || read(back, &one, sizeof(one)) < 0) {
			bench_fail("no eventfd");
		}
		one = 1;
		bench_add(&samples, now_ns() - at);
	}
	printf("{\"ping_per_s\": %.1f", PINGS * 1e9 / (double)(now_ns() - begin));
	printf(", \"ping_p50_us\": %.2f", bench_percentile(&samples, 50));
	printf(", \"ping_p99_us\": %.2f", bench_percentile(&samples, 99));
	bench_forget(&samples);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(there);
	close(back);
}

void bench_limits(uint64_t for_ns)
{
	struct tally *t = shared(sizeof(*t));

	ping_limit();
	for (size_t i = 0; i < ARRAY_SIZE(bench_sizes); i++) {
		const struct bench_size *size = &bench_sizes[i];
		size_t bytes = (size_t)size->width * size->height * 4;
		void *pixels = shared(bytes), *guest = shared(bytes);
		double per_s, cpu_ms, copy_ms, both_per_s, both_ms;
		char name[32];

		snprintf(name, sizeof(name), "frames_%ux%u", size->width, size->height);
		socket_limit(size, pixels, NULL, t, for_ns, &per_s, &cpu_ms);
		socket_limit(size, pixels, guest, t, for_ns, &both_per_s, &both_ms);
		copy_ms = copy_limit(size, pixels, for_ns);
		printf(", \"%s_per_s\": %.2f, \"%s_send_ms\": %.4f, \"%s_copy_ms\": %.4f", name,
			per_s, name, cpu_ms, name, copy_ms);
		printf(", \"%s_both_per_s\": %.2f, \"%s_both_ms\": %.4f", name, both_per_s, name,
			both_ms);
		munmap(pixels, bytes);
		munmap(guest, bytes);
	}
	printf("}\n");
	munmap(t, sizeof(*t));
}
