/* SPDX-License-Identifier: MIT
 * Runs the real devbroker-qmp in its sandbox, as the broker does.
 */
#pragma once

#include <sys/types.h>

#include "protocol/worker.h"

struct qmp_helper {
	const char *op; /* "probe", "attach", "detach" */
	const char *id;
	const char *bus;     /* NULL: as the program says */
	const char *sandbox; /* NULL: full */
	int qmp_fd;          /* borrowed */
	int stream_fd;       /* borrowed; -1 if none */
	/* filled by start */
	pid_t pid;
	int pidfd;
	int control;
};

/* Fails the test if it can't. */
void qmp_helper_start(struct qmp_helper *h);
/* Waits for READY, whose stages must be all of them (unless sandbox is set). */
void qmp_helper_ready(struct qmp_helper *h);
/* Waits at most seconds for the result and the exit with code 0; nothing else may come. */
void qmp_helper_finish(struct qmp_helper *h, unsigned int seconds, struct worker_qmp *out);
/* Waits at most seconds for its exit and returns the code. */
int qmp_helper_exit(struct qmp_helper *h, unsigned int seconds);
