/* SPDX-License-Identifier: MIT
 * Everything that devbrokerd knows: VMs, devices, workers, the loop they live on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "broker/bus-scope.h"
#include "broker/config.h"
#include "broker/memory.h"
#include "broker/quota.h"
#include "protocol/refusal.h"

struct audit;
struct bus_server;
struct device;
struct hotplug;
struct policy;
struct spawner;
struct vm;

/* Upper bounds of what requests can make the broker hold. */
#define BROKER_VMS_MAX     256
#define BROKER_DEVICES_MAX 1024
#define BROKER_WORKERS_MAX 1024

struct broker {
	sd_event *event;
	struct config config;
	const char *config_dir; /* borrowed from the command line */
	const char *run_dir;    /* borrowed */
	const char *state_dir;  /* borrowed */
	struct memory memory;   /* what users wanted remembered */
	struct list adoptions;  // adoption::link: of an earlier broker; empty after start
	struct spawner *spawner;
	struct audit *audit; // may be NULL: before start
	uint64_t logged_seq;
	sd_event_source *logged; // may be NULL: clients are told of new records in this turn
	struct bus_server *bus;  // may be NULL: before start, after stop
	struct scope_counts scopes;
	struct list vms;         // vm::link
	struct list gpu_pools;   // gpu_pool::link
	struct list devices;     // device::link
	struct list workers;     // worker::link
	struct policy *policy;   // may be NULL: before start
	struct hotplug *hotplug; // may be NULL: before start, after stop
	sd_event_source *decide; // may be NULL: decisions are made anew in this turn
	sd_event_source *slow;   // may be NULL: compares what should be with what is, now and then
	struct list follows;     // follow::link
	bool usb_started;        /* what was there at start is known */
	struct quota usbfs;      /* kernel memory for transfers, all devices together */
	uint32_t n_vms;
	uint32_t n_devices;
	uint32_t n_workers;
	uint32_t n_processes;       /* the workers among them */
	sd_event_source *heartbeat; // enabled while there are workers
	uint64_t ping_seq;
	uid_t uid_base;
	uint32_t uid_count; /* 0: workers run under the broker's own uid */
	uint8_t uid_used[BROKER_WORKERS_MAX / 8];
	uint32_t uid_next;
	bool leaving;  /* told to end, and to leave what is lent to the next broker */
	bool stopping; /* told to end: nothing new starts, the loop ends when the last lease does */
};

/* Sets up what needs nothing but memory. config is taken (moved). 0 or -errno. */
int broker_init(struct broker *b, struct config *config, struct spawner *spawner) _must_check_;
/* Reads the rules anew: the old ones stay in force if there is an error in the new. 0, -errno, or
 * REFUSAL_CONFIG with text. uid is who wanted it, AUDIT_NOBODY if nobody asked. */
int broker_reload_policy(struct broker *b, uid_t uid, struct refusal_text *text) _must_check_;
/* Makes VMs and disks of the configuration. 0, -errno, or a refusal (of the kind REFUSAL_CONFIG)
 * with text. */
int broker_load(struct broker *b, struct refusal_text *text) _must_check_;
/* Releases every lease; the loop ends with code 0 when all are released and all workers reaped. */
void broker_stop(struct broker *b);
/* Called by whatever may have been the last thing that broker_stop waits for. */
void broker_check_stopped(struct broker *b);
/* Everything must have been released. Accepts half-built. */
void broker_finish(struct broker *b);

/* Finds by full name, by the part after the colon, by serial number or by unique prefix (in this
 * order). 0; REFUSAL_NOT_FOUND, REFUSAL_AMBIGUOUS (text lists the candidates). */
int broker_find_device(struct broker *b, const char *name, struct device **out,
	struct refusal_text *text) _must_check_;
/* By full name or unique prefix. */
int broker_find_vm(struct broker *b, const char *name, struct vm **out,
	struct refusal_text *text) _must_check_;
/* The device with exactly this name, or NULL. */
struct device *broker_device_named(struct broker *b, const char *name);
/* The VM with exactly this name, or NULL. */
struct vm *broker_vm_named(struct broker *b, const char *name);

/* A worker uid of its own (slot below uid_count), or -EAGAIN if all are in use. Without worker uids
 * always slot 0. */
int broker_take_uid(struct broker *b, uint32_t *slot_out) _must_check_;
/* The slot of a worker that an earlier broker started. */
void broker_claim_uid(struct broker *b, uint32_t slot);
void broker_return_uid(struct broker *b, uint32_t slot);
