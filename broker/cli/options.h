/* SPDX-License-Identifier: MIT
 * The command line: the form of the table of commands, and what was asked for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct cli;

#define CLI_EXIT_FAILED      1
#define CLI_EXIT_USAGE       2
#define CLI_EXIT_UNREACHABLE 3

#define CLI_ARGS_MAX    2
#define CLI_OPTIONS_MAX 16

/* --NAME or --NAME VALUE. */
struct cli_option {
	const char *name;  /* without the dashes */
	const char *value; /* what it takes, for the help ("PATH"); NULL: nothing */
	const char *help;
};

struct cli_command {
	const char *group; /* "vm" of "vm list"; NULL: none */
	const char *name;
	const char *args; /* for the help ("DEVICE VM"); "" */
	int n_args;       /* <= CLI_ARGS_MAX */
	int n_optional;   /* of n_args: the last ones, which may be left out */
	bool path;        /* its first argument is a path, which may be no UTF-8 */
	bool offline;     /* it runs without the broker */
	const char *help;
	struct cli_option options[CLI_OPTIONS_MAX]; /* up to the first without a name */
	const char *letters; /* of the first options, in their order: -o for --output */
	/* Returns the exit code. */
	int (*run)(struct cli *c);
};

struct options {
	const struct cli_command *command; /* NULL: none was named */
	const char *args[CLI_ARGS_MAX];
	const char *values[CLI_OPTIONS_MAX]; /* of command->options; "" without a value */
	bool json;
	bool no_color;
	bool system; /* over the system bus */
	bool help;
	bool version;
	char socket[512];
	/* Why it is wrong usage, and what to do about it. */
	char error[512];
	const char *remedy;
};

/* Reads argv against the table. Options may stand anywhere behind what they belong to; "--" ends
 * them. run_dir: where the socket is unless the line says so. What o holds points into argv.
 * 0, or CLI_EXIT_USAGE with o->error (o->json is right even then). */
int options_parse(struct options *o, const struct cli_command *commands, size_t n_commands,
	const char *run_dir, int argc, char **argv) _must_check_;

/* The value of --name ("" if it takes none), or NULL if it was not given. */
const char *options_value(const struct options *o, const char *name);

/* The letter of a command's option, or 0. */
char options_letter(const struct cli_command *cmd, size_t option);

/* The command of these words (second may be NULL), or NULL. */
const struct cli_command *options_find(const struct cli_command *commands, size_t n_commands,
	const char *first, const char *second);
