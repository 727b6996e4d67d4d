/* SPDX-License-Identifier: MIT
 *
 * Does the sandbox hold? For each kind of worker, and for each act that a worker which was taken
 * over would try, a process is made exactly as a worker is (spawn_process, sandbox_enter, a thread
 * where the kind has one, sandbox_lock), and tries it. The act must fail, by an errno or by SIGSYS.
 *
 * So that this can fail, the same act runs outside the sandbox as well, where it must succeed; and
 * so that seccomp hides no hole in the stages before it, once more with seccomp left out, where it
 * must fail if the others are meant to stop it.
 *
 * Prints a line per act; its last line is "N acts, N failed".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox-internal.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "tests/integration/sandbox-acts.h"

#define WORKER_ID 61003

static const char *const kind_names[] = {
	[SANDBOX_DISK] = "disk",
	[SANDBOX_NBD] = "nbd",
	[SANDBOX_QMP] = "qmp",
	[SANDBOX_CLAIM] = "claim",
	[SANDBOX_USB] = "usb",
	[SANDBOX_GPU_RENDERER] = "gpu-renderer",
	[SANDBOX_GPU_FRONT] = "gpu-front",
	[SANDBOX_GPU_VIRGL] = "gpu-virgl",
};
_Static_assert(ARRAY_SIZE(kind_names) == SANDBOX_KIND_COUNT_, "one per kind");

/* What the child says on ACT_FD_RESULT. */
struct report {
	int32_t closed; /* 1: the sandbox is closed and this is the act's result; 0: it is not */
	int32_t error;
};

enum outcome_type { OUTCOME_REPORTED, OUTCOME_EXITED, OUTCOME_SIGNALLED, OUTCOME_BROKEN };

struct outcome {
	enum outcome_type type;
	int value; /* errno, exit status or signal */
};

struct probe {
	struct act_env env;
	char dir[64];
	int program_fd; /* ourselves */
	int fds[ACT_FD_COUNT];
	unsigned int n_run;
	unsigned int n_failed;
};

/* ---- The child ---- */

static void *io_thread(void *arg)
{
	uint64_t n;

	/* As an I/O thread that waits for work. */
	_unused_ ssize_t r = read(*(int *)arg, &n, sizeof(n));
	return NULL;
}

static _Noreturn void child_say(bool closed, int error)
{
	const struct report report = {.closed = closed, .error = error};

	_unused_ ssize_t n = write(ACT_FD_RESULT, &report, sizeof(report));
	_exit(0);
}

static void child_close(enum sandbox_kind kind, uint32_t stages)
{
	static const int keep[] = {ACT_FD_RESULT, ACT_FD_IMAGE, ACT_FD_PROGRAM, ACT_FD_NETNS};
	static int work;
	sd_event *event = NULL;
	sd_id128_t boot;
	pthread_t thread;
	int r;

	_unused_ int ignored = sd_id128_get_boot(&boot);
	r = sandbox_enter("probe", kind, stages, keep, ARRAY_SIZE(keep));
	if (r < 0) {
		child_say(false, -r);
	}
	r = sd_event_default(&event);
	work = eventfd(0, EFD_CLOEXEC);
	if (r >= 0 && (kind == SANDBOX_DISK || kind == SANDBOX_USB) && stages != 0) {
		r = -pthread_create(&thread, NULL, io_thread, &work);
	}
	if (r >= 0) {
		r = sandbox_lock(kind, stages);
	}
	if (r < 0) {
		log_error("probe: can't get ready: %s", strerror(-r));
		child_say(false, -r);
	}
}

/* argv: program, "child", kind, act, stages, driver's pid, port, directory. */
static _Noreturn void child_main(char **argv)
{
	const struct act_env env = {
		.driver = atoi(argv[5]), .port = (uint16_t)atoi(argv[6]), .dir = argv[7]};
	size_t act = (size_t)atoi(argv[3]);

	child_close((enum sandbox_kind)atoi(argv[2]), (uint32_t)atoi(argv[4]));
	if (act == act_count()) {
		/* Stays, to be tried from outside. */
		const struct report report = {.closed = 1};

		_unused_ ssize_t n = write(ACT_FD_RESULT, &report, sizeof(report));
		for (;;) {
			poll(NULL, 0, -1);
		}
	}
	child_say(true, act_at(act)->run(&env));
}

/* ---- The driver ---- */

static int start_child(const struct probe *p, enum sandbox_kind kind, size_t act, uint32_t stages,
	int result_fd, pid_t *pid_out, int *pidfd_out)
{
	char text[4][16];
	const char *const argv[] = {
		"probe", "child", text[0], text[1], text[2], text[3], "0", p->dir, NULL};
	const char *args[ARRAY_SIZE(argv)];
	char port[16];
	int fds[ACT_FD_COUNT];
	/* Acts outside the sandbox run as the driver; who is traced there, as a worker. */
	const bool worker_id =
		geteuid() == 0 && (stages & SANDBOX_NAMESPACES || act == act_count());
	const struct spawn_spec spec = {
		.program_fd = p->program_fd,
		.argv = args,
		.fds = fds,
		.n_fds = ACT_FD_COUNT,
		.stderr_fd = STDERR_FILENO,
		.host_id = worker_id ? WORKER_ID : 0,
		.namespaces = stages & SANDBOX_NAMESPACES,
	};

	memcpy(args, argv, sizeof(argv));
	snprintf(port, sizeof(port), "%u", p->env.port);
	args[6] = port;
	snprintf(text[0], sizeof(text[0]), "%d", kind);
	snprintf(text[1], sizeof(text[1]), "%zu", act);
	snprintf(text[2], sizeof(text[2]), "%u", stages);
	snprintf(text[3], sizeof(text[3]), "%d", (int)p->env.driver);
	memcpy(fds, p->fds, sizeof(fds));
	fds[0] = result_fd;
	for (size_t i = ACT_FD_NETNS - 3 + 1; i < ACT_FD_COUNT; i++) {
		fds[i] = STDIN_FILENO;
	}
	return spawn_process(&spec, pid_out, pidfd_out);
}

static struct outcome wait_child(int pidfd, int result_fd, const struct report *report, ssize_t n)
{
	siginfo_t info = {0};

	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0) {
		return (struct outcome){OUTCOME_BROKEN, errno};
	}
	if (n == sizeof(*report)) {
		return (struct outcome){
			report->closed ? OUTCOME_REPORTED : OUTCOME_BROKEN, report->error};
	}
	if (info.si_code == CLD_EXITED) {
		return (struct outcome){
			info.si_status == SPAWN_EXIT_FAILED ? OUTCOME_BROKEN : OUTCOME_EXITED,
			info.si_status};
	}
	return (struct outcome){OUTCOME_SIGNALLED, info.si_status};
}

static struct outcome try_act(
	const struct probe *p, enum sandbox_kind kind, size_t act, uint32_t stages)
{
	_cleanup_close_ int result = -1, pidfd = -1;
	struct report report;
	struct pollfd pfd;
	int pipefd[2], r;
	ssize_t n = 0;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0) {
		return (struct outcome){OUTCOME_BROKEN, errno};
	}
	result = pipefd[0];
	r = start_child(p, kind, act, stages, pipefd[1], &pid, &pidfd);
	close(pipefd[1]);
	if (r < 0) {
		return (struct outcome){OUTCOME_BROKEN, -r};
	}
	pfd = (struct pollfd){.fd = result, .events = POLLIN};
	if (poll(&pfd, 1, 20000) == 1) {
		n = read(result, &report, sizeof(report));
	} else {
		kill(pid, SIGKILL);
	}
	return wait_child(pidfd, result, &report, n);
}

static const char *describe(struct outcome o, char *text, size_t size)
{
	switch (o.type) {
	case OUTCOME_REPORTED:
		snprintf(text, size, "%s", o.value ? strerrorname_np(o.value) : "done");
		break;
	case OUTCOME_EXITED:
		snprintf(text, size, "%s", o.value ? "exited" : "done");
		break;
	case OUTCOME_SIGNALLED:
		snprintf(text, size, "SIG%s", sigabbrev_np(o.value));
		break;
	case OUTCOME_BROKEN:
		snprintf(text, size, "not tried: %s", strerror(o.value));
		break;
	}
	return text;
}

static bool was_done(struct outcome o)
{
	return (o.type == OUTCOME_REPORTED || o.type == OUTCOME_EXITED) && o.value == 0;
}

static bool was_refused(struct outcome o)
{
	return (o.type == OUTCOME_REPORTED && o.value > 0) ||
	       (o.type == OUTCOME_SIGNALLED && o.value == SIGSYS);
}

static bool held(const struct act *act, struct outcome o)
{
	if (act->flags & ACT_MUST_WORK) {
		return was_done(o);
	}
	if (act->flags & ACT_ABORTS) {
		return o.type == OUTCOME_SIGNALLED && o.value != SIGSYS;
	}
	return was_refused(o);
}

static bool wants_control(const struct act *act)
{
	return act->flags & ACT_CONTROL || (act->flags & ACT_CONTROL_ROOT && geteuid() == 0);
}

static void probe_act(struct probe *p, enum sandbox_kind kind, size_t i)
{
	const struct act *act = act_at(i);
	struct outcome full, reduced, control;
	char text[4][64];
	bool good;

	if ((act->flags & ACT_NOT_SANITIZED && SANDBOX_SANITIZERS) ||
		(act->flags & ACT_DISK_ONLY && kind != SANDBOX_DISK) ||
		(act->flags & ACT_USB_ONLY && kind != SANDBOX_USB) ||
		(act->flags & ACT_RENDERER_ONLY && kind != SANDBOX_GPU_RENDERER &&
			kind != SANDBOX_GPU_VIRGL) ||
		(act->flags & ACT_NOT_VIRGL && kind == SANDBOX_GPU_VIRGL) ||
		(act->flags & ACT_NOT_GPU && kind >= SANDBOX_GPU_RENDERER)) {
		return;
	}
	full = try_act(p, kind, i, SANDBOX_ALL);
	good = held(act, full);
	printf("%s: %s: %s", kind_names[kind], act->name, describe(full, text[0], sizeof(text[0])));
	if (act->flags & ACT_HELD && !(act->flags & ACT_VIRGL_LOCK && kind == SANDBOX_GPU_VIRGL)) {
		reduced = try_act(p, kind, i, SANDBOX_ALL & ~SANDBOX_SECCOMP);
		good = good && was_refused(reduced);
		printf("; without seccomp: %s", describe(reduced, text[1], sizeof(text[1])));
	}
	if (act->flags & ACT_HELD_BY_ROOT) {
		reduced = try_act(p, kind, i, SANDBOX_ALL & ~(SANDBOX_SECCOMP | SANDBOX_LANDLOCK));
		good = good && was_refused(reduced);
		printf("; and landlock: %s", describe(reduced, text[3], sizeof(text[3])));
	}
	if (wants_control(act)) {
		control = try_act(p, kind, i, 0);
		good = good && (was_done(control) || (act->flags & ACT_OPTIONAL &&
							     control.type != OUTCOME_BROKEN));
		printf("; outside: %s", describe(control, text[2], sizeof(text[2])));
	}
	printf("%s\n", good ? "" : "  <-- FAILED");
	p->n_run++;
	p->n_failed += !good;
}

/* Whether a process of the same uid can trace pid: 0 or an errno. */
static int trace_as(uid_t uid, pid_t pid)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		if (syscall(SYS_setresgid, uid, uid, uid) < 0 ||
			syscall(SYS_setresuid, uid, uid, uid) < 0) {
			_exit(255);
		}
		_exit(ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 ? errno : 0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
		return 255;
	}
	return WEXITSTATUS(status);
}

/* From outside, not even a process of its own uid may read a worker. Only as root: an unprivileged
 * broker's workers have its own uid, and it made their user namespaces, so it holds every
 * capability over them. */
static void probe_trace(struct probe *p, enum sandbox_kind kind, uint32_t stages, bool expect)
{
	_cleanup_close_ int pidfd = -1;
	struct report report;
	siginfo_t info;
	int pipefd[2], r = -1;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0 ||
		start_child(p, kind, act_count(), stages, pipefd[1], &pid, &pidfd) < 0) {
		p->n_failed++;
		return;
	}
	close(pipefd[1]);
	if (read(pipefd[0], &report, sizeof(report)) == sizeof(report) && report.closed) {
		r = trace_as(WORKER_ID, pid);
	}
	close(pipefd[0]);
	kill(pid, SIGKILL);
	waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
	printf("%s: traced by its own uid from outside (%s): %s%s\n", kind_names[kind],
		stages ? "sandbox" : "control", r == 0 ? "done" : strerrorname_np(r),
		(r == 0) == expect ? "" : "  <-- FAILED");
	p->n_run++;
	p->n_failed += (r == 0) != expect;
}

static int listen_tcp(uint16_t *port_out)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 128) < 0 ||
		getsockname(fd, (struct sockaddr *)&at, &size) < 0) {
		return -errno;
	}
	*port_out = ntohs(at.sin_port);
	return fd;
}

static int listen_abstract(pid_t driver)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int n = snprintf(
		at.sun_path + 1, sizeof(at.sun_path) - 1, "devbroker-probe-%d", (int)driver);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
		bind(fd, (struct sockaddr *)&at,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0 ||
		listen(fd, 128) < 0) {
		return -errno;
	}
	return fd;
}

static int prepare(struct probe *p)
{
	char path[96];

	p->env.driver = getpid();
	snprintf(p->dir, sizeof(p->dir), "/tmp/devbroker-probe-XXXXXX");
	if (!mkdtemp(p->dir)) {
		return -errno;
	}
	snprintf(path, sizeof(path), "%s/image", p->dir);
	p->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	p->fds[1] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	p->fds[2] = open("/bin/true", O_RDONLY | O_CLOEXEC);
	p->fds[3] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (p->program_fd < 0 || p->fds[1] < 0 || p->fds[2] < 0 || p->fds[3] < 0 ||
		ftruncate(p->fds[1], 1 << 20) < 0) {
		return -errno;
	}
	/* Both live as long as the process. */
	return listen_tcp(&p->env.port) < 0 || listen_abstract(p->env.driver) < 0 ? -EIO : 0;
}

static void clean_up(struct probe *p)
{
	static const char *const names[] = {"image", "probe"};
	char path[96];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->dir, names[i]);
		unlink(path);
	}
	rmdir(p->dir);
}

int main(int argc, char **argv)
{
	struct probe p = {0};
	int r;

	if (argc == 8 && strcmp(argv[1], "child") == 0) {
		child_main(argv);
	}
	r = prepare(&p);
	if (r < 0) {
		fprintf(stderr, "probe: can't prepare: %s\n", strerror(-r));
		return 1;
	}
	for (int kind = 0; kind < SANDBOX_KIND_COUNT_; kind++) {
		for (size_t i = 0; i < act_count(); i++) {
			probe_act(&p, (enum sandbox_kind)kind, i);
		}
		if (geteuid() == 0) {
			probe_trace(&p, (enum sandbox_kind)kind, SANDBOX_ALL, false);
			probe_trace(&p, (enum sandbox_kind)kind, 0, true);
		}
	}
	clean_up(&p);
	printf("%u acts, %u failed\n", p.n_run, p.n_failed);
	return p.n_failed > 0;
}
