/* SPDX-License-Identifier: MIT
 * Acts on the kernel and on what the worker itself has; and what serving needs.
 */
#include "tests/integration/sandbox-acts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

static int failed(long r)
{
	return r < 0 ? errno : 0;
}

/* The kernel's larger doors. */

static int act_io_uring(const struct act_env *env)
{
	char params[256] = {0};

	return failed(syscall(SYS_io_uring_setup, 4, params));
}

static int act_bpf(const struct act_env *env)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	return failed(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static int act_keyctl(const struct act_env *env)
{
	return failed(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
}

static int act_perf(const struct act_env *env)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_TASK_CLOCK,
		.exclude_kernel = 1};

	return failed(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int act_userfaultfd(const struct act_env *env)
{
	return failed(syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */));
}

static int act_shm(const struct act_env *env)
{
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);

	if (id >= 0) {
		shmctl(id, IPC_RMID, NULL);
	}
	return failed(id);
}

static int act_memfd(const struct act_env *env)
{
	return failed(memfd_create("probe", MFD_CLOEXEC));
}

#ifdef __x86_64__
/* getpid by a foreign table of system calls. */
static int act_x32(const struct act_env *env)
{
	return failed(syscall(0x40000000 | SYS_getpid));
}

static int act_int80(const struct act_env *env)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
	return r > 0 ? 0 : ENOSYS;
}
#endif

/* Namespaces, privileges. */

static int act_mount(const struct act_env *env)
{
	int r = failed(mount("none", env->dir, "tmpfs", 0, "size=4k"));

	if (r == 0) {
		umount2(env->dir, MNT_DETACH);
	}
	return r;
}

static int act_mount_root(const struct act_env *env)
{
	return failed(mount("none", "/", "tmpfs", 0, "size=4k"));
}

static int act_remount(const struct act_env *env)
{
	return failed(mount(NULL, "/", NULL, MS_REMOUNT, NULL));
}

static int act_unshare_user(const struct act_env *env)
{
	return failed(unshare(CLONE_NEWUSER));
}

static int act_unshare_net(const struct act_env *env)
{
	return failed(unshare(CLONE_NEWNET));
}

static int act_setns(const struct act_env *env)
{
	return failed(setns(ACT_FD_NETNS, CLONE_NEWNET));
}

static int act_setuid(const struct act_env *env)
{
	return failed(setresuid(1, 1, 1));
}

static int act_capset(const struct act_env *env)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	data[0].permitted = data[0].effective = 1U << CAP_SYS_ADMIN;
	return failed(syscall(SYS_capset, &header, data));
}

static int act_dumpable(const struct act_env *env)
{
	return failed(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int act_sethostname(const struct act_env *env)
{
	char name[65];

	/* The control gives the host the name that it has. */
	if (gethostname(name, sizeof(name)) < 0) {
		return errno;
	}
	return failed(sethostname(name, strlen(name)));
}

static int act_realtime(const struct act_env *env)
{
	struct sched_param param = {.sched_priority = 1};

	return failed(sched_setscheduler(0, SCHED_FIFO, &param));
}

static int act_raise_limit(const struct act_env *env)
{
	struct rlimit l = {.rlim_cur = 8192, .rlim_max = 8192};

	return failed(setrlimit(RLIMIT_NOFILE, &l));
}

static int act_raise_memory(const struct act_env *env)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_DATA, &l) < 0) {
		return errno;
	}
	if (l.rlim_cur == RLIM_INFINITY) {
		return 0;
	}
	l.rlim_cur++;
	return failed(setrlimit(RLIMIT_DATA, &l));
}

/* Its own fds and memory. */

static int act_tiocsti(const struct act_env *env)
{
	return failed(ioctl(STDIN_FILENO, TIOCSTI, "x"));
}

/* DRM_IOCTL_SET_MASTER, DRM_IOCTL_MODE_GETCRTC: no kind may, the one with a GL driver included. */
static int act_drm_master(const struct act_env *env)
{
	return failed(ioctl(ACT_FD_IMAGE, _IO('d', 0x1e)));
}

static int act_drm_mode(const struct act_env *env)
{
	char crtc[104] = {0};

	return failed(
		ioctl(ACT_FD_IMAGE, _IOC(_IOC_READ | _IOC_WRITE, 'd', 0xa1, sizeof(crtc)), crtc));
}

static int act_foreign_ioctl(const struct act_env *env)
{
	return failed(ioctl(ACT_FD_IMAGE, FIOCLEX));
}

static int act_truncate_image(const struct act_env *env)
{
	return failed(ftruncate(ACT_FD_IMAGE, 4096));
}

static int act_grow_image(const struct act_env *env)
{
	return failed(fallocate(ACT_FD_IMAGE, 0, 0, 2 << 20));
}

static int act_unlock_image(const struct act_env *env)
{
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};

	return failed(fcntl(ACT_FD_IMAGE, F_OFD_SETLK, &l));
}

static int act_flock(const struct act_env *env)
{
	return failed(flock(ACT_FD_IMAGE, LOCK_EX | LOCK_NB));
}

static int act_chmod_image(const struct act_env *env)
{
	return failed(fchmod(ACT_FD_IMAGE, 0666));
}

static int act_map_exec(const struct act_env *env)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int act_make_exec(const struct act_env *env)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? 0 : failed(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int act_much_memory(const struct act_env *env)
{
	for (size_t i = 0; i < 128; i++) {
		void *p = mmap(
			NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED) {
			return errno;
		}
	}
	return 0;
}

static int act_many_fds(const struct act_env *env)
{
	for (size_t i = 0; i < 64; i++) {
		if (eventfd(0, EFD_CLOEXEC) < 0) {
			return errno;
		}
	}
	return 0;
}

static int act_stray_fd(const struct act_env *env)
{
	return failed(fcntl(ACT_FD_STRAY, F_GETFD));
}

/* Not an act of its own: whether the kernel lets others of this uid in. */
static int act_is_dumpable(const struct act_env *env)
{
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1 ? 0 : EPERM;
}

static int act_set_owner(const struct act_env *env)
{
	return failed(fcntl(ACT_FD_RESULT, F_SETOWN, env->driver));
}

/* What serving needs. */

static int act_memory(const struct act_env *env)
{
	for (size_t size = 64; size <= 8 << 20; size *= 2) {
		void *p = malloc(size);

		if (!p) {
			return ENOMEM;
		}
		memset(p, 1, size);
		free(p);
	}
	return 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	unsigned int *left = userdata;
	int r;

	if (--*left == 0) {
		return sd_event_exit(sd_event_source_get_event(source), 0);
	}
	r = sd_event_source_set_time_relative(source, 1000);
	return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int act_timer(const struct act_env *env)
{
	sd_event *event = NULL;
	unsigned int left = 3;
	int r;

	/* A worker makes its loop before it locks itself; epoll_create1 is not for later. */
	r = sd_event_default(&event);
	if (r >= 0) {
		r = sd_event_add_time_relative(
			event, NULL, CLOCK_MONOTONIC, 1000, 1000, on_time, &left);
	}
	if (r >= 0) {
		r = sd_event_loop(event);
	}
	sd_event_unref(event);
	return r < 0 ? -r : 0;
}

static int act_log(const struct act_env *env)
{
	log_debug("probe: this level is not shown");
	isatty(STDERR_FILENO);
	return failed(write(STDERR_FILENO, "", 0));
}

static int act_use_image(const struct act_env *env)
{
	char block[512];
	struct iovec iov = {.iov_base = block, .iov_len = sizeof(block)};
	int r;

	memset(block, 0x5a, sizeof(block));
	if (pwrite(ACT_FD_IMAGE, block, sizeof(block), 512) != sizeof(block) ||
		pwritev(ACT_FD_IMAGE, &iov, 1, 1024) != sizeof(block) ||
		pread(ACT_FD_IMAGE, block, sizeof(block), 512) != sizeof(block) ||
		preadv(ACT_FD_IMAGE, &iov, 1, 1024) != sizeof(block) ||
		fdatasync(ACT_FD_IMAGE) < 0) {
		return errno;
	}
	r = failed(fallocate(ACT_FD_IMAGE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536));
	/* Not every file system has holes. */
	return r == EOPNOTSUPP ? 0 : r;
}

static int act_make_image(const struct act_env *env)
{
	const size_t size = 64 << 20;
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || fd_extend(fd, size) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		return errno;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		return errno;
	}
	memset(p, 0xa5, 4096);
	return failed(munmap(p, size));
}

static int act_abort(const struct act_env *env)
{
	abort();
}

#define BOTH (ACT_CONTROL | ACT_HELD)
#define ROOT (ACT_CONTROL_ROOT | ACT_HELD)

const struct act acts_on_kernel[] = {
	{"io_uring", act_io_uring, ACT_CONTROL | ACT_OPTIONAL},
	{"bpf", act_bpf, ACT_CONTROL_ROOT},
	{"keyctl", act_keyctl, ACT_CONTROL | ACT_OPTIONAL},
	{"perf_event_open", act_perf, ACT_CONTROL_ROOT | ACT_OPTIONAL},
	{"userfaultfd", act_userfaultfd, ACT_CONTROL_ROOT | ACT_OPTIONAL},
	{"System V shared memory", act_shm, ACT_CONTROL},
	{"memfd_create", act_memfd, ACT_CONTROL | ACT_NOT_GPU},
#ifdef __x86_64__
	{"x32 system call", act_x32, 0},
	{"i386 system call", act_int80, ACT_CONTROL | ACT_OPTIONAL},
#endif
	{"mount", act_mount, ROOT},
	{"mount over /", act_mount_root, ACT_HELD},
	{"remount /", act_remount, ACT_HELD},
	{"unshare a user namespace", act_unshare_user, BOTH | ACT_OPTIONAL},
	{"unshare a network namespace", act_unshare_net, ROOT},
	{"setns", act_setns, ROOT},
	{"setresuid", act_setuid, ROOT},
	{"gain a capability", act_capset, ROOT},
	{"become dumpable", act_dumpable, ACT_CONTROL | ACT_NOT_SANITIZED},
	{"be dumpable", act_is_dumpable, BOTH},
	{"sethostname", act_sethostname, ROOT},
	{"real-time scheduling", act_realtime, ROOT | ACT_OPTIONAL},
	{"raise a limit", act_raise_limit, ACT_CONTROL | ACT_HELD},
	{"raise the memory limit", act_raise_memory, BOTH | ACT_NOT_SANITIZED | ACT_NOT_VIRGL},
	{"TIOCSTI", act_tiocsti, 0},
	{"use an fd that was not kept", act_stray_fd, BOTH},
	{"become the master of a display", act_drm_master, 0},
	{"look at a display's mode", act_drm_mode, 0},
	{"another ioctl", act_foreign_ioctl, ACT_CONTROL},
	{"truncate the image or the memory", act_truncate_image, ACT_CONTROL},
	{"grow the image or the memory", act_grow_image, ACT_CONTROL | ACT_OPTIONAL},
	{"unlock the image", act_unlock_image, ACT_CONTROL},
	{"flock the image", act_flock, ACT_CONTROL},
	{"chmod the image", act_chmod_image, ACT_CONTROL},
	{"executable mapping", act_map_exec, ACT_CONTROL | ACT_NOT_VIRGL},
	{"make memory executable", act_make_exec, ACT_CONTROL | ACT_NOT_VIRGL},
	{"128 MiB of memory", act_much_memory, BOTH | ACT_NOT_SANITIZED | ACT_NOT_VIRGL},
	{"64 more fds", act_many_fds, BOTH | ACT_NOT_GPU},
	{"signals from an fd for another", act_set_owner, ACT_CONTROL},
	{"use of memory", act_memory, ACT_CONTROL | ACT_MUST_WORK},
	{"a timer of sd-event", act_timer, ACT_CONTROL | ACT_MUST_WORK},
	{"log lines", act_log, ACT_CONTROL | ACT_MUST_WORK},
	{"use of the image", act_use_image, ACT_CONTROL | ACT_MUST_WORK | ACT_DISK_ONLY},
	{"an image", act_make_image, ACT_CONTROL | ACT_MUST_WORK | ACT_RENDERER_ONLY},
	/* ASan turns its end into an exit. */
	{"abort", act_abort, ACT_ABORTS | ACT_NOT_SANITIZED},
};
const size_t n_acts_on_kernel = sizeof(acts_on_kernel) / sizeof(acts_on_kernel[0]);
