/* SPDX-License-Identifier: MIT
 * Tables for people: aligned columns, UTF-8, nothing that a terminal would obey.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"

struct table;

/* columns are the titles (borrowed). NULL if out of memory. */
struct table *table_create(const char *const *columns, size_t n_columns);
void table_destroy(struct table *t);
DEFINE_CLEANUP(struct table *, table_destroy)

/* Adds the next cell, row by row; text is copied and made harmless. NULL or "" shows as "-". */
void table_cell(struct table *t, const char *text);
/* A size: "512 B", "1.5 GiB". */
void table_cell_bytes(struct table *t, uint64_t bytes);

/* Prints it, cut to width columns (0: not cut). */
void table_print(const struct table *t, FILE *out, size_t width);

/* Columns of the terminal on stdout; 0 if it is none. */
size_t terminal_width(void);

/* A copy of text without control characters and broken UTF-8 (as '?'); to be freed; NULL if out of
 * memory. */
char *text_harmless(const char *text);
/* Characters (code points) of valid UTF-8. */
size_t text_width(const char *text);
/* Formats a size into out and returns it. */
const char *format_bytes(uint64_t bytes, char *out, size_t out_size);
