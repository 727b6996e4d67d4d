/* SPDX-License-Identifier: MIT
 *
 * The last stage: which system calls a worker may still make, one list per kind. What is in no list
 * kills the process with SIGSYS, and so does every call of a foreign architecture: exec, fork and
 * threads, ptrace, sockets, mounts, io_uring, bpf, keys, foreign ioctls, executable memory. Only
 * what a library tries by habit and can do without (a path that does not exist anyhow) is answered
 * with an error instead. Most calls are allowed whatever their arguments: the kernel answers those
 * from a bitmap without running the filter, so the hot path (read, sendmsg, epoll_wait, futex,
 * pread64) pays nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/usbdevice_fs.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/sandbox-internal.h"

#define ON_DISK     (1U << SANDBOX_DISK)
#define ON_NBD      (1U << SANDBOX_NBD)
#define ON_QMP      (1U << SANDBOX_QMP)
#define ON_CLAIM    (1U << SANDBOX_CLAIM)
#define ON_USB      (1U << SANDBOX_USB)
#define ON_RENDERER (1U << SANDBOX_GPU_RENDERER)
#define ON_FRONT    (1U << SANDBOX_GPU_FRONT)
#define ON_VIRGL    (1U << SANDBOX_GPU_VIRGL)
#define ON_GPU      (ON_RENDERER | ON_FRONT | ON_VIRGL)
#define ON_ALL      (ON_DISK | ON_NBD | ON_QMP | ON_CLAIM | ON_USB | ON_GPU)

struct call {
	int number;     /* SCMP_SYS: negative where this architecture lacks the call */
	uint32_t kinds; /* ON_* */
};

/* Allowed with any arguments. */
static const struct call calls[] = {
	/* Serving the peer and the broker on fds that it was lent. sendmsg and recvmsg carry the
	 * fds that QMP's getfd needs; there is no way to make a socket to send to someone else. */
	{SCMP_SYS(read), ON_ALL},
	{SCMP_SYS(write), ON_ALL},
	{SCMP_SYS(readv), ON_ALL},
	{SCMP_SYS(writev), ON_ALL},
	{SCMP_SYS(recvmsg), ON_ALL},
	{SCMP_SYS(sendmsg), ON_ALL},
	{SCMP_SYS(recvfrom), ON_ALL},
	{SCMP_SYS(sendto), ON_ALL},
	{SCMP_SYS(shutdown), ON_ALL}, /* tells the peer that no more comes */
	{SCMP_SYS(close), ON_ALL},
	/* The next broker, on the socket that the one before it bound. */
	{SCMP_SYS(accept4), ON_DISK | ON_NBD | ON_USB},

	/* The loop: sd-event, and plain poll. Timers and signalfds are made when first used. */
	{SCMP_SYS(epoll_ctl), ON_ALL},
	{SCMP_SYS(epoll_wait), ON_ALL},
	{SCMP_SYS(epoll_pwait), ON_ALL},
	{SCMP_SYS(epoll_pwait2), ON_ALL}, /* sd-event's first choice */
	{SCMP_SYS(poll), ON_ALL},
	{SCMP_SYS(ppoll), ON_ALL},
	{SCMP_SYS(timerfd_create), ON_ALL},
	{SCMP_SYS(timerfd_settime), ON_ALL},
	{SCMP_SYS(timerfd_gettime), ON_ALL},
	{SCMP_SYS(eventfd2), ON_ALL},
	{SCMP_SYS(signalfd4), ON_ALL},

	/* Time, where the vDSO can't give it (some virtual machines' clock sources). */
	{SCMP_SYS(clock_gettime), ON_ALL},
	{SCMP_SYS(gettimeofday), ON_ALL},
	{SCMP_SYS(time), ON_ALL},

	/* malloc; mmap, mprotect: see allow_memory. */
	{SCMP_SYS(brk), ON_ALL},
	{SCMP_SYS(munmap), ON_ALL},
	{SCMP_SYS(mremap), ON_ALL},
	{SCMP_SYS(madvise), ON_ALL},

	/* Threads that exist: locks, malloc's choice of an arena (sched_getaffinity), and what a
	 * thread that was created just before does first and last. */
	{SCMP_SYS(futex), ON_ALL},
	{SCMP_SYS(sched_yield), ON_ALL},
	{SCMP_SYS(sched_getaffinity), ON_DISK | ON_USB | ON_VIRGL},
	{SCMP_SYS(set_robust_list), ON_DISK | ON_USB | ON_VIRGL},
	{SCMP_SYS(rseq), ON_DISK | ON_USB | ON_VIRGL},
	{SCMP_SYS(gettid), ON_ALL},
	{SCMP_SYS(getpid), ON_ALL}, /* sd-event checks for a fork in each call */
	{SCMP_SYS(exit), ON_ALL},
	{SCMP_SYS(exit_group), ON_ALL},

	/* Signals of its own. */
	{SCMP_SYS(rt_sigprocmask), ON_ALL},
	{SCMP_SYS(rt_sigaction), ON_ALL},
	{SCMP_SYS(rt_sigreturn), ON_ALL},
	{SCMP_SYS(restart_syscall), ON_ALL},

	/* Hash seeds of jansson and sd-event's hash maps; usbredir ids. */
	{SCMP_SYS(getrandom), ON_ALL},

	/* The image. Its size never changes: no truncate, and fallocate by mode (allow_image). */
	{SCMP_SYS(pread64), ON_DISK | ON_VIRGL}, /* and what memory a renderer takes */
	{SCMP_SYS(pwrite64), ON_DISK | ON_GPU},
	{SCMP_SYS(preadv), ON_DISK},
	{SCMP_SYS(pwritev), ON_DISK},
	{SCMP_SYS(preadv2), ON_DISK},
	{SCMP_SYS(pwritev2), ON_DISK},
	{SCMP_SYS(fdatasync), ON_DISK},
	{SCMP_SYS(fsync), ON_DISK},
	/* libusb: a usbfs node's descriptors; LLVM: whether stderr is a file. */
	{SCMP_SYS(lseek), ON_DISK | ON_USB | ON_VIRGL},
	{SCMP_SYS(fstat), ON_ALL}, /* stdio asks it; newfstatat is allow_stat */
	/* Whether what a renderer sends is a DMABUF. */
	{SCMP_SYS(fstatfs), ON_FRONT},

	/* Images, which get their size by a write (fd_extend). Neither truncate nor fallocate: the
	 * VM's memory is a file as well, and the VMM, which has it mapped, dies where it ends.
	 * Seals: allow_fcntl. */
	{SCMP_SYS(memfd_create), ON_GPU},

	/* A GL driver: its threads are pinned and wait for a time; how much memory there is.
	 * Threads themselves: allow_threads. */
	{SCMP_SYS(sched_setaffinity), ON_VIRGL},
	{SCMP_SYS(getcpu), ON_VIRGL},
	{SCMP_SYS(clock_nanosleep), ON_VIRGL},
	{SCMP_SYS(sysinfo), ON_VIRGL},
	{SCMP_SYS(uname), ON_VIRGL},
	{SCMP_SYS(getuid), ON_VIRGL},
	{SCMP_SYS(geteuid), ON_VIRGL},
	{SCMP_SYS(getgid), ON_VIRGL},
	{SCMP_SYS(getegid), ON_VIRGL},
};

/* Paths lead nowhere in the empty root. Libraries try some by habit: answer as the root would. */
static const int path_calls[] = {
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(openat2),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(statx),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
};

#if SANDBOX_SANITIZERS
/* ASan and UBSan only; never in a release build. */
static const int sanitizer_calls[] = {
	SCMP_SYS(sigaltstack), /* threads come and go with a stack for the fault handler */
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(getrlimit), /* bounds of the stack for a report */
	SCMP_SYS(prlimit64),
	SCMP_SYS(prctl), /* names of threads and mappings; and see __lsan_is_turned_off */
	SCMP_SYS(pipe2), /* probing whether memory can be read */
	SCMP_SYS(pipe),
	SCMP_SYS(uname),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
};

/* LeakSanitizer stops its threads with clone and ptrace at exit: neither is to be had in here. The
 * runtime asks for this by name. A process that can't be traced is a sandboxed one. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0;
}
#endif

/* libseccomp's own macros leave a field out, which clang warns of. */
static struct scmp_arg_cmp when_masked(unsigned int arg, scmp_datum_t mask, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){
		.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

static struct scmp_arg_cmp when(unsigned int arg, enum scmp_compare op, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){.arg = arg, .op = op, .datum_a = value, .datum_b = 0};
}

static int add(scmp_filter_ctx ctx, uint32_t action, int number, unsigned int n,
	const struct scmp_arg_cmp *args)
{
	int r = seccomp_rule_add_array(ctx, action, number, n, args);

	/* Calls that this architecture does not have. */
	return r == -EDOM ? 0 : r;
}

static int allow_calls(scmp_filter_ctx ctx, enum sandbox_kind kind)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(calls); i++) {
		if (calls[i].kinds & 1U << kind) {
			r = add(ctx, SCMP_ACT_ALLOW, calls[i].number, 0, NULL);
		}
	}
#if SANDBOX_SANITIZERS
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sanitizer_calls); i++) {
		r = add(ctx, SCMP_ACT_ALLOW, sanitizer_calls[i], 0, NULL);
	}
#endif
	return r;
}

/* fstat is newfstatat with an empty path in glibc 2.33 to 2.38. */
static int answer_paths(scmp_filter_ctx ctx)
{
	const struct scmp_arg_cmp of_fd = when(3, SCMP_CMP_EQ, AT_EMPTY_PATH);
	const struct scmp_arg_cmp of_path = when(3, SCMP_CMP_NE, AT_EMPTY_PATH);
	int r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, &of_fd);

	if (r == 0) {
		r = add(ctx, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(newfstatat), 1, &of_path);
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(path_calls); i++) {
		r = add(ctx, SCMP_ACT_ERRNO(ENOENT), path_calls[i], 0, NULL);
	}
	return r;
}

/* Threads of this process, named or not; no process, no namespace. clone3 hides its flags behind a
 * pointer: glibc takes clone where there is none. */
static int allow_threads(scmp_filter_ctx ctx)
{
	const scmp_datum_t thread =
		CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
	const struct scmp_arg_cmp is_thread =
		when_masked(0, thread | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID, thread);
	const struct scmp_arg_cmp named = when(0, SCMP_CMP_EQ, PR_SET_NAME);
	const struct scmp_arg_cmp asked = when(2, SCMP_CMP_EQ, 0);
	int r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &is_thread);

	if (r == 0) {
		r = add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);
	}
	if (r == 0 && !SANDBOX_SANITIZERS) {
		r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, &named);
	}
	if (r == 0 && !SANDBOX_SANITIZERS) {
		r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, &asked);
	}
	return r;
}

/* All of it: what a driver compiles is executed. */
static int allow_code(scmp_filter_ctx ctx)
{
	int r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 0, NULL);

	return r < 0 ? r : add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 0, NULL);
}

/* Memory, but none that can be executed: injected bytes stay data. */
static int allow_memory(scmp_filter_ctx ctx)
{
	const struct scmp_arg_cmp no_exec = when_masked(2, PROT_EXEC, 0);
	int r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &no_exec);

	return r < 0 ? r : add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &no_exec);
}

/* Flags of fds; no duplicates but a GL driver's, no owners, leases, pipes' sizes or locks. Seals
 * where images are made and the journal's are asked for. */
static int allow_fcntl(scmp_filter_ctx ctx, enum sandbox_kind kind)
{
	static const struct {
		int command;
		uint32_t kinds;
	} commands[] = {
		{F_GETFD, ON_ALL},
		{F_SETFD, ON_ALL},
		{F_GETFL, ON_ALL},
		{F_SETFL, ON_ALL},
		{F_DUPFD_CLOEXEC, ON_VIRGL}, /* Mesa, of its render node */
		{F_ADD_SEALS, ON_RENDERER | ON_VIRGL},
		{F_GET_SEALS, ON_GPU},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(commands); i++) {
		const struct scmp_arg_cmp is =
			when(1, SCMP_CMP_EQ, (scmp_datum_t)commands[i].command);

		if (commands[i].kinds & 1U << kind) {
			r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, &is);
		}
	}
	return r;
}

/* TCGETS is the log's isatty, which changes nothing; FIONREAD says how much to read. The block
 * requests are UNMAP on a block device and its size; they work on the image only. USBDEVFS_IOCTL is
 * what takes a host driver off an interface and brings it back. What serves a device can neither do
 * that nor set a configuration. */
static int allow_ioctls(scmp_filter_ctx ctx, enum sandbox_kind kind)
{
	static const struct {
		unsigned long request;
		uint32_t kinds;
	} requests[] = {
		{TCGETS, ON_ALL},
		{FIONREAD, ON_ALL},
		{BLKDISCARD, ON_DISK},
		{BLKZEROOUT, ON_DISK},
		{BLKGETSIZE64, ON_DISK},
		{USBDEVFS_GETDRIVER, ON_CLAIM | ON_USB},
		{USBDEVFS_IOCTL, ON_CLAIM},
		{USBDEVFS_RESET, ON_CLAIM | ON_USB},
		{USBDEVFS_SETCONFIGURATION, ON_CLAIM},
		/* Transfers; CONTROL is libusb's GET_CONFIGURATION. */
		{USBDEVFS_SUBMITURB, ON_USB},
		{USBDEVFS_DISCARDURB, ON_USB},
		{USBDEVFS_REAPURBNDELAY, ON_USB},
		{USBDEVFS_CONTROL, ON_USB},
		/* What a driver asks of its device. */
		{USBDEVFS_CLAIMINTERFACE, ON_USB},
		{USBDEVFS_RELEASEINTERFACE, ON_USB},
		{USBDEVFS_DISCONNECT_CLAIM, ON_USB},
		{USBDEVFS_SETINTERFACE, ON_USB},
		{USBDEVFS_CLEAR_HALT, ON_USB},
		{USBDEVFS_ALLOC_STREAMS, ON_USB},
		{USBDEVFS_FREE_STREAMS, ON_USB},
		/* How libusb gets to know it. */
		{USBDEVFS_GET_CAPABILITIES, ON_USB},
		{USBDEVFS_GET_SPEED, ON_USB},
		{USBDEVFS_CONNECTINFO, ON_USB},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(requests); i++) {
		const struct scmp_arg_cmp is = when(1, SCMP_CMP_EQ, requests[i].request);

		if (requests[i].kinds & 1U << kind) {
			r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &is);
		}
	}
	return r;
}

/* Holes and zeroes inside the image, with its size kept. */
static int allow_image(scmp_filter_ctx ctx)
{
	const struct scmp_arg_cmp keeps_size = when_masked(1,
		UINT32_MAX & ~(scmp_datum_t)(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE),
		FALLOC_FL_KEEP_SIZE);

	return add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fallocate), 1, &keeps_size);
}

/* What a driver asks of its render node, by type and number: sizes differ between versions. Numbers
 * 0x40 to 0x9f are each driver's own. Masters, authentication, names of buffers for other processes
 * (GEM_FLINK, GEM_OPEN) and mode setting (0xa0 and above, but for syncobjs) aren't here; the kernel
 * refuses them on a render node, too. Without a node there is no fd that any of these works on. */
static int allow_drm(scmp_filter_ctx ctx)
{
	static const struct {
		uint16_t mask, value;
	} requests[] = {
		{0xffff, 0x6400}, /* VERSION */
		{0xffff, 0x6409}, /* GEM_CLOSE */
		{0xffff, 0x640c}, /* GET_CAP */
		{0xffff, 0x642d}, /* PRIME_HANDLE_TO_FD */
		{0xffff, 0x642e}, /* PRIME_FD_TO_HANDLE */
		{0xffc0, 0x6440}, /* the driver's: 0x40 to 0x7f */
		{0xffe0, 0x6480}, /* 0x80 to 0x9f */
		{0xffff, 0x64bf}, /* SYNCOBJ_CREATE, and to 0xc5: DESTROY to SIGNAL */
		{0xfffc, 0x64c0},
		{0xfffe, 0x64c4},
		{0xffff, 0x64ca}, /* SYNCOBJ_TIMELINE_WAIT, QUERY, TRANSFER, TIMELINE_SIGNAL */
		{0xffff, 0x64cb},
		{0xfffe, 0x64cc},
		{0xffff, 0x6200}, /* DMA_BUF_SYNC; EXPORT and IMPORT_SYNC_FILE */
		{0xfffe, 0x6202},
		{0xffff, 0x3e03}, /* SYNC_IOC_MERGE, FILE_INFO */
		{0xffff, 0x3e04},
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(requests); i++) {
		const struct scmp_arg_cmp is = when_masked(1, requests[i].mask, requests[i].value);

		r = add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &is);
	}
	return r;
}

/* abort(3) signals its own thread. */
static int allow_abort(scmp_filter_ctx ctx)
{
	const struct scmp_arg_cmp self = when(0, SCMP_CMP_EQ, (scmp_datum_t)getpid());

	return add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
}

static int set_attributes(scmp_filter_ctx ctx)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	if (r == 0) {
		/* The I/O thread exists already. */
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	}
	if (r == 0) {
		/* The caller decided about no_new_privs. */
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
	}
	if (r == 0) {
		/* A tree instead of a list of comparisons, for what the bitmap does not answer. */
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	}
	return r;
}

static int fill(scmp_filter_ctx ctx, enum sandbox_kind kind)
{
	int r = set_attributes(ctx);

	if (r == 0) {
		r = allow_calls(ctx, kind);
	}
	if (r == 0) {
		r = answer_paths(ctx);
	}
	if (r == 0) {
		r = kind == SANDBOX_GPU_VIRGL ? allow_code(ctx) : allow_memory(ctx);
	}
	if (r == 0 && kind == SANDBOX_GPU_VIRGL) {
		r = allow_threads(ctx);
	}
	if (r == 0) {
		r = allow_fcntl(ctx, kind);
	}
	if (r == 0) {
		r = allow_ioctls(ctx, kind);
	}
	if (r == 0 && kind == SANDBOX_GPU_VIRGL) {
		r = allow_drm(ctx);
	}
	if (r == 0 && kind == SANDBOX_DISK) {
		r = allow_image(ctx);
	}
	return r == 0 ? allow_abort(ctx) : r;
}

int sandbox_seccomp_load(enum sandbox_kind kind)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx) {
		return -ENOMEM;
	}
	r = fill(ctx, kind);
	if (r == 0) {
		r = seccomp_load(ctx);
	}
	seccomp_release(ctx);
	return r;
}
