/* SPDX-License-Identifier: MIT
 *
 * QEMU's protocol (block/file-posix.c, raw_apply_lock_bytes and raw_check_lock_bytes): each
 * permission is a bit. Who uses a permission read-locks the byte PERM_BASE + bit, who does not let
 * others use it read-locks SHARED_BASE + bit. Read locks never conflict with each other, so both
 * sides first take theirs, and then ask the kernel whether a write lock would fail on the bytes
 * that speak against them: the PERM bytes of what they don't share, the SHARED bytes of what they
 * use. Whoever comes second sees the first; two at once may both give up, and none gets through.
 *
 * The same protocol keeps two devbroker disks apart, but not two duplicates of one open file
 * description (a client that sends the same fd twice): those the broker tells by image_same.
 */
#include "broker/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define SECTOR      512
#define PERM_BASE   100
#define SHARED_BASE 200
#define PERM_BITS   4

/* Bit 2, write-unchanged, changes nothing that anybody could see: free for all. */
enum { PERM_CONSISTENT_READ = 1, PERM_WRITE = 2, PERM_RESIZE = 8 };

/* Looking for a holder ends after this: the broker's answers don't wait for a host with a million
 * open files. */
#define HOLDER_SEARCH_NS (50 * 1000 * 1000LL)

#define SHOWN_MAX 256

struct shown {
	char text[SHOWN_MAX];
};

static const char *show(const char *name, struct shown *out)
{
	return log_escape(name, strlen(name), out->text, sizeof(out->text));
}

static int refuse_kind(const char *shown, mode_t mode, struct refusal_text *text)
{
	const char *kind = S_ISDIR(mode)    ? "a directory"
			   : S_ISFIFO(mode) ? "a FIFO"
			   : S_ISCHR(mode)  ? "a character device"
			   : S_ISSOCK(mode) ? "a socket"
					    : "neither a regular file nor a block device";

	return refuse(text, REFUSAL_IMAGE_INVALID, "%s is %s, not a disk image.", shown, kind);
}

static int check_mode(int fd, bool read_only, const char *shown, struct refusal_text *text)
{
	int flags = fcntl(fd, F_GETFL), access;

	if (flags < 0) {
		return -errno;
	}
	access = flags & O_ACCMODE;
	if ((flags & O_PATH) || access == O_WRONLY) {
		return refuse(text, REFUSAL_IMAGE_INVALID, "%s is not opened for reading.", shown);
	}
	if (!read_only && access != O_RDWR) {
		return refuse(text, REFUSAL_IMAGE_INVALID,
			"%s is opened for reading only, but is to be written.", shown);
	}
	/* pwrite on an O_APPEND file writes to its end, whatever the offset (pwrite(2), BUGS). */
	if (!read_only && (flags & O_APPEND)) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID, "Open it without O_APPEND.",
			"%s is opened for appending.", shown);
	}
	if (flags & O_DIRECT) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID, "Open it without O_DIRECT.",
			"%s is opened for direct I/O.", shown);
	}
	return 0;
}

int image_check(
	int fd, bool read_only, const char *name, struct image_info *out, struct refusal_text *text)
{
	struct image_info info = {0};
	struct shown buffer;
	const char *shown = show(name, &buffer);
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return refuse_kind(shown, st.st_mode, text);
	}
	r = check_mode(fd, read_only, shown, text);
	if (r) {
		return r;
	}
	info.dev = st.st_dev;
	info.ino = st.st_ino;
	info.rdev = S_ISBLK(st.st_mode) ? st.st_rdev : 0;
	info.block_device = S_ISBLK(st.st_mode);
	info.size = (uint64_t)st.st_size;
	if (info.block_device && ioctl(fd, BLKGETSIZE64, &info.size) < 0) {
		return -errno;
	}
	if (info.size == 0) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID,
			"Give it a size first, for example: truncate -s 1G FILE", "%s is empty.",
			shown);
	}
	if (info.size < SECTOR) {
		return refuse(text, REFUSAL_IMAGE_INVALID,
			"%s has %u bytes, less than one sector of %d.", shown, (unsigned)info.size,
			SECTOR);
	}
	info.size -= info.size % SECTOR;
	*out = info;
	return 0;
}

bool image_same(const struct image_info *a, const struct image_info *b)
{
	if (a->block_device != b->block_device) {
		return false;
	}
	/* A block device may have several nodes. */
	return a->block_device ? a->rdev == b->rdev : a->dev == b->dev && a->ino == b->ino;
}

/*
 * Who holds it: the lock itself doesn't tell (an OFD lock has no pid), but /proc/PID/fdinfo/FD has
 * a line for each lock of that open file description:
 *	lock:	1: OFDLCK  ADVISORY  READ -1 00:2b:77 101 101
 */
struct holder {
	pid_t pid; /* 0: not found */
	char comm[64];
};

static bool has_our_locks(int fdinfo_dir, const char *name)
{
	_cleanup_close_ int fd = openat(fdinfo_dir, name, O_RDONLY | O_CLOEXEC);
	char text[4096], *save = NULL;
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (n <= 0) {
		return false;
	}
	text[n] = '\0';
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		unsigned long long first = 0, last = 0;

		if (sscanf(l, "lock: %*d: OFDLCK %*s %*s %*d %*s %llu %llu", &first, &last) != 2) {
			continue;
		}
		if ((first < PERM_BASE + PERM_BITS && last >= PERM_BASE) ||
			(first < SHARED_BASE + PERM_BITS && last >= SHARED_BASE)) {
			return true;
		}
	}
	return false;
}

static void closedirp(DIR **d)
{
	if (*d) {
		closedir(*d);
	}
}

static DIR *open_dir(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (!d) {
		safe_close(fd);
	}
	return d;
}

/* Whether the process at /proc/PID (an fd) holds such locks on the file. */
static bool process_holds(int proc_pid, const struct stat *want, uint64_t deadline)
{
	_cleanup_(closedirp) DIR *fds = open_dir(proc_pid, "fd");
	_cleanup_close_ int fdinfo = openat(proc_pid, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *d;

	while (fds && fdinfo >= 0 && (d = readdir(fds)) && now_ns() < deadline) {
		struct stat st;

		if (d->d_name[0] == '.') {
			continue;
		}
		/* Follows the link to the open file itself, without opening it. */
		if (fstatat(dirfd(fds), d->d_name, &st, 0) == 0 && st.st_ino == want->st_ino &&
			st.st_dev == want->st_dev && has_our_locks(fdinfo, d->d_name)) {
			return true;
		}
	}
	return false;
}

static void read_comm(int proc_pid, char *out, size_t size)
{
	_cleanup_close_ int fd = openat(proc_pid, "comm", O_RDONLY | O_CLOEXEC);
	char raw[32];
	ssize_t n = fd >= 0 ? read(fd, raw, sizeof(raw)) : -1;

	if (n > 0 && raw[n - 1] == '\n') {
		n--;
	}
	log_escape(raw, n > 0 ? (size_t)n : 0, out, size);
}

static void find_holder(int image, struct holder *out)
{
	_cleanup_(closedirp) DIR *proc = opendir("/proc");
	uint64_t deadline = now_ns() + HOLDER_SEARCH_NS;
	struct dirent *d;
	struct stat st;

	*out = (struct holder){0};
	if (!proc || fstat(image, &st) < 0) {
		return;
	}
	while ((d = readdir(proc)) && now_ns() < deadline) {
		_cleanup_close_ int proc_pid = -1;
		pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);

		if (pid <= 0) {
			continue;
		}
		proc_pid = openat(dirfd(proc), d->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (proc_pid < 0 || !process_holds(proc_pid, &st, deadline)) {
			continue;
		}
		out->pid = pid;
		read_comm(proc_pid, out->comm, sizeof(out->comm));
		if (pid != getpid()) { /* a worker tells more than the broker that lent it */
			return;
		}
	}
}

static int refuse_busy(int fd, const char *shown, struct refusal_text *text)
{
	struct holder h;

	find_holder(fd, &h);
	if (h.pid == 0) {
		return refuse(text, REFUSAL_IMAGE_BUSY, "%s is in use by another program.", shown);
	}
	return refuse(text, REFUSAL_IMAGE_BUSY, "%s is in use by %s (pid %d).", shown,
		h.comm[0] ? h.comm : "a process", (int)h.pid);
}

/* 1: somebody else holds the byte, 0: nobody, or -errno. */
static int test_byte(int fd, int byte)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &l) < 0) {
		return -errno;
	}
	return l.l_type != F_UNLCK;
}

static int set_bytes(int fd, short type, int base, unsigned bits)
{
	for (int i = 0; i < PERM_BITS; i++) {
		struct flock l = {
			.l_type = type, .l_whence = SEEK_SET, .l_start = base + i, .l_len = 1};

		if ((bits & 1U << i) && fcntl(fd, F_OFD_SETLK, &l) < 0) {
			return -errno;
		}
	}
	return 0;
}

static unsigned used(bool read_only)
{
	return PERM_CONSISTENT_READ | (read_only ? 0 : PERM_WRITE);
}

/* What others may not do meanwhile, in both modes: a guest that mounted the stick expects that only
 * it changes it. Resizing would pull it from under the worker. */
#define NOT_SHARED (PERM_WRITE | PERM_RESIZE)

/* 1: somebody is in the way, 0: nobody, or -errno. */
static int test_others(int fd, bool read_only)
{
	for (int i = 0; i < PERM_BITS; i++) {
		int r = NOT_SHARED & 1U << i ? test_byte(fd, PERM_BASE + i) : 0;

		if (r == 0 && (used(read_only) & 1U << i)) {
			r = test_byte(fd, SHARED_BASE + i);
		}
		if (r) {
			return r;
		}
	}
	return 0;
}

/* A block device that the host itself uses (mounted, swap, in a RAID or LVM) takes no locks, but
 * can't be opened exclusively, and neither can a disk whose partition is in use. Where we may not
 * open it at all, the fd's owner has to know. */
static bool host_uses(int fd)
{
	char path[64];
	struct stat st;
	_cleanup_close_ int again = -1;

	if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode)) {
		return false;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	return again < 0 && errno == EBUSY;
}

/* The verdict of test_others or host_uses as a refusal. */
static int check_others(
	int fd, bool read_only, bool locked, const char *name, struct refusal_text *text)
{
	struct shown buffer;
	bool host = host_uses(fd);
	int r = host ? 1 : test_others(fd, read_only);

	/* Before the search for the holder, which may not find us: whoever sent us the fd has the
	 * same open file description. */
	if (r && locked) {
		image_unlock(fd);
	}
	if (host) {
		return refuse_with(text, REFUSAL_IMAGE_BUSY,
			"Unmount it and its partitions first; see: lsblk",
			"%s is in use by this host itself.", show(name, &buffer));
	}
	return r > 0 ? refuse_busy(fd, show(name, &buffer), text) : r;
}

int image_probe(int fd, bool read_only, const char *name, struct refusal_text *text)
{
	return check_others(fd, read_only, false, name, text);
}

int image_lock(int fd, bool read_only, const char *name, struct refusal_text *text)
{
	struct shown buffer;
	int r = set_bytes(fd, F_RDLCK, PERM_BASE, used(read_only));

	if (r == 0) {
		r = set_bytes(fd, F_RDLCK, SHARED_BASE, NOT_SHARED);
	}
	if (r == 0) {
		return check_others(fd, read_only, true, name, text);
	}
	image_unlock(fd);
	if (r == -EAGAIN || r == -EACCES) { /* a write lock by somebody with other manners */
		r = refuse_busy(fd, show(name, &buffer), text);
	}
	return r;
}

void image_unlock(int fd)
{
	(void)set_bytes(fd, F_UNLCK, PERM_BASE, ~0U);
	(void)set_bytes(fd, F_UNLCK, SHARED_BASE, ~0U);
}

int image_open(const char *path, bool read_only, int *fd_out, struct refusal_text *text)
{
	struct shown buffer;
	const char *shown = show(path, &buffer);
	_cleanup_close_ int where = open(path, O_PATH | O_CLOEXEC);
	char again[64];
	struct stat st;
	int fd;

	/* First only the place: opening a FIFO or a device may already do something. */
	if (where < 0 || fstat(where, &st) < 0) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID, "Check the path.",
			"Can't open %s: %s.", shown, strerror(errno));
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return refuse_kind(shown, st.st_mode, text);
	}
	snprintf(again, sizeof(again), "/proc/self/fd/%d", where);
	fd = open(again, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		return refuse(text, REFUSAL_IMAGE_INVALID, "Can't open %s for %s: %s.", shown,
			read_only ? "reading" : "writing", strerror(errno));
	}
	*fd_out = fd;
	return 0;
}
