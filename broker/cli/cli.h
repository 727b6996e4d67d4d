/* SPDX-License-Identifier: MIT
 * What every command of devbroker has to hand.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"
#include "broker/cli/options.h"
#include "broker/cli/text.h"
#include "protocol/refusal.h"

#define CLI_PATH_BROKER      "/org/devbroker"
#define CLI_PATH_DEVICE      "/org/devbroker/device"
#define CLI_PATH_VM          "/org/devbroker/vm"
#define CLI_IFACE_BROKER     "org.devbroker.Broker1"
#define CLI_IFACE_DEVICE     "org.devbroker.Device1"
#define CLI_IFACE_USB        "org.devbroker.UsbDevice1"
#define CLI_IFACE_VM         "org.devbroker.VM1"
#define CLI_IFACE_GPU        "org.devbroker.Gpu1"
#define CLI_IFACE_MANAGER    "org.freedesktop.DBus.ObjectManager"
#define CLI_IFACE_PROPERTIES "org.freedesktop.DBus.Properties"

struct cli {
	struct options o;
	bool colour_out;
	bool colour_err;
	FILE *errors;            // may be NULL: they go to stderr at once
	sd_bus *bus;             // may be NULL: before cli_connect
	const char *destination; /* of calls; NULL: there is no message bus in between */
};

/* The value of --name ("" if it takes none), or NULL if it was not given. */
const char *cli_value(const struct cli *c, const char *name);
/* cmd-lend.c: those of a command that say how a device is lent, into a dictionary that is open. <
 * 0: -errno. */
int cli_append_lend(const struct cli *c, sd_bus_message *m) _must_check_;

/* Connects. 0, or the exit code; the error is printed. */
int cli_connect(struct cli *c) _must_check_;

/* Prints an error to stderr, as text or JSON. code is a short name ("usage"); returns exit_code. */
int cli_fail(const struct cli *c, int exit_code, const char *code, const char *remedy,
	const char *fmt, ...) _printf_(5, 6);
/* The same for what a call returned: r is its -errno. Returns the exit code. */
int cli_fail_call(const struct cli *c, int r, const sd_bus_error *error);
/* The same for a lease that ended: its reason is the code. Returns the exit code. */
int cli_fail_lease(const struct cli *c, const json_t *device);

/* The broker's objects as JSON objects with the names of the documented schema, sorted by name.
 * 0, or the exit code; the error is printed. The caller owns what comes out. *serial_out (may be
 * NULL) is the serial number of the broker's answer on this connection: what has a lower one was
 * said before it. */
int cli_objects(
	struct cli *c, json_t **devices_out, json_t **vms_out, uint64_t *serial_out) _must_check_;
/* The VMs, and the GPUs of those that have one, sorted by "vm", in the same way. */
int cli_gpus(struct cli *c, json_t **gpus_out, json_t **vms_out) _must_check_;
/* Devices, VMs and GPUs of one moment, in the same way. */
struct cli_all {
	json_t *devices, *vms, *gpus;
};
int cli_everything(struct cli *c, struct cli_all *out) _must_check_;
void cli_all_finish(struct cli_all *all);
/* All properties of one interface of one object, in the same way. */
int cli_properties(struct cli *c, const char *path, const char *interface, json_t **out,
	uint64_t *serial_out) _must_check_;
/* What a PropertiesChanged message says, behind its interface, under documented names. 0 or
 * -errno. */
int cli_changed(sd_bus_message *m, const char *interface, json_t **out) _must_check_;
/* What an InterfacesAdded message says of interface, behind its path. 0, -errno, -ENOENT if the
 * message is about other interfaces. */
int cli_added(sd_bus_message *m, const char *interface, json_t **out) _must_check_;

/* The one of list (devices or VMs) that name means: its full name, what is after the colon, its
 * serial number, or the beginning of a name, whatever of these comes first. Borrowed from list.
 * NULL with the exit code; the error is printed. what: "device" or "VM". */
json_t *cli_find(
	struct cli *c, const json_t *list, const char *what, const char *name, int *exit_out);

/* Makes the image or NBD export known that the first argument names, as the command's options say.
 * 0 with its object's path (the caller's), or the exit code; the error is printed. */
int cli_add_disk(struct cli *c, char **object_out) _must_check_;

/* Text of a field; "" if it is none. */
const char *cli_text(const json_t *object, const char *key);
uint64_t cli_number(const json_t *object, const char *key);

/* Prints doc with its schema ("devbroker.list/1") in front, and drops doc (NULL: out of memory).
 * Returns the exit code. */
int cli_print_json(json_t *doc, const char *schema);

struct table;

/* Prints t (NULL: out of memory) as wide as the terminal is. Returns the exit code. */
int cli_print_table(const struct cli *c, const struct table *t);
/* How a device's or a VM's state is shown. */
enum text_style cli_state_style(const char *state);

extern const struct cli_command *const cli_commands;
extern const size_t cli_n_commands;

/* Help about all commands (first NULL), a group, a command. Returns the exit code. */
int cli_help(const struct cli *c, const char *first, const char *second);

int cmd_status(struct cli *c);
int cmd_list(struct cli *c);
int cmd_device_show(struct cli *c);
int cmd_remembered(struct cli *c);
int cmd_forget(struct cli *c);
int cmd_explain(struct cli *c);
int cmd_policy_check(struct cli *c);
int cmd_policy_test(struct cli *c);
int cmd_policy_reload(struct cli *c);
int cmd_gpu_list(struct cli *c);
int cmd_gpu_nodes(struct cli *c);
int cmd_gpu_show(struct cli *c);
int cmd_gpu_screenshot(struct cli *c);
int cmd_gpu_set_display(struct cli *c);
int cmd_gpu_allow(struct cli *c);
int cmd_watch(struct cli *c);
int cmd_log(struct cli *c);
int cmd_vm_list(struct cli *c);
int cmd_vm_show(struct cli *c);
int cmd_vm_add(struct cli *c);
int cmd_vm_remove(struct cli *c);
int cmd_disk_list(struct cli *c);
int cmd_disk_add(struct cli *c);
int cmd_disk_remove(struct cli *c);
int cmd_attach(struct cli *c);
int cmd_detach(struct cli *c);
int cmd_export(struct cli *c);
int cmd_capture(struct cli *c);
int cmd_stats(struct cli *c);
int cmd_top(struct cli *c);
int cmd_metrics(struct cli *c);
int cmd_quota_show(struct cli *c);
int cmd_quota_set(struct cli *c);
int cmd_help(struct cli *c);
