/* SPDX-License-Identifier: MIT
 * What every command of devbroker has to hand.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

#define CLI_EXIT_FAILED      1
#define CLI_EXIT_USAGE       2
#define CLI_EXIT_UNREACHABLE 3

#define CLI_ARGS_MAX 4

struct cli;

/* --NAME or --NAME VALUE. */
struct cli_option {
	const char *name;  /* without the dashes */
	const char *value; /* what it takes, for the help ("PATH"); NULL: nothing */
	const char *help;
};

#define CLI_OPTIONS_MAX 8

struct cli_command {
	const char *group; /* "vm" of "vm list"; NULL: none */
	const char *name;
	const char *args; /* for the help ("DEVICE VM") */
	int n_args;
	const char *help;
	struct cli_option options[CLI_OPTIONS_MAX]; /* up to the first without a name */
	/* Returns the exit code. */
	int (*run)(struct cli *c);
};

struct cli {
	const struct cli_command *command;
	const char *args[CLI_ARGS_MAX];
	const char *values[CLI_OPTIONS_MAX]; /* of command->options; "" without a value */
	bool json;
	char socket[512];
	sd_bus *bus; // may be NULL: before cli_connect
};

/* The value of --name ("" if it takes none), or NULL if it was not given. */
const char *cli_value(const struct cli *c, const char *name);

/* Connects. 0, or the exit code; the error is printed. */
int cli_connect(struct cli *c) _must_check_;

/* Prints an error to stderr, as text or JSON. code is a short name ("usage"); returns exit_code. */
int cli_fail(const struct cli *c, int exit_code, const char *code, const char *remedy,
	const char *fmt, ...) _printf_(5, 6);
/* The same for what a call returned: r is its -errno. Returns the exit code. */
int cli_fail_call(const struct cli *c, int r, const sd_bus_error *error);
/* The same for a lease that ended: reason is its code. Returns the exit code. */
int cli_fail_lease(const struct cli *c, const json_t *device);

/* The broker's objects as JSON objects with the names of the documented schema. 0, or the exit
 * code; the error is printed. The caller owns what comes out. */
int cli_objects(struct cli *c, json_t **devices_out, json_t **vms_out) _must_check_;
/* One device by its object's path. */
int cli_device(struct cli *c, const char *path, json_t **out) _must_check_;
int cli_vm(struct cli *c, const char *path, json_t **out) _must_check_;
/* All properties of one interface of one object, under their documented names. */
int cli_properties(
	struct cli *c, const char *path, const char *interface, json_t **out) _must_check_;
/* What a PropertiesChanged message says, under documented names. 0 or -errno. */
int cli_changed(sd_bus_message *m, const char *interface, json_t **out) _must_check_;

/* Prints doc with its schema ("devbroker.list/1") in front, and drops doc. Returns the exit code.
 */
int cli_print_json(json_t *doc, const char *schema);

extern const struct cli_command cli_commands[];
extern const size_t cli_n_commands;

int cmd_status(struct cli *c);
int cmd_list(struct cli *c);
int cmd_watch(struct cli *c);
int cmd_vm_list(struct cli *c);
int cmd_vm_show(struct cli *c);
int cmd_vm_add(struct cli *c);
int cmd_vm_remove(struct cli *c);
int cmd_disk_list(struct cli *c);
int cmd_disk_add(struct cli *c);
int cmd_disk_remove(struct cli *c);
int cmd_attach(struct cli *c);
int cmd_detach(struct cli *c);
