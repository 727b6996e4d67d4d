/* SPDX-License-Identifier: MIT
 *
 * devbroker-keyboards: on a quarantined bus nothing works for the host until devbrokerd says so.
 * While it is not running, this lets the host have its keyboards, so that somebody can sit down and
 * start it. One shot: udev runs it for a keyboard that is plugged in, systemd at boot and after
 * devbrokerd has ended. While devbrokerd runs it does nothing: policy decides then.
 *
 * A keyboard is an interface of class HID, boot subclass, keyboard protocol (HID 1.11, 4.2
 * and 4.3): what firmware takes for one. Only interfaces that nobody has been authorised for are
 * touched, so what a VM has stays where it is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "build-config.h"

#define DEVICES    "/sys/bus/usb/devices"
#define PROBE      "/sys/bus/usb/drivers_probe"
#define EXIT_USAGE 2

static bool broker_runs(const char *run_dir)
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/lock", run_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool attribute_is(int dir, const char *name, const char *wanted)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char value[16];
	ssize_t n = fd < 0 ? -1 : read(fd, value, sizeof(value) - 1);

	if (n < 0) {
		return false;
	}
	value[n] = '\0';
	value[strcspn(value, "\n")] = '\0';
	return strcmp(value, wanted) == 0;
}

static int write_all(int dir, const char *path, const char *value)
{
	_cleanup_close_ int fd = openat(dir, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : write(fd, value, strlen(value));

	return n < 0 ? -errno : 0;
}

/* name: "1-2:1.0". 0 or -errno. */
static int let_host_have(const char *name)
{
	char path[PATH_MAX];
	_cleanup_close_ int dir = -1;
	int r;

	snprintf(path, sizeof(path), DEVICES "/%s", name);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		return -errno;
	}
	if (!attribute_is(dir, "bInterfaceClass", "03") ||
		!attribute_is(dir, "bInterfaceSubClass", "01") ||
		!attribute_is(dir, "bInterfaceProtocol", "01") ||
		!attribute_is(dir, "authorized", "0")) {
		return 0;
	}
	r = write_all(dir, "authorized", "1");
	if (r == 0) {
		r = write_all(AT_FDCWD, PROBE, name);
	}
	log_info("devbroker-keyboards: %s: %s", name, r < 0 ? strerror(-r) : "the host has it");
	return r;
}

static int all_keyboards(void)
{
	DIR *dir = opendir(DEVICES);
	const struct dirent *e;
	int r = 0;

	if (!dir) {
		/* A host without USB. */
		return errno == ENOENT ? 0 : -errno;
	}
	while ((e = readdir(dir))) {
		int one = strchr(e->d_name, ':') ? let_host_have(e->d_name) : 0;

		r = r < 0 ? r : one;
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	int r = 0;

	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("devbroker-keyboards %s\n", DEVBROKER_VERSION);
		return EXIT_SUCCESS;
	}
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-' || strchr(argv[i], '/')) {
			fprintf(stderr, "devbroker-keyboards: give names of interfaces (as in "
					"1-2:1.0), or nothing for all\n");
			return EXIT_USAGE;
		}
	}
	if (broker_runs(DEVBROKER_RUN_DIR)) {
		return EXIT_SUCCESS;
	}
	for (int i = 1; i < argc && r == 0; i++) {
		r = let_host_have(argv[i]);
	}
	if (argc == 1) {
		r = all_keyboards();
	}
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
