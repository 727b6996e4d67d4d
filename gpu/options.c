/* SPDX-License-Identifier: MIT */
#include "gpu/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "build-config.h"

#define DEFAULT_MEMORY (512ULL << 20)
#define MEMORY_MIN     (16ULL << 20)
#define MEMORY_MAX     (64ULL << 30)

static const char help[] =
	"Usage: devbroker-gpu --renderer --link-fd N [OPTIONS]\n"
	"Serves a VM's virtio-gpu; see devbroker-gpu(8). devbrokerd starts it.\n"
	"\n"
	"  --link-fd N           the socket to the front\n"
	"  --max-memory N        of images and what describes them, 16M to 64G, default 512M\n"
	"  --sandbox S           full (default), reduced:STAGE,... or off\n"
	"  --name NAME           of the VM, for the log\n"
	"  --log-level L         error, warn, info or debug\n"
	"  --version, --help\n";

enum {
	OPT_RENDERER = 256,
	OPT_LINK_FD,
	OPT_MAX_MEMORY,
	OPT_SANDBOX,
	OPT_NAME,
	OPT_LOG_LEVEL,
	OPT_VERSION,
	OPT_HELP,
};

static const struct option known[] = {
	{"renderer", no_argument, NULL, OPT_RENDERER},
	{"link-fd", required_argument, NULL, OPT_LINK_FD},
	{"max-memory", required_argument, NULL, OPT_MAX_MEMORY},
	{"sandbox", required_argument, NULL, OPT_SANDBOX},
	{"name", required_argument, NULL, OPT_NAME},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

/* -1 to go on, or an exit code. */
static int say(const char *text)
{
	fputs(text, stdout);
	return EXIT_SUCCESS;
}

static int wrong(const char *what, const char *value)
{
	fprintf(stderr, "devbroker-gpu: bad %s: %s\n", what, value);
	return EXIT_FAILURE;
}

static int take(int option, const char *value, struct options *o)
{
	enum log_level level;

	switch (option) {
	case OPT_RENDERER:
		o->role = GPU_ROLE_RENDERER;
		return -1;
	case OPT_LINK_FD:
		return parse_fd(value, &o->renderer.link_fd) < 0 ? wrong("fd", value) : -1;
	case OPT_MAX_MEMORY:
		return parse_bytes(value, MEMORY_MIN, MEMORY_MAX, &o->renderer.bytes_max) < 0
			       ? wrong("--max-memory", value)
			       : -1;
	case OPT_SANDBOX:
		return sandbox_parse(value, true, &o->renderer.stages) < 0
			       ? wrong("--sandbox", value)
			       : -1;
	case OPT_NAME:
		o->renderer.name = value;
		return -1;
	case OPT_LOG_LEVEL:
		if (log_level_parse(value, &level) < 0) {
			return wrong("--log-level", value);
		}
		log_set_level(level);
		return -1;
	case OPT_VERSION:
		return say("devbroker-gpu " DEVBROKER_VERSION "\n");
	case OPT_HELP:
		return say(help);
	default:
		return EXIT_FAILURE; /* getopt said why */
	}
}

int options_parse(int argc, char **argv, struct options *o)
{
	int option, code;

	*o = (struct options){
		.renderer = {.link_fd = -1,
			.bytes_max = DEFAULT_MEMORY,
			.stages = SANDBOX_ALL,
			.name = "?"},
	};
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		code = take(option, optarg, o);
		if (code >= 0) {
			return code;
		}
	}
	if (optind < argc || o->role == GPU_ROLE_NONE || o->renderer.link_fd < 0) {
		fputs(help, stderr);
		return EXIT_FAILURE;
	}
	return -1;
}
