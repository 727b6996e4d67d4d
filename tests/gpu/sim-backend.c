/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim-backend.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

#define ARGS_MAX 16

/* The child's part. The stock backend daemonizes nothing and reads nothing from stdin. */
static void become(const char *const *argv, int cpu, bool quiet, int fd)
{
	const char *args[ARGS_MAX + 2];
	char option[24];
	size_t n = 0;
	cpu_set_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (n < ARGS_MAX && argv[n]) {
		args[n] = argv[n];
		n++;
	}
	snprintf(option, sizeof(option), "--fd=%d", fd);
	args[n++] = option;
	args[n] = NULL;
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET((size_t)cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	if (quiet) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
	if (fd_set_cloexec(fd, false) == 0) {
		execv(args[0], (char *const *)args);
	}
	_exit(127);
}

int sim_backend_start(const char *const *argv, int cpu, bool quiet, struct sim_backend *out)
{
	int pair[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	pid = fork();
	if (pid == 0) {
		become(argv, cpu, quiet, pair[1]);
	}
	r = pid < 0 ? -errno : 0;
	safe_close(pair[1]);
	if (r < 0) {
		safe_close(pair[0]);
		return r;
	}
	*out = (struct sim_backend){.pid = pid, .vhost = pair[0]};
	out->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

int sim_backend_connect(const char *path, struct sim_backend *out)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(a.sun_path)) {
		return -ENAMETOOLONG;
	}
	strcpy(a.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		return -errno;
	}
	*out = (struct sim_backend){.pid = -1, .pidfd = -1, .vhost = steal_fd(&fd)};
	return 0;
}

int sim_backend_wait(struct sim_backend *b, int ms)
{
	struct pollfd p = {.fd = b->pidfd, .events = POLLIN};
	int status;

	if (b->pid < 0 || poll(&p, 1, ms) <= 0 || waitpid(b->pid, &status, 0) != b->pid) {
		return -1;
	}
	b->pid = -1;
	b->pidfd = safe_close(b->pidfd);
	return status;
}

void sim_backend_stop(struct sim_backend *b)
{
	b->vhost = safe_close(b->vhost);
	if (b->pid < 0) {
		return;
	}
	/* It has to end by itself: its VMM is gone. */
	if (sim_backend_wait(b, 2000) < 0) {
		kill(b->pid, SIGKILL);
		sim_backend_wait(b, -1);
	}
}

/* Appends the children of pids[at]. */
static size_t append_children(pid_t pids[], size_t at, size_t n)
{
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pids[at], pids[at]);
	f = fopen(path, "re");
	while (f && n < SIM_PROCESSES_MAX && fscanf(f, "%d", &pid) == 1) {
		pids[n++] = pid;
	}
	if (f) {
		fclose(f);
	}
	return n;
}

size_t sim_backend_processes(const struct sim_backend *b, pid_t pids[SIM_PROCESSES_MAX])
{
	size_t n = 0;

	if (b->pid >= 0) {
		pids[n++] = b->pid;
	}
	for (size_t i = 0; i < n; i++) {
		n = append_children(pids, i, n);
	}
	return n;
}

pid_t sim_backend_find(const struct sim_backend *b, const char *option)
{
	pid_t pids[SIM_PROCESSES_MAX];
	size_t n = sim_backend_processes(b, pids);

	for (size_t i = 0; i < n; i++) {
		char path[64], line[1024] = "";
		_cleanup_close_ int fd = -1;
		ssize_t size;

		snprintf(path, sizeof(path), "/proc/%d/cmdline", pids[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		size = fd >= 0 ? read(fd, line, sizeof(line)) : 0;
		if (size > 0 && memmem(line, (size_t)size, option, strlen(option) + 1)) {
			return pids[i];
		}
	}
	return -1;
}

/* The first number of a file, 0 without one. skip: of its words. */
static uint64_t number_in(const char *path, int skip)
{
	unsigned long long value = 0;
	FILE *f = fopen(path, "re");

	for (int i = 0; f && i <= skip; i++) {
		if (fscanf(f, "%llu", &value) != 1) {
			value = 0;
			break;
		}
	}
	if (f) {
		fclose(f);
	}
	return value;
}

/* Calls count on each entry of a folder of each process; the sum. */
static uint64_t sum_entries(const struct sim_backend *b, const char *folder, bool schedstat)
{
	pid_t pids[SIM_PROCESSES_MAX];
	size_t n = sim_backend_processes(b, pids);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		char path[64], file[384];
		struct dirent *e;
		DIR *d;

		snprintf(path, sizeof(path), "/proc/%d/%s", pids[i], folder);
		d = opendir(path);
		while (d && (e = readdir(d))) {
			if (e->d_name[0] == '.') {
				continue;
			}
			snprintf(file, sizeof(file), "%s/%s/schedstat", path, e->d_name);
			sum += schedstat ? number_in(file, 0) : 1;
		}
		if (d) {
			closedir(d);
		}
	}
	return sum;
}

uint64_t sim_backend_cpu_ns(const struct sim_backend *b)
{
	return sum_entries(b, "task", true);
}

unsigned int sim_backend_fds(const struct sim_backend *b)
{
	return (unsigned int)sum_entries(b, "fd", false);
}

uint64_t sim_backend_rss(const struct sim_backend *b)
{
	pid_t pids[SIM_PROCESSES_MAX];
	size_t n = sim_backend_processes(b, pids);
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/statm", pids[i]);
		sum += number_in(path, 1) * (uint64_t)sysconf(_SC_PAGESIZE);
	}
	return sum;
}
