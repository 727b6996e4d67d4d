/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level current_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char level_syslog[] = {'3', '4', '6', '7'};

void log_set_level(enum log_level level)
{
	current_level = level;
}

enum log_level log_get_level(void)
{
	return current_level;
}

int log_level_parse(const char *text, enum log_level *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (strcmp(text, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	int saved = errno, at, n;
	va_list ap;

	if (level > current_level) {
		return;
	}
	at = snprintf(line, sizeof(line), "<%c>", level_syslog[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);
	va_end(ap);
	if (n < 0) {
		n = 0;
	}
	at = at + n < (int)sizeof(line) - 1 ? at + n : (int)sizeof(line) - 2;
	line[at++] = '\n';
	/* One write, so that lines of several processes do not mix. Journald takes the prefix; a
	 * person at a terminal is spared it. */
	if (isatty(STDERR_FILENO)) {
		_unused_ ssize_t w = write(STDERR_FILENO, line + 3, (size_t)at - 3);
	} else {
		_unused_ ssize_t w = write(STDERR_FILENO, line, (size_t)at);
	}
	errno = saved;
}

const char *log_escape(const char *text, size_t len, char *out, size_t out_size)
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;

	if (out_size < 8) {
		if (out_size > 0) {
			out[0] = '\0';
		}
		return out;
	}
	for (size_t i = 0; i < len && text[i]; i++) {
		unsigned char c = (unsigned char)text[i];

		if (at + 8 > out_size) {
			memcpy(out + at, "...", 3);
			at += 3;
			break;
		}
		if (c >= 0x20 && c < 0x7f && c != '\\') {
			out[at++] = (char)c;
		} else {
			out[at++] = '\\';
			out[at++] = 'x';
			out[at++] = hex[c >> 4];
			out[at++] = hex[c & 15];
		}
	}
	out[at] = '\0';
	return out;
}
