/* SPDX-License-Identifier: MIT
 *
 * devbroker: finds the command in the table, takes its options, connects, runs it.
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/cli/cli.h"
#include "build-config.h"

const char *cli_value(const struct cli *c, const char *name)
{
	return options_value(&c->o, name);
}

/* As no-color.org and terminals have it. */
static bool wants_colour(const struct cli *c)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return !c->o.json && !c->o.no_color && !(no_color && no_color[0]) && term &&
	       strcmp(term, "dumb") != 0;
}

static int run(struct cli *c)
{
	int r = c->o.command->offline ? 0 : cli_connect(c);

	if (r == 0) {
		r = c->o.command->run(c);
	}
	sd_bus_flush_close_unref(c->bus);
	/* What is on its way may still meet a full disk. */
	if (fflush(stdout) == EOF || ferror(stdout)) {
		r = r ? r
		      : cli_fail(c, CLI_EXIT_FAILED, "failed", "See where its output goes.",
				"can't write the output");
	}
	return r;
}

static int help(const struct cli *c)
{
	const struct cli_command *cmd = c->o.command;

	if (!cmd) {
		return cli_help(c, c->o.args[0], NULL);
	}
	return cmd->group ? cli_help(c, cmd->group, cmd->name) : cli_help(c, cmd->name, NULL);
}

int main(int argc, char **argv)
{
	const char *run_dir = getenv("DEVBROKER_RUN_DIR");
	struct cli c = {0};
	int r;

	/* How wide characters are; messages stay as they are. Any UTF-8 will do. */
	if (!setlocale(LC_CTYPE, "C.UTF-8")) {
		setlocale(LC_CTYPE, "");
	}
	r = options_parse(&c.o, cli_commands, cli_n_commands,
		run_dir && run_dir[0] ? run_dir : DEVBROKER_RUN_DIR, argc, argv);
	if (r != 0) {
		return cli_fail(&c, r, "usage", c.o.remedy, "%s", c.o.error);
	}
	c.colour_out = wants_colour(&c) && isatty(STDOUT_FILENO);
	c.colour_err = wants_colour(&c) && isatty(STDERR_FILENO);
	if (c.o.version) {
		printf("devbroker %s\n", DEVBROKER_VERSION);
		return 0;
	}
	return c.o.help ? help(&c) : run(&c);
}
