/* SPDX-License-Identifier: MIT
 *
 * RUN-DIR lives as long as the host is up, as long as what was taken: no record outlives its
 * meaning. The directory is the broker's own; what stands in it is checked all the same.
 */
#include "broker/usb-record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

#define DIRECTORY "claims"
#define TEXT_SIZE 512
#define FORMAT                                                                 \
	"devbroker-claim 1\nkey=%s\ninstance=%" PRIu64 "\ninterfaces=%" PRIu32 \
	"\nconfiguration=%" PRIu32 "\n"

/* A key has no '/', but for a file name it should not begin with a dot either: "usb:…". */
static bool key_ok(const char *key)
{
	return strncmp(key, "usb:", 4) == 0 && !strchr(key, '/') && !strchr(key, '\n');
}

static int open_directory(const char *run_dir, bool make)
{
	_cleanup_close_ int run = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (run < 0) {
		return -errno;
	}
	if (make && mkdirat(run, DIRECTORY, 0700) < 0 && errno != EEXIST) {
		return -errno;
	}
	fd = openat(run, DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int write_file(int dir, const char *name, const char *text)
{
	_cleanup_close_ int fd =
		openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ssize_t n;

	if (fd < 0) {
		return -errno;
	}
	n = write(fd, text, strlen(text));
	if (n < 0) {
		return -errno;
	}
	return (size_t)n == strlen(text) ? 0 : -ENOSPC;
}

int usb_record_write(const char *run_dir, const struct usb_record *record)
{
	_cleanup_close_ int dir = open_directory(run_dir, true);
	char text[TEXT_SIZE];
	int r;

	if (dir < 0) {
		return dir;
	}
	if (!key_ok(record->key)) {
		return -EINVAL;
	}
	snprintf(text, sizeof(text), FORMAT, record->key, record->instance, record->host_drivers,
		record->configuration);
	r = write_file(dir, ".new", text);
	if (r == 0 && renameat(dir, ".new", dir, record->key) < 0) {
		r = -errno;
	}
	return r;
}

void usb_record_remove(const char *run_dir, const char *key)
{
	_cleanup_close_ int dir = open_directory(run_dir, false);

	if (dir >= 0 && key_ok(key)) {
		unlinkat(dir, key, 0);
	}
}

static int read_record(int dir, const char *name, struct usb_record *out)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[TEXT_SIZE];
	ssize_t n;

	if (fd < 0) {
		return -errno;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		return -errno;
	}
	text[n] = '\0';
	if (sscanf(text,
		    "devbroker-claim 1\nkey=%127[^\n]\ninstance=%" SCNu64 "\ninterfaces=%" SCNu32
		    "\nconfiguration=%" SCNu32,
		    out->key, &out->instance, &out->host_drivers, &out->configuration) != 4) {
		return -EBADMSG;
	}
	return strcmp(out->key, name) == 0 && key_ok(name) && out->configuration <= UINT8_MAX
		       ? 0
		       : -EBADMSG;
}

int usb_record_each(const char *run_dir,
	void (*found)(void *userdata, const struct usb_record *record), void *userdata)
{
	int fd = open_directory(run_dir, false);
	const struct dirent *e;
	DIR *dir;

	if (fd < 0) {
		return fd == -ENOENT ? 0 : fd;
	}
	dir = fdopendir(fd);
	if (!dir) {
		safe_close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir))) {
		struct usb_record record = {0};

		if (e->d_name[0] == '.') {
			continue;
		}
		if (read_record(dirfd(dir), e->d_name, &record) < 0) {
			log_warn("devbrokerd: a file in %s/" DIRECTORY " is no record; removed",
				run_dir);
			unlinkat(dirfd(dir), e->d_name, 0);
			continue;
		}
		found(userdata, &record);
	}
	closedir(dir);
	return 0;
}
