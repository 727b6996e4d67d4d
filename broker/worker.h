/* SPDX-License-Identifier: MIT
 * One worker process as the broker sees it: started, heard, pinged, ended, reaped.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/process.h"
#include "protocol/worker.h"

struct broker;

enum worker_end {
	WORKER_END_DONE,   /* it said why (worker::done) and exited */
	WORKER_END_EXITED, /* it exited without a word, or a signal ended it (struct process) */
	WORKER_END_HUNG,   /* it missed its heartbeats, or overstayed; we killed it */
	WORKER_END_BAD,    /* it sent a malformed message; we killed it */
	WORKER_END_SPAWN,  /* it never started: errno */
};

struct worker_ops {
	/* May be NULL. The sandbox is closed, with these stages. */
	void (*ready)(void *userdata, uint32_t stages);
	/* STATE, QMP, SET_CONFIGURATION or CLAIM. */
	void (*message)(void *userdata, const union worker_msg *msg);
	/* It is reaped. Last call; worker_destroy is still owed. */
	void (*ended)(void *userdata, enum worker_end end, int status);
};

struct worker {
	struct list link; // broker::workers
	struct broker *broker;
	enum spawner_program program;
	char *name;                   /* for the log: "disk:stick" */
	const struct worker_ops *ops; // NULL once destroyed
	void *userdata;
	struct process *process; // NULL: reaped
	int control;
	sd_event_source *control_source;
	uint32_t unanswered;   /* pings since its last message */
	uint32_t messages;     /* since the last ping */
	uint64_t end_deadline; /* µs; 0: none. After it, it is killed */
	bool ready;
	bool flushing;  /* said so: the deadline of DETACH does not hold */
	bool done_seen; /* done holds its last words */
	bool killed_hung;
	bool killed_bad;
	bool destroyed; /* nobody cares any more; freed when reaped */
	bool reaped;
	struct worker_done done;
	struct worker_pong counters; /* believed for display only */
	/* From the last two of them; 0 without. */
	uint64_t heard_usec, bytes_in_per_sec, bytes_out_per_sec, transfers_per_sec;
};

/* Starts program; fds follow its control socket, as 4, 5, … (borrowed). 0; or -errno with nothing
 * started. Failures after that come through ops->ended. */
int worker_start(struct broker *b, enum spawner_program program, const char *name,
	const char *const *args, size_t n_args, const int *fds, size_t n_fds,
	const struct worker_ops *ops, void *userdata, struct worker **out) _must_check_;

/* The same for one that an earlier broker started, over a new connection to it. Takes control and
 * pidfd even on error. It is ready. uid_slot: as in process_adopt. 0 or -errno. */
int worker_adopt(struct broker *b, enum spawner_program program, const char *name, int control,
	pid_t pid, int pidfd, uint32_t uid_slot, const struct worker_ops *ops, void *userdata,
	struct worker **out) _must_check_;

/* It goes on without us, and waits orphan_usec for another broker that knows the cookie. */
void worker_keep(struct worker *w, const uint8_t cookie[WORKER_COOKIE_SIZE], uint64_t orphan_usec);
/* Tells it to say goodbye to its guest, flush and end. It gets 5 s, or 60 s once it says that it is
 * flushing. */
void worker_detach(struct worker *w);
/* Answers its SET_CONFIGURATION: 0 or -errno. */
void worker_configured(struct worker *w, int error);
/* Tells it that its device is gone; it tells the guest and ends. */
void worker_unplugged(struct worker *w);
/* Has it capture into fd (borrowed), a pipe's end. 0 or -errno. */
int worker_capture(
	struct worker *w, uint32_t bus, uint32_t device, bool headers_only, int fd) _must_check_;
/* Hands it the page of its VM's rates (borrowed). 0 or -errno. */
int worker_pace(struct worker *w, int fd) _must_check_;
/* Ends it now. ops->ended follows. */
void worker_kill(struct worker *w);
/* 0: there is no process yet, or no more. */
pid_t worker_pid(const struct worker *w);
/* No more calls from it. If it still runs it is killed; memory and uid last until it is reaped.
 * NULL is fine. */
void worker_destroy(struct worker *w);

/* A stopped worker is ended within three of these, and a little. */
#define WORKER_HEARTBEAT_USEC UINT64_C(500000)

/* Every WORKER_HEARTBEAT_USEC while there are workers: pings them, ends those that hang. */
void workers_heartbeat(struct broker *b);
