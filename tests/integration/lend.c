/* SPDX-License-Identifier: MIT
 * Starts a worker for the tests as devbrokerd's spawner would, and ends as it ends.
 *
 *   lend FD,FD,... HOST_ID PROGRAM ARG...
 *
 * The fds (inherited) become 3, 4, … in the program. Its pid, as seen here, goes to stdout.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/spawn.h"

static int parse_fds(char *text, int *fds, size_t *n_out)
{
	char *save = NULL;
	size_t n = 0;

	for (char *t = strtok_r(text, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		if (n == SPAWN_FDS_MAX || parse_fd(t, &fds[n]) < 0) {
			return -1;
		}
		n++;
	}
	*n_out = n;
	return 0;
}

static int wait_for(int pidfd)
{
	siginfo_t info;

	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0) {
		perror("lend: waitid");
		return 1;
	}
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int main(int argc, char **argv)
{
	int fds[SPAWN_FDS_MAX], pidfd = -1, r;
	struct spawn_spec spec = {.fds = fds, .stderr_fd = STDERR_FILENO, .namespaces = true};
	uint64_t host_id;
	pid_t pid;

	if (argc < 4 || parse_fds(argv[1], fds, &spec.n_fds) < 0 ||
		parse_u64(argv[2], 0, INT32_MAX, &host_id) < 0) {
		fprintf(stderr, "usage: lend FD,FD,... HOST_ID PROGRAM ARG...\n");
		return 2;
	}
	spec.program_fd = open(argv[3], O_PATH | O_CLOEXEC);
	spec.argv = (const char *const *)argv + 3;
	spec.host_id = (uid_t)host_id;
	spec.die_with_caller = host_id == 0;
	r = spawn_process(&spec, &pid, &pidfd);
	if (r < 0) {
		fprintf(stderr, "lend: %s: %s\n", argv[3], strerror(-r));
		return 1;
	}
	/* The worker's are the only ones now: their end is seen when it ends. */
	for (size_t i = 0; i < spec.n_fds; i++) {
		close(fds[i]);
	}
	printf("%d\n", (int)pid);
	fflush(stdout);
	return wait_for(pidfd);
}
