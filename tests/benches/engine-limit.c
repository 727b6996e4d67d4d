/* SPDX-License-Identifier: MIT
 *
 * The limit beside which tests/bench usb-engine puts its figures: a process at the other end of the
 * same kind of socket that answers each request with a reply of the right size, and does nothing
 * else. No usbredir is understood but where one packet ends; what has arrived is answered in one
 * send.
 *
 * The floor does so, too, and makes the system calls that any event loop between such a socket and
 * the stub libusb has to make on the way, once for each batch.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"
#include "engine-bench.h"

#define HEAD (FRAME + DATA_HEAD)
/* Holds the requests of a whole batch, or, where payloads are large, little of one. */
#define IN_BYTES  (64 * 1024)
#define IN_LITTLE 4096
#define LARGE     (16 * 1024)

struct limit {
	int fd;
	int epoll_fd; /* -1: the bare socket */
	int event_fd;
	uint32_t request; /* bytes of payload behind a request's header */
	uint32_t reply;   /* and behind a reply's */
	uint8_t headers[DEPTH_MAX + 1][HEAD];
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

/* Reads once: the rest of a payload to where it belongs in a buffer of its size, as whoever passes
 * it on must, and what follows behind end. Returns the bytes of that. */
static size_t receive(struct limit *l, size_t end, size_t *skip)
{
	struct iovec iov[2];
	struct msghdr msg = {.msg_iov = iov};
	size_t direct = *skip;
	ssize_t n;

	if (direct > 0) {
		iov[msg.msg_iovlen++] = (struct iovec){l->payload + (l->request - direct), direct};
	}
	iov[msg.msg_iovlen++] =
		(struct iovec){l->in + end, (l->request < LARGE ? IN_BYTES : IN_LITTLE) - end};
	n = recvmsg(l->fd, &msg, 0);
	if (n <= 0) {
		_exit(0);
	}
	direct = direct < (size_t)n ? direct : (size_t)n;
	*skip -= direct;
	return (size_t)n - direct;
}

static void make_floor(struct limit *l)
{
	struct epoll_event in = {.events = EPOLLIN};

	l->epoll_fd = epoll_create1(0);
	l->event_fd = eventfd(0, EFD_NONBLOCK);
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->fd, &in) < 0 ||
		epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->event_fd, &in) < 0) {
		_exit(1);
	}
}

static void wait_in_loop(const struct limit *l)
{
	struct epoll_event e;

	if (epoll_wait(l->epoll_fd, &e, 1, -1) < 0) {
		_exit(1);
	}
}

/* Submits, looks for what is done, and finds it. */
static void visit_libusb(const struct limit *l)
{
	struct pollfd p = {l->event_fd, POLLIN, 0};
	uint64_t n = 1;

	if (write(l->event_fd, &n, sizeof(n)) < 0 || poll(&p, 1, 0) < 0 ||
		read(l->event_fd, &n, sizeof(n)) < 0) {
		_exit(1);
	}
}

static void serve(struct limit *l)
{
	size_t end = 0, skip = 0;

	for (;;) {
		bool waited = skip > 0;
		size_t start = 0, requests = 0;

		if (l->epoll_fd >= 0) {
			wait_in_loop(l);
		}
		end += receive(l, end, &skip);
		/* A request is answered when the last of its payload is there. */
		requests += waited && skip == 0;
		while (skip == 0 && end - start >= HEAD) {
			size_t some;

			memcpy(l->headers[requests], l->in + start, HEAD);
			start += HEAD;
			some = MIN((size_t)l->request, end - start);
			memcpy(l->payload, l->in + start, some);
			start += some;
			skip = l->request - some;
			requests += skip == 0;
		}
		memmove(l->in, l->in + start, end - start);
		end -= start;
		if (requests > 0 && l->epoll_fd >= 0) {
			visit_libusb(l);
		}
		answer(l, requests);
		if (skip > 0) {
			/* The header of what is awaited becomes the next answer's first. */
			memcpy(l->headers[0], l->headers[requests], HEAD);
		}
	}
}

pid_t limit_start(int fd, int other_fd, const struct cell *c, bool floor)
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
	l->epoll_fd = -1;
	if (floor) {
		make_floor(l);
	}
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
