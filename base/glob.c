/* SPDX-License-Identifier: MIT */
#include "base/glob.h"

#include <stddef.h>
#include <string.h>

static char lower(char c, bool nocase)
{
	return nocase && c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Only the last * ever has to be tried again: what an earlier one could take, the last one can. */
static bool match(const char *pattern, const char *text, bool nocase)
{
	const char *star = NULL, *again = NULL;

	while (*text) {
		if (*pattern == '*') {
			star = pattern++;
			again = text;
		} else if (*pattern == '?' ||
			   (*pattern && lower(*pattern, nocase) == lower(*text, nocase))) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star + 1;
			text = ++again;
		} else {
			return false;
		}
	}
	while (*pattern == '*') {
		pattern++;
	}
	return *pattern == '\0';
}

bool glob_match(const char *pattern, const char *text)
{
	return match(pattern, text, false);
}

bool glob_match_nocase(const char *pattern, const char *text)
{
	return match(pattern, text, true);
}

bool glob_is_pattern(const char *pattern)
{
	return strpbrk(pattern, "*?") != NULL;
}
