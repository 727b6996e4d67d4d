/* SPDX-License-Identifier: MIT
 * Tables for people: aligned columns that end at the terminal's edge.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "broker/cli/text.h"

struct table;

/* How a column gives way where a line has not enough room for all of them. */
struct table_column {
	const char *title; // borrowed
	bool right;        /* aligned there, as numbers are */
	bool if_any;       /* it is left out where all of its cells say "-" */
	size_t min; /* it may be cut to that width, in the middle of its text; 0: it is not */
	unsigned int rank; /* the highest is left out first; 0: never */
};

/* columns are the titles (borrowed). NULL if out of memory. */
struct table *table_create(const char *const *columns, size_t n_columns);
/* The same for columns that give way (copied). */
struct table *table_create_columns(const struct table_column *columns, size_t n_columns);
void table_destroy(struct table *t);
DEFINE_CLEANUP(struct table *, table_destroy)

/* Adds the next cell, row by row; text is copied and made harmless. NULL or "" shows as "-". */
void table_cell(struct table *t, const char *text);
/* The same, in a style. */
void table_cell_style(struct table *t, const char *text, enum text_style style);
/* A size: "512 B", "1.5 GiB". */
void table_cell_bytes(struct table *t, uint64_t bytes);

/* Prints it with width columns at most (0: no end); what is cut has a "…" there. colour: with
 * styles. */
void table_print(const struct table *t, FILE *out, size_t width, bool colour);

/* Columns of the terminal on stdout; 0 if it is none. */
size_t terminal_width(void);
