/* SPDX-License-Identifier: MIT
 *
 * devbroker-usb: its start. The broker starts it in namespaces with all fds in place. Started by
 * hand it opens what it was told to, and then runs itself again in namespaces of its own, so that
 * what is measured and debugged by hand is what the broker runs.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "usb/disk-io.h"
#include "usb/options.h"

static int connect_unix(const char *path)
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

/* Only this host's own: what goes over the stream is neither encrypted nor authenticated. */
static int parse_loopback(const char *text, struct sockaddr_in *out)
{
	const char *colon = strrchr(text, ':');
	char host[16];
	uint64_t port;

	if (!colon || (size_t)(colon - text) >= sizeof(host) ||
		parse_u64(colon + 1, 1, UINT16_MAX, &port) < 0) {
		return -EINVAL;
	}
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	*out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &out->sin_addr) != 1) {
		return -EINVAL;
	}
	return ntohl(out->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET ? 0 : -EPERM;
}

static int connect_tcp(const char *text)
{
	struct sockaddr_in addr;
	int r = parse_loopback(text, &addr), fd;

	if (r < 0) {
		errno = -r;
		return -1;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		fd = safe_close(fd);
	}
	return fd;
}

static int connect_to(const char *where)
{
	static const char tcp[] = "tcp:";

	if (strncmp(where, tcp, sizeof(tcp) - 1) == 0) {
		return connect_tcp(where + sizeof(tcp) - 1);
	}
	return connect_unix(where);
}

/* fd is what opening gave. */
static int opened(int fd, const char *doing, const char *what)
{
	if (fd < 0) {
		fprintf(stderr, "devbroker-usb: can't %s %s: %s\n", doing, what, strerror(errno));
	}
	return fd;
}

/* 0 or -1 with a line said. */
static int open_all(struct options *o)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct serve_options *s = &o->serve;

	if (o->disk && disk_io_is_nbd) {
		s->disk_fd = opened(connect_to(o->disk), "connect to", o->disk);
	} else if (o->disk) {
		s->disk_fd = opened(
			open(o->disk, (s->read_only || s->cdrom ? O_RDONLY : O_RDWR) | flags),
			"open", o->disk);
	} else if (o->device) {
		s->device_fd = opened(open(o->device, O_RDWR | flags), "open", o->device);
	}
	if (s->disk_fd < 0 && s->device_fd < 0) {
		return -1;
	}
	if (o->connect) {
		s->stream_fd = opened(connect_to(o->connect), "connect to", o->connect);
	}
	return s->stream_fd < 0 ? -1 : 0;
}

/* The outer process: the inner one gets the same options, with fds for paths. */
static int run_jailed(const struct options *o, int argc, char **argv)
{
	const struct serve_options *s = &o->serve;
	const char **args = calloc((size_t)argc + 4, sizeof(*args));
	const int fds[] = {s->stream_fd, s->disk_fd >= 0 ? s->disk_fd : s->device_fd};
	int status = EXIT_FAILURE, r, n = 0;

	if (!args) {
		return EXIT_FAILURE;
	}
	args[n++] = argv[0];
	args[n++] = OPTION_JAILED;
	for (int i = 1; i < argc; i++) {
		args[n++] = argv[i];
	}
	/* The last one of an option counts. */
	args[n++] = "--stream-fd=3";
	args[n++] = s->disk_fd >= 0 ? "--disk-fd=4" : "--device-fd=4";
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
	struct options o;
	int r = options_parse(argc, argv, &o);

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
