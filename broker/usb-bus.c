/* SPDX-License-Identifier: MIT */
#include "broker/usb-bus.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

#define BUS_DEFAULT "interface_authorized_default"
#define AUTHORIZED  "authorized"

static int write_attribute(int dir, const char *name, const char *value)
{
	_cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0) {
		return -errno;
	}
	n = write(fd, value, strlen(value));
	return n < 0 ? -errno : 0;
}

static int open_directory(const char *syspath)
{
	int fd = open(syspath, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

int usb_bus_quarantine(const char *root_hub_syspath)
{
	_cleanup_close_ int dir = open_directory(root_hub_syspath);

	return dir < 0 ? dir : write_attribute(dir, BUS_DEFAULT, "0");
}

bool usb_bus_quarantined(const char *root_hub_syspath)
{
	_cleanup_close_ int dir = open_directory(root_hub_syspath);
	_cleanup_close_ int fd = dir < 0 ? -1 : openat(dir, BUS_DEFAULT, O_RDONLY | O_CLOEXEC);
	char value = '1';

	return fd >= 0 && read(fd, &value, 1) == 1 && value == '0';
}

/* "1-2:1.0" below "…/1-2". */
static bool is_interface(const char *name, const char *device)
{
	size_t n = strlen(device);

	return strncmp(name, device, n) == 0 && name[n] == ':';
}

int usb_bus_authorize(const char *device_syspath, bool authorize)
{
	const char *device = strrchr(device_syspath, '/') + 1;
	int fd = open_directory(device_syspath), r = 0;
	const struct dirent *e;
	DIR *dir;

	if (fd < 0) {
		return fd;
	}
	dir = fdopendir(fd);
	if (!dir) {
		safe_close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir))) {
		char path[NAME_MAX + sizeof("/" AUTHORIZED)];
		int failed;

		if (!is_interface(e->d_name, device)) {
			continue;
		}
		snprintf(path, sizeof(path), "%s/" AUTHORIZED, e->d_name);
		failed = write_attribute(dirfd(dir), path, authorize ? "1" : "0");
		r = r < 0 ? r : failed;
	}
	closedir(dir);
	return r;
}

int usb_bus_open_authorized(const char *device_syspath)
{
	_cleanup_close_ int dir = open_directory(device_syspath);
	int fd;

	if (dir < 0) {
		return dir;
	}
	fd = openat(dir, AUTHORIZED, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}
