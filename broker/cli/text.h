/* SPDX-License-Identifier: MIT
 * Text that came from somewhere else, on somebody's terminal: UTF-8, and nothing that it would
 * obey.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"

enum text_style {
	TEXT_PLAIN,
	TEXT_TITLE,
	TEXT_GOOD,
	TEXT_WAITING,
	TEXT_BAD,
	TEXT_STYLE_COUNT_,
};

/* What switches style on, and what switches it off again ("" for TEXT_PLAIN). */
const char *text_style_on(enum text_style style);
const char *text_style_off(enum text_style style);

/* Whether text is well-formed UTF-8 (RFC 3629: no surrogates, nothing longer than need be). */
bool text_is_utf8(const char *text);

/* A copy of text with a '?' for each byte that is no UTF-8 and each character that moves the
 * cursor, starts an escape sequence, or turns the order of what follows around. To be freed; NULL
 * if out of memory. */
char *text_harmless(const char *text);

/* Columns that text takes on a terminal: 2 for East Asian wide characters, 0 for combining ones.
 * Needs a UTF-8 locale (LC_CTYPE); without one every character counts as 1. */
size_t text_width(const char *text);
/* Bytes of the longest beginning of text that fits into width columns. */
size_t text_fit(const char *text, size_t width);
/* A copy of text in width columns at most, with a "…" in its middle if it is cut: names differ at
 * either end. To be freed; NULL if out of memory. */
char *text_shorten(const char *text, size_t width);

/* Prints one line: harmless whatever the arguments are, in style (TEXT_PLAIN if out is no terminal
 * or colours are not wanted), with the newline. */
void text_line(FILE *out, enum text_style style, const char *fmt, ...) _printf_(3, 4);

/* Formats a size ("512 B", "1.5 GiB") into out and returns it. */
const char *text_bytes(uint64_t bytes, char *out, size_t out_size);
