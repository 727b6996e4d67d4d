/* SPDX-License-Identifier: MIT
 *
 * How a device is taken from the host and given back, without a race and with nothing forgotten.
 *
 * Taking: the host must be able to spare it (usb-guard). Its node is opened, and the descriptors
 * that are read from the open node must be those that the decision was made on: node numbers are
 * used again. What is about to be taken is written down (usb-record). On a quarantined bus its
 * interfaces are authorised now, and no driver has had them; elsewhere devbroker-claim takes
 * the drivers off. Then USBDEVFS_DROP_PRIVILEGES makes the node one that can claim only these
 * interfaces and take nothing from any driver, for good, and the worker gets it. A driver that is
 * loaded in between wins: the worker can't claim, says so, and the lease tries again.
 *
 * Giving back: the worker is gone and with it its claims. On a fresh node the device is reset, gets
 * the configuration that it had, and drivers are looked for; the kernel does none of that by itself
 * when a node is closed. Then the record goes.
 *
 * Everything that may block runs in devbroker-claim, one run at a time per device.
 */
#include <errno.h>
#include <limits.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/claim-run.h"
#include "broker/device-usb.h"
#include "broker/hotplug.h"
#include "broker/usb-bus.h"
#include "broker/usb-facts.h"
#include "broker/usb-guard.h"
#include "broker/usb-node.h"
#include "broker/usb-record.h"
#include "broker/worker.h"

/* How often, and for how long, a worker that has lost its broker is waited for. */
#define RESTORE_USEC  (250 * UINT64_C(1000))
#define RESTORE_TRIES 40

static struct broker *broker_of(const struct device_usb *u)
{
	return u->device.broker;
}

static bool quarantined(const struct usb_facts *f)
{
	char root[PATH_MAX], part[32];
	const char *at;

	snprintf(part, sizeof(part), "/%.28s/", f->bus);
	at = strstr(f->syspath, part);
	if (!at) {
		return false;
	}
	snprintf(root, sizeof(root), "%.*s", (int)(at - f->syspath + (long)strlen(part) - 1),
		f->syspath);
	return usb_bus_quarantined(root);
}

static int explain_open(const struct device_usb *u, int r, struct refusal_text *text)
{
	switch (r) {
	case -ENODEV:
	case -ENOENT:
	case -ENXIO:
	case -ESTALE:
		return refuse_with(text, REFUSAL_NOT_FOUND, "Look again: devbroker list",
			"%s is not what it was when it was looked at", u->device.name);
	case -EACCES:
	case -EPERM:
		return refuse_with(text, REFUSAL_DENIED,
			"Run devbrokerd as root, or give its user the device's node by udev.",
			"devbrokerd may not open %s of %s", u->path, u->device.name);
	default:
		return r;
	}
}

static uint32_t interface_bit(const struct usb_interface *i)
{
	return i->number < 32 ? 1u << i->number : 0;
}

/* Interfaces of the active configuration; all where the guest may choose another one. */
static uint32_t interfaces_of(const struct usb_facts *f)
{
	uint32_t mask = 0;

	if (f->n_configurations > 1 || f->configuration == 0) {
		return UINT32_MAX;
	}
	for (size_t i = 0; i < f->n_interfaces; i++) {
		mask |= interface_bit(&f->interfaces[i]);
	}
	return mask;
}

static uint32_t driven_interfaces(const struct usb_facts *f)
{
	uint32_t mask = 0;

	for (size_t i = 0; i < f->n_interfaces; i++) {
		const char *driver = f->interfaces[i].driver;

		if (driver[0] && strcmp(driver, "usbfs") != 0) {
			mask |= interface_bit(&f->interfaces[i]);
		}
	}
	return mask;
}

bool usb_claim_lost(const struct device_usb *u)
{
	const struct lease *l = u->device.lease;

	if (!u->facts || u->run || !l || !l->taken) {
		return false;
	}
	return (l->state == LEASE_ATTACHED || l->state == LEASE_CONFIGURED) &&
	       (driven_interfaces(u->facts) & u->interfaces) != 0;
}

static void close_run(struct device_usb *u)
{
	u->run_node = safe_close(u->run_node);
	u->run_authorized = safe_close(u->run_authorized);
}

static int start_run(
	struct device_usb *u, int node, const struct claim_steps *steps, claim_done done)
{
	return claim_run(broker_of(u), u->device.name, node, steps, done, u, &u->run);
}

static int write_record(const struct device_usb *u)
{
	struct usb_record record = {
		.instance = u->facts->instance,
		.host_drivers = u->host_drivers,
		.configuration = u->configuration,
	};

	snprintf(record.key, sizeof(record.key), "%.127s", u->device.name);
	return usb_record_write(broker_of(u)->run_dir, &record);
}

static void forget_record(struct device_usb *u)
{
	u->host_drivers = 0;
	usb_record_remove(broker_of(u)->run_dir, u->device.name);
}

/* Undoes what take did, when nothing was taken off. */
static void untake(struct device_usb *u)
{
	u->node = safe_close(u->node);
	charge_return(&u->usbfs);
	forget_record(u);
}

/* What was really taken off counts: a driver that came a moment ago is not among the facts yet,
 * and would never come back. */
static void note_taken_off(struct device_usb *u, uint32_t interfaces)
{
	int r;

	if ((interfaces & ~u->host_drivers) == 0) {
		return;
	}
	u->host_drivers |= interfaces;
	r = write_record(u);
	if (r < 0) {
		log_warn("%s: writing down its host drivers failed: %s", u->device.name,
			strerror(-r));
	}
}

static void on_disconnected(void *userdata, int error, uint32_t interfaces)
{
	struct device_usb *u = userdata;
	struct lease *l = u->device.lease;
	struct refusal_text text = {0};
	uint32_t mask = u->interfaces;
	int r = 0;

	u->run = NULL;
	if (error == 0 && u->facts) {
		note_taken_off(u, interfaces);
	}
	if (error == 0 && ioctl(u->node, USBDEVFS_DROP_PRIVILEGES, &mask) < 0) {
		error = -errno;
	}
	if (error < 0) {
		untake(u);
		r = u->facts ? refuse_with(&text, REFUSAL_BUSY,
				       "Close what uses it on the host, and attach it again.",
				       "the host does not let go of %s: %s", u->device.name,
				       strerror(-error))
			     : refuse(&text, REFUSAL_NOT_FOUND, "%s was unplugged", u->device.name);
	}
	lease_taken(l, r, &text);
}

static int take(struct device_usb *u, struct lease *l, struct refusal_text *text)
{
	struct device *d = &u->device;
	struct broker *b = d->broker;
	const struct usb_facts *f = u->facts;
	struct claim_steps steps = {.configuration = CLAIM_AS_IT_IS, .authorized_fd = -1};
	int r = usb_claim_check(d, &l->options, text);

	if (r == 0) {
		r = charge_take(&u->usbfs, &b->usbfs, b->config.usb.usbfs_memory, "the host", text);
	}
	if (r != 0 || !f) {
		return r;
	}
	steps.disconnect = interfaces_of(f);
	u->node = usb_node_open(f);
	if (u->node < 0) {
		r = explain_open(u, u->node, text);
		u->node = -1;
		return r;
	}
	/* The host's drivers come off all of them: the guest resets the device, and the kernel lets
	 * nobody do that while a driver has a part of it. */
	u->interfaces = interfaces_of(f);
	if (l->options.interfaces) {
		u->interfaces &= l->options.interfaces;
	}
	u->host_drivers = driven_interfaces(f);
	u->configuration = f->configuration;
	r = write_record(u);
	if (r == 0 && quarantined(f)) {
		r = usb_bus_authorize(f->syspath, true);
	}
	return r == 0 ? start_run(u, u->node, &steps, on_disconnected) : r;
}

void usb_claim_take(struct device *d, struct lease *l)
{
	struct device_usb *u = device_usb(d);
	struct refusal_text text = {0};
	int r;

	if (u->run || u->restoring) {
		u->take_waits = true;
		return;
	}
	r = take(u, l, &text);
	if (r != 0) {
		untake(u);
		lease_taken(l, r, &text);
	}
}

/* A run that no lease waits for is done: what waited for it goes on. */
static void run_ended(struct device_usb *u)
{
	u->run = NULL;
	close_run(u);
	if (u->take_waits && u->device.lease) {
		u->take_waits = false;
		usb_claim_take(&u->device, u->device.lease);
		return;
	}
	device_usb_settle(u);
}

/* What shall happen to the drivers of the host now. */
static bool drivers_return(const struct device_usb *u, const struct lease *l)
{
	return !l->options.keep_drivers_off && broker_of(u)->config.usb.host_drivers_return &&
	       u->decision.action != POLICY_DENY;
}

static void on_given_back(void *userdata, int error, uint32_t interfaces)
{
	struct device_usb *u = userdata;

	u->run = NULL;
	close_run(u);
	if (error < 0 && u->facts && error != -ENODEV) {
		log_warn("%s: giving it back to the host failed: %s", u->device.name,
			strerror(-error));
	}
	forget_record(u);
	lease_given_back(u->device.lease);
}

void usb_claim_give_back(struct device *d, struct lease *l)
{
	struct device_usb *u = device_usb(d);
	struct claim_steps steps = {
		.reset = !l->options.no_reset,
		.configuration = CLAIM_AS_IT_IS,
		.authorized_fd = -1,
	};
	int r;

	u->node = safe_close(u->node);
	charge_return(&u->usbfs);
	if (!u->facts) {
		forget_record(u);
		lease_given_back(l);
		return;
	}
	if (u->facts->configuration != u->configuration) {
		steps.configuration = u->configuration;
	}
	if (drivers_return(u, l)) {
		/* On a quarantined bus there was none to come back, but the host shall have it. */
		steps.connect = quarantined(u->facts) ? interfaces_of(u->facts) : u->host_drivers;
	}
	u->run_node = usb_node_open(u->facts);
	r = u->run_node < 0 ? u->run_node : start_run(u, u->run_node, &steps, on_given_back);
	if (r < 0) {
		on_given_back(u, r, 0);
	}
}

static void on_configured(void *userdata, int error, uint32_t interfaces)
{
	struct device_usb *u = userdata;
	struct lease *l = u->device.lease;

	u->run = NULL;
	close_run(u);
	if (error == 0 && u->facts && quarantined(u->facts)) {
		error = usb_bus_authorize(u->facts->syspath, true);
	}
	u->host_drivers |= interfaces;
	if (u->facts && write_record(u) < 0) {
		log_warn("%s: can't note which drivers it had", u->device.name);
	}
	if (l && l->worker) {
		worker_configured(l->worker, error);
	}
	if (u->take_waits || !l) {
		run_ended(u);
	}
}

void usb_claim_message(struct device *d, struct lease *l, const union worker_msg *m)
{
	struct device_usb *u = device_usb(d);
	struct claim_steps steps = {.authorized_fd = -1};
	uint32_t value;
	int r = -EBUSY;

	if (m->header.type != WORKER_MSG_SET_CONFIGURATION) {
		return;
	}
	value = m->set_configuration.value;
	steps.configuration = value;
	if ((l->options.interfaces || l->options.read_only) && value != 0 &&
		value != u->configuration) {
		/* Its worker would not ask. In another one the numbers mean something else. */
		r = -EPERM;
	} else if (u->facts && !u->run) {
		steps.disconnect = interfaces_of(u->facts);
		u->run_node = usb_node_open(u->facts);
		r = u->run_node < 0 ? u->run_node
				    : start_run(u, u->run_node, &steps, on_configured);
	}
	if (r < 0) {
		close_run(u);
		worker_configured(l->worker, r);
	}
}

static void on_alone(void *userdata, int error, uint32_t interfaces)
{
	struct device_usb *u = userdata;

	if (error < 0 && error != -ENODEV) {
		log_warn("%s: the host can't have it as it should: %s", u->device.name,
			strerror(-error));
	}
	run_ended(u);
}

/* Runs steps that belong to no lease. */
static void run_alone(struct device_usb *u, const struct claim_steps *steps, claim_done done)
{
	int r;

	u->run_node = usb_node_open(u->facts);
	r = u->run_node < 0 ? u->run_node : start_run(u, u->run_node, steps, done);
	if (r < 0) {
		log_warn("%s: %s", u->device.name, strerror(-r));
		close_run(u);
	}
}

void usb_claim_to_host(struct device_usb *u)
{
	const struct usb_facts *f = u->facts;
	struct claim_steps steps = {
		.configuration = CLAIM_AS_IT_IS,
		.authorized_fd = -1,
	};

	if (u->denied) {
		u->denied = false;
		u->run_authorized = usb_bus_open_authorized(f->syspath);
		if (u->run_authorized >= 0) {
			steps.authorize = true;
			steps.authorized_fd = u->run_authorized;
			run_alone(u, &steps, on_alone);
		}
		return;
	}
	if (u->to_host || !quarantined(f)) {
		return;
	}
	u->to_host = true;
	steps.connect = interfaces_of(f) & ~driven_interfaces(f);
	if (steps.connect && usb_bus_authorize(f->syspath, true) == 0) {
		log_info("%s: left to the host", u->device.name);
		run_alone(u, &steps, on_alone);
	}
}

void usb_claim_deny(struct device_usb *u)
{
	struct claim_steps steps = {
		.deauthorize = true,
		.configuration = CLAIM_AS_IT_IS,
	};
	struct refusal_text text = {0};
	int r;

	if (u->denied) {
		return;
	}
	r = usb_guard_check(&usb_guard_host, u->facts->syspath, u->device.name, false, &text);
	if (r != 0) {
		log_warn(
			"%s: not denied: %s", u->device.name, r < 0 ? strerror(-r) : text.sentence);
		u->denied = true; /* once is enough */
		return;
	}
	u->denied = true;
	log_info("%s: denied to host and VMs", u->device.name);
	u->run_authorized = usb_bus_open_authorized(u->facts->syspath);
	steps.authorized_fd = u->run_authorized;
	if (u->run_authorized >= 0) {
		run_alone(u, &steps, on_alone);
	}
}

static void restore_step(struct device_usb *u);

static int on_restore_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct device_usb *u = userdata;

	u->restore_timer = sd_event_source_disable_unref(u->restore_timer);
	restore_step(u);
	return 0;
}

static void restored(struct device_usb *u, int error)
{
	u->restoring = false;
	if (error == 0) {
		log_info(
			"%s: given back to the host: an earlier devbrokerd had it", u->device.name);
	} else if (u->facts) {
		log_warn("%s: an earlier devbrokerd had it, and giving it back failed: %s",
			u->device.name, strerror(-error));
	}
	forget_record(u);
	run_ended(u);
}

static void on_restored(void *userdata, int error, uint32_t interfaces)
{
	struct device_usb *u = userdata;

	u->run = NULL;
	close_run(u);
	/* The worker of that broker tells its guest first, and then ends. */
	if (error == -EBUSY && u->facts && ++u->restore_tries < RESTORE_TRIES &&
		sd_event_add_time_relative(broker_of(u)->event, &u->restore_timer, CLOCK_MONOTONIC,
			RESTORE_USEC, 0, on_restore_timer, u) >= 0) {
		return;
	}
	restored(u, error);
}

static void restore_step(struct device_usb *u)
{
	struct claim_steps steps = {
		.reset = true,
		.configuration = CLAIM_AS_IT_IS,
		.authorized_fd = -1,
	};
	int r = u->facts ? 0 : -ENODEV;

	if (broker_of(u)->config.usb.host_drivers_return) {
		steps.connect = u->host_drivers;
	}
	if (r == 0 && u->facts->configuration != u->restore_configuration) {
		steps.configuration = u->restore_configuration;
	}
	if (r == 0) {
		u->run_node = usb_node_open(u->facts);
		r = u->run_node < 0 ? u->run_node : start_run(u, u->run_node, &steps, on_restored);
	}
	if (r < 0) {
		close_run(u);
		restored(u, r);
	}
}

void usb_claim_restore(struct device_usb *u, const struct usb_record *record)
{
	u->restoring = true;
	u->restore_tries = 0;
	u->restore_configuration = record->configuration;
	u->host_drivers = record->host_drivers;
	restore_step(u);
}

void usb_claim_hub(struct broker *b, const struct usb_facts *f)
{
	const struct claim_steps steps = {
		.configuration = CLAIM_AS_IT_IS,
		.connect = interfaces_of(f),
		.authorized_fd = -1,
	};
	_cleanup_close_ int node = usb_node_open(f);
	struct claim_run *run;
	int r = node < 0 ? node : usb_bus_authorize(f->syspath, true);

	if (r >= 0) {
		/* The helper has its own of node once it is started. */
		r = claim_run(b, f->key, node, &steps, NULL, NULL, &run);
	}
	if (r < 0) {
		log_warn("%s: the host can't have this hub: %s", f->key, strerror(-r));
	}
}

void usb_claim_finish(struct device_usb *u)
{
	claim_forget(u->run);
	sd_event_source_disable_unref(u->restore_timer);
	close_run(u);
	u->node = safe_close(u->node);
	charge_return(&u->usbfs);
}
