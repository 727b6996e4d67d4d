/* SPDX-License-Identifier: MIT
 * Patterns with * and ?, in time that a hostile text can't blow up (fnmatch(3) takes exponential
 * time for some).
 */
#pragma once

#include <stdbool.h>

/* Whether text as a whole matches pattern: * is any number of bytes, ? exactly one, everything else
 * itself. At most strlen(pattern) * strlen(text) steps. */
bool glob_match(const char *pattern, const char *text);
/* The same without regard to the case of ASCII letters. */
bool glob_match_nocase(const char *pattern, const char *text);
/* Whether it has a * or ?. */
bool glob_is_pattern(const char *pattern);
