/* SPDX-License-Identifier: MIT
 * The host side of one lent device: joins a usbredir connection to a backend, within bounds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "protocol/worker.h"
#include "usb/backend.h"
#include "usb/capture.h"
#include "usb/guard.h"

struct engine;

struct engine_listener {
	/* enum worker_state; connect_ns is CLOCK_MONOTONIC when device_connect was written, or 0 */
	void (*state)(void *userdata, uint32_t state, uint64_t connect_ns);
	/* All is over, once: enum worker_done_reason, errno or 0, and a few words or "". */
	void (*finished)(void *userdata, uint32_t reason, int error, const char *detail);
};

struct engine_options {
	sd_event *event;         /* borrowed */
	int stream_fd;           /* taken even on error; a stream socket */
	struct backend *backend; /* borrowed; its sink is set here; outlives the engine */
	uint32_t max_transfers;  /* in flight at once, 1 to ENGINE_TRANSFERS_MAX */
	uint64_t max_bytes;      /* of their buffers, at least TRANSFER_BYTES_MAX for large ones */
	/* What the guest may see and do; NULL: everything. Borrowed for the call. */
	const struct guard_options *guard;
	const struct engine_listener *listener; /* borrowed */
	void *userdata;
};

#define ENGINE_TRANSFERS_MAX 1024

struct engine_counters {
	uint64_t transfers;
	uint64_t bytes_in;  /* device to guest */
	uint64_t bytes_out; /* guest to device */
	uint64_t refused;
	uint64_t errors;
	uint32_t in_flight;
	uint32_t in_flight_bytes;
	uint32_t in_flight_peak;
	uint32_t state; /* enum worker_state */
	uint64_t by_type[WORKER_TRANSFERS_COUNT_];
	uint64_t stalls;
	uint64_t latency_ns;
	uint64_t latency[WORKER_LATENCY_BUCKETS]; /* as in struct worker_pong */
	uint64_t connect_ns;                      /* as in engine_listener::state */
};

/* 0; -EBADMSG if the backend's device descriptor is none; -EOPNOTSUPP if the guard leaves nothing
 * of the device; -errno. Creates the timers that it will need, so that it may be called before a
 * seccomp filter closes. */
int engine_create(const struct engine_options *options, struct engine **out) _must_check_;
/* The backend must have nothing submitted any more (finished was called), or be destroyed first. */
void engine_destroy(struct engine *e);

/* Ends it: the guest is told at once, what is in flight is cancelled, the backend puts everything
 * on the disk, then finished() is called. The first reason counts. */
void engine_stop(struct engine *e, enum worker_done_reason reason, int error, const char *detail);

/* To be called after each turn of the loop: writes what is queued, and goes on with an end that was
 * begun. May call finished(). */
void engine_turn(struct engine *e);

/* Captures from now on what the guest asks and gets, instead of any capture before; ends by itself
 * when nobody reads it. 0 or -errno. */
int engine_capture(struct engine *e, const struct capture_options *options) _must_check_;

/* The VM's rates hold from now on: takes fd, of a struct pace_page, even on error. 0 or -errno. */
int engine_pace(struct engine *e, int fd) _must_check_;

void engine_count(const struct engine *e, struct engine_counters *out);
