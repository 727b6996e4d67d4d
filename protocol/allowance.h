/* SPDX-License-Identifier: MIT
 * What a VM's renderer may take of the GPU and what it took: a page that devbrokerd and that VM's
 * renderers, one after the other, share.
 *
 * Nothing is asked and nothing is answered: the renderer compares what it used with what it was
 * granted when it takes a command and when a fence is reached, and the broker writes more while
 * others may have less. A renderer without time left says so (waits, and the bell `want`), takes no
 * command of the control queue and sleeps until the bell `grant`; cursors, fences and its front are
 * served meanwhile. Each bell is one end of a socket pair, into which 8 bytes are written for a
 * ringing: neither can make the broker wait. The broker writes the first part and reads none of it
 * back; the second is a renderer's own word, which its guest may have taken over: numbers to be
 * shown, and a hint. What a renderer is granted follows from what the broker measures itself
 * (broker/arbiter.h), and one that does not keep to it is stopped from outside.
 */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/cleanup.h"

#define ALLOWANCE_VERSION   1
#define ALLOWANCE_CONTEXTS  256 /* by slot, less 1, as in the journal */
#define ALLOWANCE_NAME_SIZE 64
#define ALLOWANCE_UNBOUNDED UINT64_MAX

/* A context of the guest. Its name may be that of another that was there before; any bytes. */
struct allowance_context {
	_Atomic uint32_t id; /* 0: there is none */
	uint32_t pad;
	_Atomic uint64_t gpu_ns; /* used since it is there */
	char name[ALLOWANCE_NAME_SIZE];
};
static_assert(sizeof(struct allowance_context) == 80, "shared layout");

struct allowance_page {
	/* Written by the broker. */
	uint32_t version;                /* ALLOWANCE_VERSION */
	_Atomic uint32_t frames_per_sec; /* of each scanout; 0: as many as there are */
	_Atomic uint32_t contexts_max;   /* 0: as many as a renderer has */
	_Atomic uint32_t resources_max;  /* 2D and 3D together; 0: likewise */
	_Atomic uint64_t memory_max; /* bytes; what is there already stays. 0: as it was started */
	_Atomic uint64_t granted_ns; /* to be used in all, by all renderers on this page */
	uint64_t reserved[4];

	/* Written by the renderer. */
	_Atomic uint64_t used_ns;   /* in all: CPU time in software, time between fences else */
	_Atomic uint64_t waited_ns; /* with commands and without time */
	_Atomic uint64_t frames_delayed; /* for frames_per_sec */
	_Atomic uint32_t waits;          /* 1: it has commands and no time */
	uint32_t pad;
	uint64_t reserved_renderer[4];
	struct allowance_context contexts[ALLOWANCE_CONTEXTS];
};
static_assert(sizeof(struct allowance_page) == 64 + 64 + 80 * ALLOWANCE_CONTEXTS, "shared layout");

/* A new page in a sealed memfd, without any limit, and its mapping; both are the caller's. 0 or
 * -errno. */
int allowance_create(int *fd_out, struct allowance_page **out) _must_check_;
/* Maps the page in fd (borrowed). -EINVAL if its size, its seals or its version are not those of
 * one; -errno. */
int allowance_map(int fd, struct allowance_page **out) _must_check_;
/* NULL is fine. */
void allowance_unmap(struct allowance_page *p);
