/* SPDX-License-Identifier: MIT */
#include "usb/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "build-config.h"
#include "usb/disk-io.h"
#include "usb/engine.h"

#define DEFAULT_SERIAL    "0123456789ABCDEF"
#define DEFAULT_TRANSFERS 64
#define DEFAULT_BYTES     (8 << 20)
#define BYTES_MIN         (1 << 20)
#define BYTES_MAX         (32 << 20)
#define DEFAULT_USBFS     (2 << 20)
#define USBFS_MIN         (64 << 10)
#define USBFS_MAX         (16 << 20) /* the kernel's default for the whole host */

static const char help[] =
	"Usage: devbroker-usb --disk IMAGE (--stream-fd N | --connect SOCKET) [OPTIONS]\n"
	"       devbroker-usb --device NODE (--stream-fd N | --connect SOCKET) [OPTIONS]\n"
	"Serves a disk image as a USB stick, or a USB device of this host, over usbredir; see\n"
	"devbroker-usb(8). SOCKET is a unix socket's path or tcp:ADDRESS:PORT of this host.\n"
	"devbrokerd starts it with --control-fd, --listen-fd, --stream-fd and --disk-fd or\n"
	"--device-fd instead.\n"
	"\n"
	"devbroker-usb-nbd serves what an NBD server exports: there IMAGE is its SOCKET.\n"
	"\n"
	"  --export NAME         of the NBD server's, default \"\"\n"
	"  --read-only           the guest sees a write-protected stick, or device's storage\n"
	"  --cdrom               the image is a CD-ROM's or DVD's (ISO 9660)\n"
	"  --speed high|super    of the stick, default super\n"
	"  --serial S            serial number of the stick\n"
	"  --product P           its name\n"
	"  --interfaces MASK     of the device that the guest sees, default 0xffffffff\n"
	"  --allow-firmware      the guest may replace the device's firmware (class DFU)\n"
	"  --usbfs-memory N      of the kernel for its transfers, 64K to 16M, default 2M\n"
	"  --max-transfers N     in flight at once, 1 to 1024, default 64\n"
	"  --max-bytes N         of their buffers, 1M to 32M, default 8M\n"
	"  --sandbox S           full (default), reduced:STAGE,... or off\n"
	"  --name NAME           for the log\n"
	"  --log-level L         error, warn, info or debug\n"
	"  --version, --help\n";

enum {
	OPT_CONTROL_FD = 256,
	OPT_LISTEN_FD,
	OPT_STREAM_FD,
	OPT_DISK_FD,
	OPT_DEVICE_FD,
	OPT_DISK,
	OPT_DEVICE,
	OPT_CONNECT,
	OPT_EXPORT,
	OPT_READ_ONLY,
	OPT_CDROM,
	OPT_ALLOW_FIRMWARE,
	OPT_SPEED,
	OPT_SERIAL,
	OPT_PRODUCT,
	OPT_INTERFACES,
	OPT_USBFS_MEMORY,
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
	{"listen-fd", required_argument, NULL, OPT_LISTEN_FD},
	{"stream-fd", required_argument, NULL, OPT_STREAM_FD},
	{"disk-fd", required_argument, NULL, OPT_DISK_FD},
	{"device-fd", required_argument, NULL, OPT_DEVICE_FD},
	{"disk", required_argument, NULL, OPT_DISK},
	{"device", required_argument, NULL, OPT_DEVICE},
	{"connect", required_argument, NULL, OPT_CONNECT},
	{"export", required_argument, NULL, OPT_EXPORT},
	{"read-only", no_argument, NULL, OPT_READ_ONLY},
	{"cdrom", no_argument, NULL, OPT_CDROM},
	{"allow-firmware", no_argument, NULL, OPT_ALLOW_FIRMWARE},
	{"speed", required_argument, NULL, OPT_SPEED},
	{"serial", required_argument, NULL, OPT_SERIAL},
	{"product", required_argument, NULL, OPT_PRODUCT},
	{"interfaces", required_argument, NULL, OPT_INTERFACES},
	{"usbfs-memory", required_argument, NULL, OPT_USBFS_MEMORY},
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

/* Decimal, or hexadecimal behind 0x. */
static int parse_mask(const char *text, uint32_t *out)
{
	char *end;
	unsigned long n;

	if (text[0] < '0' || text[0] > '9') {
		return -EINVAL;
	}
	errno = 0;
	n = strtoul(text, &end, text[1] == 'x' ? 16 : 10);
	if (errno || *end || n > UINT32_MAX) {
		return -EINVAL;
	}
	*out = (uint32_t)n;
	return 0;
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
	if (c == OPT_USBFS_MEMORY) {
		return parse_bytes(optarg, USBFS_MIN, USBFS_MAX, &s->usbfs_memory);
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
	case OPT_LISTEN_FD:
		return parse_fd(optarg, &s->listen_fd);
	case OPT_STREAM_FD:
		return parse_fd(optarg, &s->stream_fd);
	case OPT_DISK_FD:
		return parse_fd(optarg, &s->disk_fd);
	case OPT_DEVICE_FD:
		return parse_fd(optarg, &s->device_fd);
	case OPT_DISK:
		o->disk = optarg;
		return 0;
	case OPT_DEVICE:
		o->device = optarg;
		return 0;
	case OPT_CONNECT:
		o->connect = optarg;
		return 0;
	case OPT_EXPORT:
		s->export = optarg;
		return 0;
	case OPT_READ_ONLY:
		s->read_only = true;
		return 0;
	case OPT_CDROM:
		s->cdrom = true;
		return 0;
	case OPT_ALLOW_FIRMWARE:
		s->allow_firmware = true;
		return 0;
	case OPT_SPEED:
		return parse_speed(optarg, &s->speed);
	case OPT_SERIAL:
		s->serial = optarg;
		return optarg[0] ? 0 : -EINVAL;
	case OPT_PRODUCT:
		s->product = optarg;
		return 0;
	case OPT_INTERFACES:
		return parse_mask(optarg, &s->interfaces);
	case OPT_MAX_TRANSFERS:
	case OPT_MAX_BYTES:
	case OPT_USBFS_MEMORY:
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
		return (s->disk_fd >= 0) != (s->device_fd >= 0) && s->stream_fd >= 0 ? -1
										     : EXIT_USAGE;
	}
	if (!!o->disk + (s->disk_fd >= 0) + !!o->device + (s->device_fd >= 0) != 1) {
		fprintf(stderr, "devbroker-usb: give an image with --disk (or --disk-fd), or a "
				"device with --device (or --device-fd)\n");
		return EXIT_USAGE;
	}
	if (!o->connect == (s->stream_fd < 0)) {
		fprintf(stderr, "devbroker-usb: give the guest's side with --connect or "
				"--stream-fd\n");
		return EXIT_USAGE;
	}
	if (disk_io_is_nbd && (o->device || s->device_fd >= 0)) {
		fprintf(stderr, "devbroker-usb-nbd: a device is devbroker-usb's\n");
		return EXIT_USAGE;
	}
	if (!disk_io_is_nbd && s->export) {
		fprintf(stderr, "devbroker-usb: --export is devbroker-usb-nbd's\n");
		return EXIT_USAGE;
	}
	if (s->cdrom && !o->disk && s->disk_fd < 0) {
		fprintf(stderr, "devbroker-usb: --cdrom goes with --disk or --disk-fd\n");
		return EXIT_USAGE;
	}
	if (s->listen_fd >= 0 && s->control_fd < 0) {
		fprintf(stderr, "devbroker-usb: --listen-fd goes with --control-fd\n");
		return EXIT_USAGE;
	}
	if (s->control_fd >= 0 && (o->disk || o->device || o->connect)) {
		fprintf(stderr, "devbroker-usb: --disk, --device and --connect are for starts by "
				"hand, without --control-fd\n");
		return EXIT_USAGE;
	}
	return -1;
}

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

int options_parse(int argc, char **argv, struct options *out)
{
	*out = (struct options){
		.serve = {.control_fd = -1,
			.listen_fd = -1,
			.stream_fd = -1,
			.disk_fd = -1,
			.device_fd = -1,
			.name = "devbroker-usb",
			.speed = USB_SPEED_SUPER,
			.serial = DEFAULT_SERIAL,
			.interfaces = UINT32_MAX,
			.usbfs_memory = DEFAULT_USBFS,
			.max_transfers = DEFAULT_TRANSFERS,
			.max_bytes = DEFAULT_BYTES,
			.stages = SANDBOX_ALL},
	};
	return parse_options(argc, argv, out);
}
