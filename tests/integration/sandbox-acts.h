/* SPDX-License-Identifier: MIT
 * What a worker that was taken over would try, one function per act.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Fds that the probe holds beside its result pipe: more than a real worker, to be harder to stop.
 */
enum {
	ACT_FD_RESULT = 3,
	ACT_FD_IMAGE = 4,   /* a regular file, 1 MiB, read and write */
	ACT_FD_PROGRAM = 5, /* an executable that exits 0 */
	ACT_FD_NETNS = 6,   /* the driver's network namespace */
	/* 7 to 10 were there at start and are not among those that are kept; the last one is not
	 * reused by what the child makes itself. */
	ACT_FD_STRAY = 10,
};
#define ACT_FD_COUNT 8

struct act_env {
	pid_t driver;    /* another process of the host, same uid */
	uint16_t port;   /* 127.0.0.1, where the driver listens */
	const char *dir; /* the driver's own directory; in the sandbox it leads nowhere */
};

enum act_flags {
	ACT_CONTROL = 1 << 0,      /* must succeed outside the sandbox */
	ACT_CONTROL_ROOT = 1 << 1, /* the same, if it is root */
	ACT_HELD = 1 << 2,         /* refused even with the seccomp stage left out */
	/* Refused even with seccomp and landlock left out. */
	ACT_HELD_BY_ROOT = 1 << 8,
	ACT_USB_ONLY = 1 << 9,
	ACT_RENDERER_ONLY = 1 << 10,
	ACT_NOT_GPU = 1 << 11,    /* its images need it */
	ACT_NOT_VIRGL = 1 << 12,  /* a GL driver does it, or its caller bounds it */
	ACT_VIRGL_LOCK = 1 << 13, /* before the lock a GL driver may do it: no ACT_HELD there */
	ACT_MUST_WORK = 1 << 3,   /* what serving needs: must succeed in the sandbox */
	ACT_DISK_ONLY = 1 << 4,
	ACT_ABORTS = 1 << 7, /* must die of its own abort, and of nothing else */
	/* Sanitizers need what this act uses, or change how it ends. */
	ACT_NOT_SANITIZED = 1 << 5,
	/* May be missing in the kernel, or be switched off for all: no control then. */
	ACT_OPTIONAL = 1 << 6,
};

struct act {
	const char *name;
	int (*run)(const struct act_env *env); /* 0 or the errno of the refusal */
	unsigned int flags;
};

extern const struct act acts_on_host[];
extern const size_t n_acts_on_host;
extern const struct act acts_on_kernel[];
extern const size_t n_acts_on_kernel;
extern const struct act acts_on_usbfs[];
extern const size_t n_acts_on_usbfs;

static inline size_t act_count(void)
{
	return n_acts_on_host + n_acts_on_kernel + n_acts_on_usbfs;
}

/* i < act_count() */
static inline const struct act *act_at(size_t i)
{
	if (i < n_acts_on_host) {
		return &acts_on_host[i];
	}
	i -= n_acts_on_host;
	return i < n_acts_on_kernel ? &acts_on_kernel[i] : &acts_on_usbfs[i - n_acts_on_kernel];
}
