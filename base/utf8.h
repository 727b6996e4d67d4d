/* SPDX-License-Identifier: MIT
 * UTF-8, one character at a time; and texts of fixed size in messages, which are ASCII.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* Reads the character at p, of which left bytes may be looked at, into *out. Returns its bytes, or
 * 0 (*out untouched) if there is none in good form: RFC 3629, 4, no surrogates, nothing longer than
 * need be. A NUL ends every sequence: for a NUL-terminated text left may be SIZE_MAX. */
size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *out);

/* Whether a terminal would obey the character or a bus refuse it: control characters (C0, DEL, C1),
 * line and paragraph separators, what reorders a line, and what Unicode says is no character. */
bool utf8_is_harmful(uint32_t c);

/* A copy of text, to be freed, in which each harmful character and each byte that is no UTF-8
 * stands as \xNN (a backslash stays: this is for reading, and can't be turned back), cut with
 * "..." to at most max bytes (>= 3). NULL if out of memory. */
char *utf8_escape(const char *text, size_t max);

/* Whether the size bytes at text are printable ASCII up to a NUL that is among them. */
bool ascii_text_ok(const char *text, size_t size) _must_check_;
