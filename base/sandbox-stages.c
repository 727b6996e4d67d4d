/* SPDX-License-Identifier: MIT
 *
 * Names of the sandbox stages, apart from the stages themselves: the broker reads and shows them
 * without libseccomp.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sandbox.h"

static const struct {
	uint32_t stage;
	const char *name;
} stage_names[] = {
	{SANDBOX_NAMESPACES, "namespaces"},
	{SANDBOX_ROOT, "root"},
	{SANDBOX_PRIVILEGES, "privileges"},
	{SANDBOX_LANDLOCK, "landlock"},
	{SANDBOX_SECCOMP, "seccomp"},
};

static uint32_t stage_find(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(stage_names); i++) {
		if (strlen(stage_names[i].name) == len &&
			memcmp(stage_names[i].name, name, len) == 0) {
			return stage_names[i].stage;
		}
	}
	return 0;
}

int sandbox_parse(const char *text, bool allow_off, uint32_t *stages_out)
{
	static const char reduced[] = "reduced:";
	uint32_t left_out = 0;
	const char *p = text;

	if (strcmp(text, "full") == 0) {
		*stages_out = SANDBOX_ALL;
		return 0;
	}
	if (allow_off && strcmp(text, "off") == 0) {
		*stages_out = 0;
		return 0;
	}
	if (strncmp(text, reduced, sizeof(reduced) - 1) != 0) {
		return -EINVAL;
	}
	for (p += sizeof(reduced) - 1;; p++) {
		size_t len = strcspn(p, ",");
		uint32_t stage = stage_find(p, len);

		if (stage == 0 || left_out & stage) {
			return -EINVAL;
		}
		left_out |= stage;
		p += len;
		if (!*p) {
			break;
		}
	}
	/* Without a mount namespace of its own, a worker's pivot_root would move the host's root.
	 */
	if (left_out & SANDBOX_NAMESPACES) {
		left_out |= SANDBOX_ROOT;
	}
	*stages_out = SANDBOX_ALL & ~left_out;
	return 0;
}

const char *sandbox_format(uint32_t stages, char *out, size_t out_size)
{
	uint32_t left_out = SANDBOX_ALL & ~stages;
	const char *separator = "reduced:";
	size_t at = 0;

	if (left_out == 0 || stages == 0) {
		snprintf(out, out_size, "%s", left_out == 0 ? "full" : "off");
		return out;
	}
	/* FDS can't be left out by name; without it a set is not one that sandbox_parse gives. */
	snprintf(out, out_size, "%s", "reduced:fds");
	for (size_t i = 0; i < ARRAY_SIZE(stage_names) && at < out_size; i++) {
		if (left_out & stage_names[i].stage) {
			at += (size_t)snprintf(
				out + at, out_size - at, "%s%s", separator, stage_names[i].name);
			separator = ",";
		}
	}
	return out;
}

const char *sandbox_stage_name(uint32_t stage)
{
	for (size_t i = 0; i < ARRAY_SIZE(stage_names); i++) {
		if (stage_names[i].stage == stage) {
			return stage_names[i].name;
		}
	}
	return stage == SANDBOX_FDS ? "fds" : "unknown";
}
