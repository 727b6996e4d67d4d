/* SPDX-License-Identifier: MIT
 * Which device or VM a name means, by the rules that the broker has for the same.
 */
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"

enum match { MATCH_NAME, MATCH_SHORT, MATCH_SERIAL, MATCH_PREFIX, MATCH_COUNT_ };

static bool begins(const char *text, const char *with)
{
	return with[0] && strncmp(text, with, strlen(with)) == 0;
}

static bool matches(const json_t *object, const char *name, enum match how)
{
	const char *full = cli_text(object, "name"), *colon = strchr(full, ':');
	const char *rest = colon ? colon + 1 : full;

	switch (how) {
	case MATCH_NAME:
		return strcmp(full, name) == 0;
	case MATCH_SHORT:
		return strcmp(rest, name) == 0;
	case MATCH_SERIAL:
		return name[0] && strcmp(cli_text(object, "serial"), name) == 0;
	default:
		return begins(full, name) || begins(rest, name);
	}
}

json_t *cli_find(
	struct cli *c, const json_t *list, const char *what, const char *name, int *exit_out)
{
	json_t *object, *found = NULL;
	char candidates[512] = "";
	size_t i, n = 0, at;

	for (enum match how = MATCH_NAME; how < MATCH_COUNT_ && n == 0; how++) {
		json_array_foreach(list, i, object)
		{
			if (!matches(object, name, how)) {
				continue;
			}
			at = strlen(candidates);
			snprintf(candidates + at, sizeof(candidates) - at, "%s%s", n++ ? ", " : "",
				cli_text(object, "name"));
			found = object;
		}
	}
	if (n == 1) {
		return found;
	}
	if (n > 1) {
		*exit_out = cli_fail(c, refusal_exit_code(REFUSAL_AMBIGUOUS), "ambiguous",
			refusal_remedy(REFUSAL_AMBIGUOUS), "%s could be any of %zu: %s", name, n,
			candidates);
	} else {
		*exit_out = cli_fail(c, refusal_exit_code(REFUSAL_NOT_FOUND), "not-found",
			refusal_remedy(REFUSAL_NOT_FOUND), "there is no %s %s", what, name);
	}
	return NULL;
}
