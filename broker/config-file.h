/* SPDX-License-Identifier: MIT
 * One configuration file: trusted, bounded, read key by key, every error with its file and line.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

#define CONFIG_FILE_SIZE_MAX (64 * 1024)

/* Where a value stands, and where its error goes. */
struct config_place {
	const char *shown;   /* "vms.d/win11.conf" */
	unsigned int line;   /* from 1; 0: the file as a whole */
	unsigned int column; /* of the value's first character, from 1; 0: not told */
	struct refusal_text *text;
};

struct config_key {
	const char *section;
	const char *name;
	/* Takes value (borrowed, not empty) into target. 0, -errno, or what config_refuse
	 * returned. */
	int (*set)(void *target, const char *value, const struct config_place *place);
	unsigned int how; /* CONFIG_* */
};

#define CONFIG_OPTIONAL 0u
#define CONFIG_REQUIRED 1u
#define CONFIG_REPEATS  2u /* may be given more than once in a section */

#define CONFIG_KEYS_MAX 32

/* Fills place->text with "FILE:LINE: sentence" or "FILE:LINE:COLUMN: sentence" (FILE alone when
 * line is 0). Returns REFUSAL_CONFIG. A peer's or file's bytes go through log_escape first. */
int config_refuse(const struct config_place *place, const char *fmt, ...) _printf_(2, 3);

/* Refuses what others than root and our own user could have written: place->line must be 0. */
int config_check_trust(const struct stat *st, const struct config_place *place) _must_check_;

/* Reads name below dir_fd and calls keys[i].set(target, …) for each key in the order of the file.
 * 0; -errno; -ENOENT if there is no such file; REFUSAL_CONFIG with text. Stops at the first error:
 * target may be half filled then. */
int config_file_read(int dir_fd, const char *name, const char *shown, const struct config_key *keys,
	size_t n_keys, void *target, struct refusal_text *text) _must_check_;

/* Files of sections that have a name each, "[SECTION NAME]", any number of them. */
struct config_sections {
	/* A section begins, or (name NULL) the file has ended: what came before is complete. 0,
	 * -errno, or what config_refuse returned. */
	int (*begin)(void *target, const char *name, const struct config_place *place);
};

/* As config_file_read, of such a file; places tell columns. Keys are all of one section. */
int config_file_read_sections(int dir_fd, const char *name, const char *shown,
	const struct config_key *keys, size_t n_keys, const struct config_sections *sections,
	void *target, struct refusal_text *text) _must_check_;

/* Reads one file of a folder: shown is its name for sentences, name that without ".conf". */
typedef int (*config_folder_load)(void *userdata, int dir_fd, const char *file, const char *shown,
	const char *name, struct refusal_text *text);

/* Loads each NAME.conf in the folder name below parent_fd, in the order of their names; at most max
 * of them. No such folder is fine. 0, -errno, or REFUSAL_CONFIG with text. */
int config_folder_read(int parent_fd, const char *name, unsigned int max, config_folder_load load,
	void *userdata, struct refusal_text *text) _must_check_;
