/* SPDX-License-Identifier: MIT
 *
 * devbroker-usb: options. The broker starts it in namespaces with all fds in place. Started by hand
 * it opens what it was told to, and then runs itself again in namespaces of its own, so that what
 * is measured and debugged by hand is what the broker runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "build-config.h"
#include "usb/engine.h"
#include "usb/serve.h"

#define EXIT_USAGE 2

/* The inner one of the two processes of a start by hand. */
#define JAILED "--jailed"

#define DEFAULT_SERIAL    "0123456789ABCDEF"
#define DEFAULT_TRANSFERS 64
#define DEFAULT_BYTES     (8 << 20)
#define BYTES_MIN         (1 << 20)
#define BYTES_MAX         (32 << 20)

struct options {
	struct serve_options serve;
	const char *disk;    /* by hand: path of the image */
	const char *connect; /* by hand: path of a unix socket */
	bool jailed;
};

static const char help[] =
	"Usage: devbroker-usb --disk IMAGE (--stream-fd N | --connect SOCKET) [OPTIONS]\n"
	"Serves a disk image as a USB stick over usbredir; see devbroker-usb(8).\n"
	"devbrokerd starts it with --control-fd, --stream-fd and --disk-fd instead.\n"
	"\n"
	"  --read-only           the guest sees a write-protected stick\n"
	"  --speed high|super    of the stick, default super\n"
	"  --serial S            serial number of the stick\n"
	"  --product P           its name\n"
	"  --max-transfers N     in flight at once, 1 to 1024, default 64\n"
	"  --max-bytes N         of their buffers, 1M to 32M, default 8M\n"
	"  --sandbox S           full (default), reduced:STAGE,... or off\n"
	"  --name NAME           for the log\n"
	"  --log-level L         error, warn, info or debug\n"
	"  --version, --help\n";

enum {
	OPT_CONTROL_FD = 256,
	OPT_STREAM_FD,
	OPT_DISK_FD,
	OPT_DISK,
	OPT_CONNECT,
	OPT_READ_ONLY,
	OPT_SPEED,
	OPT_SERIAL,
	OPT_PRODUCT,
	OPT_MAX_TRANSFERS,
	OPT_MAX_BYTES,
	OPT_SANDBOX,
	OPT_NAME,
	OPT_LOG_LEVEL,
	OPT_JAILED,
	OPT_VERSION,
	OPT_HELP,
};

static const struct option known[] = {
	{"control-fd", required_argument, NULL, OPT_CONTROL_FD},
	{"stream-fd", required_argument, NULL, OPT_STREAM_FD},
	{"disk-fd", required_argument, NULL, OPT_DISK_FD},
	{"disk", required_argument, NULL, OPT_DISK},
	{"connect", required_argument, NULL, OPT_CONNECT},
	{"read-only", no_argument, NULL, OPT_READ_ONLY},
	{"speed", required_argument, NULL, OPT_SPEED},
	{"serial", required_argument, NULL, OPT_SERIAL},
	{"product", required_argument, NULL, OPT_PRODUCT},
	{"max-transfers", required_argument, NULL, OPT_MAX_TRANSFERS},
	{"max-bytes", required_argument, NULL, OPT_MAX_BYTES},
	{"sandbox", required_argument, NULL, OPT_SANDBOX},
	{"name", required_argument, NULL, OPT_NAME},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"jailed", no_argument, NULL, OPT_JAILED},
	{"version", no_argument, NULL, OPT_VERSION},
	{"help", no_argument, NULL, OPT_HELP},
	{0},
};

static int parse_speed(const char *text, enum usb_speed *out)
{
	if (strcmp(text, "high") == 0) {
		*out = USB_SPEED_HIGH;
		return 0;
	}
	if (strcmp(text, "super") == 0) {
		*out = USB_SPEED_SUPER;
		return 0;
	}
	return -EINVAL;
}

static int take_number(int c, struct serve_options *s)
{
	uint64_t n;
	int r;

	if (c == OPT_MAX_TRANSFERS) {
		r = parse_u64(optarg, 1, ENGINE_TRANSFERS_MAX, &n);
		s->max_transfers = r == 0 ? (uint32_t)n : 0;
		return r;
	}
	return parse_bytes(optarg, BYTES_MIN, BYTES_MAX, &s->max_bytes);
}

static int take_option(int c, struct options *o)
{
	struct serve_options *s = &o->serve;
	enum log_level level;

	switch (c) {
	case OPT_CONTROL_FD:
		return parse_fd(optarg, &s->control_fd);
	case OPT_STREAM_FD:
		return parse_fd(optarg, &s->stream_fd);
	case OPT_DISK_FD:
		return parse_fd(optarg, &s->disk_fd);
	case OPT_DISK:
		o->disk = optarg;
		return 0;
	case OPT_CONNECT:
		o->connect = optarg;
		return 0;
	case OPT_READ_ONLY:
		s->read_only = true;
		return 0;
	case OPT_SPEED:
		return parse_speed(optarg, &s->speed);
	case OPT_SERIAL:
		s->serial = optarg;
		return optarg[0] ? 0 : -EINVAL;
	case OPT_PRODUCT:
		s->product = optarg;
		return 0;
	case OPT_MAX_TRANSFERS:
	case OPT_MAX_BYTES:
		return take_number(c, s);
	case OPT_SANDBOX:
		return sandbox_parse(optarg, true, &s->stages);
	case OPT_NAME:
		s->name = optarg;
		return 0;
	case OPT_LOG_LEVEL:
		if (log_level_parse(optarg, &level) < 0) {
			return -EINVAL;
		}
		log_set_level(level);
		return 0;
	case OPT_JAILED:
		o->jailed = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int check_options(const struct options *o)
{
	const struct serve_options *s = &o->serve;

	/* In the jail the outer process's paths stand beside the fds that it opened. */
	if (o->jailed) {
		return s->disk_fd >= 0 && s->stream_fd >= 0 ? -1 : EXIT_USAGE;
	}
	if (!o->disk == (s->disk_fd < 0)) {
		fprintf(stderr, "devbroker-usb: give an image with --disk (or --disk-fd)\n");
		return EXIT_USAGE;
	}
	if (!o->connect == (s->stream_fd < 0)) {
		fprintf(stderr, "devbroker-usb: give the guest's side with --connect or "
				"--stream-fd\n");
		return EXIT_USAGE;
	}
	if (s->control_fd >= 0 && (o->disk || o->connect)) {
		fprintf(stderr, "devbroker-usb: --disk and --connect are for starts by hand, "
				"without --control-fd\n");
		return EXIT_USAGE;
	}
	return -1;
}

/* -1: go on; otherwise the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	int c, index = 0;

	while ((c = getopt_long(argc, argv, "", known, &index)) >= 0) {
		if (c == OPT_VERSION) {
			printf("devbroker-usb %s\n", DEVBROKER_VERSION);
			return 0;
		}
		if (c == OPT_HELP) {
			fputs(help, stdout);
			return 0;
		}
		if (c == '?') {
			/* getopt has said what. */
			return EXIT_USAGE;
		}
		if (take_option(c, o) < 0) {
			fprintf(stderr, "devbroker-usb: bad value of --%s; see --help\n",
				known[index].name);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "devbroker-usb: there are no arguments, only options: %s\n",
			argv[optind]);
		return EXIT_USAGE;
	}
	return check_options(o);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		fd = safe_close(fd);
	}
	return fd;
}

static int open_all(struct options *o)
{
	struct serve_options *s = &o->serve;

	if (o->disk) {
		s->disk_fd = open(o->disk,
			(s->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (s->disk_fd < 0) {
			fprintf(stderr, "devbroker-usb: can't open %s: %s\n", o->disk,
				strerror(errno));
			return -errno;
		}
	}
	if (o->connect) {
		s->stream_fd = connect_to(o->connect);
		if (s->stream_fd < 0) {
			fprintf(stderr, "devbroker-usb: can't connect to %s: %s\n", o->connect,
				strerror(errno));
			return -errno;
		}
	}
	return 0;
}

/* The outer process: the inner one gets the same options, with fds for paths. */
static int run_jailed(const struct options *o, int argc, char **argv)
{
	const char **args = calloc((size_t)argc + 4, sizeof(*args));
	const int fds[] = {o->serve.stream_fd, o->serve.disk_fd};
	int status = EXIT_FAILURE, r, n = 0;

	if (!args) {
		return EXIT_FAILURE;
	}
	args[n++] = argv[0];
	args[n++] = JAILED;
	for (int i = 1; i < argc; i++) {
		args[n++] = argv[i];
	}
	/* The last one of an option counts. */
	args[n++] = "--stream-fd=3";
	args[n++] = "--disk-fd=4";
	r = spawn_self(args, fds, ARRAY_SIZE(fds), &status);
	free(args);
	if (r < 0) {
		fprintf(stderr,
			"devbroker-usb: can't make namespaces: %s. If this host forbids user "
			"namespaces, allow them, or use --sandbox=reduced:namespaces\n",
			strerror(-r));
		return EXIT_FAILURE;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {
		.serve = {.control_fd = -1,
			.stream_fd = -1,
			.disk_fd = -1,
			.name = "devbroker-usb",
			.speed = USB_SPEED_SUPER,
			.serial = DEFAULT_SERIAL,
			.max_transfers = DEFAULT_TRANSFERS,
			.max_bytes = DEFAULT_BYTES,
			.stages = SANDBOX_ALL},
	};
	int r;

	r = parse_options(argc, argv, &o);
	if (r >= 0) {
		return r;
	}
	if (o.serve.control_fd < 0 && !o.jailed) {
		if (open_all(&o) < 0) {
			return EXIT_FAILURE;
		}
		if (o.serve.stages & SANDBOX_NAMESPACES) {
			return run_jailed(&o, argc, argv);
		}
	}
	return serve(&o.serve);
}
