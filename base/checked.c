/* SPDX-License-Identifier: MIT */
#include "base/checked.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

static int parse_digits(const char *text, uint64_t *out, const char **end_out)
{
	uint64_t n = 0;
	const char *p = text;

	if (*p < '0' || *p > '9') {
		return -EINVAL;
	}
	for (; *p >= '0' && *p <= '9'; p++) {
		if (!u64_mul(n, 10, &n) || !u64_add(n, (uint64_t)(*p - '0'), &n)) {
			return -ERANGE;
		}
	}
	*out = n;
	*end_out = p;
	return 0;
}

int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	const char *end;
	uint64_t n;
	int r = parse_digits(text, &n, &end);

	if (r < 0) {
		return r;
	}
	if (*end) {
		return -EINVAL;
	}
	if (n < min || n > max) {
		return -ERANGE;
	}
	*out = n;
	return 0;
}

int parse_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *end, *suffix;
	uint64_t n;
	int r = parse_digits(text, &n, &end);

	if (r < 0) {
		return r;
	}
	if (*end) {
		suffix = strchr(suffixes, *end);
		if (!suffix || end[1]) {
			return -EINVAL;
		}
		if (!u64_mul(n, UINT64_C(1) << (10 * (suffix - suffixes + 1)), &n)) {
			return -ERANGE;
		}
	}
	if (n < min || n > max) {
		return -ERANGE;
	}
	*out = n;
	return 0;
}

int parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = {"yes", "true", "on", "1"};
	static const char *const no[] = {"no", "false", "off", "0"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0) {
			*out = true;
			return 0;
		}
		if (strcasecmp(text, no[i]) == 0) {
			*out = false;
			return 0;
		}
	}
	return -EINVAL;
}

int parse_fd(const char *text, int *out)
{
	uint64_t n;
	int r = parse_u64(text, 0, INT_MAX, &n);

	if (r < 0) {
		return -EINVAL;
	}
	*out = (int)n;
	return 0;
}
