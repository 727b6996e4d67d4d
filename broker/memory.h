/* SPDX-License-Identifier: MIT
 * Choices that a user wanted remembered: which device goes to which VM, until they are forgotten.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "protocol/refusal.h"

struct usb_facts;

#define MEMORY_MAX 1024 /* entries */

struct memory_entry {
	struct list link; // memory::entries
	char *key;        /* where it was: "usb:0000:00:14.0-2.4"; also the entry's name */
	char *id;         /* "0781:5567" */
	char *serial;     /* "" if it had none */
	char *product;    /* for people */
	char *vm;
};

struct memory {
	struct list entries; // memory_entry::link
	size_t n_entries;
	int dir_fd; /* of the state directory; -1: nothing can be remembered */
};

/* Reads state_dir/remembered; no such file is nothing remembered. A directory that is not there is
 * made when it is needed. 0; -errno; REFUSAL_CONFIG with text (the file is left as it is). */
int memory_load(const char *state_dir, struct memory *out, struct refusal_text *text) _must_check_;
void memory_finish(struct memory *m);

/* Remembers that this device goes to vm, in the place of what was remembered of it, and writes it
 * down: when it returns 0 it is on the disk. -errno; REFUSAL_QUOTA with text; nothing has changed
 * then. */
int memory_add(struct memory *m, const struct usb_facts *f, const char *vm,
	struct refusal_text *text) _must_check_;
/* Forgets the entry of this name. 0; -ENOENT; -errno: it is still remembered. */
int memory_remove(struct memory *m, const char *key) _must_check_;

/* What is remembered of this device: by ids and serial number; of one without a serial number also
 * by its place. NULL: nothing. */
const struct memory_entry *memory_find(const struct memory *m, const struct usb_facts *f);
/* Whether a device is one that e may mean. */
bool memory_entry_means(const struct memory_entry *e, const struct usb_facts *f);
