/* SPDX-License-Identifier: MIT
 *
 * RUN-DIR lives as long as the host is up, as long as what was done: no record outlives its
 * meaning. The directories are the broker's own; what stands in them is checked all the same. They
 * are in memory (/run), so nothing is synced: a rename is what makes a record the new one.
 */
#include "broker/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"

#define NEW ".new"

static bool name_ok(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\n');
}

static bool text_ok(const char *text)
{
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f) {
			return false;
		}
	}
	return true;
}

static int append(char *out, size_t size, size_t *at, const char *key, const char *value)
{
	int n = snprintf(out + *at, size - *at, "%s=%s\n", key, value);

	if (n < 0 || (size_t)n >= size - *at) {
		return -E2BIG;
	}
	*at += (size_t)n;
	return 0;
}

static int format_field(
	const struct record_field *f, const void *record, char *out, size_t size, size_t *at)
{
	const void *value = (const char *)record + f->offset;
	char number[24];

	switch (f->type) {
	case RECORD_TEXT:
		return text_ok(value) ? append(out, size, at, f->key, value) : -EINVAL;
	case RECORD_BOOL:
		return append(out, size, at, f->key, *(const bool *)value ? "yes" : "no");
	case RECORD_U32:
		snprintf(number, sizeof(number), "%" PRIu32, *(const uint32_t *)value);
		return append(out, size, at, f->key, number);
	default:
		snprintf(number, sizeof(number), "%" PRIu64, *(const uint64_t *)value);
		return append(out, size, at, f->key, number);
	}
}

int record_format(const struct record_kind *kind, const void *record, char *out, size_t size)
{
	int n = snprintf(out, size, "%s\n", kind->header), r = 0;
	size_t at = (size_t)n;

	if (n < 0 || at >= size) {
		return -E2BIG;
	}
	for (size_t i = 0; i < kind->n_fields && r == 0; i++) {
		r = format_field(&kind->fields[i], record, out, size, &at);
	}
	return r < 0 ? r : (int)at;
}

static int parse_value(const struct record_field *f, const char *text, void *record)
{
	void *value = (char *)record + f->offset;
	uint64_t n = 0;
	int r = 0;

	switch (f->type) {
	case RECORD_TEXT:
		if (strlen(text) >= f->limit || !text_ok(text)) {
			return -EBADMSG;
		}
		memcpy(value, text, strlen(text) + 1);
		return 0;
	case RECORD_BOOL:
		if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0) {
			return -EBADMSG;
		}
		*(bool *)value = text[0] == 'y';
		return 0;
	case RECORD_U32:
		r = parse_u64(text, 0, f->limit, &n);
		*(uint32_t *)value = (uint32_t)n;
		break;
	default:
		r = parse_u64(text, 0, f->limit, (uint64_t *)value);
	}
	return r < 0 ? -EBADMSG : 0;
}

/* Takes the next line out of *at. NULL if it does not end. */
static char *next_line(char **at)
{
	char *line = *at, *end = strchr(line, '\n');

	if (!end) {
		return NULL;
	}
	*end = '\0';
	*at = end + 1;
	return line;
}

int record_parse(const struct record_kind *kind, const char *text, size_t size, void *record)
{
	char copy[RECORD_FILE_MAX + 1], *at = copy;
	const char *line;

	if (size > RECORD_FILE_MAX || memchr(text, '\0', size)) {
		return -EBADMSG;
	}
	memcpy(copy, text, size);
	copy[size] = '\0';
	line = next_line(&at);
	if (!line || strcmp(line, kind->header) != 0) {
		return -EBADMSG;
	}
	memset(record, 0, kind->size);
	for (size_t i = 0; i < kind->n_fields; i++) {
		const struct record_field *f = &kind->fields[i];
		size_t n = strlen(f->key);

		line = next_line(&at);
		if (!line || strncmp(line, f->key, n) != 0 || line[n] != '=' ||
			parse_value(f, line + n + 1, record) < 0) {
			return -EBADMSG;
		}
	}
	return *at ? -EBADMSG : 0;
}

static int open_directory(const char *run_dir, const struct record_kind *kind, bool make)
{
	_cleanup_close_ int run = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (run < 0) {
		return -errno;
	}
	if (make && mkdirat(run, kind->directory, 0700) < 0 && errno != EEXIST) {
		return -errno;
	}
	fd = openat(run, kind->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int record_make_directory(const char *run_dir, const struct record_kind *kind)
{
	int fd = open_directory(run_dir, kind, true);

	safe_close(fd);
	return fd < 0 ? fd : 0;
}

static int write_file(int dir, const char *name, const char *text, size_t size)
{
	_cleanup_close_ int fd =
		openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ssize_t n;

	if (fd < 0) {
		return -errno;
	}
	n = write(fd, text, size);
	if (n < 0) {
		return -errno;
	}
	return (size_t)n == size ? 0 : -ENOSPC;
}

int record_write(
	const char *run_dir, const struct record_kind *kind, const char *name, const void *record)
{
	_cleanup_close_ int dir = open_directory(run_dir, kind, true);
	char text[RECORD_FILE_MAX];
	int n, r;

	if (dir < 0) {
		return dir;
	}
	n = record_format(kind, record, text, sizeof(text));
	if (n < 0 || !name_ok(name)) {
		return n < 0 ? n : -EINVAL;
	}
	r = write_file(dir, NEW, text, (size_t)n);
	if (r == 0 && renameat(dir, NEW, dir, name) < 0) {
		r = -errno;
	}
	return r;
}

void record_remove(const char *run_dir, const struct record_kind *kind, const char *name)
{
	_cleanup_close_ int dir = open_directory(run_dir, kind, false);

	if (dir >= 0 && name_ok(name)) {
		unlinkat(dir, name, 0);
	}
}

static int read_record(int dir, const struct record_kind *kind, const char *name, void *record)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char text[RECORD_FILE_MAX + 1];
	ssize_t n;
	int r;

	if (fd < 0) {
		return -errno;
	}
	n = read(fd, text, sizeof(text));
	if (n < 0) {
		return -errno;
	}
	r = record_parse(kind, text, (size_t)n, record);
	return r == 0 && !kind->ok(name, record) ? -EBADMSG : r;
}

/* Sockets stand beside the records of leases. */
static bool is_file(int dir, const char *name)
{
	struct stat st;

	return name[0] != '.' && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       !S_ISSOCK(st.st_mode);
}

int record_each(const char *run_dir, const struct record_kind *kind,
	void (*found)(void *userdata, const char *name, const void *record), void *userdata)
{
	_cleanup_free_ void *record = malloc(kind->size);
	int fd = open_directory(run_dir, kind, false);
	const struct dirent *e;
	DIR *dir;

	if (fd < 0) {
		return fd == -ENOENT ? 0 : fd;
	}
	dir = record ? fdopendir(fd) : NULL;
	if (!dir) {
		safe_close(fd);
		return -ENOMEM;
	}
	while ((e = readdir(dir))) {
		if (!is_file(dirfd(dir), e->d_name)) {
			continue;
		}
		if (read_record(dirfd(dir), kind, e->d_name, record) < 0) {
			log_warn("devbrokerd: a file in %s/%s is no record; removed", run_dir,
				kind->directory);
			unlinkat(dirfd(dir), e->d_name, 0);
			continue;
		}
		found(userdata, e->d_name, record);
	}
	closedir(dir);
	return 0;
}
