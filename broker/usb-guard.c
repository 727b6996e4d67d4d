/* SPDX-License-Identifier: MIT
 *
 * Two questions, answered from sysfs and /proc each time they are asked, because the answers change
 * without a word.
 *
 * Does the host use a disk of the device? Every block device whose place in sysfs is below the
 * device's is its own; whatever lies on top of one (LVM, dm-crypt, md: "holders") is as well. Their
 * numbers are looked for among the mounts and the swaps. File systems with numbers of their own
 * (btrfs) are found by the name of what they were mounted from.
 *
 * Is it the last input device? Those of the host are counted by what they can do, as udev's
 * input_id builtin does: a keyboard has the first block of keys, a pointer moves in two directions
 * and has a button. Virtual ones don't count.
 */
#include "broker/usb-guard.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/input-event-codes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"

#define BLOCKS_MAX 256
#define LINE_SIZE  8192

const struct usb_guard usb_guard_host = {
	.sys = "/sys",
	.mountinfo = "/proc/self/mountinfo",
	.swaps = "/proc/swaps",
};

/* Without these a host does not go on, or not as the people who work on it expect. */
static const char *const needed[] = {"/", "/home", "/usr", "/boot", "/boot/efi", "/efi", "/var",
	"/etc", "/opt", "/srv", "/root", "/nix", "/gnu"};

static void filep(FILE **f)
{
	if (*f) {
		fclose(*f);
	}
}

static void dirp(DIR **d)
{
	if (*d) {
		closedir(*d);
	}
}

struct blocks {
	size_t n;
	struct {
		char name[64];
		dev_t dev;
	} at[BLOCKS_MAX];
};

static bool below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

/* Reads a short file into out. 0 or -errno. */
static int read_text(const char *path, char *out, size_t size)
{
	_cleanup_(filep) FILE *f = fopen(path, "re");

	if (!f) {
		return -errno;
	}
	if (!fgets(out, (int)size, f)) {
		out[0] = '\0';
	}
	out[strcspn(out, "\n")] = '\0';
	return 0;
}

static int read_dev(const char *dir, dev_t *out)
{
	char path[PATH_MAX], text[32];
	unsigned int major_number, minor_number;
	int r;

	snprintf(path, sizeof(path), "%s/dev", dir);
	r = read_text(path, text, sizeof(text));
	if (r < 0) {
		return r;
	}
	if (sscanf(text, "%u:%u", &major_number, &minor_number) != 2) {
		return -EIO;
	}
	*out = makedev(major_number, minor_number);
	return 0;
}

static void blocks_add(struct blocks *b, const char *name, dev_t dev)
{
	for (size_t i = 0; i < b->n; i++) {
		if (b->at[i].dev == dev) {
			return;
		}
	}
	if (b->n < BLOCKS_MAX) {
		snprintf(b->at[b->n].name, sizeof(b->at[0].name), "%s", name);
		b->at[b->n++].dev = dev;
	}
}

/* The block devices of the device itself. */
static int find_own(const struct usb_guard *g, const char *syspath, struct blocks *out)
{
	char path[PATH_MAX], real[PATH_MAX];
	_cleanup_(dirp) DIR *dir = NULL;
	const struct dirent *e;

	snprintf(path, sizeof(path), "%s/class/block", g->sys);
	dir = opendir(path);
	if (!dir) {
		return errno == ENOENT ? 0 : -errno;
	}
	while ((e = readdir(dir))) {
		dev_t dev;

		snprintf(path, sizeof(path), "%s/class/block/%s", g->sys, e->d_name);
		/* One that goes meanwhile is none. */
		if (e->d_name[0] != '.' && realpath(path, real) && below(real, syspath) &&
			read_dev(path, &dev) == 0) {
			blocks_add(out, e->d_name, dev);
		}
	}
	return 0;
}

/* What lies on top of them, and on top of that. */
static void find_holders(const struct usb_guard *g, struct blocks *b)
{
	for (size_t i = 0; i < b->n; i++) {
		char path[PATH_MAX];
		_cleanup_(dirp) DIR *dir = NULL;
		const struct dirent *e;

		snprintf(path, sizeof(path), "%s/class/block/%s/holders", g->sys, b->at[i].name);
		dir = opendir(path);
		while (dir && (e = readdir(dir))) {
			dev_t dev;

			snprintf(path, sizeof(path), "%s/class/block/%s", g->sys, e->d_name);
			if (e->d_name[0] != '.' && read_dev(path, &dev) == 0) {
				blocks_add(b, e->d_name, dev);
			}
		}
	}
}

/* The name of the block device in b with this number, or NULL. */
static const char *blocks_find(const struct blocks *b, dev_t dev)
{
	for (size_t i = 0; i < b->n; i++) {
		if (b->at[i].dev == dev) {
			return b->at[i].name;
		}
	}
	return NULL;
}

/* The number of what path names, or of what it lies on. */
static dev_t dev_of_path(const char *path)
{
	struct stat st;

	if (path[0] != '/' || stat(path, &st) < 0) {
		return 0;
	}
	return S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
}

/* Blanks and the like in these files are \040 and the like. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' &&
			p[3] >= '0' && p[3] <= '7') {
			*to++ = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
			p += 3;
		} else {
			*to++ = *p;
		}
	}
	*to = '\0';
}

static int refuse_mounted(
	const char *name, const char *block, const char *where, struct refusal_text *text)
{
	char shown[128];

	log_escape(where, strlen(where), shown, sizeof(shown));
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (strcmp(where, needed[i]) == 0) {
			return refuse_with(text, REFUSAL_DENIED, "It can't be lent.",
				"the host runs from %s: its %s is mounted at %s", name, block,
				shown);
		}
	}
	return refuse_with(text, REFUSAL_BUSY, "Unmount it on the host first.",
		"%s is in use on the host: its %s is mounted at %s", name, block, shown);
}

/* proc(5): 36 35 98:0 /root /where options - type source more */
static int check_mount(
	const char *name, const struct blocks *b, char *line, struct refusal_text *text)
{
	char *fields[5] = {0}, *save = NULL, *rest, *source;
	unsigned int major_number, minor_number;
	const char *block;

	rest = strstr(line, " - ");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		fields[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
	}
	if (!rest || !fields[4] || sscanf(fields[2], "%u:%u", &major_number, &minor_number) != 2) {
		return 0;
	}
	block = blocks_find(b, makedev(major_number, minor_number));
	if (!block && major_number == 0) {
		source = strtok_r(rest + 3, " \n", &save) ? strtok_r(NULL, " \n", &save) : NULL;
		if (source) {
			unescape(source);
			block = blocks_find(b, dev_of_path(source));
		}
	}
	if (!block) {
		return 0;
	}
	unescape(fields[4]);
	return refuse_mounted(name, block, fields[4], text);
}

/* The worst of what is mounted: what the host needs before what it merely uses. */
static int check_mounts(const struct usb_guard *g, const char *name, const struct blocks *b,
	struct refusal_text *text)
{
	_cleanup_(filep) FILE *f = fopen(g->mountinfo, "re");
	char line[LINE_SIZE];
	int worst = 0;

	if (!f) {
		return -errno;
	}
	while (worst != REFUSAL_DENIED && fgets(line, sizeof(line), f)) {
		struct refusal_text why = {0};
		int r = check_mount(name, b, line, &why);

		if (r != 0 && (worst == 0 || r == REFUSAL_DENIED)) {
			worst = r;
			*text = why;
		}
	}
	return worst;
}

static int check_swaps(const struct usb_guard *g, const char *name, const struct blocks *b,
	struct refusal_text *text)
{
	_cleanup_(filep) FILE *f = fopen(g->swaps, "re");
	char line[LINE_SIZE];

	if (!f) {
		/* A kernel without swap. */
		return errno == ENOENT ? 0 : -errno;
	}
	while (fgets(line, sizeof(line), f)) {
		const char *block;

		line[strcspn(line, " \t\n")] = '\0';
		unescape(line);
		block = blocks_find(b, dev_of_path(line));
		if (block) {
			return refuse_with(text, REFUSAL_DENIED,
				"It can't be lent; see swapoff(8).",
				"the host swaps to %s: its %s holds swap space", name, block);
		}
	}
	return 0;
}

static int check_disks(
	const struct usb_guard *g, const char *syspath, const char *name, struct refusal_text *text)
{
	_cleanup_free_ struct blocks *b = calloc(1, sizeof(*b));
	size_t n_own;
	int r;

	if (!b) {
		return -ENOMEM;
	}
	r = find_own(g, syspath, b);
	n_own = b->n;
	if (r < 0 || n_own == 0) {
		return r;
	}
	find_holders(g, b);
	r = check_swaps(g, name, b, text);
	if (r == 0) {
		r = check_mounts(g, name, b, text);
	}
	if (r == 0 && b->n > n_own) {
		r = refuse_with(text, REFUSAL_BUSY,
			"Take that apart first (vgchange -an, cryptsetup close, mdadm --stop).",
			"%s is in use on the host: %s lies on it", name, b->at[n_own].name);
	}
	return r;
}

/* A bit of a capability file: words in hexadecimal, the last one first. */
static bool has_bit(const char *text, unsigned int bit)
{
	const unsigned int word_bits = sizeof(long) * CHAR_BIT;
	const char *end = text + strlen(text);

	for (unsigned int skip = bit / word_bits;; skip--) {
		const char *start = end;

		while (start > text && start[-1] != ' ') {
			start--;
		}
		if (skip == 0) {
			return strtoul(start, NULL, 16) >> bit % word_bits & 1;
		}
		if (start == text) {
			return false;
		}
		end = start - 1;
	}
}

struct inputs {
	unsigned int keyboards;
	unsigned int pointers;
};

static void count_input(const struct usb_guard *g, const char *event, struct inputs *n)
{
	char path[PATH_MAX], key[512] = "", rel[64] = "", absolute[64] = "";
	bool keys = true, moves, button;

	snprintf(path, sizeof(path), "%s/class/input/%s/device/capabilities/key", g->sys, event);
	(void)read_text(path, key, sizeof(key));
	snprintf(path, sizeof(path), "%s/class/input/%s/device/capabilities/rel", g->sys, event);
	(void)read_text(path, rel, sizeof(rel));
	snprintf(path, sizeof(path), "%s/class/input/%s/device/capabilities/abs", g->sys, event);
	(void)read_text(path, absolute, sizeof(absolute));
	for (unsigned int i = KEY_ESC; i <= KEY_S && keys; i++) {
		keys = has_bit(key, i);
	}
	moves = (has_bit(rel, REL_X) && has_bit(rel, REL_Y)) ||
		(has_bit(absolute, ABS_X) && has_bit(absolute, ABS_Y));
	button = has_bit(key, BTN_LEFT) || has_bit(key, BTN_TOUCH);
	n->keyboards += keys;
	n->pointers += moves && button;
}

/* Counts the host's input devices: those of the device at syspath, and all others. */
static int count_inputs(
	const struct usb_guard *g, const char *syspath, struct inputs *own, struct inputs *others)
{
	char path[PATH_MAX], real[PATH_MAX], virtual_devices[PATH_MAX];
	_cleanup_(dirp) DIR *dir = NULL;
	const struct dirent *e;

	snprintf(path, sizeof(path), "%s/class/input", g->sys);
	snprintf(virtual_devices, sizeof(virtual_devices), "%s/devices/virtual", g->sys);
	dir = opendir(path);
	if (!dir) {
		return errno == ENOENT ? 0 : -errno;
	}
	while ((e = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/class/input/%s", g->sys, e->d_name);
		if (strncmp(e->d_name, "event", 5) == 0 && realpath(path, real) &&
			!below(real, virtual_devices)) {
			count_input(g, e->d_name, below(real, syspath) ? own : others);
		}
	}
	return 0;
}

static int check_input(
	const struct usb_guard *g, const char *syspath, const char *name, struct refusal_text *text)
{
	struct inputs own = {0}, others = {0};
	const char *what = NULL;
	int r = count_inputs(g, syspath, &own, &others);

	if (r < 0) {
		return r;
	}
	if (own.keyboards > 0 && others.keyboards == 0) {
		what = "keyboard";
	} else if (own.pointers > 0 && others.pointers == 0) {
		what = "pointer";
	}
	if (!what) {
		return 0;
	}
	return refuse_with(text, REFUSAL_DENIED,
		"Say so if it shall be lent all the same: devbroker attach --last-input DEVICE VM",
		"%s is the host's last %s", name, what);
}

int usb_guard_check(const struct usb_guard *guard, const char *syspath, const char *name,
	bool last_input, struct refusal_text *text)
{
	int r = check_disks(guard, syspath, name, text);

	return r == 0 && !last_input ? check_input(guard, syspath, name, text) : r;
}
