/* SPDX-License-Identifier: MIT
 * Tables for people: aligned columns that end at the terminal's edge.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "broker/cli/text.h"

struct table;

/* columns are the titles (borrowed). NULL if out of memory. */
struct table *table_create(const char *const *columns, size_t n_columns);
void table_destroy(struct table *t);
DEFINE_CLEANUP(struct table *, table_destroy)

/* Adds the next cell, row by row; text is copied and made harmless. NULL or "" shows as "-". */
void table_cell(struct table *t, const char *text);
/* The same, in a style. */
void table_cell_style(struct table *t, const char *text, enum text_style style);
/* A size: "512 B", "1.5 GiB". */
void table_cell_bytes(struct table *t, uint64_t bytes);

/* Prints it with width columns at most (0: no end); what is cut ends with "…". colour: with styles.
 */
void table_print(const struct table *t, FILE *out, size_t width, bool colour);

/* Columns of the terminal on stdout; 0 if it is none. */
size_t terminal_width(void);
