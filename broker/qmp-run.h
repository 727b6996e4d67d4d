/* SPDX-License-Identifier: MIT
 * Runs devbroker-qmp for a VM, one at a time: QEMU serves one QMP client.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "protocol/worker.h"

struct vm;
struct worker;

enum qmp_op { QMP_PROBE, QMP_ATTACH, QMP_DETACH };

enum qmp_outcome {
	QMP_OK,
	QMP_GONE,    /* nobody listens on the socket */
	QMP_BUSY,    /* no greeting: somebody else is connected, or it is no QMP socket */
	QMP_CLOSED,  /* the VMM closed the connection */
	QMP_REFUSED, /* the VMM's error is in text */
	QMP_TIMEOUT,
	QMP_FAILED, /* bad replies, or the helper failed; text may say more */
};

/* text is the VMM's or helper's words, printable, may be empty; vm_state is enum qmp_vm_state. */
typedef void (*qmp_done)(
	void *userdata, enum qmp_outcome outcome, uint32_t vm_state, const char *text);

struct qmp_request {
	struct list link; // vm::qmp_queue
	struct vm *vm;
	enum qmp_op op;
	char id[32];
	int stream_fd; /* -1 but for attach */
	qmp_done done; // NULL: forgotten
	void *userdata;
	struct worker *worker; // may be NULL: waits for its turn
	bool have_result;
	struct worker_qmp result;
};

/* Queues op; id names the device in the VMM; stream_fd is taken even on error (-1 but for attach).
 * done is called once, from the loop, never from within. 0 or -errno. */
int qmp_run(struct vm *vm, enum qmp_op op, const char *id, int stream_fd, qmp_done done,
	void *userdata, struct qmp_request **out) _must_check_;
/* done is not called any more; what has begun goes on to its end. NULL is fine. */
void qmp_forget(struct qmp_request *q);
/* Begins the next one if none is running. */
void qmp_next(struct vm *vm);
/* At the VM's end: nothing of it runs any more, nobody is called. */
void qmp_cancel_all(struct vm *vm);
