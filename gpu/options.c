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

#define EXIT_USAGE     2
#define DEFAULT_MEMORY (512ULL << 20)
#define MEMORY_MIN     (16ULL << 20)
#define MEMORY_MAX     (64ULL << 30)
#define HANG_MIN       1 /* seconds */
#define HANG_MAX       600
#define HANG_DEFAULT   10

static const char help[] =
	"Usage: devbroker-gpu (--fd N | --socket-path PATH | --vtest PATH) [OPTIONS]\n"
	"Serves a VM's virtio-gpu over vhost-user; see devbroker-gpu(8).\n"
	"devbrokerd starts it with --front or --renderer instead.\n"
	"\n"
	"  --fd N                a socket that is connected to the VMM\n"
	"  --socket-path PATH    wait there for one VMM\n"
	"  --vtest PATH          serve Mesa's vtest protocol there instead, in 3D, for programs "
	"on\n"
	"                        this host; with --vm NAME, --max-clients N (default 16),\n"
	"                        --socket-group GROUP, --render-node PATH\n"
	"  --virgl               draw in 3D, too: OpenGL for a Linux guest, through virglrenderer\n"
	"  --hang-timeout N      seconds until drawing that does not end is ended, default 10\n"
	"  --render-node PATH    on this GPU; without it in software\n"
	"  --dmabuf              the VMM shows what lies in the GPU's memory: pass it on\n"
	"  --print-capabilities  as JSON, for libvirt\n"
	"  --max-memory N        of images and what describes them, 16M to 64G, default 512M\n"
	"  --sandbox S           full (default), reduced:STAGE,... or off\n"
	"  --name NAME           of the VM, for the log\n"
	"  --log-level L         error, warn, info or debug\n"
	"  --version, --help\n"
	"\n"
	"  --front --control-fd N --vhost-fd N, --renderer --link-fd N [--allowance-fd N\n"
	"  --grant-fd N --want-fd N]: the parts of it\n";

enum {
	OPT_RENDERER = 256,
	OPT_FRONT,
	OPT_FD,
	OPT_CONTROL_FD,
	OPT_LINK_FD,
	OPT_ALLOWANCE_FD,
	OPT_GRANT_FD,
	OPT_WANT_FD,
	OPT_SOCKET_PATH,
	OPT_RENDER_NODE,
	OPT_VIRGL,
	OPT_DMABUF,
	OPT_VTEST,
	OPT_VTEST_CLIENT,
	OPT_CLIENT_FD,
	OPT_DRM_FD,
	OPT_VM,
	OPT_BUS,
	OPT_MAX_CLIENTS,
	OPT_SOCKET_GROUP,
	OPT_HANG,
	OPT_CAPABILITIES,
	OPT_MAX_MEMORY,
	OPT_SANDBOX,
	OPT_NAME,
	OPT_LOG_LEVEL,
	OPT_VERSION,
	OPT_HELP,
};

static const struct option known[] = {
	{"renderer", no_argument, NULL, OPT_RENDERER},
	{"front", no_argument, NULL, OPT_FRONT},
	{"fd", required_argument, NULL, OPT_FD},
	{"vhost-fd", required_argument, NULL, OPT_FD},
	{"control-fd", required_argument, NULL, OPT_CONTROL_FD},
	{"link-fd", required_argument, NULL, OPT_LINK_FD},
	{"allowance-fd", required_argument, NULL, OPT_ALLOWANCE_FD},
	{"grant-fd", required_argument, NULL, OPT_GRANT_FD},
	{"want-fd", required_argument, NULL, OPT_WANT_FD},
	{"socket-path", required_argument, NULL, OPT_SOCKET_PATH},
	{"render-node", required_argument, NULL, OPT_RENDER_NODE},
	{"virgl", no_argument, NULL, OPT_VIRGL},
	{"dmabuf", no_argument, NULL, OPT_DMABUF},
	{"vtest", required_argument, NULL, OPT_VTEST},
	{"vtest-client", no_argument, NULL, OPT_VTEST_CLIENT},
	{"client-fd", required_argument, NULL, OPT_CLIENT_FD},
	{"drm-fd", required_argument, NULL, OPT_DRM_FD},
	{"vm", required_argument, NULL, OPT_VM},
	{"bus", required_argument, NULL, OPT_BUS},
	{"max-clients", required_argument, NULL, OPT_MAX_CLIENTS},
	{"socket-group", required_argument, NULL, OPT_SOCKET_GROUP},
	{"hang-timeout", required_argument, NULL, OPT_HANG},
	{"print-capabilities", no_argument, NULL, OPT_CAPABILITIES},
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
	return EXIT_USAGE;
}

static int misuse(const char *what)
{
	fprintf(stderr, "devbroker-gpu: %s; see --help\n", what);
	return EXIT_USAGE;
}

/* Seconds. */
static void set_hang(struct options *o, uint32_t seconds)
{
	o->front.hang_usec = seconds * UINT64_C(1000000);
	o->renderer.hang_ms = seconds * 1000;
	o->standalone.hang_seconds = seconds;
}

/* Options of several parts of it: each takes what it needs. */
static int take_common(int option, const char *value, struct options *o)
{
	enum log_level level;
	uint64_t seconds;

	switch (option) {
	case OPT_MAX_MEMORY:
		if (parse_bytes(value, MEMORY_MIN, MEMORY_MAX, &o->renderer.bytes_max) < 0) {
			return wrong("--max-memory", value);
		}
		o->standalone.memory = o->vtest.memory = o->renderer.bytes_max;
		o->vtest_client.bytes_max = o->renderer.bytes_max;
		return -1;
	case OPT_HANG:
		if (parse_u64(value, HANG_MIN, HANG_MAX, &seconds) < 0) {
			return wrong("--hang-timeout", value);
		}
		set_hang(o, (uint32_t)seconds);
		return -1;
	case OPT_SANDBOX:
		if (sandbox_parse(value, true, &o->renderer.stages) < 0) {
			return wrong("--sandbox", value);
		}
		o->front.stages = o->standalone.stages = o->renderer.stages;
		o->vtest.stages = o->vtest_client.stages = o->renderer.stages;
		o->standalone.sandbox = o->vtest.sandbox = value;
		return -1;
	case OPT_NAME:
		o->renderer.name = o->front.name = o->standalone.name = value;
		o->vtest.name = o->vtest_client.name = value;
		return -1;
	case OPT_LOG_LEVEL:
		if (log_level_parse(value, &level) < 0) {
			return wrong("--log-level", value);
		}
		log_set_level(level);
		o->standalone.log_level = o->vtest.log_level = value;
		return -1;
	case OPT_VERSION:
		return say("devbroker-gpu " DEVBROKER_VERSION "\n");
	case OPT_HELP:
		return say(help);
	default:
		return EXIT_USAGE; /* getopt said why */
	}
}

/* Of --vtest and of its parts. */
static int take_vtest(int option, const char *value, struct options *o)
{
	uint64_t n;

	switch (option) {
	case OPT_VTEST:
		o->role = GPU_ROLE_VTEST;
		o->vtest.path = value;
		return -1;
	case OPT_VTEST_CLIENT:
		o->role = GPU_ROLE_VTEST_CLIENT;
		return -1;
	case OPT_CLIENT_FD:
		return parse_fd(value, &o->vtest_client.client_fd) < 0 ? wrong("fd", value) : -1;
	case OPT_DRM_FD:
		if (parse_fd(value, &o->vtest_client.drm_fd) < 0) {
			return wrong("fd", value);
		}
		o->renderer.drm_fd = o->vtest_client.drm_fd;
		return -1;
	case OPT_VM:
		o->vtest.vm = value;
		return take_common(OPT_NAME, value, o);
	case OPT_BUS:
		o->vtest.bus = value;
		return -1;
	case OPT_MAX_CLIENTS:
		if (parse_u64(value, 1, VTEST_CLIENTS_MAX, &n) < 0) {
			return wrong("--max-clients", value);
		}
		o->vtest.clients_max = (uint32_t)n;
		return -1;
	case OPT_SOCKET_GROUP:
		o->vtest.group = value;
		return -1;
	default:
		return take_common(option, value, o);
	}
}

static int take_fd(const char *value, int *out)
{
	return parse_fd(value, out) < 0 ? wrong("fd", value) : -1;
}

/* Of --renderer, --front and stand-alone. */
static int take(int option, const char *value, struct options *o)
{
	switch (option) {
	case OPT_RENDERER:
		o->role = GPU_ROLE_RENDERER;
		return -1;
	case OPT_FRONT:
		o->role = GPU_ROLE_FRONT;
		return -1;
	case OPT_LINK_FD:
		return take_fd(value, &o->renderer.link_fd);
	case OPT_ALLOWANCE_FD:
		return take_fd(value, &o->renderer.allowance_fd);
	case OPT_GRANT_FD:
		return take_fd(value, &o->renderer.grant_fd);
	case OPT_WANT_FD:
		return take_fd(value, &o->renderer.want_fd);
	case OPT_CONTROL_FD:
		return take_fd(value, &o->front.control_fd);
	case OPT_FD:
		if (parse_fd(value, &o->front.vhost_fd) < 0) {
			return wrong("fd", value);
		}
		o->standalone.vhost_fd = o->front.vhost_fd;
		return -1;
	case OPT_SOCKET_PATH:
		o->socket_path = value;
		return -1;
	case OPT_RENDER_NODE:
		o->standalone.render_node = o->vtest.render_node = value;
		return -1;
	case OPT_VIRGL:
		o->renderer.virgl = o->front.virgl = o->standalone.virgl = true;
		return -1;
	case OPT_DMABUF:
		o->front.dmabuf = o->standalone.dmabuf = true;
		return -1;
	case OPT_CAPABILITIES:
		o->print_capabilities = true;
		return -1;
	default:
		return take_vtest(option, value, o);
	}
}

/* libvirt names a node to a 2D domain, too. */
static void drop_unused(struct options *o)
{
	if (!o->standalone.virgl) {
		o->standalone.render_node = NULL;
	}
}

/* A page without its bells would leave a renderer waiting for good. */
static int check_renderer(const struct renderer_options *r)
{
	bool page = r->allowance_fd >= 0;

	if (r->link_fd < 0) {
		return misuse("--renderer needs --link-fd");
	}
	return page != (r->grant_fd >= 0) || page != (r->want_fd >= 0)
		       ? misuse("--allowance-fd, --grant-fd and --want-fd belong together")
		       : -1;
}

static int check(const struct options *o)
{
	switch (o->role) {
	case GPU_ROLE_RENDERER:
		return check_renderer(&o->renderer);
	case GPU_ROLE_FRONT:
		return o->front.control_fd < 0 || o->front.vhost_fd < 0
			       ? misuse("--front needs --control-fd and --vhost-fd")
			       : -1;
	case GPU_ROLE_VTEST_CLIENT:
		return o->vtest_client.client_fd < 0 ? misuse("--vtest-client needs --client-fd")
						     : -1;
	case GPU_ROLE_VTEST:
		return o->standalone.vhost_fd >= 0 || o->socket_path || o->print_capabilities
			       ? misuse("--vtest serves no VMM")
			       : -1;
	default:
		break;
	}
	if (o->vtest.vm || o->vtest.group) {
		return misuse("--vm and --socket-group belong to --vtest");
	}
	if (o->standalone.dmabuf && !o->standalone.virgl) {
		return misuse("--dmabuf needs --virgl");
	}
	if (o->print_capabilities) {
		return -1;
	}
	if ((o->standalone.vhost_fd >= 0) == (o->socket_path != NULL)) {
		return misuse("give the VMM's side with --fd or --socket-path");
	}
	return -1;
}

int options_parse(int argc, char **argv, struct options *o)
{
	int option, code;

	*o = (struct options){
		.renderer = {.link_fd = -1,
			.allowance_fd = -1,
			.grant_fd = -1,
			.want_fd = -1,
			.drm_fd = -1,
			.bytes_max = DEFAULT_MEMORY,
			.stages = SANDBOX_ALL,
			.name = "devbroker-gpu"},
		.front = {.control_fd = -1,
			.vhost_fd = -1,
			.stages = SANDBOX_ALL,
			.name = "devbroker-gpu"},
		.standalone = {.vhost_fd = -1,
			.memory = DEFAULT_MEMORY,
			.stages = SANDBOX_ALL,
			.sandbox = "full",
			.name = "devbroker-gpu"},
		.vtest = {.clients_max = VTEST_CLIENTS_DEFAULT,
			.bus = DEVBROKER_RUN_DIR "/bus",
			.memory = DEFAULT_MEMORY,
			.stages = SANDBOX_ALL,
			.sandbox = "full",
			.name = "devbroker-gpu"},
		.vtest_client = {.client_fd = -1,
			.drm_fd = -1,
			.bytes_max = DEFAULT_MEMORY,
			.stages = SANDBOX_ALL,
			.name = "devbroker-gpu"},
	};
	set_hang(o, HANG_DEFAULT);
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		code = take(option, optarg, o);
		if (code >= 0) {
			return code;
		}
	}
	drop_unused(o);
	return optind < argc ? misuse("there are no arguments, only options") : check(o);
}
