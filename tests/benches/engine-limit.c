/* SPDX-License-Identifier: MIT
 *
 * The limit beside which tests/bench usb-engine puts its figures: a process at the other end of the
 * same kind of socket that answers each request with a reply of the right size, and does nothing
 * else. No usbredir is understood but where one packet ends; what has arrived is answered in one
 * send.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine-bench.h"

#define HEAD     (FRAME + DATA_HEAD)
#define IN_BYTES (256 * 1024)

struct limit {
	int fd;
	uint32_t request; /* bytes of payload behind a request's header */
	uint32_t reply;   /* and behind a reply's */
	uint8_t headers[DEPTH_MAX][HEAD];
	uint8_t in[IN_BYTES];
	uint8_t payload[SIZE_LARGEST];
};

static void answer(struct limit *l, size_t n)
{
	struct iovec iov[2 * DEPTH_MAX], *v = iov;
	struct msghdr msg = {.msg_iov = iov};

	for (size_t i = 0; i < n; i++) {
		uint32_t length = DATA_HEAD + l->reply;

		memcpy(l->headers[i] + 4, &length, sizeof(length));
		iov[msg.msg_iovlen++] = (struct iovec){l->headers[i], HEAD};
		if (l->reply > 0) {
			iov[msg.msg_iovlen++] = (struct iovec){l->payload, l->reply};
		}
	}
	while (msg.msg_iovlen > 0) {
		ssize_t sent = sendmsg(l->fd, &msg, MSG_NOSIGNAL);

		if (sent < 0) {
			_exit(errno == EPIPE || errno == ECONNRESET ? 0 : 1);
		}
		for (v = msg.msg_iov; msg.msg_iovlen > 0 && (size_t)sent >= v->iov_len; v++) {
			sent -= (ssize_t)v->iov_len;
			msg.msg_iovlen--;
		}
		msg.msg_iov = v;
		if (msg.msg_iovlen > 0) {
			v->iov_base = (uint8_t *)v->iov_base + sent;
			v->iov_len -= (size_t)sent;
		}
	}
}

static void serve(struct limit *l)
{
	size_t end = 0, skip = 0;

	for (;;) {
		ssize_t n = recv(l->fd, l->in + end, IN_BYTES - end, 0);
		size_t start = 0, requests = 0;

		if (n <= 0) {
			_exit(0);
		}
		end += (size_t)n;
		for (;;) {
			size_t some = skip < end - start ? skip : end - start;

			/* A request is answered when the last of its payload is there. */
			start += some;
			requests += skip > 0 && some == skip;
			skip -= some;
			if (skip > 0 || end - start < HEAD) {
				break;
			}
			memcpy(l->headers[requests], l->in + start, HEAD);
			start += HEAD;
			skip = l->request;
			requests += skip == 0;
		}
		memmove(l->in, l->in + start, end - start);
		end -= start;
		/* The header that waits for its payload becomes the next one's. */
		answer(l, requests);
		if (skip > 0) {
			memcpy(l->headers[0], l->headers[requests], HEAD);
		}
	}
}

pid_t limit_start(int fd, int other_fd, const struct cell *c)
{
	pid_t pid = fork();
	struct limit *l;

	if (pid != 0) {
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(other_fd);
	l = calloc(1, sizeof(*l));
	if (!l) {
		_exit(1);
	}
	l->fd = fd;
	l->request = c->mode == CELL_OUT ? c->size : 0;
	l->reply = c->mode == CELL_OUT ? 0 : c->size;
	memset(l->payload, 0xa5, sizeof(l->payload));
	serve(l);
	_exit(0);
}

void limit_pair(bool tcp, int pair[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof(a);
	int on = 1, listener;

	if (!tcp) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) {
			die("socketpair");
		}
		return;
	}
	listener = socket(AF_INET, SOCK_STREAM, 0);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&a, size) < 0 || listen(listener, 1) < 0 ||
		getsockname(listener, (struct sockaddr *)&a, &size) < 0 ||
		connect(pair[0], (struct sockaddr *)&a, size) < 0) {
		die("connect");
	}
	pair[1] = accept(listener, NULL, NULL);
	close(listener);
	for (int i = 0; i < 2; i++) {
		setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
}
