/* SPDX-License-Identifier: MIT */
#include "tests/lab/relay-stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"

#define PIPE_SIZE 65536

struct flow {
	size_t at;
	size_t end;
	bool eof;  /* from has nothing more */
	bool done; /* and to was told so */
	char data[PIPE_SIZE];
};

struct relay_stream {
	int fd[2];
	struct flow flow[2]; /* [i] is from fd[i] to fd[!i] */
};

static bool try_later(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* False where the other end takes no more. */
static bool flow_move(struct flow *f, int from, int to)
{
	ssize_t n = 0;

	if (f->at == f->end && !f->eof) {
		n = recv(from, f->data, sizeof(f->data), 0);
		f->at = 0;
		f->end = n > 0 ? (size_t)n : 0;
		f->eof = n == 0 || (n < 0 && !try_later());
	}
	if (f->at < f->end) {
		n = send(to, f->data + f->at, f->end - f->at, MSG_NOSIGNAL);
		if (n < 0 && !try_later()) {
			return false;
		}
		f->at += n > 0 ? (size_t)n : 0;
	}
	if (f->at == f->end && f->eof && !f->done) {
		shutdown(to, SHUT_WR);
		f->done = true;
	}
	return true;
}

struct relay_stream *relay_stream_create(int a, int b)
{
	struct relay_stream *s = calloc(1, sizeof(*s));

	if (!s || a < 0 || b < 0 || fd_set_nonblock(a, true) < 0 || fd_set_nonblock(b, true) < 0) {
		safe_close(a);
		safe_close(b);
		free(s);
		return NULL;
	}
	s->fd[0] = a;
	s->fd[1] = b;
	return s;
}

void relay_stream_destroy(struct relay_stream *s)
{
	if (s) {
		safe_close(s->fd[0]);
		safe_close(s->fd[1]);
		free(s);
	}
}

void relay_stream_poll(const struct relay_stream *s, struct pollfd p[2])
{
	for (int i = 0; i < 2; i++) {
		const struct flow *in = s ? &s->flow[i] : NULL, *out = s ? &s->flow[!i] : NULL;
		short events = 0;

		if (s) {
			events = (short)((in->at == in->end && !in->eof ? POLLIN : 0) |
					 (out->at < out->end ? POLLOUT : 0));
		}
		/* An end that hung up would be reported for ever, whether waited for or not. */
		p[i] = (struct pollfd){.fd = events ? s->fd[i] : -1, .events = events};
	}
}

bool relay_stream_run(struct relay_stream *s)
{
	return flow_move(&s->flow[0], s->fd[0], s->fd[1]) &&
	       flow_move(&s->flow[1], s->fd[1], s->fd[0]) && !(s->flow[0].done && s->flow[1].done);
}
