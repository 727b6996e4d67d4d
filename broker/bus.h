/* SPDX-License-Identifier: MIT
 * The control API: org.devbroker.Broker1 (protocol/org.devbroker.Broker1.xml) over sd-bus, on a
 * private socket, one sd-bus server connection per client.
 */
#pragma once

#include "base/cleanup.h"
#include "broker/lease.h"
#include "protocol/refusal.h"

struct broker;
struct bus_server;
struct device;
struct policy_rule;
struct vm;

/* Listens on RUN-DIR/bus. The caller holds the lock on RUN-DIR, so a socket that is there is
 * nobody's. 0 or -errno. */
int bus_listen(struct broker *b, struct bus_server **out) _must_check_;
/* Serves on the message bus at this D-Bus address as well, whenever it is there. 0 or -errno. */
int bus_serve_system(struct bus_server *s, const char *address) _must_check_;
/* Closes all connections and removes the socket. NULL is fine. */
void bus_server_destroy(struct bus_server *s);

/* Announce to every connection; nothing happens before bus_listen. */
void bus_device_added(struct broker *b, struct device *d);
void bus_device_removed(struct broker *b, struct device *d);
void bus_device_changed(struct broker *b, struct device *d);
/* What is known of a USB device is different (its lease is not). */
void bus_usb_changed(struct broker *b, struct device *d);
/* The VM's GPU has another state. */
void bus_gpu_changed(struct broker *b, struct vm *vm);
void bus_vm_added(struct broker *b, struct vm *vm);
void bus_vm_removed(struct broker *b, struct vm *vm);
void bus_vm_changed(struct broker *b, struct vm *vm);
/* A rule offers it to some VMs: somebody has to choose. */
void bus_offered(struct broker *b, struct device *d, const struct policy_rule *rule);
/* The log has records up to this one. */
void bus_logged(struct broker *b, uint64_t seq);
void bus_refused(struct broker *b, const char *device, const char *vm, enum lease_reason reason,
	const char *sentence);
