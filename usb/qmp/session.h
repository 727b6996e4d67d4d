/* SPDX-License-Identifier: MIT
 * One QMP conversation as a pure state machine: bytes of the VMM in, bytes (and one fd) out.
 *
 * Commands and replies: docs/interop/qmp-spec.rst and the qapi directory of QEMU 7.2.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "protocol/worker.h"

enum qmp_session_op { QMP_OP_PROBE, QMP_OP_ATTACH, QMP_OP_DETACH };

/* A line of the VMM may be this long (query results and events stay far below). */
#define QMP_LINE_MAX 262144
/* Events and other lines that are not the reply that is waited for. */
#define QMP_LINES_MAX 1000

struct qmp_session_options {
	enum qmp_session_op op;
	const char *id;  /* borrowed; of the device; its chardev is ID-c, the fd's name ID */
	const char *bus; /* borrowed; attach only */
};

struct qmp_session;

struct qmp_session *qmp_session_create(const struct qmp_session_options *options);
void qmp_session_destroy(struct qmp_session *s);

/* Takes size bytes from the VMM. May finish the session. */
void qmp_session_input(struct qmp_session *s, const char *data, size_t size);
/* The VMM closed the connection. */
void qmp_session_closed(struct qmp_session *s);
/* The time allowed is over. */
void qmp_session_timeout(struct qmp_session *s);
/* Nobody wants the result any more: an attach is taken back. May take some more turns. */
void qmp_session_cancel(struct qmp_session *s);
/* The VMM has said hello, so it is QMP and ours. */
bool qmp_session_greeted(const struct qmp_session *s);

/* What is to be written now: false if nothing. with_fd: the stream fd goes with the first byte. */
bool qmp_session_output(
	const struct qmp_session *s, const char **data_out, size_t *size_out, bool *with_fd_out);
/* n bytes of it are written. */
void qmp_session_written(struct qmp_session *s, size_t n);

/* True when there is a result and nothing left to write. */
bool qmp_session_finished(const struct qmp_session *s);
/* Valid when finished; header is filled too. */
void qmp_session_result(const struct qmp_session *s, union worker_msg *out);
