/* SPDX-License-Identifier: MIT
 * What a broker before this one left behind: its leases, and the workers that serve them still.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/lease-record.h"
#include "protocol/worker.h"

struct broker;
struct device;
struct vm;

/* One record, and its worker if it lives. */
struct adoption {
	struct list link; // broker::adoptions
	struct lease_record record;
	bool held; /* its worker answered, with what is in says */
	struct worker_held says;
	int control; /* the connection to it; -1 */
	pid_t pid;
	int pidfd;         /* -1 */
	uint32_t uid_slot; /* as in process_adopt */
	int image_fd;      /* that it sent; -1 */
};

/* At start, before anything else is lent: reads the records, and asks all workers at once who they
 * are. That takes ADOPT_WITHIN_USEC at most; who has not answered by then is ended, as a worker
 * that hangs is. 0 or -errno. */
int adopt_begin(struct broker *b) _must_check_;
#define ADOPT_WITHIN_USEC UINT64_C(2000000)

/* Whether there is a worker that has the device PREFIX NAME. */
bool adopt_expects(const struct broker *b, const char *prefix, const char *name);
/* Makes leases of those whose device's name begins with prefix, where that device is here. */
void adopt_leases(struct broker *b, const char *prefix);
/* What nobody wants any more: workers are told to end, records go. */
void adopt_finish(struct broker *b);

/* Makes a's lease of d to vm, served by a's worker as before; takes what is a's of it. 0, or -errno
 * with nothing changed: it is another device now. */
int lease_adopt(struct adoption *a, struct device *d, struct vm *vm) _must_check_;
