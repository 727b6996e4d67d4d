/* SPDX-License-Identifier: MIT */
#include "broker/broker.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/adopt.h"
#include "broker/audit.h"
#include "broker/bus.h"
#include "broker/device-disk.h"
#include "broker/gpu.h"
#include "broker/lease.h"
#include "broker/policy.h"
#include "broker/spawner.h"
#include "broker/usb-host.h"
#include "broker/vm-options.h"
#include "broker/vm-record.h"
#include "broker/vm.h"
#include "broker/worker.h"

/* Candidates named in a refusal. */
#define CANDIDATES_MAX 8
/* µs that the heartbeat may be late; sd-event's own choice is 250 ms. */
#define TIMER_SLACK 20000

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct broker *b = userdata;

	workers_heartbeat(b);
	sd_event_source_set_time(source, now_usec() + WORKER_HEARTBEAT_USEC);
	return sd_event_source_set_enabled(source, b->n_workers > 0 ? SD_EVENT_ON : SD_EVENT_OFF);
}

/* Of what the kernel allows to all programs together (usbcore's usbfs_memory_mb, 0: no limit) a
 * quarter is left to the host's own. */
static uint64_t usbfs_limit(const struct config_usb *c)
{
	FILE *f = c->usbfs_memory_all
			  ? NULL
			  : fopen("/sys/module/usbcore/parameters/usbfs_memory_mb", "re");
	unsigned int megabytes = 16;

	if (c->usbfs_memory_all) {
		return c->usbfs_memory_all;
	}
	if (f) {
		if (fscanf(f, "%u", &megabytes) != 1) {
			megabytes = 16;
		}
		fclose(f);
	}
	return megabytes == 0 ? UINT64_MAX : (uint64_t)megabytes * (1 << 20) / 4 * 3;
}

int broker_init(struct broker *b, struct config *config, struct spawner *spawner)
{
	int r;

	b->config = *config;
	/* The lists' heads moved. */
	list_init(&b->config.vms);
	list_init(&b->config.disks);
	list_move_all(&config->vms, &b->config.vms);
	list_move_all(&config->disks, &b->config.disks);
	*config = (struct config){0};
	list_init(&config->vms);
	list_init(&config->disks);
	b->spawner = spawner;
	b->usbfs = (struct quota){.name = "usbfs-memory", .limit = usbfs_limit(&b->config.usb)};
	list_init(&b->vms);
	list_init(&b->gpu_pools);
	list_init(&b->devices);
	list_init(&b->workers);
	list_init(&b->follows);
	list_init(&b->adoptions);
	r = sd_event_new(&b->event);
	if (r < 0) {
		return r;
	}
	r = sd_event_add_time(
		b->event, &b->heartbeat, CLOCK_MONOTONIC, UINT64_MAX, TIMER_SLACK, on_heartbeat, b);
	if (r < 0) {
		return r;
	}
	return r < 0 ? r : sd_event_source_set_enabled(b->heartbeat, SD_EVENT_OFF);
}

static int load_disk(struct broker *b, const struct config_disk *c, struct refusal_text *text)
{
	const struct device_disk_options o = {
		.name = c->name,
		.image_fd = -1,
		.path = c->image,
		.speed = c->speed,
		.serial = c->serial,
		.read_only = c->read_only,
		.cdrom = c->cdrom,
		.from_config = true,
		.held = adopt_expects(b, "disk:", c->name),
	};
	struct device *d;

	return device_add_disk(b, &o, &d, text);
}

/* Unless it is lent already, as somebody wanted before this broker was started. */
static int lend_disk(struct broker *b, const struct config_disk *c)
{
	struct refusal_text why = {0};
	struct vm *vm = c->vm ? broker_vm_named(b, c->vm) : NULL;
	char name[NAME_MAX_LENGTH + 8];
	struct device *d;
	int r;

	snprintf(name, sizeof(name), "disk:%s", c->name);
	d = broker_device_named(b, name);
	if (!vm || !d || d->lease) {
		return 0;
	}
	r = lease_create(d, vm, &(struct lease_options){0}, &why);
	if (r == 0) {
		audit_note(b->audit, &(struct audit_event){.action = AUDIT_ATTACH,
					     .uid = AUDIT_NOBODY,
					     .device = d->name,
					     .vm = vm->name,
					     .text = "The configuration of the disk says so."});
	}
	if (r > 0) {
		log_warn("%s: not attached to vm %s: %s", d->name, vm->name, why.sentence);
		r = 0;
	}
	return r;
}

/* Before anything is done: a configuration with an error changes nothing. */
static int check_disks(struct broker *b, struct refusal_text *text)
{
	const struct config_disk *d;

	list_for_each (d, &b->config.disks, link) {
		const struct config_vm *vm;
		bool found = !d->vm;

		list_for_each (vm, &b->config.vms, link) {
			found = found || strcmp(vm->name, d->vm) == 0;
		}
		if (!found) {
			return refuse(text, REFUSAL_CONFIG, "%s: there is no VM %s in vms.d",
				d->where_vm, d->vm);
		}
	}
	return 0;
}

static void audit_policy(struct broker *b, uid_t uid, int r, const struct refusal_text *text)
{
	char rules[64];

	snprintf(rules, sizeof(rules), "%zu rules are in force.",
		b->policy ? b->policy->n_rules : 0);
	audit_note(b->audit, &(struct audit_event){.action = AUDIT_POLICY,
				     .uid = uid,
				     .reason = r > 0   ? refusal_code(r)
					       : r < 0 ? "failed"
						       : "",
				     .text = r > 0   ? text->sentence
					     : r < 0 ? strerror(-r)
						     : rules});
}

int broker_reload_policy(struct broker *b, uid_t uid, struct refusal_text *text)
{
	struct policy *fresh, *old = b->policy;
	int r = policy_load(b->config_dir, &fresh, text);

	if (r != 0) {
		audit_policy(b, uid, r, text);
		return r;
	}
	b->policy = fresh;
	audit_policy(b, uid, 0, text);
	log_info("policy: %zu rule%s", fresh->n_rules, fresh->n_rules == 1 ? "" : "s");
	/* Decisions point to rules of the old one until they are made anew. */
	usb_host_decide_all(b);
	policy_destroy(old);
	return 0;
}

static int on_logged(sd_event_source *source, void *userdata)
{
	struct broker *b = userdata;

	b->logged = sd_event_source_disable_unref(b->logged);
	bus_logged(b, b->logged_seq);
	return 0;
}

/* Many in one turn are told once. */
static void on_noted(void *userdata, uint64_t seq)
{
	struct broker *b = userdata;

	b->logged_seq = seq;
	if (!b->logged && b->bus && sd_event_add_defer(b->event, &b->logged, on_logged, b) < 0) {
		log_error("log: out of memory");
	}
}

static int start_log(struct broker *b)
{
	return audit_create(b->state_dir, on_noted, b, &b->audit);
}

int broker_load(struct broker *b, struct refusal_text *text)
{
	const struct config_disk *disk;
	const struct config_vm *c;
	int r = check_disks(b, text);

	if (r == 0) {
		r = memory_load(b->state_dir, &b->memory, text);
	}
	if (r == 0) {
		r = start_log(b);
	}
	if (r == 0) {
		r = broker_reload_policy(b, AUDIT_NOBODY, text);
	}
	if (r != 0) {
		return r;
	}
	list_for_each (c, &b->config.vms, link) {
		const struct vm_options o = {
			.name = c->name,
			.qmp = c->qmp,
			.ways = c->qmp ? NULL : &c->ways,
			.bus = c->bus,
			.owners = &c->owners,
			.limits = c->quota,
			.gpu_memory = c->gpu_memory,
			.gpu_group = c->gpu_group,
			.gpu_virgl = c->gpu_virgl,
			.gpu_limits = c->gpu_limits,
			.render_node = c->render_node,
			.gpu_dmabuf = c->gpu_dmabuf,
			.gpu_hang_seconds = c->gpu_hang_seconds,
			.from_config = true,
		};
		struct vm *vm;

		r = vm_add(b, &o, &vm, text);
		if (r != 0) {
			return r;
		}
	}
	vm_restore_all(b);
	r = adopt_begin(b);
	if (r < 0) {
		log_warn("devbrokerd: can't read what an earlier one has lent: %s", strerror(-r));
	}
	list_for_each (disk, &b->config.disks, link) {
		r = load_disk(b, disk, text);
		if (r != 0) {
			return r;
		}
	}
	adopt_leases(b, "disk:");
	list_for_each (disk, &b->config.disks, link) {
		r = lend_disk(b, disk);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

void broker_check_stopped(struct broker *b)
{
	struct device *d;

	if (!b->stopping || b->n_processes > 0) {
		return;
	}
	list_for_each (d, &b->devices, link) {
		if (d->lease) {
			return;
		}
	}
	sd_event_exit(b->event, 0);
}

void broker_stop(struct broker *b)
{
	struct device *d, *next;
	struct vm *vm;

	if (b->stopping) {
		return;
	}
	b->stopping = true;
	list_for_each_safe (d, next, &b->devices, link) {
		if (d->lease) {
			lease_release(d->lease, LEASE_REASON_SHUTDOWN);
		}
	}
	list_for_each (vm, &b->vms, link) {
		/* Clients' VMs are theirs to add again. */
		vm_forget_note(vm);
		gpu_destroy(vm->gpu);
		vm->gpu = NULL;
	}
	broker_check_stopped(b);
}

void broker_finish(struct broker *b)
{
	struct device *d, *next_d;
	struct vm *vm, *next_vm;

	if (b->event) {
		usb_host_stop(b);
		list_for_each_safe (d, next_d, &b->devices, link) {
			device_destroy(d);
		}
		list_for_each_safe (vm, next_vm, &b->vms, link) {
			vm_destroy(vm);
		}
		assert(b->n_workers == 0);
		config_finish(&b->config);
		policy_destroy(b->policy);
		memory_finish(&b->memory);
	}
	sd_event_source_disable_unref(b->heartbeat);
	sd_event_source_disable_unref(b->logged);
	audit_destroy(b->audit);
	spawner_destroy(b->spawner);
	sd_event_unref(b->event);
	*b = (struct broker){0};
}

/* A name that did not match exactly: how many things it may mean, and which. */
struct candidates {
	unsigned int n;
	void *only;
	char text[256];
};

static void candidate_add(struct candidates *c, void *thing, const char *name)
{
	size_t at = strlen(c->text);

	c->only = thing;
	if (c->n++ < CANDIDATES_MAX) {
		snprintf(c->text + at, sizeof(c->text) - at, "%s%s", at ? ", " : "", name);
	}
}

static int candidate_pick(const struct candidates *c, const char *what, const char *name,
	void **out, struct refusal_text *text)
{
	char shown[128];

	log_escape(name, strlen(name), shown, sizeof(shown));
	if (c->n == 0) {
		return refuse(text, REFUSAL_NOT_FOUND, "there is no %s %s", what, shown);
	}
	if (c->n > 1) {
		return refuse(text, REFUSAL_AMBIGUOUS, "%s could be any of %u: %s%s", shown, c->n,
			c->text, c->n > CANDIDATES_MAX ? ", …" : "");
	}
	*out = c->only;
	return 0;
}

static const char *after_colon(const char *name)
{
	const char *colon = strchr(name, ':');

	return colon ? colon + 1 : name;
}

enum match { MATCH_NAME, MATCH_SHORT, MATCH_SERIAL, MATCH_PREFIX, MATCH_COUNT_ };

static bool device_matches(const struct device *d, const char *name, enum match how)
{
	switch (how) {
	case MATCH_NAME:
		return strcmp(d->name, name) == 0;
	case MATCH_SHORT:
		return strcmp(after_colon(d->name), name) == 0;
	case MATCH_SERIAL:
		return strcmp(d->serial, name) == 0;
	default:
		return name[0] && (strncmp(d->name, name, strlen(name)) == 0 ||
					  strncmp(after_colon(d->name), name, strlen(name)) == 0);
	}
}

int broker_find_device(
	struct broker *b, const char *name, struct device **out, struct refusal_text *text)
{
	struct candidates c = {0};
	struct device *d;
	void *found = NULL;
	int r;

	for (enum match how = MATCH_NAME; how < MATCH_COUNT_ && c.n == 0; how++) {
		list_for_each (d, &b->devices, link) {
			if (device_matches(d, name, how)) {
				candidate_add(&c, d, d->name);
			}
		}
	}
	r = candidate_pick(&c, "device", name, &found, text);
	if (r == 0) {
		*out = found;
	}
	return r;
}

struct device *broker_device_named(struct broker *b, const char *name)
{
	struct device *d;

	list_for_each (d, &b->devices, link) {
		if (strcmp(d->name, name) == 0) {
			return d;
		}
	}
	return NULL;
}

struct vm *broker_vm_named(struct broker *b, const char *name)
{
	struct vm *vm;

	list_for_each (vm, &b->vms, link) {
		if (strcmp(vm->name, name) == 0) {
			return vm;
		}
	}
	return NULL;
}

int broker_find_vm(struct broker *b, const char *name, struct vm **out, struct refusal_text *text)
{
	struct vm *exact = broker_vm_named(b, name), *vm;
	struct candidates c = {0};
	void *found = exact;
	int r;

	if (!exact) {
		list_for_each (vm, &b->vms, link) {
			if (name[0] && strncmp(vm->name, name, strlen(name)) == 0) {
				candidate_add(&c, vm, vm->name);
			}
		}
		r = candidate_pick(&c, "VM", name, &found, text);
		if (r != 0) {
			return r;
		}
	}
	*out = found;
	return 0;
}

int broker_take_uid(struct broker *b, uint32_t *slot_out)
{
	uint32_t n = b->uid_count < BROKER_WORKERS_MAX ? b->uid_count : BROKER_WORKERS_MAX;

	if (n == 0) {
		*slot_out = 0;
		return 0;
	}
	/* Round robin: a uid that was just used is the last to be used again. */
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = (b->uid_next + i) % n;

		if (!(b->uid_used[slot / 8] & 1U << slot % 8)) {
			b->uid_used[slot / 8] |= (uint8_t)(1U << slot % 8);
			b->uid_next = slot + 1;
			*slot_out = slot;
			return 0;
		}
	}
	return -EAGAIN;
}

void broker_claim_uid(struct broker *b, uint32_t slot)
{
	assert(slot < BROKER_WORKERS_MAX);
	b->uid_used[slot / 8] |= (uint8_t)(1U << slot % 8);
}

void broker_return_uid(struct broker *b, uint32_t slot)
{
	b->uid_used[slot / 8] &= (uint8_t) ~(1U << slot % 8);
}
