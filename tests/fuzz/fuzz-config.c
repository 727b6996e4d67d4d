/* SPDX-License-Identifier: MIT
 * Configuration and rules: the first byte says which of the files of a directory the rest is; it is
 * read as devbrokerd reads it.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "broker/config.h"
#include "broker/policy.h"
#include "tests/fuzz/fuzz.h"

static const char *const files[] = {
	"devbroker.conf", "vms.d/a.conf", "disks.d/a.conf", "policy.d/a.conf"};
static const char *const folders[] = {"vms.d", "disks.d", "policy.d"};

static char directory[64];

static void in_directory(const char *name, char *out, size_t size)
{
	int n = snprintf(out, size, "%s/%s", directory, name);

	assert(n > 0 && (size_t)n < size);
}

static void clean_up(void)
{
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		in_directory(folders[i], path, sizeof(path));
		rmdir(path);
	}
	rmdir(directory);
}

static void make_directory(void)
{
	char path[128];

	snprintf(directory, sizeof(directory), "%s/devbroker-fuzz-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	must(mkdtemp(directory));
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		in_directory(folders[i], path, sizeof(path));
		must(mkdir(path, 0755) == 0);
	}
	atexit(clean_up);
}

static void check_text(int r, const struct refusal_text *text)
{
	if (r > 0) {
		assert(text->sentence[0] && memchr(text->sentence, '\0', sizeof(text->sentence)));
	}
}

static void load(bool rules)
{
	struct refusal_text text = {0};
	struct policy *policy;
	struct config config;
	int r;

	if (rules) {
		r = policy_load(directory, &policy, &text);
		if (r == 0) {
			policy_destroy(policy);
		}
	} else {
		r = config_load(directory, &config, &text);
		if (r == 0) {
			config_finish(&config);
		}
	}
	check_text(r, &text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[128];
	size_t which;
	int fd;

	if (size == 0) {
		return 0;
	}
	if (!directory[0]) {
		make_directory();
	}
	which = data[0] % ARRAY_SIZE(files);
	in_directory(files[which], path, sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	must(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
	close(fd);
	load(which == 3);
	unlink(path);
	return 0;
}
