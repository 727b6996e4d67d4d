/* SPDX-License-Identifier: MIT
 *
 * devbroker-claim: takes a host's drivers off a USB device, or brings them back, reports what came
 * of it and ends. These ioctls may block for as long as a driver or a device pleases (an unbind
 * waits for the driver's commands, a reset for the device, a bind for its first answers), so the
 * broker, which must answer its clients, has them done here, on the fd that it opened. One run does
 * the steps that it is told, in this order:
 *
 *   authorized 0   the host's stack lets go of the whole device (sysfs attribute, opened by the
 *                  broker)
 *   reset          of the port, back to the state after plugging in
 *   configuration  the one that is given is selected
 *   disconnect     the drivers of these interfaces are taken off
 *   connect        drivers are looked for, for these interfaces
 *   authorized 1   the host's stack takes the whole device back
 *
 * The fd is a fresh one without dropped privileges, and all that this process has: it runs in the
 * sandbox as every worker does. See linux/drivers/usb/core/devio.c for the ioctls.
 */
#include <errno.h>
#include <linux/usbdevice_fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "protocol/worker.h"
#include "usb/helper-options.h"

#define EXIT_USAGE       2
#define INTERFACES_MAX   32
#define NO_CONFIGURATION UINT32_MAX

struct options {
	int control_fd;
	int device_fd;
	int authorized_fd; /* -1: neither 0 nor 1 is to be written */
	bool authorize;    /* 1 rather than 0 */
	bool reset;
	uint32_t configuration; /* NO_CONFIGURATION: as it is */
	uint32_t disconnect;    /* interface numbers, a bit each */
	uint32_t connect;
	uint32_t stages;
};

static int usage(const char *what)
{
	fprintf(stderr,
		"devbroker-claim: %s\n"
		"Started by devbrokerd; see devbroker-claim(8). Usage: devbroker-claim "
		"--control-fd=N --device-fd=N [--authorized-fd=N --authorized=0|1] [--reset] "
		"[--configuration=N] [--disconnect=MASK] [--connect=MASK] "
		"[--sandbox=full|reduced:STAGE,…]\n",
		what);
	return EXIT_USAGE;
}

/* A decimal number in [0, max]. */
static int take_number(uint32_t max, uint32_t *out)
{
	uint64_t n;
	int r = parse_u64(optarg, 0, max, &n);

	if (r == 0) {
		*out = (uint32_t)n;
	}
	return r;
}

static int take_option(void *options, int c)
{
	struct options *o = options;
	uint32_t flag = 0;
	int r;

	switch (c) {
	case 'c':
		return parse_fd(optarg, &o->control_fd);
	case 'd':
		return parse_fd(optarg, &o->device_fd);
	case 'a':
		return parse_fd(optarg, &o->authorized_fd);
	case 'A':
		r = take_number(1, &flag);
		o->authorize = flag;
		return r;
	case 'r':
		o->reset = true;
		return 0;
	case 'C':
		return take_number(UINT8_MAX, &o->configuration);
	case 'x':
		return take_number(UINT32_MAX, &o->disconnect);
	case 'b':
		return take_number(UINT32_MAX, &o->connect);
	case 's':
		return sandbox_parse(optarg, false, &o->stages);
	default:
		return -EINVAL;
	}
}

/* -1: go on; otherwise the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"control-fd", required_argument, NULL, 'c'},
		{"device-fd", required_argument, NULL, 'd'},
		{"authorized-fd", required_argument, NULL, 'a'},
		{"authorized", required_argument, NULL, 'A'},
		{"reset", no_argument, NULL, 'r'},
		{"configuration", required_argument, NULL, 'C'},
		{"disconnect", required_argument, NULL, 'x'},
		{"connect", required_argument, NULL, 'b'},
		{"sandbox", required_argument, NULL, 's'},
		HELPER_VERSION,
		{0},
	};
	static const struct helper_options helper = {
		.program = "devbroker-claim", .known = known, .take = take_option, .usage = usage};
	int r = helper_options_parse(&helper, argc, argv, o);

	if (r >= 0) {
		return r;
	}
	if (optind < argc || o->control_fd < 0 || o->device_fd < 0) {
		return usage("--control-fd and --device-fd are needed, and no arguments");
	}
	return -1;
}

/* USBDEVFS_IOCTL carries an ioctl for one interface. */
static int interface_ioctl(int fd, unsigned int interface, unsigned int code)
{
	struct usbdevfs_ioctl command = {.ifno = (int)interface, .ioctl_code = (int)code};

	return ioctl(fd, USBDEVFS_IOCTL, &command) < 0 ? -errno : 0;
}

/* 1 if a driver was taken off, 0 if there is none, -EBUSY if another program has claimed it;
 * -errno.
 */
static int disconnect(int fd, unsigned int interface)
{
	struct usbdevfs_getdriver driver = {.interface = interface};
	int r;

	if (ioctl(fd, USBDEVFS_GETDRIVER, &driver) < 0) {
		/* ENODATA: no driver; EINVAL and ENOENT: no such interface in this configuration.
		 */
		return errno == ENODATA || errno == EINVAL || errno == ENOENT ? 0 : -errno;
	}
	if (strncmp(driver.driver, "usbfs", sizeof(driver.driver)) == 0) {
		return -EBUSY;
	}
	r = interface_ioctl(fd, interface, USBDEVFS_DISCONNECT);
	return r == 0 ? 1 : r == -ENODATA ? 0 : r;
}

/* Interfaces are those whose drivers are off; -errno of the first that keeps its own. Then the
 * others get theirs back: all or none. */
static int disconnect_all(int fd, uint32_t mask, uint32_t *done)
{
	int r = 0;

	for (unsigned int i = 0; i < INTERFACES_MAX && r >= 0; i++) {
		if (!(mask & 1u << i)) {
			continue;
		}
		r = disconnect(fd, i);
		if (r > 0) {
			*done |= 1u << i;
		}
	}
	for (unsigned int i = 0; i < INTERFACES_MAX && r < 0; i++) {
		if (*done & 1u << i) {
			(void)interface_ioctl(fd, i, USBDEVFS_CONNECT);
		}
	}
	return r < 0 ? r : 0;
}

/* An interface that no driver wants is none of our errors: what matters is that each was tried. */
static int connect_all(int fd, uint32_t mask, uint32_t *done)
{
	for (unsigned int i = 0; i < INTERFACES_MAX; i++) {
		int r = mask & 1u << i ? interface_ioctl(fd, i, USBDEVFS_CONNECT) : 0;

		if (r == -ENODEV) {
			return r;
		}
		if (mask & 1u << i && r >= 0) {
			*done |= 1u << i;
		}
	}
	return 0;
}

static int write_authorized(int fd, bool value)
{
	ssize_t n = write(fd, value ? "1" : "0", 1);

	return n == 1 ? 0 : n < 0 ? -errno : -EIO;
}

static int configure(int fd, uint32_t value)
{
	/* 0 is a configuration to the kernel, too; -1 means none. */
	int configuration = value == 0 ? -1 : (int)value;

	return ioctl(fd, USBDEVFS_SETCONFIGURATION, &configuration) < 0 ? -errno : 0;
}

/* What makes a device fit for its next user. -errno of the first that failed; a device that can't
 * be reset is given back all the same. */
static int prepare(const struct options *o)
{
	int first = 0, r;

	if (o->reset && ioctl(o->device_fd, USBDEVFS_RESET, NULL) < 0) {
		first = -errno;
	}
	if (first != -ENODEV && o->configuration != NO_CONFIGURATION) {
		r = configure(o->device_fd, o->configuration);
		first = first < 0 ? first : r;
	}
	return first;
}

/* 0 or -errno of the first step that failed. Drivers are taken off only if all went well before;
 * they are brought back even so. */
static int run(const struct options *o, uint32_t *interfaces)
{
	int first = 0, r;

	if (o->authorized_fd >= 0 && !o->authorize) {
		first = write_authorized(o->authorized_fd, false);
	}
	if (first == 0) {
		first = prepare(o);
	}
	if (first == 0 && o->disconnect) {
		first = disconnect_all(o->device_fd, o->disconnect, interfaces);
	}
	if (first != -ENODEV && o->connect) {
		r = connect_all(o->device_fd, o->connect, interfaces);
		first = first < 0 ? first : r;
	}
	if (first == 0 && o->authorized_fd >= 0 && o->authorize) {
		first = write_authorized(o->authorized_fd, true);
	}
	return first;
}

static int enter_sandbox(const struct options *o)
{
	const int keep[] = {o->control_fd, o->device_fd, o->authorized_fd};
	int r = sandbox_enter(
		"devbroker-claim", SANDBOX_CLAIM, o->stages, keep, o->authorized_fd >= 0 ? 3 : 2);

	if (r < 0) {
		return r;
	}
	r = sandbox_lock(SANDBOX_CLAIM, o->stages);
	if (r < 0) {
		log_error("devbroker-claim: can't close the sandbox, stage %s: %s",
			sandbox_stage_name(SANDBOX_SECCOMP), strerror(-r));
	}
	return r;
}

int main(int argc, char **argv)
{
	struct options o = {
		.control_fd = -1,
		.device_fd = -1,
		.authorized_fd = -1,
		.configuration = NO_CONFIGURATION,
		.stages = SANDBOX_ALL,
	};
	union worker_msg msg;
	size_t size;
	int r = parse_options(argc, argv, &o);

	if (r >= 0) {
		return r;
	}
	if (enter_sandbox(&o) < 0) {
		return EXIT_FAILURE;
	}
	size = worker_msg_init(&msg, WORKER_MSG_READY);
	msg.ready.version = WORKER_PROTOCOL_VERSION;
	msg.ready.sandbox_stages = o.stages;
	if (fd_send(o.control_fd, &msg, size, NULL, 0) < 0) {
		return EXIT_FAILURE;
	}
	size = worker_msg_init(&msg, WORKER_MSG_CLAIM);
	msg.claim.error = run(&o, &msg.claim.interfaces);
	return fd_send(o.control_fd, &msg, size, NULL, 0) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
