/* SPDX-License-Identifier: MIT
 *
 * A worker reads bytes from a guest and may be taken over by one. What it can do afterwards is
 * decided here, before the first byte, in stages that each hold if the others fall:
 *
 *   fds         it has the fds that it was lent, and can't get many more, nor much memory
 *   namespaces  it sees no process, no network, no mount and no user of the host
 *   root        no path leads anywhere: the root is empty and read-only, /proc included
 *   privileges  it has no capability, even in its own user namespace, and gains none by exec
 *   landlock    if it got a path or a namespace back, the kernel still refuses every access
 *   seccomp     most of the kernel can't be called (sandbox-seccomp.c)
 *
 * Each step verifies what it can; a stage that can't be closed is an error, never a warning. Which
 * stages may be missing is the administrator's decision (sandbox=reduced:…), not the host's.
 */
#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox-internal.h"

#define DRM_MAJOR 226

struct kind_limits {
	rlim_t nofile;
	rlim_t nproc; /* threads of this worker, counted per user namespace since Linux 5.14 */
	rlim_t data;  /* bytes of private writable mappings */
	rlim_t fsize; /* of every file, an image written in place included; not if stderr is one */
};

static const struct kind_limits limits[] = {
	/* One I/O thread beside the loop. */
	[SANDBOX_DISK] = {64, 2, 64 << 20, RLIM_INFINITY},
	[SANDBOX_NBD] = {64, 1, 64 << 20, 0},
	[SANDBOX_QMP] = {64, 1, 16 << 20, 0},
	[SANDBOX_CLAIM] = {16, 1, 16 << 20, 0},
	/* One thread for calls that block. */
	[SANDBOX_USB] = {64, 2, 64 << 20, 0},
	/* An fd for each image, which may have 1 GiB. */
	[SANDBOX_GPU_RENDERER] = {4096, 1, 96 << 20, 1 << 30},
	/* Memory regions, a few fds per queue, images on their way; screenshots are memfds. */
	[SANDBOX_GPU_FRONT] = {256, 1, 64 << 20, 1 << 30},
	/* The driver's threads; memory is bounded by its caller, who knows the budget. */
	[SANDBOX_GPU_VIRGL] = {4096, 128, RLIM_INFINITY, 1 << 30},
};
_Static_assert(ARRAY_SIZE(limits) == SANDBOX_KIND_COUNT_, "one per kind");

/* Soft and hard limit become value, or stay where they are lower already. */
static int set_limit(int resource, rlim_t value)
{
	struct rlimit l;

	if (getrlimit((__rlimit_resource_t)resource, &l) < 0) {
		return -errno;
	}
	l.rlim_cur = l.rlim_max = MIN(l.rlim_max, value);
	return setrlimit((__rlimit_resource_t)resource, &l) < 0 ? -errno : 0;
}

/* Should still be able to: use what it was lent, make a few timers and eventfds.
 * Mustn't: reach any other fd, fill memory, fork, leave a core file with a guest's data. */
static int close_fds(enum sandbox_kind kind, uint32_t stages, const int *keep, size_t n_keep)
{
	const struct kind_limits *l = &limits[kind];
	struct stat log;
	int r = close_all_except(3, keep, n_keep);

	if (r == 0) {
		r = set_limit(RLIMIT_CORE, 0);
	}
	if (r == 0) {
		r = set_limit(RLIMIT_NOFILE, l->nofile);
	}
	/* Without a user namespace the count is that of the whole host uid, which may run much
	 * more than this worker. */
	if (r == 0 && stages & SANDBOX_NAMESPACES) {
		r = set_limit(RLIMIT_NPROC, l->nproc);
	}
	/* ASan's shadow is terabytes of address space. */
	if (r == 0 && !SANDBOX_SANITIZERS) {
		r = set_limit(RLIMIT_DATA, l->data);
	}
	if (r == 0 && fstat(STDERR_FILENO, &log) == 0 && !S_ISREG(log.st_mode)) {
		r = set_limit(RLIMIT_FSIZE, l->fsize);
	}
	return r;
}

static int verify_network(void)
{
	/* Any socket family takes the device ioctls. */
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "lo"};

	if (fd < 0) {
		return -errno;
	}
	/* Device names say nothing: loaded tunnel modules put a device into every namespace. */
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0) {
		return -errno;
	}
	return (ifr.ifr_flags & IFF_UP) ? -ENOTUNIQ : 0;
}

static int verify_ids(void)
{
	_cleanup_close_ int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	char text[64];
	unsigned int inside, outside, count;
	ssize_t n;

	if (fd < 0) {
		return -errno;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		return -errno;
	}
	text[n] = '\0';
	if (sscanf(text, "%u %u %u", &inside, &outside, &count) != 3) {
		return -ENOTUNIQ;
	}
	return inside == 0 && count == 1 && getuid() == 0 ? 0 : -ENOTUNIQ;
}

/* No user namespace below this one: its maker would hold every capability in it. Behind seccomp,
 * and only where /proc/sys is writable, so a failure is none. */
static void forbid_user_namespaces(void)
{
	_cleanup_close_ int fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);

	_unused_ ssize_t n = fd >= 0 ? write(fd, "0", 1) : 0;
}

/* Mustn't: see a process, a device, a mount or a user of the host. Only spawn_process can do that,
 * so this only sees to it that it was done. */
static int verify_namespaces(void)
{
	int r;

	if (getpid() != 1) {
		return -ENOTUNIQ;
	}
	r = verify_ids();
	if (r == 0) {
		r = verify_network();
	}
	if (r == 0) {
		forbid_user_namespaces();
	}
	return r;
}

/* What a GL driver is made of, read-only: the libraries and the places where they look for drivers
 * and for what these need to know of programs and of cards. */
static const char *const driver_folders[] = {
	"/usr/lib",
	"/usr/lib64",
	"/usr/share/glvnd",
	"/usr/share/drirc.d",
	"/usr/share/libdrm",
	"/etc/glvnd",
	"/etc/ld.so.conf.d",
};

/* What libdrm wants to see of a card whose fd there is: which device it is, and that it has a node.
 * Mesa chooses its driver by that; by the name of the kernel's driver alone it finds none for most.
 * They go with the paths (seccomp), and nothing can be opened of /dev/dri (NODEV). */
static const char *const card_folders[] = {
	"/sys/dev/char",
	"/sys/devices",
	"/dev/dri",
};

/* Where /usr is merged, and where it isn't. */
static const char *const library_folders[] = {"lib", "lib64"};

/* Shows the host's folder path below the current directory, if there is one. */
static int show_folder(const char *path)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	char part[64];
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		return 0;
	}
	for (const char *end = strchr(path + 1, '/');; end = strchr(end + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s",
			(int)(end ? end - path - 1 : (ptrdiff_t)strlen(path) - 1), path + 1);
		if (mkdir(part, 0555) < 0 && errno != EEXIST) {
			return -errno;
		}
		if (!end) {
			break;
		}
	}
	if (mount(path, path + 1, NULL, MS_BIND | MS_REC, NULL) < 0) {
		return -errno;
	}
	return mount_setattr(AT_FDCWD, path + 1, AT_RECURSIVE, &attr, sizeof(attr)) < 0 ? -errno
											: 0;
}

static bool is_card(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) &&
	       major(st.st_rdev) == DRM_MAJOR;
}

static int show_driver(const int *keep, size_t n_keep)
{
	bool card = false;
	int r = 0;

	for (size_t i = 0; i < n_keep; i++) {
		card = card || is_card(keep[i]);
	}
	for (size_t i = 0; card && r == 0 && i < ARRAY_SIZE(card_folders); i++) {
		r = show_folder(card_folders[i]);
	}

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(driver_folders); i++) {
		r = show_folder(driver_folders[i]);
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(library_folders); i++) {
		char link[16], target[16];
		struct stat st;

		snprintf(link, sizeof(link), "/%s", library_folders[i]);
		snprintf(target, sizeof(target), "usr/%s", library_folders[i]);
		if (lstat(link, &st) == 0 && S_ISLNK(st.st_mode)) {
			r = symlink(target, library_folders[i]) < 0 ? -errno : 0;
		} else {
			r = show_folder(link);
		}
	}
	return r;
}

/* Should: nothing; one kind reads its driver's files. Mustn't: find anything else by a path, not
 * even /proc, or create a file. */
static int close_root(enum sandbox_kind kind, const int *keep, size_t n_keep)
{
	const bool driver = kind == SANDBOX_GPU_VIRGL;
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	/* What is mounted here must not travel to the host, and pivot_root refuses shared mounts.
	 */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return -errno;
	}
	/* On any directory that surely exists. One inode: the root itself. */
	if (mount("none", "/proc", "tmpfs", flags,
		    driver ? "mode=0555,size=64k,nr_inodes=48" : "mode=0555,size=4k,nr_inodes=1") <
		0) {
		return -errno;
	}
	if (chdir("/proc") < 0) {
		return -errno;
	}
	if (driver) {
		int r = show_driver(keep, n_keep);

		if (r < 0) {
			return r;
		}
	}
	/* pivot_root(2), NOTES: with "." twice the old root lies on top of the new one. */
	if (syscall(SYS_pivot_root, ".", ".") < 0) {
		return -errno;
	}
	if (umount2(".", MNT_DETACH) < 0) {
		return -errno;
	}
	if (chdir("/") < 0) {
		return -errno;
	}
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | flags, NULL) < 0) {
		return -errno;
	}
	return access("/proc", F_OK) == 0 ? -ENOTEMPTY : 0;
}

static bool have_setpcap(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	return syscall(SYS_capget, &header, data) == 0 &&
	       data[CAP_TO_INDEX(CAP_SETPCAP)].effective & CAP_TO_MASK(CAP_SETPCAP);
}

static int drop_bounding_set(void)
{
	const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
				   SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
				   SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

	/* The kernel may know more capabilities than our headers; the first that it does not know
	 * is EINVAL. */
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			return -errno;
		}
	}
	return prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0 ? -errno : 0;
}

/* Mustn't: hold or gain a capability in any namespace, or be read and traced by another process of
 * its uid. */
static int close_privileges(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	/* Without CAP_SETPCAP (no user namespace, and no root) there is nothing to lose, and
	 * no_new_privs keeps the bounding set from mattering. */
	if (have_setpcap()) {
		int r = drop_bounding_set();
		if (r < 0) {
			return r;
		}
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
		return -errno;
	}
	if (syscall(SYS_capset, &header, data) < 0) {
		return -errno;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return -errno;
	}
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
		return -errno;
	}
	if (syscall(SYS_capget, &header, data) < 0) {
		return -errno;
	}
	return (data[0].permitted | data[1].permitted) ? -EPERM : 0;
}

/* linux/landlock.h of Debian 12 ends at ABI 2; this is struct landlock_ruleset_attr of ABI 6. */
struct landlock_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net;
	uint64_t scoped;
};

/* What each ABI of the kernel can refuse (linux/landlock.h, Documentation/userspace-api/landlock).
 * A ruleset that handles an access and has no rule for it denies it everywhere. */
static const struct landlock_attr landlock_by_abi[] = {
	{.handled_access_fs = (1 << 13) - 1}, /* execute … make_sym */
	{.handled_access_fs = 1 << 13},       /* refer: link and rename between directories */
	{.handled_access_fs = 1 << 14},       /* truncate */
	{.handled_access_net = (1 << 2) - 1}, /* TCP bind and connect */
	{.handled_access_fs = 1 << 15},       /* ioctl on devices */
	{.scoped = (1 << 2) - 1},             /* abstract unix sockets, signals */
};

/* Files may be read, all that there are: the root has nothing but a driver. */
static int allow_reading(int ruleset)
{
	_cleanup_close_ int root = open("/", O_PATH | O_CLOEXEC | O_DIRECTORY);
	const struct landlock_path_beneath_attr below = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		.parent_fd = root};

	if (root < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &below,
				0) < 0) {
		return -errno;
	}
	return 0;
}

/* Mustn't: open, create, execute, truncate or connect anything, or signal who is outside. What is
 * open already stays usable. */
static int close_landlock(enum sandbox_kind kind)
{
	struct landlock_attr attr = {0};
	_cleanup_close_ int fd = -1;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (abi < 0) {
		return -errno;
	}
	for (size_t i = 0; i < ARRAY_SIZE(landlock_by_abi) && (long)i < abi; i++) {
		attr.handled_access_fs |= landlock_by_abi[i].handled_access_fs;
		attr.handled_access_net |= landlock_by_abi[i].handled_access_net;
		attr.scoped |= landlock_by_abi[i].scoped;
	}
	/* An older kernel takes a longer struct as long as what it doesn't know is zero. */
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd < 0) {
		return -errno;
	}
	if (kind == SANDBOX_GPU_VIRGL) {
		int r = allow_reading(fd);

		if (r < 0) {
			return r;
		}
	}
	/* Needs no capability once there are no new privileges; PRIVILEGES may be left out. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return -errno;
	}
	return syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
}

static int close_stage(
	enum sandbox_kind kind, uint32_t stage, uint32_t stages, const int *keep, size_t n_keep)
{
	switch (stage) {
	case SANDBOX_FDS:
		return close_fds(kind, stages, keep, n_keep);
	case SANDBOX_NAMESPACES:
		return verify_namespaces();
	case SANDBOX_ROOT:
		return (stages & SANDBOX_NAMESPACES) ? close_root(kind, keep, n_keep) : -EINVAL;
	case SANDBOX_PRIVILEGES:
		return close_privileges();
	case SANDBOX_LANDLOCK:
		return close_landlock(kind);
	default:
		return -EINVAL;
	}
}

int sandbox_enter(
	const char *name, enum sandbox_kind kind, uint32_t stages, const int *keep, size_t n_keep)
{
	for (uint32_t stage = SANDBOX_FDS; stage < SANDBOX_SECCOMP; stage <<= 1) {
		int r = stages & stage ? close_stage(kind, stage, stages, keep, n_keep) : 0;

		if (r < 0) {
			log_error("%s: can't close the sandbox, stage %s: %s", name,
				sandbox_stage_name(stage), strerror(-r));
			return r;
		}
	}
	return 0;
}

int sandbox_lock(enum sandbox_kind kind, uint32_t stages)
{
	if (!(stages & SANDBOX_SECCOMP)) {
		return 0;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return -errno;
	}
	return sandbox_seccomp_load(kind);
}
