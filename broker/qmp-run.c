/* SPDX-License-Identifier: MIT */
#include "broker/qmp-run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "broker/broker.h"
#include "broker/vm.h"
#include "broker/worker.h"

static const char *const op_args[] = {
	[QMP_PROBE] = "--op=probe",
	[QMP_ATTACH] = "--op=attach",
	[QMP_DETACH] = "--op=detach",
};

static void request_free(struct qmp_request *q)
{
	list_remove(&q->link);
	worker_destroy(q->worker);
	safe_close(q->stream_fd);
	free(q);
}

/* Tells who asked, and goes on with the next. */
static void finish(
	struct qmp_request *q, enum qmp_outcome outcome, uint32_t vm_state, const char *text)
{
	struct vm *vm = q->vm;
	qmp_done done = q->done;
	void *userdata = q->userdata;
	char words[sizeof(q->result.text)];

	snprintf(words, sizeof(words), "%s", text);
	if (q->op == QMP_PROBE && outcome == QMP_OK && words[0]) {
		log_info("vm %s: %s", vm->name, words);
	}
	vm->qmp_running = NULL;
	request_free(q);
	vm_heard(vm, outcome, vm_state, words);
	if (done) {
		done(userdata, outcome, vm_state, words);
	}
	qmp_next(vm);
}

static enum qmp_outcome outcome_of(uint32_t status)
{
	static const enum qmp_outcome outcomes[] = {
		[QMP_STATUS_OK] = QMP_OK,
		[QMP_STATUS_CLOSED] = QMP_CLOSED,
		[QMP_STATUS_NO_GREETING] = QMP_BUSY,
		[QMP_STATUS_BAD_REPLY] = QMP_FAILED,
		[QMP_STATUS_REFUSED] = QMP_REFUSED,
		[QMP_STATUS_TIMEOUT] = QMP_TIMEOUT,
	};

	static_assert(ARRAY_SIZE(outcomes) == QMP_STATUS_COUNT_, "one per status");
	return outcomes[status];
}

static void on_message(void *userdata, const union worker_msg *m)
{
	struct qmp_request *q = userdata;

	if (m->header.type == WORKER_MSG_QMP && !q->have_result) {
		q->result = m->qmp;
		q->have_result = true;
	}
}

static void on_ended(void *userdata, enum worker_end end, int status)
{
	struct qmp_request *q = userdata;

	if (q->have_result) {
		finish(q, outcome_of(q->result.status), q->result.vm_state, q->result.text);
		return;
	}
	log_warn("vm %s: devbroker-qmp ended without a result (status %d)", q->vm->name, status);
	finish(q, QMP_FAILED, QMP_VM_UNKNOWN, "devbroker-qmp failed");
}

static const struct worker_ops ops = {
	.message = on_message,
	.ended = on_ended,
};

static int start(struct qmp_request *q, int qmp_fd)
{
	struct vm *vm = q->vm;
	struct broker *b = vm->broker;
	char name[128], id[64], bus[128], sandbox[96];
	int fds[2] = {qmp_fd, q->stream_fd};
	size_t n_fds = q->stream_fd >= 0 ? 2 : 1;
	const char *args[8] = {"--qmp-fd=4", op_args[q->op], id, bus, sandbox};
	size_t n_args = 5;

	snprintf(name, sizeof(name), "vm %s", vm->name);
	snprintf(id, sizeof(id), "--id=%s", q->id);
	snprintf(bus, sizeof(bus), "--bus=%s", vm->bus);
	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", b->config.sandbox);
	if (n_fds == 2) {
		args[n_args++] = "--stream-fd=5";
	}
	return worker_start(b, SPAWNER_QMP, name, args, n_args, fds, n_fds, &ops, q, &q->worker);
}

static int on_turn(sd_event_source *source, void *userdata)
{
	struct vm *vm = userdata;
	struct qmp_request *q = list_first(&vm->qmp_queue, struct qmp_request, link);
	_cleanup_close_ int fd = -1;
	int r;

	vm->qmp_turn = sd_event_source_disable_unref(vm->qmp_turn);
	if (!q || vm->qmp_running) {
		return 0;
	}
	vm->qmp_running = q;
	r = vm_connect(vm, &fd);
	if (r < 0) {
		/* A VMM that lives may have lost its socket's path, or be too busy to accept. */
		bool gone = vm->vmm_pidfd < 0 && (r == -ENOENT || r == -ECONNREFUSED);

		finish(q, gone ? QMP_GONE : QMP_BUSY, QMP_VM_UNKNOWN, strerror(-r));
		return 0;
	}
	r = start(q, fd);
	if (r < 0) {
		finish(q, QMP_FAILED, QMP_VM_UNKNOWN, strerror(-r));
		return 0;
	}
	/* The helper has its own, and passes it on: the VMM's end must not live on here. */
	q->stream_fd = safe_close(q->stream_fd);
	return 0;
}

void qmp_next(struct vm *vm)
{
	if (vm->qmp_running || vm->qmp_turn || list_empty(&vm->qmp_queue)) {
		return;
	}
	/* From the loop, so that no caller is called back from within its own call. */
	if (sd_event_add_defer(vm->broker->event, &vm->qmp_turn, on_turn, vm) < 0) {
		log_error("vm %s: out of memory; its next QMP operation waits", vm->name);
	}
}

int qmp_run(struct vm *vm, enum qmp_op op, const char *id, int stream_fd, qmp_done done,
	void *userdata, struct qmp_request **out)
{
	struct qmp_request *q = calloc(1, sizeof(*q));

	if (!q) {
		safe_close(stream_fd);
		return -ENOMEM;
	}
	*q = (struct qmp_request){
		.vm = vm, .op = op, .stream_fd = stream_fd, .done = done, .userdata = userdata};
	snprintf(q->id, sizeof(q->id), "%s", id);
	list_append(&vm->qmp_queue, &q->link);
	*out = q;
	qmp_next(vm);
	return 0;
}

void qmp_forget(struct qmp_request *q)
{
	if (!q) {
		return;
	}
	q->done = NULL;
	if (q->vm->qmp_running != q) {
		request_free(q);
	}
}

void qmp_cancel_all(struct vm *vm)
{
	struct qmp_request *q, *next;

	vm->qmp_turn = sd_event_source_disable_unref(vm->qmp_turn);
	list_for_each_safe (q, next, &vm->qmp_queue, link) {
		request_free(q);
	}
	vm->qmp_running = NULL;
}
