/* SPDX-License-Identifier: MIT
 *
 * The spawner's side: a loop that reads a request, makes the worker, and answers with its pidfd.
 * It was forked before the broker read anything, so a worker's memory before its exec, and what it
 * could inherit, is that of a program that has only parsed its command line.
 *
 * Requests are checked although the broker is trusted: the spawner may map any worker id, so it
 * should be no easier to fool than it needs to be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/spawner-wire.h"

static const char *const program_names[] = {
	[SPAWNER_USB] = "devbroker-usb",
	[SPAWNER_QMP] = "devbroker-qmp",
	[SPAWNER_CLAIM] = "devbroker-claim",
	[SPAWNER_GPU] = "devbroker-gpu",
	[SPAWNER_USB_NBD] = "devbroker-usb-nbd",
};
static_assert(ARRAY_SIZE(program_names) == SPAWNER_PROGRAM_COUNT_, "one per program");

const char *spawner_program_name(uint32_t program)
{
	return program < ARRAY_SIZE(program_names) ? program_names[program] : NULL;
}

int spawner_request_check(const struct spawner_request *request, size_t size, size_t n_fds,
	uint32_t uid_count, const char *argv[SPAWNER_ARGV_MAX])
{
	size_t at = 0, n = 0;

	if (size != sizeof(*request) || request->program >= SPAWNER_PROGRAM_COUNT_ ||
		request->n_args > SPAWNER_ARGV_MAX - 2 || request->args_size > SPAWNER_ARGS_SIZE ||
		request->n_fds > SPAWN_FDS_MAX || request->n_fds != n_fds || request->pad != 0) {
		return -EBADMSG;
	}
	if (uid_count > 0 && request->uid_slot >= uid_count) {
		return -EBADMSG;
	}
	argv[n++] = program_names[request->program];
	while (n <= request->n_args) {
		const char *arg = request->args + at;
		const char *end = memchr(arg, '\0', request->args_size - at);

		if (!end) {
			return -EBADMSG;
		}
		argv[n++] = arg;
		at += (size_t)(end - arg) + 1;
	}
	argv[n] = NULL;
	return at == request->args_size ? 0 : -EBADMSG;
}

static bool user_namespaces_are_privileged(void)
{
	/* Debian's and Ubuntu's knob; where it is absent, anybody may make user namespaces. */
	_cleanup_close_ int fd =
		open("/proc/sys/kernel/unprivileged_userns_clone", O_RDONLY | O_CLOEXEC);
	char c;

	return fd >= 0 && read(fd, &c, 1) == 1 && c == '0';
}

/* Keeps what mapping ids and (without namespaces) changing them takes; a user namespace's creator
 * has every other capability over it. */
static void drop_capabilities(const struct spawner_process *p)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct now[2] = {0}, data[2] = {0};
	uint64_t keep = UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID;

	if (p->settings.uid_count == 0) {
		/* A root broker that lends its own uid 0: the kernel asks for this one. */
		keep |= UINT64_C(1) << CAP_SETFCAP;
	}
	if (p->settings.namespaces && user_namespaces_are_privileged()) {
		keep |= UINT64_C(1) << CAP_SYS_ADMIN;
	}
	if (syscall(SYS_capget, &header, now) < 0) {
		return;
	}
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
		if (cap >= 64 || !(keep >> cap & 1)) {
			/* Fails without CAP_SETPCAP, and then there is nothing to lose. */
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
		data[i].effective = data[i].permitted =
			now[i].permitted & (uint32_t)(keep >> (32 * i));
	}
	syscall(SYS_capset, &header, data);
}

static void prepare(const struct spawner_process *p)
{
	int keep[SPAWNER_PROGRAM_COUNT_ + 1] = {p->sock};
	size_t n = 1;
	sigset_t none;
	int r;

	for (size_t i = 0; i < SPAWNER_PROGRAM_COUNT_; i++) {
		if (p->programs[i] >= 0) {
			keep[n++] = p->programs[i];
		}
	}
	r = close_all_except(3, keep, n);
	if (r < 0) {
		log_error("spawner: can't close fds: %s", strerror(-r));
		_exit(1);
	}
	prctl(PR_SET_NAME, "spawner", 0, 0, 0);
	/* Ctrl-C reaches the whole process group, and the broker still needs workers to say goodbye
	 * to VMs. It ends when the broker's end of the socket closes. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int make_worker(const struct spawner_process *p, const struct spawner_request *request,
	const char *const *argv, const int *fds, pid_t *pid_out, int *pidfd_out)
{
	const struct spawn_spec spec = {
		.program_fd = p->programs[request->program],
		.argv = argv,
		.fds = fds,
		.n_fds = request->n_fds,
		.stderr_fd = STDERR_FILENO,
		.host_id = p->settings.uid_count > 0 ? p->settings.uid_base + request->uid_slot : 0,
		.namespaces = p->settings.namespaces,
		.sibling = true,
	};

	return spawn_process(&spec, pid_out, pidfd_out);
}

/* Returns what sending the answer returned. */
static int serve(const struct spawner_process *p, const struct spawner_request *request,
	size_t size, const int *fds, size_t n_fds)
{
	const char *argv[SPAWNER_ARGV_MAX];
	struct spawner_answer answer = {.id = request->id};
	_cleanup_close_ int pidfd = -1;
	pid_t pid = 0;
	int r;

	r = spawner_request_check(request, size, n_fds, p->settings.uid_count, argv);
	if (r == 0) {
		r = make_worker(p, request, argv, fds, &pid, &pidfd);
	}
	answer.result = r;
	answer.pid = pid;
	r = fd_send(p->sock, &answer, sizeof(answer), &pidfd, pidfd >= 0 ? 1 : 0);
	if (r < 0 && pidfd >= 0) {
		/* The broker is gone: nobody would know this worker. */
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	}
	return r;
}

/* The first message: what the broker has read in its configuration since the fork. */
static void receive_settings(struct spawner_process *p)
{
	size_t n_fds = 0;
	ssize_t n = fd_recv(p->sock, &p->settings, sizeof(p->settings), NULL, 0, &n_fds);

	if (n != sizeof(p->settings)) {
		/* A broker whose configuration is broken ends without a word. */
		_exit(n == 0 || n == -ECONNRESET ? 0 : 1);
	}
}

_Noreturn void spawner_process_run(struct spawner_process *p)
{
	struct spawner_request request;

	prepare(p);
	receive_settings(p);
	drop_capabilities(p);
	for (;;) {
		int fds[SPAWN_FDS_MAX];
		size_t n_fds = 0;
		ssize_t n =
			fd_recv(p->sock, &request, sizeof(request), fds, ARRAY_SIZE(fds), &n_fds);
		int r;

		if (n <= 0) {
			_exit(n == 0 || n == -ECONNRESET ? 0 : 1);
		}
		r = (size_t)n == sizeof(request) ? serve(p, &request, (size_t)n, fds, n_fds)
						 : -EBADMSG;
		for (size_t i = 0; i < n_fds; i++) {
			safe_close(fds[i]);
		}
		if (r < 0) {
			_exit(r == -EBADMSG);
		}
	}
}
