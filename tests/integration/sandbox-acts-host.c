/* SPDX-License-Identifier: MIT
 * Acts that reach for the host: its files, its processes, its network.
 */
#include "tests/integration/sandbox-acts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int failed(long r)
{
	return r < 0 ? errno : 0;
}

/* Paths. */

static int act_open_path(const struct act_env *env)
{
	return failed(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int act_open_root(const struct act_env *env)
{
	return failed(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int act_stat_path(const struct act_env *env)
{
	struct stat st;

	return failed(stat("/etc/passwd", &st));
}

static int act_read_proc_1(const struct act_env *env)
{
	return failed(open("/proc/1/status", O_RDONLY | O_CLOEXEC));
}

static int act_read_proc_self(const struct act_env *env)
{
	return failed(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
}

static int act_create_file(const struct act_env *env)
{
	int r = failed(open("/devbroker-probe", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));

	if (r == 0) {
		unlink("/devbroker-probe");
	}
	return r;
}

static int act_create_file_in_dir(const struct act_env *env)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/probe", env->dir);
	return failed(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int act_mkdir(const struct act_env *env)
{
	int r = failed(mkdir("/devbroker-probe-dir", 0700));

	if (r == 0) {
		rmdir("/devbroker-probe-dir");
	}
	return r;
}

static int act_chdir(const struct act_env *env)
{
	return failed(chdir(env->dir));
}

static int act_chroot(const struct act_env *env)
{
	return failed(chroot("."));
}

static int act_open_by_handle(const struct act_env *env)
{
	struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h = {.handle = {.handle_bytes = MAX_HANDLE_SZ}};
	int mount_id;

	if (name_to_handle_at(ACT_FD_PROGRAM, "", &h.handle, &mount_id, AT_EMPTY_PATH) < 0) {
		return errno;
	}
	return failed(open_by_handle_at(ACT_FD_PROGRAM, &h.handle, O_RDONLY | O_CLOEXEC));
}

/* Other code, other processes. */

static int act_exec_path(const struct act_env *env)
{
	char *const argv[] = {(char *)"true", NULL};

	execve("/bin/true", argv, argv + 1);
	return errno;
}

static int act_exec_fd(const struct act_env *env)
{
	char *const argv[] = {(char *)"true", NULL};

	syscall(SYS_execveat, ACT_FD_PROGRAM, "", argv, argv + 1, AT_EMPTY_PATH);
	return errno;
}

static int act_fork(const struct act_env *env)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0) {
		_exit(0);
	}
	if (pid > 0) {
		waitpid((pid_t)pid, NULL, 0);
	}
	return failed(pid);
}

static void *thread_run(void *arg)
{
	return arg;
}

static int act_thread(const struct act_env *env)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, thread_run, NULL);

	if (r == 0) {
		pthread_join(thread, NULL);
	}
	return r;
}

static int act_ptrace(const struct act_env *env)
{
	return failed(ptrace(PTRACE_SEIZE, env->driver, NULL, NULL));
}

static int act_read_memory(const struct act_env *env)
{
	char byte;
	struct iovec local = {.iov_base = &byte, .iov_len = 1};
	/* Nothing is mapped there: EFAULT comes only after the access was allowed. */
	struct iovec remote = {.iov_base = (void *)0x1000, .iov_len = 1};
	int r = failed(process_vm_readv(env->driver, &local, 1, &remote, 1, 0));

	return r == EFAULT ? 0 : r;
}

static int act_kill(const struct act_env *env)
{
	return failed(kill(env->driver, 0));
}

static int act_tgkill(const struct act_env *env)
{
	return failed(syscall(SYS_tgkill, env->driver, env->driver, 0));
}

static int act_pidfd_open(const struct act_env *env)
{
	return failed(syscall(SYS_pidfd_open, env->driver, 0));
}

/* The network. */

static int act_socket_unix(const struct act_env *env)
{
	return failed(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int act_socket_inet(const struct act_env *env)
{
	return failed(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int act_socket_netlink(const struct act_env *env)
{
	return failed(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
}

static int act_socketpair(const struct act_env *env)
{
	int pair[2];

	return failed(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
}

static int act_connect_tcp(const struct act_env *env)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(env->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		return errno;
	}
	return failed(connect(fd, (struct sockaddr *)&to, sizeof(to)));
}

static int act_connect_abstract(const struct act_env *env)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int n = snprintf(
		to.sun_path + 1, sizeof(to.sun_path) - 1, "devbroker-probe-%d", (int)env->driver);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		return errno;
	}
	return failed(connect(fd, (struct sockaddr *)&to,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)));
}

#define BOTH (ACT_CONTROL | ACT_HELD)
#define ROOT (ACT_CONTROL_ROOT | ACT_HELD)

const struct act acts_on_host[] = {
	{"open a path", act_open_path, BOTH | ACT_HELD_BY_ROOT},
	{"open the root directory", act_open_root, BOTH | ACT_VIRGL_LOCK},
	{"stat a path", act_stat_path, BOTH | ACT_HELD_BY_ROOT},
	{"read /proc/1", act_read_proc_1, BOTH},
	{"read /proc/self", act_read_proc_self, BOTH},
	{"create a file in /", act_create_file, ROOT | ACT_HELD_BY_ROOT},
	{"create a file in a directory", act_create_file_in_dir, BOTH | ACT_HELD_BY_ROOT},
	{"make a directory", act_mkdir, ROOT | ACT_HELD_BY_ROOT},
	{"change directory", act_chdir, BOTH},
	{"chroot", act_chroot, ROOT},
	{"open by handle", act_open_by_handle, ROOT | ACT_OPTIONAL},
	{"exec a path", act_exec_path, BOTH},
	{"exec an fd", act_exec_fd, BOTH},
	{"fork", act_fork, BOTH | ACT_VIRGL_LOCK},
	{"one more thread", act_thread, BOTH | ACT_NOT_VIRGL},
	{"ptrace another process", act_ptrace, BOTH | ACT_OPTIONAL},
	{"read another's memory", act_read_memory, BOTH | ACT_OPTIONAL},
	{"signal another process", act_kill, BOTH},
	{"signal another's thread", act_tgkill, BOTH},
	{"pidfd of another process", act_pidfd_open, BOTH},
	{"socket AF_UNIX", act_socket_unix, ACT_CONTROL},
	{"socket AF_INET", act_socket_inet, ACT_CONTROL},
	{"socket AF_NETLINK", act_socket_netlink, ACT_CONTROL},
	{"socketpair", act_socketpair, ACT_CONTROL},
	{"connect to 127.0.0.1", act_connect_tcp, BOTH},
	{"connect to an abstract socket", act_connect_abstract, BOTH},
};
const size_t n_acts_on_host = sizeof(acts_on_host) / sizeof(acts_on_host[0]);
