/* SPDX-License-Identifier: MIT
 *
 * A namespace is only as good as the moment it starts: unshare(2) leaves its caller in the old pid
 * namespace, and a fork that later unshares has run with the host's view for a while. So the child
 * is born inside all seven namespaces by one clone3. It waits for its parent to map its ids
 * (a process in a new user namespace has none and can't give itself another host id), takes them,
 * puts its fds in place and execs.
 *
 * Between clone3 and execveat the child is a copy of its parent's memory: it calls only what is
 * async-signal-safe, allocates nothing, and uses no more than the prepared struct child.
 */
#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

#define SPAWN_NAMESPACES                                                                           \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
		CLONE_NEWCGROUP)

/* Above every number that the program's fds may get, so that moving them overwrites none. */
#define SPAWN_FD_STAGING 32

struct child {
	const struct spawn_spec *spec;
	int null_fd; /* borrowed */
	int go_fd;   /* borrowed; one byte comes when the ids are mapped */
	bool own_ids;
};

static _Noreturn void child_fail(const char *step, int error)
{
	char line[128];
	size_t at = 0, n = strlen(step);
	char digits[8];
	size_t n_digits = 0;

	/* snprintf is not async-signal-safe. */
	memcpy(line, "<3>spawn: ", 10);
	at = 10;
	memcpy(line + at, step, n);
	at += n;
	memcpy(line + at, ": errno ", 8);
	at += 8;
	do {
		digits[n_digits++] = (char)('0' + error % 10);
		error /= 10;
	} while (error > 0 && n_digits < sizeof(digits));
	while (n_digits > 0) {
		line[at++] = digits[--n_digits];
	}
	line[at++] = '\n';
	_unused_ ssize_t w = write(STDERR_FILENO, line, at);
	_exit(SPAWN_EXIT_FAILED);
}

static int child_stage_fd(int fd)
{
	int staged = fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_FD_STAGING);

	if (staged < 0) {
		child_fail("stage fd", errno);
	}
	return staged;
}

static void child_place_fd(int staged, int number)
{
	if (dup2(staged, number) < 0) {
		child_fail("place fd", errno);
	}
}

/* Returns the number of the program's fd; everything but it, 0, 1, 2 and the n_fds is closed. */
static int child_place_fds(const struct child *c)
{
	const struct spawn_spec *spec = c->spec;
	int staged[SPAWN_FDS_MAX];
	int program = child_stage_fd(spec->program_fd);
	int null = child_stage_fd(c->null_fd);
	int err = spec->stderr_fd >= 0 ? child_stage_fd(spec->stderr_fd) : null;
	int r;

	for (size_t i = 0; i < spec->n_fds; i++) {
		staged[i] = child_stage_fd(spec->fds[i]);
	}
	child_place_fd(null, STDIN_FILENO);
	child_place_fd(null, STDOUT_FILENO);
	child_place_fd(err, STDERR_FILENO);
	for (size_t i = 0; i < spec->n_fds; i++) {
		child_place_fd(staged[i], 3 + (int)i);
	}
	r = close_all_except(3 + (int)spec->n_fds, &program, 1);
	if (r < 0) {
		child_fail("close fds", -r);
	}
	return program;
}

static void child_take_ids(const struct child *c)
{
	const struct spawn_spec *spec = c->spec;
	uid_t uid = spec->namespaces ? 0 : spec->host_id;

	if (!spec->namespaces && c->own_ids) {
		return;
	}
	/* Without CAP_SETGID outside, setgroups had to be denied for the mapping to be allowed; the
	 * caller's supplementary groups stay then, as for every other program of this user. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 && !c->own_ids) {
		child_fail("setgroups", errno);
	}
	/* The raw calls: glibc's wrappers want to signal every thread, and there is only this. */
	if (syscall(SYS_setresgid, uid, uid, uid) < 0) {
		child_fail("setresgid", errno);
	}
	if (syscall(SYS_setresuid, uid, uid, uid) < 0) {
		child_fail("setresuid", errno);
	}
}

static void child_reset_signals(void)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++) {
		/* Fails for SIGKILL, SIGSTOP and glibc's own two. */
		sigaction(sig, &sa, NULL);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_die_with_caller(const struct child *c)
{
	if (c->spec->die_with_caller && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
		child_fail("pdeathsig", errno);
	}
}

static _Noreturn void child_run(const struct child *c)
{
	static char *const no_environment[] = {NULL};
	char go;
	ssize_t n;
	int program;

	/* Before the byte is waited for: a caller that is gone already shows as its end. */
	child_die_with_caller(c);
	do {
		n = read(c->go_fd, &go, 1);
	} while (n < 0 && errno == EINTR);
	if (n != 1) {
		_exit(SPAWN_EXIT_FAILED);
	}
	child_take_ids(c);
	child_die_with_caller(c);
	program = child_place_fds(c);
	setsid();
	if (chdir("/") < 0) {
		child_fail("chdir", errno);
	}
	child_reset_signals();
	execveat(program, "", (char *const *)(uintptr_t)c->spec->argv, no_environment,
		AT_EMPTY_PATH);
	child_fail("exec", errno);
}

static int write_proc(pid_t pid, const char *name, const char *text)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	size_t len = strlen(text);
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	n = write(fd, text, len);
	if (n < 0) {
		return -errno;
	}
	return (size_t)n == len ? 0 : -EIO;
}

static int map_ids(pid_t pid, uid_t uid, gid_t gid, bool own_ids)
{
	char text[32];
	int r;

	snprintf(text, sizeof(text), "0 %u 1\n", (unsigned int)uid);
	r = write_proc(pid, "uid_map", text);
	if (r < 0) {
		return r;
	}
	snprintf(text, sizeof(text), "0 %u 1\n", (unsigned int)gid);
	r = write_proc(pid, "gid_map", text);
	if (r == -EPERM && own_ids) {
		/* user_namespaces(7): without CAP_SETGID only after giving setgroups up. */
		r = write_proc(pid, "setgroups", "deny");
		if (r == 0) {
			r = write_proc(pid, "gid_map", text);
		}
	}
	return r;
}

/* Returns as clone3: 0 in the child. All signals are blocked in both. */
static pid_t clone_child(const struct spawn_spec *spec, int *pidfd_out)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid;

	if (spec->namespaces) {
		args.flags |= SPAWN_NAMESPACES;
	}
	if (spec->sibling) {
		/* Siblings inherit the caller's exit signal; clone3 refuses another. */
		args.flags |= CLONE_PARENT;
		args.exit_signal = 0;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0) {
		return -errno;
	}
	if (pid > 0) {
		*pidfd_out = pidfd;
	}
	return (pid_t)pid;
}

static int wait_pidfd(int pidfd, siginfo_t *info)
{
	while (waitid(P_PIDFD, (id_t)pidfd, info, WEXITED) < 0) {
		if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static int release_child(const struct child *c, pid_t pid, int go_fd)
{
	const struct spawn_spec *spec = c->spec;
	int r = 0;

	if (spec->namespaces) {
		r = map_ids(pid, c->own_ids ? geteuid() : spec->host_id,
			c->own_ids ? getegid() : spec->host_id, c->own_ids);
	}
	if (r == 0 && write(go_fd, "", 1) != 1) {
		r = -errno;
	}
	return r;
}

int spawn_process(const struct spawn_spec *spec, pid_t *pid_out, int *pidfd_out)
{
	_cleanup_close_ int go_read = -1, go_write = -1, null_fd = -1, pidfd = -1;
	struct child c = {
		.spec = spec, .own_ids = spec->host_id == 0 || spec->host_id == geteuid()};
	sigset_t all, before;
	int pipefd[2], r;
	pid_t pid;

	if (spec->n_fds > SPAWN_FDS_MAX || (spec->die_with_caller && !c.own_ids)) {
		return -EINVAL;
	}
	if (pipe2(pipefd, O_CLOEXEC) < 0) {
		return -errno;
	}
	go_read = pipefd[0];
	go_write = pipefd[1];
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (null_fd < 0) {
		return -errno;
	}
	c.null_fd = null_fd;
	c.go_fd = go_read;

	/* None of the caller's handlers may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = clone_child(spec, &pidfd);
	if (pid == 0) {
		/* Otherwise the child's own copy would keep it waiting for a dead parent. */
		close(go_write);
		child_run(&c);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0) {
		return pid;
	}
	r = release_child(&c, pid, go_write);
	if (r < 0) {
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		if (spec->sibling) {
			*pidfd_out = steal_fd(&pidfd);
		} else {
			siginfo_t info;

			_unused_ int w = wait_pidfd(pidfd, &info);
		}
		return r;
	}
	*pid_out = pid;
	*pidfd_out = steal_fd(&pidfd);
	return 0;
}

/* Passes signals on until the child has ended. */
static int attend(int pidfd, int signals, siginfo_t *info)
{
	struct pollfd fds[] = {
		{.fd = pidfd, .events = POLLIN},
		{.fd = signals, .events = POLLIN},
	};

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR) {
			return -errno;
		}
		if (fds[1].revents) {
			struct signalfd_siginfo s;

			if (read(signals, &s, sizeof(s)) == sizeof(s)) {
				syscall(SYS_pidfd_send_signal, pidfd, (int)s.ssi_signo, NULL, 0);
			}
		}
		if (fds[0].revents) {
			return wait_pidfd(pidfd, info);
		}
	}
}

int spawn_self(const char *const *argv, const int *fds, size_t n_fds, int *status_out)
{
	_cleanup_close_ int program = -1, signals = -1, pidfd = -1;
	struct spawn_spec spec = {
		.argv = argv,
		.fds = fds,
		.n_fds = n_fds,
		.stderr_fd = STDERR_FILENO,
		.namespaces = true,
		.die_with_caller = true,
	};
	sigset_t forwarded, before;
	siginfo_t info = {0};
	pid_t pid;
	int r;

	program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (program < 0) {
		return -errno;
	}
	spec.program_fd = program;
	sigemptyset(&forwarded);
	sigaddset(&forwarded, SIGTERM);
	sigaddset(&forwarded, SIGINT);
	sigaddset(&forwarded, SIGHUP);
	signals = signalfd(-1, &forwarded, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0) {
		return -errno;
	}
	sigprocmask(SIG_BLOCK, &forwarded, &before);
	r = spawn_process(&spec, &pid, &pidfd);
	if (r == 0) {
		r = attend(pidfd, signals, &info);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		return r;
	}
	*status_out = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return 0;
}
