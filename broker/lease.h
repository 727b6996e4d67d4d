/* SPDX-License-Identifier: MIT
 * One device lent to one VM: from the decision to its end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/lease-options.h"
#include "broker/qmp-run.h"
#include "broker/quota.h"
#include "protocol/refusal.h"
#include "protocol/worker.h"

struct device;
struct vm;
struct way;
struct worker;

enum lease_state {
	LEASE_PRESENT, /* no lease */
	LEASE_DECIDED, /* waits for its VM, or for the next try */
	LEASE_CLAIMING,
	LEASE_CONNECTING,
	LEASE_ATTACHED,
	LEASE_CONFIGURED,
	LEASE_RELEASING,
	LEASE_STATE_COUNT_,
};

/* Why a lease ended, or doesn't go on. The closed list of devbroker(1). */
enum lease_reason {
	LEASE_REASON_NONE,
	LEASE_REASON_USER_DETACH,    /* devbroker detach */
	LEASE_REASON_GUEST_EJECTED,  /* the guest ejected the medium */
	LEASE_REASON_VM_GONE,        /* waits for it */
	LEASE_REASON_VM_BUSY,        /* its QMP socket is somebody else's; tried again */
	LEASE_REASON_VMM_UNPLUGGED,  /* somebody unplugged it in the VMM */
	LEASE_REASON_VMM_REFUSED,    /* the VMM would not take it */
	LEASE_REASON_QMP_FAILED,     /* no sense could be made of the VMM's answers */
	LEASE_REASON_PEER_VIOLATION, /* the guest's side broke the protocol */
	LEASE_REASON_WORKER_DIED,
	LEASE_REASON_WORKER_HUNG,
	LEASE_REASON_WORKER_FAILED, /* could not be started, or close its sandbox */
	LEASE_REASON_IMAGE_INVALID,
	LEASE_REASON_IMAGE_BUSY,
	LEASE_REASON_IO_ERROR,
	LEASE_REASON_DEVICE_GONE, /* unplugged from the host */
	LEASE_REASON_DEVICE_BUSY, /* the host uses it, or its driver came back */
	LEASE_REASON_DEVICE_LOST, /* it failed for good, or is another one after a reset */
	LEASE_REASON_DENIED,      /* policy or safety forbids it */
	LEASE_REASON_POLICY,      /* rules want it elsewhere now */
	LEASE_REASON_QUOTA,
	LEASE_REASON_SHUTDOWN, /* of devbrokerd */
	LEASE_REASON_COUNT_,
};

struct lease {
	struct list link; // vm::leases
	struct device *device;
	struct vm *vm;
	enum lease_state state;
	enum lease_reason reason; /* why it ends, or waits */
	char detail[256];
	struct charge devices;
	struct charge bytes;
	struct charge transfers;
	uint64_t id;                        /* of its record, and of its worker's socket */
	uint8_t cookie[WORKER_COOKIE_SIZE]; /* that its worker knows */
	bool kept;                          /* it was told to outlive us */
	struct worker *worker;              // may be NULL
	struct qmp_request *qmp;            // may be NULL: none is running for it
	int stream_fd;                      /* the VM's end, until it is handed over */
	struct way *way;                    // may be NULL: the VM's that it has, instead of QMP
	char qmp_id[32];                    /* of its device in the VMM */
	bool plugged;                       /* the VMM has, or may have, its device or its stream */
	pid_t vmm_pid;                      /* of the VMM then; 0: unknown */
	struct lease_options options;
	bool taking;             /* the device's take() runs */
	bool taken;              /* and owes a give_back() */
	bool giving_back;        /* which runs */
	bool retry;              /* try again when it is released */
	unsigned int tries;      /* failed ones in a row */
	uint64_t asked_usec;     /* CLOCK_MONOTONIC of the attach */
	uint64_t connect_usec;   /* from asked to device_connect written; 0 before */
	uint64_t connected_at;   /* CLOCK_MONOTONIC */
	uint64_t configure_usec; /* from then to SET_CONFIGURATION; 0 before */
	uint64_t configured_at;  /* CLOCK_MONOTONIC; 0 before */
	sd_event_source *timer;  // may be NULL: back-off, or "not configured yet"
};

/* Decides that d goes to vm, and goes on at once if the VM is up. 0; -errno; REFUSAL_BUSY,
 * REFUSAL_QUOTA and those of the device with text. */
int lease_create(struct device *d, struct vm *vm, const struct lease_options *options,
	struct refusal_text *text) _must_check_;

/* The same without asking the device: what it has against it now may pass. There is no lease of
 * it. */
int lease_decide(struct device *d, struct vm *vm, const struct lease_options *options,
	struct refusal_text *text) _must_check_;
/* A lease as nothing is done for it yet, in d and vm, charged for a device. 0 with the lease;
 * -errno or REFUSAL_QUOTA with text. */
int lease_new(struct device *d, struct vm *vm, const struct lease_options *options,
	struct lease **out, struct refusal_text *text) _must_check_;

/* Compares what should be with what is: claims if the VM is up and nothing holds it back. */
void lease_reconcile(struct lease *l);
/* Ends it, whatever it is doing; asynchronous unless nothing was going on: l may be gone then. */
void lease_release(struct lease *l, enum lease_reason reason);
/* Ends device_ops::take: r is 0, -errno (tried again) or a refusal with text. l may be gone when it
 * returns. */
void lease_taken(struct lease *l, int r, const struct refusal_text *text);
/* Ends device_ops::give_back. l may be gone when it returns. */
void lease_given_back(struct lease *l);
/* Its device was taken from it: it is released and lent anew. l may be gone when it returns. */
void lease_retake(struct lease *l);
/* Its device, which failed, can work again: it is released and lent anew at once. l may be gone
 * when it returns. */
void lease_renew(struct lease *l);
/* The VMM's process is gone. l stays decided for its return. */
void lease_vm_gone(struct lease *l);

/* The reason with this code, or LEASE_REASON_NONE. */
enum lease_reason lease_reason_of(const char *code);
const char *lease_state_name(enum lease_state state);
const char *lease_reason_code(enum lease_reason reason);
const char *lease_reason_sentence(enum lease_reason reason);
/* What to do about it; "" if nothing. */
const char *lease_reason_remedy(enum lease_reason reason);
