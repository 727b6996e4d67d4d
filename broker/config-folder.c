/* SPDX-License-Identifier: MIT
 *
 * A folder of files NAME.conf, read in the order of their names (as bytes).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/config-file.h"
#include "broker/config.h"

#define SUFFIX ".conf"

struct folder {
	const char *name;
	int fd;
	config_folder_load load;
	void *userdata;
	struct refusal_text *text;
};

static int is_conf(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name), suffix = strlen(SUFFIX);

	/* Hidden ones are editors' leftovers. */
	return entry->d_name[0] != '.' && n > suffix &&
	       strcmp(entry->d_name + n - suffix, SUFFIX) == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_entry(const struct folder *f, const char *file)
{
	char shown[PATH_MAX], name[NAME_MAX_LENGTH + 1], escaped[200];
	struct config_place place = {.shown = shown, .text = f->text};
	size_t n = strlen(file) - strlen(SUFFIX);
	int r;

	log_escape(file, strlen(file), escaped, sizeof(escaped));
	snprintf(shown, sizeof(shown), "%s/%s", f->name, escaped);
	if (n >= sizeof(name)) {
		return config_refuse(&place, "the name has %zu bytes; at most %d are allowed", n,
			NAME_MAX_LENGTH);
	}
	memcpy(name, file, n);
	name[n] = '\0';
	if (!config_name_ok(name)) {
		return config_refuse(&place, "the file's name is no name: use letters, digits, "
					     "'.', '_' and '-', a letter or digit first");
	}
	r = f->load(f->userdata, f->fd, file, shown, name, f->text);
	if (r == -ENOENT) {
		/* The folder named it a moment ago. */
		r = config_refuse(&place, "it is a link to nothing, or went away");
	}
	return r;
}

static int load_entries(const struct folder *f, struct dirent **entries, int n, unsigned int max)
{
	const struct config_place place = {.shown = f->name, .text = f->text};
	int r = 0;

	if ((unsigned int)n > max) {
		return config_refuse(&place, "there are %d files; at most %u are allowed", n, max);
	}
	for (int i = 0; i < n && r == 0; i++) {
		r = load_entry(f, entries[i]->d_name);
	}
	return r;
}

int config_folder_read(int parent_fd, const char *name, unsigned int max, config_folder_load load,
	void *userdata, struct refusal_text *text)
{
	const struct config_place place = {.shown = name, .text = text};
	_cleanup_close_ int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct folder f = {
		.name = name, .fd = fd, .load = load, .userdata = userdata, .text = text};
	struct dirent **entries = NULL;
	struct stat st;
	int n, r;

	if (fd < 0 && errno == ENOENT) {
		return 0;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		return config_refuse(&place, "it can't be read: %s", strerror(errno));
	}
	r = config_check_trust(&st, &place);
	if (r != 0) {
		return r;
	}
	n = scandirat(fd, ".", &entries, is_conf, by_bytes);
	if (n < 0) {
		return config_refuse(&place, "it can't be read: %s", strerror(errno));
	}
	r = load_entries(&f, entries, n, max);
	for (int i = 0; i < n; i++) {
		free(entries[i]);
	}
	free(entries);
	return r;
}
