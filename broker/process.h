/* SPDX-License-Identifier: MIT
 * One process in a sandbox as the broker sees it: asked of the spawner, watched by its pidfd,
 * reaped. What is said to it, and for how long, is its owner's (worker, gpu).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "broker/bus-scope.h"
#include "broker/config.h"
#include "broker/spawner.h"

struct broker;
struct process;

/* What comes from a process is taken in turns of this many messages, so that one that floods slows
 * nobody else. */
#define PROCESS_MESSAGES_PER_TURN 16
/* More than this many without a ping in between end it: an honest one sends a PONG, and now and
 * then something else. What was asked for does not count. */
#define PROCESS_MESSAGES_PER_PING 256

#define PROCESS_STATUS_UNKNOWN INT32_MIN
#define PROCESS_NO_SLOT        UINT32_MAX

/* It is reaped, or could not be started or watched (error: -errno, else 0). status: its exit
 * status, or -signal. From the loop; p is gone when this returns. */
typedef void (*process_ended)(void *userdata, int error, int status);

/* Starts program with these arguments; fds follow as 3, 4, … (borrowed). name is for the log. 0; or
 * -errno with nothing started. Failures after that come through ended. */
int process_start(struct broker *b, enum spawner_program program, const char *name,
	const char *const *args, size_t n_args, const int *fds, size_t n_fds, process_ended ended,
	void *userdata, struct process **out) _must_check_;
/* The same for one that an earlier broker started: no child of ours, so nobody knows how it ended
 * (PROCESS_STATUS_UNKNOWN). Takes pidfd even on error. uid_slot: its worker uid, which nobody else
 * gets; PROCESS_NO_SLOT: it is not one of ours. 0 or -errno. */
int process_adopt(struct broker *b, enum spawner_program program, const char *name, pid_t pid,
	int pidfd, uint32_t uid_slot, process_ended ended, void *userdata,
	struct process **out) _must_check_;
/* It is also put into a cgroup with these limits (bus-scope.h), when it is there. kind is borrowed
 * for good, the others are copied. */
void process_limit(
	struct process *p, const char *kind, const char *vm, const struct scope_limits *limits);
/* 0: there is none yet, or p is NULL. */
pid_t process_pid(const struct process *p);
/* Nothing happens where there is no process yet, or p is NULL. */
void process_signal(const struct process *p, int signal);
/* SIGKILL, now or as soon as it is there; ended follows. NULL is fine. */
void process_kill(struct process *p);
/* Kills it; nobody is told of its end. NULL is fine. */
void process_forget(struct process *p);
