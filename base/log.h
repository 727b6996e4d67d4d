/* SPDX-License-Identifier: MIT
 * Log lines to stderr in the form journald understands (<N> prefix when stderr is not a terminal).
 */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The only file-scope state of the project. Default: info. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warn", "info" or "debug". 0 or -EINVAL. */
int log_level_parse(const char *text, enum log_level *out) _must_check_;

/* Writes one line; keeps errno. Lines are cut at 1 KiB. Never put a peer's bytes in unescaped:
 * use log_escape. */
void log_line(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Copies at most len bytes of text (or up to its NUL) into out, non-printable and non-ASCII bytes
 * and backslashes as \xNN, cut with "..." when it does not fit. Returns out. */
const char *log_escape(const char *text, size_t len, char *out, size_t out_size);
