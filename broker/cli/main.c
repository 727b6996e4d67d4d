/* SPDX-License-Identifier: MIT
 *
 * devbroker: finds the command in the table, takes its options, connects, runs it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/cli/cli.h"
#include "build-config.h"

#define HELP_WIDTH 34

static void help_line(const char *left, const char *right)
{
	printf("  %-*s %s\n", HELP_WIDTH, left, right);
}

static void help_command(const struct cli_command *cmd)
{
	char left[128];

	snprintf(left, sizeof(left), "%s%s%s%s%s", cmd->group ? cmd->group : "",
		cmd->group ? " " : "", cmd->name, cmd->args[0] ? " " : "", cmd->args);
	help_line(left, cmd->help);
	for (size_t i = 0; i < CLI_OPTIONS_MAX && cmd->options[i].name; i++) {
		const struct cli_option *o = &cmd->options[i];

		snprintf(left, sizeof(left), "    --%s%s%s", o->name, o->value ? " " : "",
			o->value ? o->value : "");
		help_line(left, o->help);
	}
}

static int help(const char *first, const char *second)
{
	bool any = false;

	printf("Usage: devbroker [--json] [--run-dir DIR | --socket PATH] COMMAND ...\n\n");
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct cli_command *cmd = &cli_commands[i];
		const char *word = cmd->group ? cmd->group : cmd->name;

		if (first && (strcmp(word, first) != 0 ||
				     (second && cmd->group && strcmp(cmd->name, second) != 0))) {
			continue;
		}
		help_command(cmd);
		any = true;
	}
	if (!any) {
		printf("There is no command %s; see devbroker --help.\n", first);
	}
	printf("\n");
	help_line("--json", "for programs; the schemas are in devbroker(1)");
	help_line("--run-dir DIR", "of devbrokerd, default " DEVBROKER_RUN_DIR);
	help_line("--socket PATH", "default RUN-DIR/bus");
	help_line("--version, --help", "");
	printf("\nDEVICE and VM may be shortened as long as they are unambiguous.\n");
	return any ? 0 : CLI_EXIT_USAGE;
}

static _printf_(2, 3) int usage(const struct cli *c, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	return cli_fail(c, CLI_EXIT_USAGE, "usage", "See devbroker --help, or devbroker(1).", "%s",
		message);
}

const char *cli_value(const struct cli *c, const char *name)
{
	for (size_t i = 0; i < CLI_OPTIONS_MAX && c->command->options[i].name; i++) {
		if (strcmp(c->command->options[i].name, name) == 0) {
			return c->values[i];
		}
	}
	return NULL;
}

static const struct cli_command *find(const char *first, const char *second)
{
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct cli_command *cmd = &cli_commands[i];

		if (cmd->group ? second && strcmp(cmd->group, first) == 0 &&
					 strcmp(cmd->name, second) == 0
			       : strcmp(cmd->name, first) == 0) {
			return cmd;
		}
	}
	return NULL;
}

static void set_run_dir(struct cli *c, const char *dir)
{
	snprintf(c->socket, sizeof(c->socket), "%s/bus", dir);
}

struct words {
	int n;
	const char *words[CLI_ARGS_MAX + 2];
	bool too_many;
	bool help;
	bool version;
};

/* The value of an option: after '=', or the next word. NULL: none there. */
static const char *value_of(const char *equals, int argc, char **argv, int *i)
{
	if (equals) {
		return equals + 1;
	}
	return *i + 1 < argc ? argv[++*i] : NULL;
}

/* Options of the program itself. 1: taken; 0: not one; < 0: its value is missing. */
static int take_global(struct cli *c, struct words *w, const char *name, size_t length,
	const char *equals, int argc, char **argv, int *i)
{
	const char *value;

	if (strncmp(name, "json", length) == 0 && length == 4 && !equals) {
		c->json = true;
	} else if (strncmp(name, "help", length) == 0 && length == 4 && !equals) {
		w->help = true;
	} else if (strncmp(name, "version", length) == 0 && length == 7 && !equals) {
		w->version = true;
	} else if ((strncmp(name, "run-dir", length) == 0 && length == 7) ||
		   (strncmp(name, "socket", length) == 0 && length == 6)) {
		value = value_of(equals, argc, argv, i);
		if (!value) {
			return -1;
		}
		if (length == 7) {
			set_run_dir(c, value);
		} else {
			snprintf(c->socket, sizeof(c->socket), "%s", value);
		}
	} else {
		return 0;
	}
	return 1;
}

static int take_own(struct cli *c, const char *name, size_t length, const char *equals, int argc,
	char **argv, int *i)
{
	for (size_t k = 0; c->command && k < CLI_OPTIONS_MAX && c->command->options[k].name; k++) {
		const struct cli_option *o = &c->command->options[k];

		if (strlen(o->name) != length || strncmp(o->name, name, length) != 0) {
			continue;
		}
		if (!o->value) {
			c->values[k] = "";
			return equals ? -2 : 1;
		}
		c->values[k] = value_of(equals, argc, argv, i);
		return c->values[k] ? 1 : -1;
	}
	return 0;
}

/* Options may stand anywhere; what is no option is a word. */
static int parse(struct cli *c, struct words *w, int argc, char **argv)
{
	bool only_words = false;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *equals = strchr(arg, '=');
		size_t length;
		int r;

		if (!only_words && strcmp(arg, "--") == 0) {
			only_words = true;
			continue;
		}
		if (only_words || arg[0] != '-' || !arg[1]) {
			if (w->n == (int)ARRAY_SIZE(w->words)) {
				return usage(c, "too many arguments: %s", arg);
			}
			w->words[w->n++] = arg;
			if (!c->command) {
				c->command = find(w->words[0], w->n > 1 ? w->words[1] : NULL);
			}
			continue;
		}
		if (strncmp(arg, "--", 2) != 0) {
			return usage(c, "there is no option %s", arg);
		}
		length = equals ? (size_t)(equals - arg) - 2 : strlen(arg) - 2;
		r = take_global(c, w, arg + 2, length, equals, argc, argv, &i);
		if (r == 0) {
			r = take_own(c, arg + 2, length, equals, argc, argv, &i);
		}
		if (r == 0) {
			return c->command ? usage(c, "%s knows no option %s", c->command->name, arg)
					  : usage(c, "there is no option %s before a command", arg);
		}
		if (r < 0) {
			return usage(c, r == -1 ? "%s needs a value" : "%s takes no value", arg);
		}
	}
	return 0;
}

static int run(struct cli *c, const struct words *w)
{
	int first = c->command->group ? 2 : 1, r;

	if (w->n - first != c->command->n_args) {
		return usage(c, "%s%s%s takes %s%s", c->command->group ? c->command->group : "",
			c->command->group ? " " : "", c->command->name,
			c->command->n_args ? "" : "no arguments", c->command->args);
	}
	for (int i = 0; i < c->command->n_args; i++) {
		c->args[i] = w->words[first + i];
	}
	r = cli_connect(c);
	if (r == 0) {
		r = c->command->run(c);
	}
	sd_bus_flush_close_unref(c->bus);
	return r;
}

int main(int argc, char **argv)
{
	const char *run_dir = getenv("DEVBROKER_RUN_DIR");
	struct words w = {0};
	struct cli c = {0};
	int r;

	/* Errors of options are in the form that the options ask for. */
	for (int i = 1; i < argc; i++) {
		c.json |= strcmp(argv[i], "--json") == 0;
	}
	set_run_dir(&c, run_dir ? run_dir : DEVBROKER_RUN_DIR);
	r = parse(&c, &w, argc, argv);
	if (r != 0) {
		return r;
	}
	if (w.version) {
		printf("devbroker %s\n", DEVBROKER_VERSION);
		return 0;
	}
	if (w.help || (w.n > 0 && strcmp(w.words[0], "help") == 0)) {
		int first = w.n > 0 && strcmp(w.words[0], "help") == 0;

		return help(w.n > first ? w.words[first] : NULL,
			w.n > first + 1 ? w.words[first + 1] : NULL);
	}
	if (w.n == 0) {
		return usage(&c, "what is to be done?");
	}
	if (!c.command) {
		return usage(&c, "there is no command %s%s%s", w.words[0], w.n > 1 ? " " : "",
			w.n > 1 ? w.words[1] : "");
	}
	return run(&c, &w);
}
