/* SPDX-License-Identifier: MIT
 *
 * Measures what is at the other end of usbredir streams as a guest, transfer by transfer, for
 * tests/bench usb-engine.
 *
 *   engine-bench MS COUNT TARGET... -- CELL...
 *
 * A target is NAME=FD:PID, a connected stream that process PID serves, or NAME=limit:tcp,
 * NAME=limit:unix, NAME=floor:tcp, NAME=floor:unix: the bare socket, and with the system calls of
 * an event loop over libusb. A cell is in:SIZE:DEPTH, out:SIZE:DEPTH, control:SIZE:1 or idle:0:0.
 *
 * Each cell runs with each target for MS milliseconds, or for COUNT transfers if that isn't 0: one
 * target right after the other, so that a machine whose speed changes treats them alike. The
 * processes that wait for their turn are stopped, since not all of them sleep on their own. Prints
 * one JSON object a line: what attaching took and the memory then, the cells, the memory's peak.
 */
#include "engine-bench.h"
#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX 16

struct target {
	const char *name;
	struct guest *guest; /* NULL: a limit, with */
	pid_t pid;           /* 0 */
	bool tcp;
	bool floor;
};

static const char *const modes[] = {"in", "out", "control", "idle"};

void die(const char *what)
{
	fprintf(stderr, "engine-bench: %s: %s\n", what, strerror(errno));
	exit(1);
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

static void print(const char *name, const struct cell *c, const struct result *r)
{
	printf("{\"target\": \"%s\", \"mode\": \"%s\", \"size\": %u, \"depth\": %u, \"n\": %llu, "
	       "\"ns\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"cpu_s\": %.6f, "
	       "\"guest_cpu_s\": %.6f}\n",
		name, modes[c->mode], c->size, c->depth, (unsigned long long)r->n,
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

static void parse_target(char *text, struct target *t)
{
	char kind[16] = "", socket[16] = "";
	char *value = strchr(text, '=');
	int pid, fd;

	if (!value) {
		errno = EINVAL;
		die(text);
	}
	*value++ = '\0';
	*t = (struct target){.name = text};
	if (sscanf(value, "%d:%d", &fd, &pid) == 2) {
		t->pid = pid;
		t->guest = guest_create(fd);
	} else if (sscanf(value, "%15[a-z]:%15[a-z]", kind, socket) == 2) {
		t->floor = strcmp(kind, "floor") == 0;
		t->tcp = strcmp(socket, "tcp") == 0;
	}
}

static void signal_target(const struct target *t, int signal)
{
	if (t->pid > 0 && kill(t->pid, signal) < 0) {
		die("kill");
	}
}

static void attach(const struct target *t)
{
	uint64_t ns = guest_attach(t->guest);

	printf("{\"target\": \"%s\", \"attach_ns\": %llu, \"rss_kib\": %lu}\n", t->name,
		(unsigned long long)ns, memory_kib(t->pid, "VmRSS"));
}

/* A limit lives for one cell only. */
static void measure_limit(
	const struct target *t, const struct cell *c, struct run *r, struct result *out)
{
	struct guest *g;
	int pair[2];

	limit_pair(t->tcp, pair);
	r->peer = limit_start(pair[1], pair[0], c, t->floor);
	close(pair[1]);
	g = guest_create(pair[0]);
	guest_measure(g, c, r, out);
	guest_destroy(g);
	close(pair[0]);
	waitpid(r->peer, NULL, 0);
}

static void measure(const struct target *t, const struct cell *c, const struct run *options)
{
	struct run r = *options;
	struct result result;

	signal_target(t, SIGCONT);
	r.peer = t->pid;
	if (c->mode == CELL_IDLE) {
		idle(&r, &result);
	} else if (t->pid > 0) {
		guest_measure(t->guest, c, &r, &result);
	} else {
		measure_limit(t, c, &r, &result);
	}
	signal_target(t, SIGSTOP);
	print(t->name, c, &result);
}

int main(int argc, char **argv)
{
	struct target targets[TARGETS_MAX];
	struct run r = {0};
	size_t n = 0;
	int i = 3;

	if (argc < 6) {
		fprintf(stderr, "usage: engine-bench MS COUNT TARGET... -- CELL...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	r.ns = strtoull(argv[1], NULL, 10) * 1000000u;
	r.count = strtoull(argv[2], NULL, 10);
	for (; i < argc && strcmp(argv[i], "--") != 0 && n < TARGETS_MAX; i++) {
		parse_target(argv[i], &targets[n]);
		if (targets[n].pid > 0) {
			attach(&targets[n]);
			signal_target(&targets[n], SIGSTOP);
		}
		n++;
	}
	for (i++; i < argc; i++) {
		struct cell c;

		parse_cell(argv[i], &c);
		for (size_t k = 0; k < n; k++) {
			measure(&targets[k], &c, &r);
		}
	}
	for (size_t k = 0; k < n; k++) {
		if (targets[k].pid > 0) {
			printf("{\"target\": \"%s\", \"peak_kib\": %lu}\n", targets[k].name,
				memory_kib(targets[k].pid, "VmHWM"));
			signal_target(&targets[k], SIGCONT);
		}
	}
	return 0;
}
