/* SPDX-License-Identifier: MIT
 * What the way in (lease-claim.c) and the way on and out (lease.c) share.
 */
#pragma once

#include "broker/lease.h"

struct worker_ops;

/* Of the worker of a lease; its userdata is the lease. */
extern const struct worker_ops lease_worker_ops;

/* detail may be NULL or empty: the reason's own sentence. */
void lease_set_reason(struct lease *l, enum lease_reason reason, const char *detail);
void lease_set_state(struct lease *l, enum lease_state state);
/* It can't go on: says so, counts the try and releases; retry: then tries again, later. l may be
 * gone when it returns. */
void lease_failed(struct lease *l, enum lease_reason reason, const char *detail, bool retry);
/* What its worker says of itself: device_connect was written, the guest configured it. */
void lease_attached(struct lease *l, uint64_t connect_ns);
void lease_configured(struct lease *l);
void lease_watch_attached(struct lease *l);
/* The VM's end of its way was closed. l may be gone when it returns. */
void lease_way_lost(struct lease *l);
/* Starts the way out of any state. */
void lease_begin_release(struct lease *l, enum lease_reason reason, const char *detail, bool retry);
/* Begins whatever has to end before the lease can go on, or finds that all has ended. l may be gone
 * when it returns. */
void lease_release_step(struct lease *l);
