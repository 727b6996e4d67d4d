/* SPDX-License-Identifier: MIT */
#include "broker/claim-run.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/worker.h"

struct claim_run {
	claim_done done; // NULL: forgotten
	void *userdata;
	struct worker *worker;
	bool have_result;
	struct worker_claim result;
};

static void on_message(void *userdata, const union worker_msg *m)
{
	struct claim_run *c = userdata;

	if (m->header.type == WORKER_MSG_CLAIM && !c->have_result) {
		c->result = m->claim;
		c->have_result = true;
	}
}

static void on_ended(void *userdata, enum worker_end end, int status)
{
	struct claim_run *c = userdata;
	struct claim_run ended = *c;
	int error = ended.result.error;

	if (!ended.have_result) {
		log_warn("%s: devbroker-claim ended without a result (status %d)", c->worker->name,
			status);
		error = end == WORKER_END_HUNG ? -ETIMEDOUT : -EIO;
	}
	worker_destroy(c->worker);
	free(c);
	if (ended.done) {
		ended.done(ended.userdata, error, ended.result.interfaces);
	}
}

static const struct worker_ops ops = {
	.message = on_message,
	.ended = on_ended,
};

static void add_steps(struct worker_args *args, const struct claim_steps *steps)
{
	if (steps->authorized_fd >= 0) {
		worker_args_add(args, "--authorized-fd=5");
		worker_args_add(args, "--authorized=%d", steps->authorize);
	}
	if (steps->reset) {
		worker_args_add(args, "--reset");
	}
	if (steps->configuration != CLAIM_AS_IT_IS) {
		worker_args_add(args, "--configuration=%u", steps->configuration);
	}
	if (steps->disconnect) {
		worker_args_add(args, "--disconnect=%u", steps->disconnect);
	}
	if (steps->connect) {
		worker_args_add(args, "--connect=%u", steps->connect);
	}
}

int claim_run(struct broker *b, const char *name, int device_fd, const struct claim_steps *steps,
	claim_done done, void *userdata, struct claim_run **out)
{
	struct claim_run *c = calloc(1, sizeof(*c));
	const int fds[] = {device_fd, steps->authorized_fd};
	struct worker_args args = {0};
	int r;

	if (!c) {
		return -ENOMEM;
	}
	c->done = done;
	c->userdata = userdata;
	worker_args_add(&args, "--device-fd=4");
	worker_args_add(&args, "--sandbox=%s", b->config.sandbox);
	add_steps(&args, steps);
	r = worker_start(b, SPAWNER_CLAIM, name, args.args, args.n, fds,
		steps->authorized_fd >= 0 ? 2 : 1, &ops, c, &c->worker);
	if (r < 0) {
		free(c);
		return r;
	}
	*out = c;
	return 0;
}

void claim_forget(struct claim_run *c)
{
	if (c) {
		c->done = NULL;
	}
}
