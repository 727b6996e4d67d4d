/* SPDX-License-Identifier: MIT
 *
 * Command export. A TCP socket is the broker's to open, because policy says where; a unix socket is
 * made here, with the caller's rights, and handed over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "broker/cli/cli.h"

#define LISTEN_QUEUE 4

static int listen_at(const char *path, int *fd_out)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t before;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	r = fd < 0 ? -errno : fd_remove_dead_socket(path);
	if (r < 0) {
		return r;
	}
	/* For its owner; chmod and chgrp give it to others. */
	before = umask(0177);
	r = bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(before);
	if (r == 0 && listen(fd, LISTEN_QUEUE) < 0) {
		r = -errno;
	}
	if (r == 0) {
		*fd_out = steal_fd(&fd);
	}
	return r;
}

static int append_options(const struct cli *c, sd_bus_message *m, const char *address, int fd)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0) {
		r = cli_append_lend(c, m);
	}
	if (r >= 0) {
		r = fd >= 0 ? sd_bus_message_append(m, "{sv}", "socket", "h", fd)
			    : sd_bus_message_append(m, "{sv}", "listen", "s", address);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

static int call(struct cli *c, const char *address, int fd, char **path_out)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	const char *path;
	int r = sd_bus_message_new_method_call(
		c->bus, &m, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Export");

	if (r >= 0) {
		r = sd_bus_message_append(m, "s", c->o.args[0]);
	}
	if (r >= 0) {
		r = append_options(c, m, address, fd);
	}
	if (r >= 0) {
		r = sd_bus_call(c->bus, m, 0, &error, &reply);
	}
	if (r >= 0) {
		r = sd_bus_message_read(reply, "o", &path);
	}
	if (r >= 0) {
		*path_out = strdup(path);
		r = *path_out ? 0 : -ENOMEM;
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

static int print_exported(struct cli *c, const char *path, const char *address)
{
	json_t *device;
	int r = cli_properties(c, path, CLI_IFACE_DEVICE, &device, NULL);

	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(json_pack("{s:o, s:s}", "device", device, "listen", address),
			"devbroker.export/1");
	}
	text_line(stdout, TEXT_PLAIN, "%s waits for a client at %s, as vm %s",
		cli_text(device, "name"), address, cli_text(device, "vm"));
	json_decref(device);
	return 0;
}

int cmd_export(struct cli *c)
{
	const char *address = cli_value(c, "listen");
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (!address) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"As in --listen 127.0.0.1:4000, or --listen ./stick.sock",
			"export needs --listen ADDRESS:PORT or the path of a socket");
	}
	if (strchr(address, '/')) {
		r = listen_at(address, &fd);
		if (r < 0) {
			return cli_fail(c, CLI_EXIT_FAILED, "failed",
				r == -EADDRINUSE ? "Use another path, or end what is there." : "",
				"can't listen at %s: %s", address, strerror(-r));
		}
	}
	r = call(c, address, fd, &path);
	if (r != 0 && fd >= 0) {
		unlink(address);
	}
	return r == 0 ? print_exported(c, path, address) : r;
}
