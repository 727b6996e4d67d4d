/* SPDX-License-Identifier: MIT */
#include "broker/gpu-measure.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"

#define THREADS_MAX 256
#define CPUS_MAX    4096

int gpu_measure_cpu(pid_t pid, uint64_t *ns_out)
{
	struct timespec t;
	clockid_t clock;
	int r = clock_getcpuclockid(pid, &clock);

	if (r != 0) {
		return -r;
	}
	if (clock_gettime(clock, &t) < 0) {
		return -errno;
	}
	*ns_out = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return 0;
}

/* A short file of /proc. 0 or -errno. */
static int read_text(int dir, const char *path, char *out, size_t size)
{
	_cleanup_close_ int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (n < 0) {
		return -errno;
	}
	out[n] = '\0';
	return 0;
}

/* schedstat: ns that it ran, ns that it waited to run, how often. */
int gpu_measure_delay(pid_t pid, uint64_t *ns_out)
{
	char path[48], text[96];
	uint64_t sum = 0, waited;
	const struct dirent *e;
	DIR *threads;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	threads = opendir(path);
	if (!threads) {
		return -errno;
	}
	for (int i = 0; r == 0 && i < THREADS_MAX && (e = readdir(threads));) {
		if (e->d_name[0] == '.') {
			continue;
		}
		i++;
		snprintf(path, sizeof(path), "%.16s/schedstat", e->d_name);
		if (read_text(dirfd(threads), path, text, sizeof(text)) < 0) {
			/* It has ended since. */
			r = i == 1 && errno == ENOENT ? -EOPNOTSUPP : 0;
		} else if (sscanf(text, "%*u %" SCNu64, &waited) == 1) {
			sum += waited;
		}
	}
	closedir(threads);
	if (r == 0) {
		*ns_out = sum;
	}
	return r;
}

int gpu_measure_rss(pid_t pid, uint64_t *bytes_out)
{
	char path[32], text[128];
	uint64_t pages;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	r = read_text(AT_FDCWD, path, text, sizeof(text));
	if (r < 0) {
		return r;
	}
	if (sscanf(text, "%*u %" SCNu64, &pages) != 1) {
		return -EBADMSG;
	}
	*bytes_out = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

uint32_t gpu_measure_cpus(void)
{
	cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	int n = set && sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 1;

	CPU_FREE(set);
	return (uint32_t)MAX(n, 1);
}
