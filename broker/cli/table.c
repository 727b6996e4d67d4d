/* SPDX-License-Identifier: MIT */
#include "broker/cli/table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP 2

struct table {
	size_t n_columns;
	size_t n_cells;
	size_t allocated;
	char **cells; /* the titles first */
};

struct table *table_create(const char *const *columns, size_t n_columns)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t) {
		return NULL;
	}
	t->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++) {
		table_cell(t, columns[i]);
	}
	return t;
}

void table_destroy(struct table *t)
{
	if (!t) {
		return;
	}
	for (size_t i = 0; i < t->n_cells; i++) {
		free(t->cells[i]);
	}
	free(t->cells);
	free(t);
}

/* Bytes of the UTF-8 sequence that starts here; 0 if it is broken. */
static size_t sequence_length(const unsigned char *p)
{
	size_t n = p[0] < 0x80                   ? 1
		   : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
		   : (p[0] & 0xf0) == 0xe0       ? 3
		   : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
						 : 0;

	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	return n;
}

char *text_harmless(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char *out = malloc(strlen(text) + 1), *to = out;

	if (!out) {
		return NULL;
	}
	while (*p) {
		size_t n = sequence_length(p);
		/* C0, DEL and C1 are what terminals obey. */
		bool control = (n == 1 && (*p < 0x20 || *p == 0x7f)) ||
			       (n == 2 && p[0] == 0xc2 && p[1] < 0xa0);

		if (n == 0 || control) {
			*to++ = '?';
			p += n ? n : 1;
			continue;
		}
		memcpy(to, p, n);
		to += n;
		p += n;
	}
	*to = '\0';
	return out;
}

size_t text_width(const char *text)
{
	size_t n = 0;

	for (const char *p = text; *p; p++) {
		n += ((unsigned char)*p & 0xc0) != 0x80;
	}
	return n;
}

void table_cell(struct table *t, const char *text)
{
	if (t->n_cells == t->allocated) {
		size_t n = t->allocated ? 2 * t->allocated : 64;
		char **cells = realloc(t->cells, n * sizeof(*cells));

		if (!cells) {
			return;
		}
		t->cells = cells;
		t->allocated = n;
	}
	t->cells[t->n_cells++] = text_harmless(text && text[0] ? text : "-");
}

const char *format_bytes(uint64_t bytes, char *out, size_t out_size)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)bytes;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(out, out_size, "%" PRIu64 " B", bytes);
		return out;
	}
	for (n /= 1024; n >= 1023.95 && unit + 1 < ARRAY_SIZE(units); n /= 1024) {
		unit++;
	}
	snprintf(out, out_size, n == (double)(uint64_t)n ? "%.0f %s" : "%.1f %s", n, units[unit]);
	return out;
}

void table_cell_bytes(struct table *t, uint64_t bytes)
{
	char text[32];

	table_cell(t, format_bytes(bytes, text, sizeof(text)));
}

static size_t column_width(const struct table *t, size_t column)
{
	size_t widest = 0;

	for (size_t i = column; i < t->n_cells; i += t->n_columns) {
		size_t n = t->cells[i] ? text_width(t->cells[i]) : 0;

		widest = n > widest ? n : widest;
	}
	return widest;
}

/* The first n characters of text. */
static void print_cut(FILE *out, const char *text, size_t n)
{
	const char *p = text;

	while (*p) {
		if (((unsigned char)*p & 0xc0) != 0x80 && n-- == 0) {
			break;
		}
		p++;
	}
	fwrite(text, 1, (size_t)(p - text), out);
}

static void print_row(
	const struct table *t, size_t first, const size_t *widths, FILE *out, size_t width)
{
	size_t at = 0;

	for (size_t i = 0; i < t->n_columns; i++) {
		const char *text = t->cells[first + i] ? t->cells[first + i] : "";
		size_t n = text_width(text);
		bool last = i + 1 == t->n_columns;

		if (width && at + n > width) {
			print_cut(out, text, width > at ? width - at : 0);
			break;
		}
		fputs(text, out);
		at += n;
		if (!last) {
			fprintf(out, "%*s", (int)(widths[i] - n + GAP), "");
			at += widths[i] - n + GAP;
		}
	}
	fputc('\n', out);
}

void table_print(const struct table *t, FILE *out, size_t width)
{
	size_t *widths = calloc(t->n_columns, sizeof(*widths));

	if (!widths) {
		return;
	}
	for (size_t i = 0; i < t->n_columns; i++) {
		widths[i] = column_width(t, i);
	}
	for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns) {
		print_row(t, i, widths, out, width);
	}
	free(widths);
}

size_t terminal_width(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
