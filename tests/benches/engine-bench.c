/* SPDX-License-Identifier: MIT
 *
 * Measures what is at the other end of a usbredir stream as a guest, transfer by transfer, for
 * tests/bench usb-engine.
 *
 *   engine-bench peer FD PID MS COUNT CELL...      a connected stream, served by process PID
 *   engine-bench limit tcp|unix MS COUNT CELL...   the bare socket
 *
 * A cell is in:SIZE:DEPTH, out:SIZE:DEPTH, control:SIZE:1 or idle:0:0. Each runs MS milliseconds,
 * or COUNT transfers if that isn't 0. Prints one JSON object a line: first what attaching took and
 * the memory then, then a cell each, at last the peak of the memory.
 */
#include "engine-bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const modes[] = {"in", "out", "control", "idle"};

void die(const char *what)
{
	fprintf(stderr, "engine-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

double cpu_seconds(pid_t pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) < 0) {
		die("CPU clock");
	}
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A line of /proc/PID/status in KiB. */
static unsigned long memory_kib(pid_t pid, const char *name)
{
	char path[64], line[128];
	unsigned long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	if (!f) {
		die(path);
	}
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, strlen(name)) == 0) {
			kib = strtoul(line + strlen(name) + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	return kib;
}

static void parse_cell(const char *text, struct cell *c)
{
	char mode[16] = "";

	if (sscanf(text, "%15[a-z]:%u:%u", mode, &c->size, &c->depth) == 3) {
		for (int m = CELL_IN; m <= CELL_IDLE; m++) {
			if (strcmp(mode, modes[m]) == 0 && c->size <= SIZE_LARGEST &&
				c->depth <= DEPTH_MAX) {
				c->mode = (enum cell_mode)m;
				return;
			}
		}
	}
	errno = EINVAL;
	die(text);
}

static void print(const struct cell *c, const struct result *r)
{
	printf("{\"mode\": \"%s\", \"size\": %u, \"depth\": %u, \"n\": %llu, \"ns\": %llu, "
	       "\"p50_ns\": %llu, \"p99_ns\": %llu, \"cpu_s\": %.6f, \"guest_cpu_s\": %.6f}\n",
		modes[c->mode], c->size, c->depth, (unsigned long long)r->n,
		(unsigned long long)r->ns, (unsigned long long)r->p50_ns,
		(unsigned long long)r->p99_ns, r->peer_cpu_s, r->guest_cpu_s);
	fflush(stdout);
}

static void idle(const struct run *r, struct result *out)
{
	uint64_t begin = now_ns();
	double cpu = cpu_seconds(r->peer);

	usleep((useconds_t)(r->ns / 1000));
	*out = (struct result){.peer_cpu_s = cpu_seconds(r->peer) - cpu, .ns = now_ns() - begin};
}

static void measure_peer(int fd, const struct run *r, char **cells)
{
	struct guest *g = guest_create(fd);
	uint64_t attach_ns = guest_attach(g);

	printf("{\"attach_ns\": %llu, \"rss_kib\": %lu}\n", (unsigned long long)attach_ns,
		memory_kib(r->peer, "VmRSS"));
	for (; *cells; cells++) {
		struct result result;
		struct cell c;

		parse_cell(*cells, &c);
		if (c.mode == CELL_IDLE) {
			idle(r, &result);
		} else {
			guest_measure(g, &c, r, &result);
		}
		print(&c, &result);
	}
	printf("{\"peak_kib\": %lu}\n", memory_kib(r->peer, "VmHWM"));
}

static void measure_limit(bool tcp, const struct run *options, char **cells)
{
	for (; *cells; cells++) {
		struct run r = *options;
		struct result result;
		struct cell c;
		int pair[2];

		parse_cell(*cells, &c);
		limit_pair(tcp, pair);
		r.peer = limit_start(pair[1], pair[0], &c);
		close(pair[1]);
		guest_measure(guest_create(pair[0]), &c, &r, &result);
		close(pair[0]);
		waitpid(r.peer, NULL, 0);
		print(&c, &result);
	}
}

int main(int argc, char **argv)
{
	struct run r = {0};

	signal(SIGPIPE, SIG_IGN);
	if (argc > 6 && strcmp(argv[1], "peer") == 0) {
		r.peer = (pid_t)atoi(argv[3]);
		r.ns = strtoull(argv[4], NULL, 10) * 1000000u;
		r.count = strtoull(argv[5], NULL, 10);
		measure_peer(atoi(argv[2]), &r, argv + 6);
		return 0;
	}
	if (argc > 5 && strcmp(argv[1], "limit") == 0) {
		r.ns = strtoull(argv[3], NULL, 10) * 1000000u;
		r.count = strtoull(argv[4], NULL, 10);
		measure_limit(strcmp(argv[2], "tcp") == 0, &r, argv + 5);
		return 0;
	}
	fprintf(stderr, "usage: engine-bench peer FD PID MS COUNT CELL...\n"
			"       engine-bench limit tcp|unix MS COUNT CELL...\n");
	return 2;
}
