/* SPDX-License-Identifier: MIT */
#include "broker/cli/table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP 2

struct cell {
	char *text; // may be NULL: out of memory
	enum text_style style;
};

struct table {
	size_t n_columns;
	size_t n_cells;
	size_t allocated;
	struct cell *cells; /* the titles first */
};

struct table *table_create(const char *const *columns, size_t n_columns)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t) {
		return NULL;
	}
	t->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++) {
		table_cell_style(t, columns[i], TEXT_TITLE);
	}
	return t;
}

void table_destroy(struct table *t)
{
	if (!t) {
		return;
	}
	for (size_t i = 0; i < t->n_cells; i++) {
		free(t->cells[i].text);
	}
	free(t->cells);
	free(t);
}

void table_cell_style(struct table *t, const char *text, enum text_style style)
{
	struct cell *cell;

	if (t->n_cells == t->allocated) {
		size_t n = t->allocated ? 2 * t->allocated : 64;
		struct cell *cells = realloc(t->cells, n * sizeof(*cells));

		if (!cells) {
			return;
		}
		t->cells = cells;
		t->allocated = n;
	}
	cell = &t->cells[t->n_cells++];
	cell->text = text_harmless(text && text[0] ? text : "-");
	cell->style = style;
}

void table_cell(struct table *t, const char *text)
{
	table_cell_style(t, text, TEXT_PLAIN);
}

void table_cell_bytes(struct table *t, uint64_t bytes)
{
	char text[32];

	table_cell(t, text_bytes(bytes, text, sizeof(text)));
}

static size_t column_width(const struct table *t, size_t column)
{
	size_t widest = 0;

	for (size_t i = column; i < t->n_cells; i += t->n_columns) {
		size_t n = t->cells[i].text ? text_width(t->cells[i].text) : 0;

		widest = n > widest ? n : widest;
	}
	return widest;
}

/* Into width columns (SIZE_MAX: all of it); true if something is left over. */
static bool print_cell(const struct cell *cell, FILE *out, size_t width, bool colour)
{
	const char *text = cell->text ? cell->text : "";
	enum text_style style = colour ? cell->style : TEXT_PLAIN;
	bool cut = text_width(text) > width;
	size_t n = cut ? text_fit(text, width ? width - 1 : 0) : strlen(text);

	if (cut && width == 0) {
		return true;
	}
	fputs(text_style_on(style), out);
	fwrite(text, 1, n, out);
	fputs(cut ? "…" : "", out);
	fputs(text_style_off(style), out);
	return cut;
}

static void print_row(const struct table *t, const struct cell *row, const size_t *widths,
	FILE *out, size_t width, bool colour)
{
	size_t left = width ? width : SIZE_MAX;

	for (size_t i = 0; i < t->n_columns; i++) {
		size_t n = row[i].text ? text_width(row[i].text) : 0, pad = widths[i] - n + GAP;

		/* No blanks at the end of a line, and none beyond its edge. */
		if (print_cell(&row[i], out, left, colour) || i + 1 == t->n_columns ||
			left <= n + pad) {
			break;
		}
		fprintf(out, "%*s", (int)pad, "");
		left -= left == SIZE_MAX ? 0 : n + pad;
	}
	fputc('\n', out);
}

void table_print(const struct table *t, FILE *out, size_t width, bool colour)
{
	size_t *widths = calloc(t->n_columns, sizeof(*widths));

	if (!widths) {
		return;
	}
	for (size_t i = 0; i < t->n_columns; i++) {
		widths[i] = column_width(t, i);
	}
	for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns) {
		print_row(t, &t->cells[i], widths, out, width, colour);
	}
	free(widths);
}

size_t terminal_width(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
