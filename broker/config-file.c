/* SPDX-License-Identifier: MIT
 *
 * inih splits lines into section, key and value; everything else is decided here, because its
 * defaults forgive too much: an indented line would go on with the key before it, an over-long line
 * would be cut in two, a section without keys would not be seen, and Debian's build gives handlers
 * no line number. So the whole file is read first (it is small, and its bytes are checked at once),
 * and inih gets it line by line through a reader that counts, strips and checks.
 */
#include "broker/config-file.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/utf8.h"

struct parse {
	const char *next; /* unread bytes */
	const char *end;
	struct config_place place; /* line: the one inih has now */
	const struct config_key *keys;
	size_t n_keys;
	void *target;
	const struct config_sections *sections;    // NULL: sections have no names
	unsigned int section_line, section_column; /* of the section that has begun */
	const char *line;                   /* the one inih has now, blanks before it included */
	unsigned int seen[CONFIG_KEYS_MAX]; /* line of each key, 0: not yet */
	int result; /* first error, 0: none; inih goes on, so this stops the rest */
};

int config_refuse(const struct config_place *place, const char *fmt, ...)
{
	char sentence[sizeof(place->text->sentence)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	if (place->line > 0 && place->column > 0) {
		return refuse(place->text, REFUSAL_CONFIG, "%.128s:%u:%u: %.360s", place->shown,
			place->line, place->column, sentence);
	}
	if (place->line > 0) {
		return refuse(place->text, REFUSAL_CONFIG, "%.128s:%u: %.360s", place->shown,
			place->line, sentence);
	}
	return refuse_with(place->text, REFUSAL_CONFIG,
		"Correct that file and start devbrokerd again.", "%.128s: %.360s", place->shown,
		sentence);
}

int config_check_trust(const struct stat *st, const struct config_place *place)
{
	if (st->st_uid != 0 && st->st_uid != geteuid()) {
		return config_refuse(place,
			"it belongs to uid %u; configuration must belong to "
			"root or to the user who runs devbrokerd",
			(unsigned int)st->st_uid);
	}
	/* A group of the user's own (umask 002) is nobody else. */
	if ((st->st_mode & S_IWOTH) ||
		((st->st_mode & S_IWGRP) && st->st_gid != 0 && st->st_gid != getegid())) {
		return config_refuse(place,
			"others may write to it (mode %04o); chmod go-w is needed",
			(unsigned int)st->st_mode & 07777);
	}
	return 0;
}

static int check_bytes(const char *data, size_t size, struct config_place place)
{
	const unsigned char *p = (const unsigned char *)data;
	size_t at = 0;
	uint32_t c;

	place.line = 1;
	while (at < size) {
		size_t n = utf8_decode(p + at, size - at, &c);

		if (n == 0) {
			return config_refuse(&place, "byte 0x%02x here is not UTF-8 text", p[at]);
		}
		if (p[at] == '\n') {
			place.line++;
		} else if ((p[at] < 0x20 && p[at] != '\t' && p[at] != '\r') || p[at] == 0x7f) {
			return config_refuse(
				&place, "control character 0x%02x is not allowed", p[at]);
		}
		at += n;
	}
	return 0;
}

/* Optimal string alignment distance: insert, delete, replace, swap neighbours. Long names are far
 * from everything. */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][32] = {0}, n = strlen(a), m = strlen(b);
	size_t *before = rows[0], *last = rows[1], *now = rows[2];

	if (n >= ARRAY_SIZE(rows[0]) || m >= ARRAY_SIZE(rows[0])) {
		return SIZE_MAX;
	}
	for (size_t j = 0; j <= m; j++) {
		last[j] = j;
	}
	for (size_t i = 1; i <= n; i++) {
		size_t *spare = before;

		now[0] = i;
		for (size_t j = 1; j <= m; j++) {
			now[j] = last[j - 1] + (a[i - 1] != b[j - 1]);
			now[j] = MIN(now[j], MIN(last[j], now[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
				now[j] = MIN(now[j], before[j - 2] + 1);
			}
		}
		before = last;
		last = now;
		now = spare;
	}
	return last[m];
}

/* "rule" of "rule NAME", where sections have names. */
static bool is_section(const struct parse *p, const char *section, const char *known)
{
	size_t n = strlen(known);

	if (!p->sections) {
		return strcmp(section, known) == 0;
	}
	return strncmp(section, known, n) == 0 && (section[n] == ' ' || section[n] == '\0');
}

static bool section_known(const struct parse *p, const char *section)
{
	for (size_t i = 0; i < p->n_keys; i++) {
		if (is_section(p, section, p->keys[i].section)) {
			return true;
		}
	}
	return false;
}

/* Appends item to the list in out, once. */
static void list_item(char *out, size_t size, const char *item)
{
	size_t at = strlen(out);

	snprintf(out + at, size - at, "%s%s", at > 0 ? ", " : "", item);
}

static int refuse_key(const struct parse *p, const char *section, const char *name)
{
	char known[256] = "", hint[64] = "", shown[48];
	size_t best = 3;

	for (size_t i = 0; i < p->n_keys; i++) {
		size_t d = distance(name, p->keys[i].name);

		if (!is_section(p, section, p->keys[i].section)) {
			continue;
		}
		list_item(known, sizeof(known), p->keys[i].name);
		if (d < best && d < strlen(p->keys[i].name)) {
			best = d;
			snprintf(hint, sizeof(hint), " (did you mean %s?)", p->keys[i].name);
		}
	}
	log_escape(name, strlen(name), shown, sizeof(shown));
	return config_refuse(&p->place, "unknown key \"%s\" in [%s]%s; known keys: %s", shown,
		section, hint, known);
}

static int refuse_section(const struct parse *p, const char *section)
{
	char known[256] = "", shown[48], with_brackets[64];

	for (size_t i = 0; i < p->n_keys; i++) {
		if (i == 0 || strcmp(p->keys[i].section, p->keys[i - 1].section) != 0) {
			snprintf(with_brackets, sizeof(with_brackets), "[%s]", p->keys[i].section);
			list_item(known, sizeof(known), with_brackets);
		}
	}
	log_escape(section, strlen(section), shown, sizeof(shown));
	return config_refuse(&p->place, "unknown section [%s]; known sections: %s", shown, known);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The place of the value in "  key = value", from 1. */
static unsigned int value_column(const char *line)
{
	const char *p = line + strcspn(line, "=:\n");

	for (p += *p != '\0'; is_blank(*p); p++) {
	}
	return (unsigned int)(p - line) + 1;
}

static int take(struct parse *p, const char *section, const char *name, const char *value)
{
	if (!*section) {
		return config_refuse(&p->place, "a section must come before the first key");
	}
	for (size_t i = 0; i < p->n_keys; i++) {
		const struct config_key *key = &p->keys[i];

		if (!is_section(p, section, key->section) || strcmp(key->name, name) != 0) {
			continue;
		}
		if (p->seen[i] > 0 && !(key->how & CONFIG_REPEATS)) {
			return config_refuse(&p->place,
				"key \"%s\" is given twice; first in line %u", name, p->seen[i]);
		}
		p->seen[i] = p->place.line;
		if (!*value) {
			return config_refuse(&p->place, "key \"%s\" has no value", name);
		}
		if (p->sections) {
			p->place.column = value_column(p->line);
		}
		return key->set(p->target, value, &p->place);
	}
	return refuse_key(p, section, name);
}

static int handle_pair(void *userdata, const char *section, const char *name, const char *value)
{
	struct parse *p = userdata;

	if (p->result == 0) {
		p->result = take(p, section, name, value);
	}
	return p->result == 0;
}

static int check_required(const struct parse *p);

/* The one before it is complete, and its keys may be given again. */
static int begin_section(struct parse *p, const char *section)
{
	const char *name = strchr(section, ' ');
	int r = p->section_line > 0 ? check_required(p) : 0;

	p->section_line = p->place.line;
	p->section_column = p->place.column;
	memset(p->seen, 0, sizeof(p->seen));
	return r == 0 ? p->sections->begin(p->target, name ? name + 1 : "", &p->place) : r;
}

/* A line that inih would take for something else than its writer meant. */
static int check_line(struct parse *p, const char *line, size_t length, size_t max)
{
	const char *close, *rest;
	char section[128];

	if (length > max) {
		return config_refuse(
			&p->place, "the line has %zu bytes; at most %zu are allowed", length, max);
	}
	if (length == 0 || line[0] == '#' || line[0] == ';') {
		return 0;
	}
	if (line[0] != '[') {
		if (!memchr(line, '=', length)) {
			return config_refuse(&p->place, "this is neither [section] nor key=value");
		}
		return 0;
	}
	close = memchr(line, ']', length);
	if (!close) {
		return config_refuse(&p->place, "the section has no closing bracket");
	}
	for (rest = close + 1; rest < line + length && is_blank(*rest); rest++) {
	}
	if (rest < line + length && *rest != '#' && *rest != ';') {
		return config_refuse(&p->place, "something follows the section's closing bracket");
	}
	snprintf(section, sizeof(section), "%.*s", (int)MIN(close - line - 1, 126), line + 1);
	if (!section_known(p, section)) {
		return refuse_section(p, section);
	}
	return p->sections ? begin_section(p, section) : 0;
}

/* inih's reader, in the manner of fgets: one call is one line. */
static char *read_line(char *out, int size, void *userdata)
{
	struct parse *p = userdata;
	const char *line = p->next, *eol;
	size_t length;

	if (p->result != 0 || p->next >= p->end) {
		return NULL;
	}
	p->place.line++;
	p->place.column = 0;
	p->line = line;
	eol = memchr(line, '\n', (size_t)(p->end - line));
	p->next = eol ? eol + 1 : p->end;
	if (!eol) {
		eol = p->end;
	}
	while (line < eol && is_blank(*line)) {
		line++;
	}
	while (eol > line && is_blank(eol[-1])) {
		eol--;
	}
	if (p->sections) {
		p->place.column = (unsigned int)(line - p->line) + 1;
	}
	length = (size_t)(eol - line);
	p->result = check_line(p, line, length, (size_t)size - 3);
	if (p->result != 0) {
		return NULL;
	}
	memcpy(out, line, length);
	out[length] = '\n';
	out[length + 1] = '\0';
	return out;
}

static int check_required(const struct parse *p)
{
	struct config_place whole = p->place;

	whole.line = p->sections ? p->section_line : 0;
	whole.column = p->sections ? p->section_column : 0;
	for (size_t i = 0; i < p->n_keys; i++) {
		if (p->keys[i].how & CONFIG_REQUIRED && p->seen[i] == 0) {
			return config_refuse(&whole, "%s= in [%s] is missing", p->keys[i].name,
				p->keys[i].section);
		}
	}
	return 0;
}

/* The file's bytes into buf (CONFIG_FILE_SIZE_MAX + 1 of room). */
static int read_all(
	int dir_fd, const char *name, const struct config_place *place, char *buf, size_t *size_out)
{
	/* O_NONBLOCK: a FIFO must not stop the broker's start. */
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	size_t size = 0;
	int r;

	if (fd < 0 && errno == ENOENT) {
		return -ENOENT;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		return config_refuse(place, "it can't be read: %s", strerror(errno));
	}
	if (!S_ISREG(st.st_mode)) {
		return config_refuse(place, "it is not a regular file");
	}
	r = config_check_trust(&st, place);
	if (r != 0) {
		return r;
	}
	while (size <= CONFIG_FILE_SIZE_MAX) {
		ssize_t n = read(fd, buf + size, CONFIG_FILE_SIZE_MAX + 1 - size);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return config_refuse(place, "it can't be read: %s", strerror(errno));
		}
		if (n == 0) {
			*size_out = size;
			return 0;
		}
		size += (size_t)n;
	}
	return config_refuse(place, "it is larger than %d KiB", CONFIG_FILE_SIZE_MAX / 1024);
}

int config_file_read(int dir_fd, const char *name, const char *shown, const struct config_key *keys,
	size_t n_keys, void *target, struct refusal_text *text)
{
	return config_file_read_sections(dir_fd, name, shown, keys, n_keys, NULL, target, text);
}

int config_file_read_sections(int dir_fd, const char *name, const char *shown,
	const struct config_key *keys, size_t n_keys, const struct config_sections *sections,
	void *target, struct refusal_text *text)
{
	struct parse p = {.place = {.shown = shown, .text = text},
		.keys = keys,
		.n_keys = n_keys,
		.sections = sections,
		.target = target};
	_cleanup_free_ char *buf = malloc(CONFIG_FILE_SIZE_MAX + 1);
	size_t size = 0;
	int r, line;

	if (!buf || n_keys > CONFIG_KEYS_MAX) {
		return buf ? -EINVAL : -ENOMEM;
	}
	r = read_all(dir_fd, name, &p.place, buf, &size);
	if (r != 0) {
		return r;
	}
	r = check_bytes(buf, size, p.place);
	if (r != 0) {
		return r;
	}
	p.next = buf;
	p.end = buf + size;
	if (size >= 3 && memcmp(buf, "\xef\xbb\xbf", 3) == 0) {
		p.next += 3; /* a byte order mark, as some editors write it */
	}
	line = ini_parse_stream(read_line, &p, handle_pair, &p);
	if (p.result != 0) {
		return p.result;
	}
	if (line != 0) {
		p.place.line = line > 0 ? (unsigned int)line : 0;
		return config_refuse(&p.place, "this is neither [section] nor key=value");
	}
	if (!sections) {
		return check_required(&p);
	}
	p.place.column = 0;
	r = p.section_line > 0 ? check_required(&p) : 0;
	return r == 0 ? sections->begin(target, NULL, &p.place) : r;
}
