/* SPDX-License-Identifier: MIT */
#include "gpu/vtest-charge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>

#include "base/fd.h"
#include "base/log.h"
#include "protocol/refusal.h"

#define VMS          "/org/devbroker/vm"
#define INTERFACE    "org.devbroker.Gpu1"
#define TIMEOUT_USEC 2000000

/* As devbroker does it: there is no bus in between, and so no name. */
static int connect_to(const char *path, sd_bus **out)
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		return -errno;
	}
	r = fd_set_nonblock(fd, true);
	if (r >= 0) {
		r = sd_bus_new(&bus);
	}
	if (r >= 0) {
		r = sd_bus_set_fd(bus, fd, fd);
	}
	if (r < 0) {
		return r;
	}
	_unused_ int taken = steal_fd(&fd);
	r = sd_bus_negotiate_fds(bus, true);
	if (r >= 0) {
		r = sd_bus_start(bus);
	}
	if (r >= 0) {
		r = sd_bus_set_method_call_timeout(bus, TIMEOUT_USEC);
	}
	if (r < 0) {
		return r;
	}
	*out = steal_ptr(bus);
	return 0;
}

/* Errors of the contract are a sentence and a remedy; of others the text. */
static int explain(const sd_bus_error *error, int r, char why[VTEST_WHY_SIZE])
{
	const char *text = error->message ? error->message : strerror(-r);
	int refusal = error->name ? refusal_from_dbus_name(error->name) : REFUSAL_NONE;

	log_escape(text, strcspn(text, "\n"), why, VTEST_WHY_SIZE);
	switch (refusal) {
	case REFUSAL_QUOTA:
		return -EDQUOT;
	case REFUSAL_NONE:
		return sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_OBJECT) ||
				       sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_METHOD) ||
				       sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_INTERFACE)
			       ? -ESRCH
		       : r == -ENOENT || r == -ECONNREFUSED ? r
							    : -EIO;
	default:
		return -EACCES;
	}
}

static int call(
	sd_bus *bus, const char *object, uint64_t bytes, int *fd_out, char why[VTEST_WHY_SIZE])
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	int fd = -1;
	int r = sd_bus_call_method(
		bus, NULL, object, INTERFACE, "Reserve", &error, &reply, "t", bytes);

	if (r < 0) {
		r = explain(&error, r, why);
	} else {
		r = sd_bus_message_read(reply, "h", &fd);
		*fd_out = r < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = r < 0 ? r : *fd_out < 0 ? -errno : 0;
	}
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	return r;
}

int vtest_charge(
	const char *path, const char *vm, uint64_t bytes, int *fd_out, char why[VTEST_WHY_SIZE])
{
	_cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
	_cleanup_free_ char *object = NULL;
	int r = sd_bus_path_encode(VMS, vm, &object);

	snprintf(why, VTEST_WHY_SIZE, "devbrokerd can't be asked");
	if (r < 0) {
		return r;
	}
	r = connect_to(path, &bus);
	if (r < 0) {
		snprintf(why, VTEST_WHY_SIZE, "nobody serves %s: %s", path, strerror(-r));
		return r;
	}
	return call(bus, object, bytes, fd_out, why);
}
