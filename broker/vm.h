/* SPDX-License-Identifier: MIT
 * A virtual machine: how it is reached, whether it is there, what it has.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/config.h"
#include "broker/qmp-run.h"
#include "broker/quota.h"
#include "broker/vm-pace.h"
#include "protocol/refusal.h"

struct broker;
struct gpu;
struct vm_options;
struct ways;
struct worker_pong;

enum vm_state {
	VM_GONE,      /* nobody listens on its QMP socket, or is connected */
	VM_UP,        /* running */
	VM_PAUSED,    /* it takes devices, its guest sees them when it goes on */
	VM_BUSY,      /* its QMP socket is somebody else's */
	VM_MIGRATING, /* comes in by migration: takes devices when that is over */
	VM_ERROR,     /* detail says what */
	VM_STATE_COUNT_,
};

/* What its devices did, of those that have left it. */
struct vm_usage {
	uint64_t transfers, bytes_in, bytes_out, refused, errors;
};

struct vm {
	struct list link; // broker::vms
	struct broker *broker;
	char *name;
	char *qmp; // path of the socket; may be NULL: it is reached by its ways
	char *bus;
	struct ways *ways;          // may be NULL: it is reached by QMP
	sd_event_source *ways_turn; // may be NULL: what changed of them is looked at in this turn
	bool is_export;             /* it is there for one lease, and goes with it */
	bool over;                  /* which has ended */
	bool keep;                  /* of an export: it waits for its next client */
	struct owners owners;
	bool from_config;
	enum vm_state state;
	char detail[256];
	struct quota_limits limits; /* per device */
	struct quota devices;
	struct quota bytes;
	struct quota transfers;
	struct quota gpu_memory;
	struct gpu_limits gpu_limits;
	struct vm_pace pace;
	struct vm_usage ended;
	struct gpu *gpu;    // may be NULL: it has none
	struct list leases; // lease::link
	uint32_t n_leases;
	pid_t vmm_pid; /* 0: unknown */
	int vmm_pidfd;
	sd_event_source *vmm_source;
	sd_event_source *watch; // inotify on the nearest directory that exists
	char watched[108];      /* the name that is awaited in it */
	sd_event_source *retry; // a socket that does not answer yet
	unsigned int retries;
	struct list qmp_queue;           // qmp_request::link
	struct qmp_request *qmp_running; // may be NULL
	sd_event_source *qmp_turn;       // may be NULL: the next one begins in this turn
	struct qmp_request *probe;       // may be NULL: the probe that is queued or running
	/* Who waits for the probe's result; called once each. */
	struct list waiters; // vm_waiter::link
	uint32_t n_waiters;
};

struct vm_waiter {
	struct list link; // vm::waiters
	void (*done)(struct vm_waiter *w);
	void *userdata;
};

/* 0 with the VM, which is announced and probed; REFUSAL_INVALID, REFUSAL_EXISTS, REFUSAL_QUOTA
 * with text; -errno. */
int vm_add(struct broker *b, const struct vm_options *options, struct vm **out,
	struct refusal_text *text) _must_check_;
/* REFUSAL_BUSY while it has devices. */
int vm_remove(struct vm *vm, struct refusal_text *text) _must_check_;
/* At the end of the broker; nothing is charged to it any more. NULL is fine. */
void vm_destroy(struct vm *vm);

/* Asks the VMM how it is; several at once become one. waiter (may be NULL) is called when the
 * answer is there, also if it is that nobody answers. 0 or -errno (waiter is not called then;
 * -EAGAIN: too many wait already; -ESHUTDOWN: the broker is stopping). */
int vm_probe(struct vm *vm, struct vm_waiter *waiter) _must_check_;

/* Connects to the QMP socket, non-blocking, and watches the process behind it. 0 with the fd;
 * -ENOENT, -ECONNREFUSED, … */
int vm_connect(struct vm *vm, int *fd_out) _must_check_;

/* What any answered or failed QMP run says about the VM. */
void vm_heard(struct vm *vm, enum qmp_outcome outcome, uint32_t qmp_state, const char *text);

/* Something changed about its ways: it is looked at from the loop. */
void vm_ways_changed(struct vm *vm);
/* Adds what a worker did. */
void vm_usage_add(struct vm_usage *u, const struct worker_pong *p);
/* A lease of it has ended. */
void vm_lease_ended(struct vm *vm);
/* Removes exports that nothing is lent to: what they were made for could not be had again. */
void vm_remove_unused_exports(struct broker *b);
/* Whether all that it can have is lent to it. 0 or REFUSAL_QUOTA with text. */
int vm_check_ways(const struct vm *vm, struct refusal_text *text) _must_check_;

/* Whether a device can be plugged into it now. */
bool vm_reachable(const struct vm *vm);
void vm_changed(struct vm *vm);
const char *vm_state_name(enum vm_state state);
