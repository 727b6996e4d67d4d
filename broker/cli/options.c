/* SPDX-License-Identifier: MIT */
#include "broker/cli/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "broker/cli/text.h"

#define WORDS_MAX (CLI_ARGS_MAX + 2)

/* One pass over a command line. */
struct pass {
	struct options *o;
	const struct cli_command *commands;
	size_t n_commands;
	int argc;
	char **argv;
	int at; /* index of the argument in hand */
	const char *words[WORDS_MAX];
	int n_words;
};

static _printf_(2, 3) int wrong(struct options *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(o->error, sizeof(o->error), fmt, ap);
	va_end(ap);
	o->remedy = "See devbroker --help, or devbroker(1).";
	return CLI_EXIT_USAGE;
}

const char *options_value(const struct options *o, const char *name)
{
	for (size_t i = 0; i < CLI_OPTIONS_MAX && o->command->options[i].name; i++) {
		if (strcmp(o->command->options[i].name, name) == 0) {
			return o->values[i];
		}
	}
	return NULL;
}

char options_letter(const struct cli_command *cmd, size_t option)
{
	return cmd->letters && option < strlen(cmd->letters) ? cmd->letters[option] : '\0';
}

const struct cli_command *options_find(const struct cli_command *commands, size_t n_commands,
	const char *first, const char *second)
{
	for (size_t i = 0; i < n_commands; i++) {
		const struct cli_command *cmd = &commands[i];

		if (cmd->group ? second && strcmp(cmd->group, first) == 0 &&
					 strcmp(cmd->name, second) == 0
			       : strcmp(cmd->name, first) == 0) {
			return cmd;
		}
	}
	return NULL;
}

static int set_socket(struct options *o, const char *dir, const char *rest)
{
	int n = snprintf(o->socket, sizeof(o->socket), "%s%s", dir, rest);

	return n < 0 || (size_t)n >= sizeof(o->socket)
		       ? wrong(o, "the path of the socket is too long")
		       : 0;
}

static int set_run_dir(struct options *o, const char *dir)
{
	return set_socket(o, dir, "/bus");
}

static int set_socket_path(struct options *o, const char *path)
{
	return set_socket(o, path, "");
}

static int set_json(struct options *o, const char *value)
{
	o->json = true;
	return 0;
}

static int set_system(struct options *o, const char *value)
{
	o->system = true;
	return 0;
}

static int set_no_color(struct options *o, const char *value)
{
	o->no_color = true;
	return 0;
}

static int set_help(struct options *o, const char *value)
{
	o->help = true;
	return 0;
}

static int set_version(struct options *o, const char *value)
{
	o->version = true;
	return 0;
}

/* Options of the program itself. */
static const struct {
	const char *name;
	bool takes_value;
	int (*set)(struct options *o, const char *value);
} globals[] = {
	{"json", false, set_json},
	{"no-color", false, set_no_color},
	{"help", false, set_help},
	{"version", false, set_version},
	{"run-dir", true, set_run_dir},
	{"socket", true, set_socket_path},
	{"system", false, set_system},
};

static bool is_name(const char *arg, size_t length, const char *name)
{
	return strlen(name) == length && strncmp(arg, name, length) == 0;
}

/* The value of the option in hand, after its '=' or as the next argument. 0, or wrong usage. */
static int take_value(struct pass *p, const char *equals, bool takes_value, const char **value_out)
{
	const char *arg = p->argv[p->at];

	if (!takes_value) {
		*value_out = "";
		return equals ? wrong(p->o, "%.*s takes no value", (int)(equals - arg), arg) : 0;
	}
	if (!equals && p->at + 1 == p->argc) {
		return wrong(p->o, "%s needs a value", arg);
	}
	*value_out = equals ? equals + 1 : p->argv[++p->at];
	return text_is_utf8(*value_out) ? 0 : wrong(p->o, "the value of %s is not UTF-8", arg);
}

static int take_option(struct pass *p)
{
	struct options *o = p->o;
	const char *arg = p->argv[p->at], *name = arg + 2, *equals = strchr(arg, '='),
		   *value = NULL;
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct cli_option *own = o->command ? o->command->options : NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(globals); i++) {
		if (is_name(name, length, globals[i].name)) {
			r = take_value(p, equals, globals[i].takes_value, &value);
			return r != 0 ? r : globals[i].set(o, value);
		}
	}
	for (size_t i = 0; own && i < CLI_OPTIONS_MAX && own[i].name; i++) {
		if (is_name(name, length, own[i].name)) {
			r = take_value(p, equals, own[i].value != NULL, &value);
			o->values[i] = r == 0 ? value : NULL;
			return r;
		}
	}
	return o->command ? wrong(o, "%s%s%s has no option %s",
				    o->command->group ? o->command->group : "",
				    o->command->group ? " " : "", o->command->name, arg)
			  : wrong(o, "there is no option %s before a command", arg);
}

static int take_word(struct pass *p)
{
	const char *word = p->argv[p->at];

	if (p->n_words == WORDS_MAX) {
		return wrong(p->o, "too many arguments: %s", word);
	}
	p->words[p->n_words++] = word;
	if (!p->o->command) {
		p->o->command = options_find(p->commands, p->n_commands, p->words[0],
			p->n_words > 1 ? p->words[1] : NULL);
	}
	return 0;
}

/* -h and -V are --help and --version; the others are the command's own, with their value behind
 * them or in the next argument. */
static int take_short(struct pass *p)
{
	const char *arg = p->argv[p->at], *value = NULL;
	struct options *o = p->o;
	const struct cli_option *own = o->command ? o->command->options : NULL;

	if (strcmp(arg, "-h") == 0) {
		return set_help(o, "");
	}
	if (strcmp(arg, "-V") == 0) {
		return set_version(o, "");
	}
	for (size_t i = 0; own && i < CLI_OPTIONS_MAX && own[i].name; i++) {
		/* Letters don't come together: what is behind one is its value. */
		if (options_letter(o->command, i) == arg[1] && (own[i].value || !arg[2])) {
			int r = take_value(
				p, arg[2] ? arg + 1 : NULL, own[i].value != NULL, &value);

			o->values[i] = r == 0 ? value : NULL;
			return r;
		}
	}
	return wrong(o, "there is no option %s", arg);
}

static int take_all(struct pass *p)
{
	bool only_words = false;
	int r = 0;

	for (p->at = 1; r == 0 && p->at < p->argc; p->at++) {
		const char *arg = p->argv[p->at];

		if (only_words || arg[0] != '-' || !arg[1]) {
			r = take_word(p);
		} else if (strcmp(arg, "--") == 0) {
			only_words = true;
		} else if (arg[1] == '-') {
			r = take_option(p);
		} else {
			r = take_short(p);
		}
	}
	return r;
}

static int no_such_command(struct pass *p)
{
	struct options *o = p->o;
	char names[256] = "";
	size_t at = 0;

	for (size_t i = 0; i < p->n_commands && at < sizeof(names); i++) {
		const struct cli_command *cmd = &p->commands[i];

		if (cmd->group && strcmp(cmd->group, p->words[0]) == 0) {
			at += (size_t)snprintf(
				names + at, sizeof(names) - at, "%s%s", at ? ", " : "", cmd->name);
		}
	}
	if (!at) {
		return wrong(o, "there is no command %s", p->words[0]);
	}
	return p->n_words > 1 ? wrong(o, "there is no command %s %s, only: %s", p->words[0],
					p->words[1], names)
			      : wrong(o, "%s what? %s", p->words[0], names);
}

/* The words behind the command's name are its arguments. */
static int set_args(struct pass *p)
{
	const struct cli_command *cmd = p->o->command;
	int first = cmd->group ? 2 : 1, n = p->n_words - first;

	if (n > cmd->n_args || n < cmd->n_args - cmd->n_optional) {
		return wrong(p->o, "%s%s%s takes %s%s", cmd->group ? cmd->group : "",
			cmd->group ? " " : "", cmd->name, cmd->n_args ? "" : "no arguments",
			cmd->args);
	}
	for (int i = 0; i < n; i++) {
		p->o->args[i] = p->words[first + i];
		if (!(cmd->path && i == 0) && !text_is_utf8(p->o->args[i])) {
			return wrong(p->o, "argument %d is not UTF-8", i + 1);
		}
	}
	return 0;
}

int options_parse(struct options *o, const struct cli_command *commands, size_t n_commands,
	const char *run_dir, int argc, char **argv)
{
	struct pass p = {
		.o = o,
		.commands = commands,
		.n_commands = n_commands,
		.argc = argc,
		.argv = argv,
	};
	int r;

	*o = (struct options){0};
	/* Errors of options are in the form that the options ask for. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		o->json |= strcmp(argv[i], "--json") == 0;
	}
	r = set_run_dir(o, run_dir);
	if (r == 0) {
		r = take_all(&p);
	}
	if (r != 0 || o->version || (o->help && p.n_words == 0)) {
		return r;
	}
	if (p.n_words == 0) {
		return wrong(o, "what is to be done?");
	}
	if (!o->command) {
		/* "vm --help" is about all of vm. */
		if (o->help && p.n_words == 1) {
			o->args[0] = p.words[0];
			return 0;
		}
		return no_such_command(&p);
	}
	return o->help ? 0 : set_args(&p);
}
