/* SPDX-License-Identifier: MIT
 * What the files of the control API share.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/list.h"
#include "broker/audit.h"
#include "broker/bus.h"
#include "broker/uid-account.h"

#define BUS_ROOT      "/org/devbroker"
#define BUS_DEVICES   BUS_ROOT "/device"
#define BUS_VMS       BUS_ROOT "/vm"
#define BUS_IFACE     "org.devbroker.Broker1"
#define BUS_IFACE_DEV "org.devbroker.Device1"
#define BUS_IFACE_USB "org.devbroker.UsbDevice1"
#define BUS_IFACE_VM  "org.devbroker.VM1"
#define BUS_IFACE_GPU "org.devbroker.Gpu1"

struct bus_system;

struct bus_server {
	struct broker *broker;
	gid_t admin_gid; /* of group devbroker; -1: there is none */
	int listen_fd;
	int reserve_fd; /* given up for a moment when the broker is out of fds */
	sd_event_source *listen_source;
	sd_event_source *resume; // may be NULL: accepting pauses
	struct list connections; // bus_connection::link
	unsigned int n_connections;
	struct uid_accounts accounts;
	struct bus_system *system; // may be NULL: not on the system bus
};

/* Who asks. */
struct bus_caller {
	uid_t uid;
	pid_t pid;
	enum uid_class class;
	bool by_polkit; /* for this one message as if class was UID_ADMIN */
	struct uid_account *account;
};

/* A client of the private socket, or the connection to the system bus. */
struct bus_connection {
	struct list link; // bus_server::connections
	struct bus_server *server;
	sd_bus *bus;
	struct bus_system *system; // NULL: a client
	/* Of a client it is the same for good; on the system bus of the message that is handled. */
	struct bus_caller caller;
	bool announcing; /* on the system bus: what is said now is said to everybody */

	/* Of a client, bus-pump.c. */
	sd_event_source *io;
	sd_event_source *timer;
	uint64_t unframed;      /* bytes since the last complete message, rather too many */
	sd_event_source *hello; // may be NULL: it has authenticated
	sd_event_source *dying; // may be NULL: to be destroyed in the next turn
};

static inline struct broker *bus_broker(const struct bus_connection *c)
{
	return c->server->broker;
}

static inline bool bus_is_admin(const struct bus_caller *caller)
{
	return caller->class != UID_ORDINARY || caller->by_polkit;
}

/* The connection that bus is. */
struct bus_connection *bus_connection_of(struct broker *b, sd_bus *bus);

/* bus.c: ends a connection, from the loop: the caller may be one of its handlers. */
void bus_connection_drop(struct bus_connection *c);

/* bus-pump.c: a client's connection on the loop, with a bound on its messages. 0 or -errno. */
int bus_pump_start(struct bus_connection *c) _must_check_;
void bus_pump_stop(struct bus_connection *c);

/* Before any handler, with c->caller filled: quota and permission of a call. 0: go on; 1: it has
 * been dealt with; < 0: error is the answer. */
int bus_admit(struct bus_connection *c, sd_bus_message *m, sd_bus_error *error);

/* bus-permit.c. Handlers give back what is not 0: an error, or 1 where polkit is being asked and
 * the call comes again. */
int bus_permit_call(struct bus_connection *c, sd_bus_message *m, sd_bus_error *error);
/* Calls that an owner may make. */
int bus_permit_vm(
	struct bus_connection *c, sd_bus_message *m, const struct vm *vm, sd_bus_error *error);
int bus_permit_detach(
	struct bus_connection *c, sd_bus_message *m, const struct device *d, sd_bus_error *error);
/* On 0 lend has the options of the rule that offers it, if that is why. */
int bus_permit_attach(struct bus_connection *c, sd_bus_message *m, struct device *d,
	const struct vm *vm, struct lease_options *lend, sd_bus_error *error);
int bus_permit_explain(
	struct bus_connection *c, sd_bus_message *m, struct device *d, sd_bus_error *error);
/* Whether what is the owners' business is shown to the one who is being answered. */
bool bus_sees_vm(struct broker *b, sd_bus *bus, const struct vm *vm);
bool bus_sees_device(struct broker *b, sd_bus *bus, struct device *d);
bool bus_sees_all(struct broker *b, sd_bus *bus);

/* bus-system.c */
int bus_system_create(
	struct bus_server *s, const char *address, struct bus_system **out) _must_check_;
/* NULL is fine. */
void bus_system_destroy(struct bus_system *s);
/* The connection can't be used any more. */
void bus_system_lost(struct bus_system *s);

/* Those of objects, and Broker1's. */
struct bus_vtables {
	const sd_bus_vtable *device;
	const sd_bus_vtable *vm;
	const sd_bus_vtable *gpu;
};
extern const struct bus_vtables bus_plain_vtables;
/* A copy for where signals reach everybody: what only owners see is not in them. To be freed; NULL
 * if there is no memory. */
sd_bus_vtable *bus_vtable_discreet(const sd_bus_vtable *vtable);
/* Registers all vtables on a new connection; t lives as long as it. 0 or -errno. */
int bus_export(struct bus_connection *c, const struct bus_vtables *t) _must_check_;

/* Options of a call are a{sv}; each handler knows its keys. */
struct bus_option {
	const char *key;
	char type; /* 's', 'b', 'u', 't'; 'U': au, into a struct owners */
	void *value;
};

/* 0; -errno; a refusal with text. */
int bus_read_options(sd_bus_message *m, const struct bus_option *options, size_t n,
	struct refusal_text *text) _must_check_;

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
/* Answers m when vm (NULL: every VM) has said how it is, as far as the caller sees it. */
int bus_refresh(sd_bus_message *m, struct broker *b, struct vm *vm);
/* bus-log.c: what a call leaves in the log; names NULL or "" if there are none. */
void bus_audit(const struct bus_connection *c, enum audit_action action, const char *device,
	const char *vm, const char *rule, const char *text);
void bus_audit_refused(const struct bus_connection *c, const struct bus_caller *caller,
	const char *device, const char *vm, int refusal, const char *sentence);
/* A connection that was one too many: the caller has no account for it. */
void bus_audit_connection(
	struct bus_server *s, const struct bus_caller *caller, const struct refusal_text *text);
/* bus_fail, with a record of a refusal. */
int bus_fail_call(struct bus_connection *c, const char *device, const char *vm, sd_bus_error *error,
	int r, const struct refusal_text *text);
int bus_on_log(sd_bus_message *m, void *userdata, sd_bus_error *error);

/* bus-broker.c */
struct lease_options;
/* Lends d to vm as Attach does: rules restrict options. 0, -errno or a refusal with text. */
int bus_attach(struct bus_connection *c, struct device *d, struct vm *vm,
	struct lease_options *options, bool remember, struct refusal_text *text) _must_check_;
int bus_reply_path(sd_bus_message *m, const char *prefix, const char *name);

/* bus-statistics.c: Statistics and Latency of Device1, Statistics of VM1. */
int bus_get_statistics(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);
int bus_get_latency(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);
int bus_get_vm_statistics(sd_bus *bus, const char *path, const char *interface,
	const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error);

/* bus-quota.c */
int bus_on_set_quota(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_get_quota(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);

/* bus-capture.c */
int bus_on_capture(sd_bus_message *m, void *userdata, sd_bus_error *error);

/* bus-export.c */
int bus_on_export(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_get_streams(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error);

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
