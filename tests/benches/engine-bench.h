/* SPDX-License-Identifier: MIT
 * What the files of engine-bench share: a cell of the table that is measured, and the two ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SIZE_LARGEST (1u << 20)
#define DEPTH_MAX    16
#define FRAME        16 /* type, length, 64-bit id */
#define DATA_HEAD    10 /* of a bulk packet with a 32-bit length, and of a control packet */

enum cell_mode { CELL_IN, CELL_OUT, CELL_CONTROL, CELL_IDLE };

struct cell {
	enum cell_mode mode;
	uint32_t size;
	uint32_t depth;
};

struct result {
	uint64_t n;
	uint64_t ns;
	uint64_t p50_ns;
	uint64_t p99_ns;
	double peer_cpu_s;
	double guest_cpu_s;
};

struct run {
	uint64_t ns;    /* how long, or */
	uint64_t count; /* how many transfers, if not 0 */
	pid_t peer;     /* whose CPU time counts */
};

_Noreturn void die(const char *what);
/* All threads of pid. */
double cpu_seconds(pid_t pid);

/* engine-guest.c: a guest on a connected stream. */
struct guest;
struct guest *guest_create(int fd); /* borrows fd */
void guest_destroy(struct guest *g);
/* Hellos, up to a set configuration. Returns the ns until device_connect. */
uint64_t guest_attach(struct guest *g);
void guest_measure(struct guest *g, const struct cell *c, const struct run *r, struct result *out);

/* engine-limit.c: a process that answers a cell's packets on fd and does nothing else, or (floor)
 * makes the system calls of an event loop and of libusb, too. */
pid_t limit_start(int fd, int other_fd, const struct cell *c, bool floor);
/* A connected pair, over TCP on the loopback or AF_UNIX. */
void limit_pair(bool tcp, int pair[2]);
