/* SPDX-License-Identifier: MIT */
#include "broker/cli/table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"

#define GAP 2

struct cell {
	char *text; // may be NULL: out of memory
	enum text_style style;
};

struct table {
	struct table_column *columns;
	size_t n_columns;
	size_t n_cells;
	size_t allocated;
	struct cell *cells; /* the titles first */
};

struct table *table_create_columns(const struct table_column *columns, size_t n_columns)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t) {
		return NULL;
	}
	t->columns = calloc(n_columns, sizeof(*columns));
	if (!t->columns) {
		free(t);
		return NULL;
	}
	memcpy(t->columns, columns, n_columns * sizeof(*columns));
	t->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++) {
		table_cell_style(t, columns[i].title, TEXT_TITLE);
	}
	return t;
}

struct table *table_create(const char *const *columns, size_t n_columns)
{
	_cleanup_free_ struct table_column *all = calloc(n_columns, sizeof(*all));

	if (!all) {
		return NULL;
	}
	for (size_t i = 0; i < n_columns; i++) {
		all[i].title = columns[i];
	}
	return table_create_columns(all, n_columns);
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
	free(t->columns);
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

static const char *text_of(const struct cell *cell)
{
	return cell->text ? cell->text : "";
}

/* Of its widest cell; 0: it is left out. */
static size_t column_width(const struct table *t, size_t column)
{
	bool any = !t->columns[column].if_any;
	size_t widest = 0;

	for (size_t i = column; i < t->n_cells; i += t->n_columns) {
		size_t n = text_width(text_of(&t->cells[i]));

		widest = MAX(n, widest);
		any = any || (i >= t->n_columns && strcmp(text_of(&t->cells[i]), "-") != 0);
	}
	return any ? widest : 0;
}

static size_t line_width(const struct table *t, const size_t *widths)
{
	size_t total = 0;

	for (size_t i = 0; i < t->n_columns; i++) {
		total += widths[i] ? widths[i] + (total ? GAP : 0) : 0;
	}
	return total;
}

/* Takes so much from the columns that may be cut, always from the widest. Returns what could not be
 * taken. */
static size_t cut_columns(const struct table *t, size_t *widths, size_t too_much)
{
	for (; too_much > 0; too_much--) {
		size_t *widest = NULL;

		for (size_t i = 0; i < t->n_columns; i++) {
			if (t->columns[i].min > 0 && widths[i] > t->columns[i].min &&
				(!widest || widths[i] > *widest)) {
				widest = &widths[i];
			}
		}
		if (!widest) {
			break;
		}
		--*widest;
	}
	return too_much;
}

/* Leaves out what has the highest rank. False: nothing has one. */
static bool leave_out(const struct table *t, size_t *widths)
{
	unsigned int highest = 0;

	for (size_t i = 0; i < t->n_columns; i++) {
		highest = widths[i] ? MAX(t->columns[i].rank, highest) : highest;
	}
	for (size_t i = 0; i < t->n_columns && highest > 0; i++) {
		widths[i] = t->columns[i].rank == highest ? 0 : widths[i];
	}
	return highest > 0;
}

/* How wide each column is (0: left out), in width all together; whole is room for as many numbers.
 */
static void lay_out(const struct table *t, size_t width, size_t *whole, size_t *widths)
{
	size_t total;

	for (size_t i = 0; i < t->n_columns; i++) {
		whole[i] = column_width(t, i);
	}
	do {
		memcpy(widths, whole, t->n_columns * sizeof(*widths));
		total = line_width(t, widths);
	} while (width > 0 && total > width && cut_columns(t, widths, total - width) > 0 &&
		 leave_out(t, whole));
}

/* Into width columns (SIZE_MAX: all of it); true if something is left over. */
static bool print_cell(
	const char *text, enum text_style style, FILE *out, size_t width, bool colour)
{
	bool cut = text_width(text) > width;
	size_t n = cut ? text_fit(text, width ? width - 1 : 0) : strlen(text);

	if (cut && width == 0) {
		return true;
	}
	fputs(text_style_on(colour ? style : TEXT_PLAIN), out);
	fwrite(text, 1, n, out);
	fputs(cut ? "…" : "", out);
	fputs(text_style_off(colour ? style : TEXT_PLAIN), out);
	return cut;
}

static void print_row(const struct table *t, const struct cell *row, const size_t *widths,
	FILE *out, size_t width, bool colour)
{
	size_t left = width ? width : SIZE_MAX, pad = 0;

	/* No blanks at the end of a line, and none beyond its edge. */
	for (size_t i = 0; i < t->n_columns && left > pad; i++) {
		_cleanup_free_ char *text = NULL;
		size_t n;

		if (widths[i] == 0) {
			continue;
		}
		text = text_shorten(text_of(&row[i]), widths[i]);
		if (!text) {
			break;
		}
		n = text_width(text);
		pad += t->columns[i].right ? widths[i] - n : 0;
		if (left <= pad) {
			break;
		}
		fprintf(out, "%*s", (int)pad, "");
		left -= left == SIZE_MAX ? 0 : pad;
		if (print_cell(text, row[i].style, out, left, colour)) {
			break;
		}
		left -= left == SIZE_MAX ? 0 : n;
		pad = GAP + (t->columns[i].right ? 0 : widths[i] - n);
	}
	fputc('\n', out);
}

void table_print(const struct table *t, FILE *out, size_t width, bool colour)
{
	_cleanup_free_ size_t *widths = calloc(2 * t->n_columns, sizeof(*widths));

	if (!widths) {
		return;
	}
	lay_out(t, width, widths + t->n_columns, widths);
	for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns) {
		print_row(t, &t->cells[i], widths, out, width, colour);
	}
}

size_t terminal_width(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
