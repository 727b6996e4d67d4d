/* SPDX-License-Identifier: MIT */
#include "broker/cli/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "base/utf8.h"

static const struct {
	const char *on;
	const char *off;
} styles[] = {
	[TEXT_PLAIN] = {"", ""},
	[TEXT_TITLE] = {"\033[1m", "\033[0m"},
	[TEXT_GOOD] = {"\033[32m", "\033[0m"},
	[TEXT_WAITING] = {"\033[33m", "\033[0m"},
	[TEXT_BAD] = {"\033[1;31m", "\033[0m"},
};
static_assert(ARRAY_SIZE(styles) == TEXT_STYLE_COUNT_, "one per style");

const char *text_style_on(enum text_style style)
{
	return styles[style].on;
}

const char *text_style_off(enum text_style style)
{
	return styles[style].off;
}

static size_t decode(const unsigned char *p, uint32_t *c)
{
	return utf8_decode(p, SIZE_MAX, c);
}

bool text_is_utf8(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	uint32_t c;

	while (*p) {
		size_t n = decode(p, &c);

		if (n == 0) {
			return false;
		}
		p += n;
	}
	return true;
}

char *text_harmless(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char *out = malloc(strlen(text) + 1), *to = out;
	uint32_t c;

	if (!out) {
		return NULL;
	}
	while (*p) {
		size_t n = decode(p, &c);

		if (n == 0 || utf8_is_harmful(c)) {
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

/* Bytes and columns of the character at p; a broken byte is one of each. */
static size_t next(const char *p, size_t *width_out)
{
	uint32_t c = 0;
	size_t n = decode((const unsigned char *)p, &c);
	int width = n > 1 ? wcwidth((wchar_t)c) : 1;

	*width_out = width < 0 ? 1 : (size_t)width;
	return n ? n : 1;
}

size_t text_width(const char *text)
{
	size_t total = 0, width;

	while (*text) {
		text += next(text, &width);
		total += width;
	}
	return total;
}

size_t text_fit(const char *text, size_t width)
{
	const char *p = text;

	while (*p) {
		size_t columns, n = next(p, &columns);

		if (columns > width) {
			break;
		}
		width -= columns;
		p += n;
	}
	return (size_t)(p - text);
}

char *text_shorten(const char *text, size_t width)
{
	size_t head, columns;
	const char *tail;
	char *out;

	if (text_width(text) <= width) {
		return strdup(text);
	}
	if (width == 0) {
		return strdup("");
	}
	head = text_fit(text, (width - 1) / 2);
	tail = text + head;
	while (text_width(tail) > (width - 1) - (width - 1) / 2) {
		tail += next(tail, &columns);
	}
	return asprintf(&out, "%.*s…%s", (int)head, text, tail) < 0 ? NULL : out;
}

void text_line(FILE *out, enum text_style style, const char *fmt, ...)
{
	_cleanup_free_ char *line = NULL, *shown = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (r < 0) {
		line = NULL;
		return;
	}
	shown = text_harmless(line);
	if (shown) {
		fprintf(out, "%s%s%s\n", styles[style].on, shown, styles[style].off);
	}
}

const char *text_bytes(uint64_t bytes, char *out, size_t out_size)
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
