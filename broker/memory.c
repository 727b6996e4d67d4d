/* SPDX-License-Identifier: MIT
 *
 * The file is one that people read, and could write: the same sections and keys as configuration.
 * It is replaced as a whole, by a name that nobody reads until it is on the disk; whenever the
 * machine stops, the old or the new one is there.
 */
#include "broker/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/config-file.h"
#include "broker/config.h"
#include "broker/usb-facts.h"

#define FILE_NAME "remembered"
#define FILE_NEW  ".remembered.new"
/* A line of configuration has at most 197 bytes. */
#define VALUE_MAX 160

static void entry_destroy(struct memory_entry *e)
{
	list_remove(&e->link);
	free(e->key);
	free(e->id);
	free(e->serial);
	free(e->product);
	free(e->vm);
	free(e);
}

struct loader {
	struct memory *memory;
	struct memory_entry *entry; // may be NULL
};

static int begin(void *target, const char *name, const struct config_place *place)
{
	struct loader *l = target;

	l->entry = NULL;
	if (!name) {
		return 0;
	}
	if (strncmp(name, "usb:", 4) != 0 || l->memory->n_entries == MEMORY_MAX) {
		return config_refuse(place,
			"[device NAME] needs the name of a device (usb:…), "
			"and there may be %d of them",
			MEMORY_MAX);
	}
	l->entry = calloc(1, sizeof(*l->entry));
	if (!l->entry) {
		return -ENOMEM;
	}
	list_append(&l->memory->entries, &l->entry->link);
	l->memory->n_entries++;
	l->entry->key = strdup(name);
	return l->entry->key ? 0 : -ENOMEM;
}

static int set_text(char **field, const char *value)
{
	*field = strdup(value);
	return *field ? 0 : -ENOMEM;
}

static int set_id(void *target, const char *value, const struct config_place *place)
{
	return set_text(&((struct loader *)target)->entry->id, value);
}

static int set_serial(void *target, const char *value, const struct config_place *place)
{
	return set_text(&((struct loader *)target)->entry->serial, value);
}

static int set_product(void *target, const char *value, const struct config_place *place)
{
	return set_text(&((struct loader *)target)->entry->product, value);
}

static int set_vm(void *target, const char *value, const struct config_place *place)
{
	if (!config_name_ok(value)) {
		return config_refuse(place, "vm= is no name of a VM");
	}
	return set_text(&((struct loader *)target)->entry->vm, value);
}

static const struct config_key keys[] = {
	{"device", "id", set_id, CONFIG_REQUIRED},
	{"device", "serial", set_serial, CONFIG_OPTIONAL},
	{"device", "product", set_product, CONFIG_OPTIONAL},
	{"device", "vm", set_vm, CONFIG_REQUIRED},
};

/* What a value can't hold in such a file: it is cut, or what would end or comment it is '?'. The
 * same of a device and of what was written of it, so that they compare. */
static char *as_value(const char *text)
{
	char *out = strndup(text, VALUE_MAX);
	size_t n = out ? strlen(out) : 0;

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)out[i] <= 0x20 && out[i] != ' ') {
			out[i] = '?';
		} else if (out[i] == ';' || (unsigned char)out[i] >= 0x7f) {
			out[i] = '?';
		}
	}
	while (n > 0 && out[n - 1] == ' ') {
		out[--n] = '\0';
	}
	return out;
}

static char *id_of(const struct usb_facts *f)
{
	char *id = NULL;

	return asprintf(&id, "%04x:%04x", f->vendor, f->product) < 0 ? NULL : id;
}

int memory_load(const char *state_dir, struct memory *out, struct refusal_text *text)
{
	static const struct config_sections sections = {.begin = begin};
	struct memory m = {.dir_fd = -1};
	struct loader l = {.memory = &m};
	struct memory_entry *e;
	int r;

	list_init(&m.entries);
	if (mkdir(state_dir, 0755) < 0 && errno != EEXIST) {
		r = errno == ENOENT || errno == EACCES || errno == EROFS ? 0 : -errno;
		*out = m;
		list_init(&out->entries);
		return r;
	}
	m.dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m.dir_fd < 0) {
		return -errno;
	}
	r = config_file_read_sections(
		m.dir_fd, FILE_NAME, FILE_NAME, keys, ARRAY_SIZE(keys), &sections, &l, text);
	r = r == -ENOENT ? 0 : r;
	list_for_each (e, &m.entries, link) {
		if (r == 0 && !e->serial) {
			r = set_text(&e->serial, "");
		}
		if (r == 0 && !e->product) {
			r = set_text(&e->product, "");
		}
	}
	if (r != 0) {
		memory_finish(&m);
		return r;
	}
	*out = m;
	list_init(&out->entries);
	list_move_all(&m.entries, &out->entries);
	return 0;
}

void memory_finish(struct memory *m)
{
	struct memory_entry *e, *next;

	if (!m->entries.next) {
		return;
	}
	list_for_each_safe (e, next, &m->entries, link) {
		entry_destroy(e);
	}
	m->n_entries = 0;
	m->dir_fd = safe_close(m->dir_fd);
}

static void print_entry(FILE *f, const struct memory_entry *e)
{
	fprintf(f, "\n[device %s]\nid=%s\n", e->key, e->id);
	if (e->serial[0]) {
		fprintf(f, "serial=%s\n", e->serial);
	}
	if (e->product[0]) {
		fprintf(f, "product=%s\n", e->product);
	}
	fprintf(f, "vm=%s\n", e->vm);
}

/* The whole file in the place of the old one. */
static int save(const struct memory *m)
{
	int fd = openat(
		m->dir_fd, FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	const struct memory_entry *e;
	bool failed;
	FILE *f;

	if (fd < 0) {
		return -errno;
	}
	f = fdopen(fd, "w");
	if (!f) {
		safe_close(fd);
		return -ENOMEM;
	}
	fprintf(f, "# Choices of `devbroker attach --remember`; `devbroker forget DEVICE` removes "
		   "one.\n");
	list_for_each (e, &m->entries, link) {
		print_entry(f, e);
	}
	failed = fflush(f) != 0 || fsync(fd) < 0;
	failed = fclose(f) != 0 || failed;
	if (failed || renameat(m->dir_fd, FILE_NEW, m->dir_fd, FILE_NAME) < 0 ||
		fsync(m->dir_fd) < 0) {
		return errno ? -errno : -EIO;
	}
	return 0;
}

static struct memory_entry *entry_named(const struct memory *m, const char *key)
{
	struct memory_entry *e;

	list_for_each (e, &m->entries, link) {
		if (strcmp(e->key, key) == 0) {
			return e;
		}
	}
	return NULL;
}

static struct memory_entry *entry_of(const struct usb_facts *f, const char *vm)
{
	struct memory_entry *e = calloc(1, sizeof(*e));

	if (!e) {
		return NULL;
	}
	list_init(&e->link);
	e->key = strdup(f->key);
	e->id = id_of(f);
	e->serial = as_value(f->serial);
	e->product = as_value(f->product_name);
	e->vm = strdup(vm);
	if (!e->key || !e->id || !e->serial || !e->product || !e->vm) {
		entry_destroy(e);
		return NULL;
	}
	return e;
}

int memory_add(
	struct memory *m, const struct usb_facts *f, const char *vm, struct refusal_text *text)
{
	/* In the place of what is remembered of the device, and of its place. */
	struct memory_entry *old = (struct memory_entry *)(uintptr_t)memory_find(m, f);
	struct memory_entry *there = entry_named(m, f->key), *fresh;
	int r;

	if (m->dir_fd < 0) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED,
			"Make the directory, or name another with --state-dir.",
			"nothing can be remembered: there is no state directory");
	}
	if (m->n_entries == MEMORY_MAX && !old && !there) {
		return refuse_with(text, REFUSAL_QUOTA, "Forget some: devbroker forget DEVICE",
			"%d devices are remembered, and more are not allowed", MEMORY_MAX);
	}
	fresh = entry_of(f, vm);
	if (!fresh) {
		return -ENOMEM;
	}
	there = there == old ? NULL : there;
	if (old) {
		list_remove(&old->link);
	}
	if (there) {
		list_remove(&there->link);
	}
	list_append(&m->entries, &fresh->link);
	r = save(m);
	if (r < 0) {
		/* As it was; the order of entries means nothing. */
		entry_destroy(fresh);
		if (old) {
			list_append(&m->entries, &old->link);
		}
		if (there) {
			list_append(&m->entries, &there->link);
		}
		return r;
	}
	m->n_entries += 1 - (old != NULL) - (there != NULL);
	if (old) {
		entry_destroy(old);
	}
	if (there) {
		entry_destroy(there);
	}
	return 0;
}

int memory_remove(struct memory *m, const char *key)
{
	struct memory_entry *e = entry_named(m, key);
	int r;

	if (!e) {
		return -ENOENT;
	}
	list_remove(&e->link);
	r = save(m);
	if (r < 0) {
		list_append(&m->entries, &e->link);
		return r;
	}
	m->n_entries--;
	entry_destroy(e);
	return 0;
}

static bool means(const struct memory_entry *e, const char *id, const char *serial, const char *key)
{
	return strcmp(e->id, id) == 0 && strcmp(e->serial, serial) == 0 &&
	       (serial[0] || strcmp(e->key, key) == 0);
}

bool memory_entry_means(const struct memory_entry *e, const struct usb_facts *f)
{
	_cleanup_free_ char *id = id_of(f), *serial = as_value(f->serial);

	return id && serial && means(e, id, serial, f->key);
}

const struct memory_entry *memory_find(const struct memory *m, const struct usb_facts *f)
{
	_cleanup_free_ char *id = NULL, *serial = NULL;
	const struct memory_entry *e;

	if (m->n_entries == 0) {
		return NULL;
	}
	id = id_of(f);
	serial = as_value(f->serial);
	list_for_each (e, &m->entries, link) {
		if (id && serial && means(e, id, serial, f->key)) {
			return e;
		}
	}
	return NULL;
}
