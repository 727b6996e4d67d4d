/* SPDX-License-Identifier: MIT
 * The stages that close a worker off; a worker calls them on itself before it reads a peer's byte.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum sandbox_kind {
	SANDBOX_DISK,         /* devbroker-usb with backend-disk */
	SANDBOX_NBD,          /* devbroker-usb-nbd: the image is a socket */
	SANDBOX_QMP,          /* devbroker-qmp */
	SANDBOX_CLAIM,        /* devbroker-claim */
	SANDBOX_USB,          /* devbroker-usb with backend-libusb */
	SANDBOX_GPU_RENDERER, /* devbroker-gpu --renderer */
	SANDBOX_GPU_FRONT,    /* devbroker-gpu --front */
	/* A renderer with a GL driver in it, which opens files and makes threads until
	 * sandbox_lock, and maps code that it has compiled for ever. */
	SANDBOX_GPU_VIRGL,
	SANDBOX_KIND_COUNT_,
};

/* In the order in which they close; bits of struct worker_ready::sandbox_stages. */
enum sandbox_stage {
	SANDBOX_FDS = 1 << 0, /* every fd but the named ones closed, rlimits */
	SANDBOX_NAMESPACES =
		1 << 1,        /* user, mount, pid, net, ipc, uts, cgroup: made by base/spawn */
	SANDBOX_ROOT = 1 << 2, /* empty read-only root by pivot_root */
	SANDBOX_PRIVILEGES =
		1 << 3, /* no capability, empty bounding set, no_new_privs, not dumpable */
	SANDBOX_LANDLOCK = 1 << 4, /* deny all */
	SANDBOX_SECCOMP = 1 << 5,  /* the kind's list */
	SANDBOX_ALL = (1 << 6) - 1,
};

/* Parses "full", "reduced:STAGE,…" (stages that are left out: fds can't be; names: namespaces,
 * root, privileges, landlock, seccomp; namespaces takes root with it, because there is no root to
 * change without a mount namespace) into the set of stages to close. "off" only if allow_off.
 * -EINVAL if it is none of these. */
int sandbox_parse(const char *text, bool allow_off, uint32_t *stages_out) _must_check_;
/* The reverse, into out ("full", "off", "reduced:root,landlock"). Returns out. */
const char *sandbox_format(uint32_t stages, char *out, size_t out_size);
#define SANDBOX_TEXT_SIZE 64 /* enough for sandbox_format */

/* The one name of a stage ("root"), "unknown" if stage is not exactly one. */
const char *sandbox_stage_name(uint32_t stage);

/* Closes FDS, ROOT, PRIVILEGES and LANDLOCK, as far as they are in stages; NAMESPACES is only
 * verified (the caller is pid 1 of its pid namespace, its ids are mapped one to one, and its
 * loopback device is down, which is how a network namespace starts).
 * keep are the fds >= 3 that stay open (0, 1, 2 stay): call it before an event loop is made. What
 * reads files must have done so: sd_id128_get_boot (its result is cached, and sd-event's timers
 * ask for it), getpwuid, iconv, locales. Only the first thread may exist. stages 0 does nothing.
 * 0; or -errno, with the stage that failed in the log behind name: the caller must exit then. */
int sandbox_enter(const char *name, enum sandbox_kind kind, uint32_t stages, const int *keep,
	size_t n_keep) _must_check_;

/* Closes SECCOMP on all threads, if it is in stages. Last; nothing but serving comes after it: an
 * open or a stat of a path fails with ENOENT, most other calls that serving does not need kill the
 * process (SIGSYS), among them fork, exec, new threads and executable mappings. The program is pid
 * 1: a SIGTERM that it has no handler or signalfd for does nothing. 0 or -errno. */
int sandbox_lock(enum sandbox_kind kind, uint32_t stages) _must_check_;
