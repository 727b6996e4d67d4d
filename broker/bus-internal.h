/* SPDX-License-Identifier: MIT
 * What the files of the control API share.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/list.h"
#include "broker/bus.h"

#define BUS_ROOT      "/org/devbroker"
#define BUS_DEVICES   BUS_ROOT "/device"
#define BUS_VMS       BUS_ROOT "/vm"
#define BUS_IFACE     "org.devbroker.Broker1"
#define BUS_IFACE_DEV "org.devbroker.Device1"
#define BUS_IFACE_USB "org.devbroker.UsbDevice1"
#define BUS_IFACE_VM  "org.devbroker.VM1"
#define BUS_IFACE_GPU "org.devbroker.Gpu1"

struct bus_server {
	struct broker *broker;
	gid_t admin_gid; /* of group devbroker; -1: there is none */
	int listen_fd;
	int reserve_fd; /* given up for a moment when the broker is out of fds */
	sd_event_source *listen_source;
	sd_event_source *resume; // may be NULL: accepting pauses
	struct list connections; // bus_connection::link
	unsigned int n_connections;
};

struct bus_connection {
	struct list link; // bus_server::connections
	struct bus_server *server;
	sd_bus *bus;
	uid_t uid;
	pid_t pid;
	bool may_change;        /* administrator: see bus_connection_init */
	bool may_add_vm;        /* may name sockets that the broker then connects to */
	sd_event_source *hello; // may be NULL: it has authenticated
	sd_event_source *dying; // may be NULL: to be destroyed in the next turn
};

static inline struct broker *bus_broker(const struct bus_connection *c)
{
	return c->server->broker;
}

/* Registers all vtables on a new connection. 0 or -errno. */
int bus_export(struct bus_connection *c) _must_check_;

extern const sd_bus_vtable bus_broker_vtable[];
extern const sd_bus_vtable bus_device_vtable[];
extern const sd_bus_vtable bus_usb_vtable[];
extern const sd_bus_vtable bus_vm_vtable[];
extern const sd_bus_vtable bus_gpu_vtable[];

int bus_device_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error);
int bus_usb_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error);
int bus_gpu_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error);
int bus_vm_find(sd_bus *bus, const char *path, const char *interface, void *userdata,
	void **found_out, sd_bus_error *error);
int bus_device_enumerate(
	sd_bus *bus, const char *prefix, void *userdata, char ***nodes_out, sd_bus_error *error);
int bus_vm_enumerate(
	sd_bus *bus, const char *prefix, void *userdata, char ***nodes_out, sd_bus_error *error);

/* Device1's Drivers. */
int bus_get_drivers(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);
/* Says that what is known of a USB device is different. 0 or -errno. */
int bus_usb_emit_changed(sd_bus *bus, const char *path);

/* Answers a call with a refusal (r > 0) or an errno (r < 0). Returns what a method handler
 * returns. */
int bus_fail(sd_bus_error *error, int r, const struct refusal_text *text);
/* Answers m when every VM in vms (all of the broker if vm is NULL) has said how it is. */
int bus_refresh(sd_bus_message *m, struct bus_connection *c, struct vm *vm);
/* 0 if the caller is an administrator, else the answer to give back. */
int bus_check_admin(struct bus_connection *c, sd_bus_error *error);

/* bus-policy.c */
struct policy_rule;
/* The VMs that rule offers a device to, as "as"; none if it is NULL. 0 or -errno. */
int bus_append_offer(sd_bus_message *m, const struct policy_rule *rule);
int bus_get_offered(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);
int bus_on_reload_policy(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_on_forget(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_get_remembered(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);
/* Remembers that d goes to vm. 0, -errno or a refusal with text. */
int bus_remember(struct bus_connection *c, struct device *d, const char *vm,
	struct refusal_text *text) _must_check_;
int bus_on_explain(sd_bus_message *m, void *userdata, sd_bus_error *error);
