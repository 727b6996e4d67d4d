/* SPDX-License-Identifier: MIT
 * Small files of the run directory that tell a broker what the one before it had done: one file for
 * each thing, "key=value" lines that a table describes, replaced as a whole.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum record_type {
	RECORD_TEXT, /* char[], with its NUL; no control characters */
	RECORD_U64,
	RECORD_U32,
	RECORD_BOOL, /* yes or no */
};

struct record_field {
	const char *key;
	enum record_type type;
	size_t offset;
	uint64_t limit; /* of a text: its array's size; of a number: the highest */
};

#define RECORD_TEXT_FIELD(key, s, field)                                                       \
	{                                                                                      \
		key, RECORD_TEXT, offsetof(struct s, field), sizeof(((struct s *)NULL)->field) \
	}
#define RECORD_U64_FIELD(key, s, field)                                \
	{                                                              \
		key, RECORD_U64, offsetof(struct s, field), UINT64_MAX \
	}
#define RECORD_U32_FIELD(key, s, field)                                \
	{                                                              \
		key, RECORD_U32, offsetof(struct s, field), UINT32_MAX \
	}
#define RECORD_BOOL_FIELD(key, s, field)                       \
	{                                                      \
		key, RECORD_BOOL, offsetof(struct s, field), 1 \
	}

/* Of one directory below RUN-DIR. */
struct record_kind {
	const char *directory;
	const char *header; /* the first line: what it is, and of which version */
	const struct record_field *fields;
	size_t n_fields;
	size_t size; /* of the struct that the fields are in */
	/* Whether what was read makes sense, in a file of this name. */
	bool (*ok)(const char *name, const void *record);
};

#define RECORD_FILE_MAX 8192

/* Writes record as the file's text into out. Its length; -EINVAL if a text has a control character;
 * -E2BIG. */
int record_format(
	const struct record_kind *kind, const void *record, char *out, size_t size) _must_check_;
/* The reverse: every line of the table, in its order, and nothing else. 0 or -EBADMSG; what is in
 * *record then means nothing. */
int record_parse(
	const struct record_kind *kind, const char *text, size_t size, void *record) _must_check_;

/* name has no '/' and does not begin with a dot. Killed at any time this leaves the old record or
 * the new one. 0 or -errno. */
int record_write(const char *run_dir, const struct record_kind *kind, const char *name,
	const void *record) _must_check_;
/* None is fine. */
void record_remove(const char *run_dir, const struct record_kind *kind, const char *name);
/* Calls found for each record there is; what can't be read is removed. 0 or -errno. */
int record_each(const char *run_dir, const struct record_kind *kind,
	void (*found)(void *userdata, const char *name, const void *record),
	void *userdata) _must_check_;
/* Makes the directory, which only the broker may look into. 0 or -errno. */
int record_make_directory(const char *run_dir, const struct record_kind *kind) _must_check_;
