/* SPDX-License-Identifier: MIT
 *
 * Stands for the VMM in the lab's host: descriptors can't be passed from one machine to the other,
 * so this program takes them, and carries their bytes to the guest's real QEMU over TCP.
 *
 *   vmm-relay PATH ADDRESS PORT
 *
 * It connects to QEMU's QMP at ADDRESS (IPv4) and PORT, then serves QMP at PATH, one client at a
 * time, as QEMU does. Lines pass through as they are, but for three commands: qmp_capabilities is
 * answered here (QEMU wants it once, clients come and go), getfd and closefd keep the descriptor
 * here, and chardev-add with such a descriptor becomes a listening TCP chardev, to which this
 * program connects. When QEMU ends, so does this program, with everything that it holds: what a
 * broker sees is a VMM that died.
 *
 * A command is carried out before anything else is looked at; QEMU answers within milliseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/lab/relay-stream.h"

#define STREAMS_MAX 32
#define NAMED_MAX   32
#define LINE_SIZE   65536
#define REPLY_MS    30000

struct lines {
	int fd;
	size_t used;
	char data[LINE_SIZE];
};

struct named {
	char *name; /* NULL: unused */
	int fd;
};

struct relay {
	struct sockaddr_in qemu;
	char *greeting;
	struct lines upstream;
	struct lines client;
	int listener;
	int passed; /* the descriptor that came last and has no name yet */
	struct named named[NAMED_MAX];
	struct relay_stream *streams[STREAMS_MAX];
};

static _Noreturn _printf_(1, 2) void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("vmm-relay: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static int tcp_connect(const struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ||
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
		return safe_close(fd);
	}
	return fd;
}

static bool write_line(int fd, const char *line)
{
	size_t size = strlen(line);

	while (size > 0) {
		ssize_t n = send(fd, line, size, MSG_NOSIGNAL);

		if (n < 0) {
			return false;
		}
		line += n;
		size -= (size_t)n;
	}
	return true;
}

/* Reads what is there; a descriptor that comes along replaces *passed. False at the end. */
static bool lines_fill(struct lines *l, int *passed)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = l->data + l->used, .iov_len = sizeof(l->data) - l->used};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(l->fd, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (n <= 0) {
		return false;
	}
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && passed) {
		safe_close(*passed);
		memcpy(passed, CMSG_DATA(c), sizeof(int));
	}
	l->used += (size_t)n;
	return true;
}

/* The next whole line with its end, to be freed; NULL if there is none yet. */
static char *lines_next(struct lines *l)
{
	char *end = memchr(l->data, '\n', l->used), *line;
	size_t size;

	if (!end) {
		return NULL;
	}
	size = (size_t)(end - l->data) + 1;
	line = strndup(l->data, size);
	l->used -= size;
	memmove(l->data, end + 1, l->used);
	return line;
}

static void client_gone(struct relay *r)
{
	r->client.fd = safe_close(r->client.fd);
	r->client.used = 0;
	r->passed = safe_close(r->passed);
}

static void client_line(struct relay *r, const char *line)
{
	if (r->client.fd >= 0 && !write_line(r->client.fd, line)) {
		client_gone(r);
	}
}

static void upstream_fill(struct relay *r)
{
	if (!lines_fill(&r->upstream, NULL)) {
		fprintf(stderr, "vmm-relay: QEMU has ended\n");
		exit(0);
	}
}

/* Sends a command and waits for its reply; events on the way go to the client. To be freed. */
static char *ask(struct relay *r, const char *command)
{
	if (!write_line(r->upstream.fd, command)) {
		die("QEMU does not take commands");
	}
	for (;;) {
		struct pollfd p = {.fd = r->upstream.fd, .events = POLLIN};
		_cleanup_free_ char *line = lines_next(&r->upstream);

		if (line && !strstr(line, "\"event\"")) {
			return steal_ptr(line);
		}
		if (line) {
			client_line(r, line);
		} else if (poll(&p, 1, REPLY_MS) <= 0) {
			die("QEMU does not answer");
		} else {
			upstream_fill(r);
		}
	}
}

static struct named *find_named(struct relay *r, const char *name)
{
	for (size_t i = 0; i < NAMED_MAX; i++) {
		const char *n = r->named[i].name;

		if (name ? n && strcmp(n, name) == 0 : !n) {
			return &r->named[i];
		}
	}
	return NULL;
}

static int take_named(struct relay *r, const char *name)
{
	struct named *n = name ? find_named(r, name) : NULL;

	if (!n) {
		return -1;
	}
	free(n->name);
	n->name = NULL;
	return n->fd;
}

static void client_error(struct relay *r, const char *text)
{
	char line[256];

	snprintf(line, sizeof(line),
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}\r\n", text);
	client_line(r, line);
}

static void client_ok(struct relay *r)
{
	client_line(r, "{\"return\": {}}\r\n");
}

static void handle_getfd(struct relay *r, json_t *arguments)
{
	const char *name = json_string_value(json_object_get(arguments, "fdname"));
	struct named *free_one = find_named(r, NULL);

	if (!name || r->passed < 0 || !free_one) {
		client_error(r, "No file descriptor supplied via SCM_RIGHTS");
		return;
	}
	safe_close(take_named(r, name));
	*free_one = (struct named){.name = strdup(name), .fd = steal_fd(&r->passed)};
	client_ok(r);
}

static void handle_closefd(struct relay *r, json_t *arguments)
{
	int fd = take_named(r, json_string_value(json_object_get(arguments, "fdname")));

	if (fd < 0) {
		client_error(r, "File descriptor named not found");
		return;
	}
	safe_close(fd);
	client_ok(r);
}

/* The port that QEMU chose for a chardev that listens; 0 if it is not found. */
static unsigned int chardev_port(struct relay *r, const char *id)
{
	_cleanup_free_ char *reply = ask(r, "{\"execute\":\"query-chardev\"}\n");
	json_t *root = json_loads(reply, 0, NULL), *one;
	unsigned int port = 0;
	size_t i;

	json_array_foreach(json_object_get(root, "return"), i, one)
	{
		const char *label = json_string_value(json_object_get(one, "label"));
		const char *filename = json_string_value(json_object_get(one, "filename"));
		const char *at = filename ? strstr(filename, "tcp:") : NULL;

		/* disconnected:tcp:127.0.0.1:PORT,server=on */
		at = at ? strchr(at + 4, ':') : NULL;
		if (label && strcmp(label, id) == 0 && at) {
			port = (unsigned int)strtoul(at + 1, NULL, 10);
		}
	}
	json_decref(root);
	return port;
}

/* Takes fd. False if there is no way to QEMU's chardev. */
static bool start_stream(struct relay *r, const char *id, int fd)
{
	struct sockaddr_in addr = r->qemu;
	size_t i = 0;

	addr.sin_port = htons((uint16_t)chardev_port(r, id));
	while (i < STREAMS_MAX && r->streams[i]) {
		i++;
	}
	if (i == STREAMS_MAX) {
		safe_close(fd);
		return false;
	}
	r->streams[i] = relay_stream_create(fd, tcp_connect(&addr));
	return r->streams[i];
}

static void handle_chardev_add(struct relay *r, json_t *arguments, int fd)
{
	const char *id = json_string_value(json_object_get(arguments, "id"));
	_cleanup_free_ char *reply = NULL;
	char command[512];

	snprintf(command, sizeof(command),
		"{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"%s\",\"backend\":{\"type\":"
		"\"socket\",\"data\":{\"addr\":{\"type\":\"inet\",\"data\":{\"host\":\"127.0.0.1\","
		"\"port\":\"0\",\"ipv4\":true}},\"server\":true,\"wait\":false,\"nodelay\":true}}}}"
		"\n",
		id ? id : "");
	reply = ask(r, command);
	if (!strstr(reply, "\"error\"") && !start_stream(r, id, fd)) {
		die("no way to chardev %s", id);
	}
	if (strstr(reply, "\"error\"")) {
		safe_close(fd);
	}
	client_line(r, reply);
}

/* The descriptor that a chardev-add names, taken out of its table; -1 if it names none. */
static int chardev_fd(struct relay *r, json_t *arguments)
{
	const char *type = NULL, *name = NULL;

	if (json_unpack(arguments, "{s:{s:{s:{s:s,s:{s:s}}}}}", "backend", "data", "addr", "type",
		    &type, "data", "str", &name) < 0 ||
		strcmp(type, "fd") != 0) {
		return -1;
	}
	return take_named(r, name);
}

static void handle_command(struct relay *r, const char *line)
{
	json_t *root = json_loads(line, 0, NULL);
	json_t *arguments = json_object_get(root, "arguments");
	const char *name = json_string_value(json_object_get(root, "execute"));
	int fd = -1;

	if (name && strcmp(name, "qmp_capabilities") == 0) {
		client_ok(r);
	} else if (name && strcmp(name, "getfd") == 0) {
		handle_getfd(r, arguments);
	} else if (name && strcmp(name, "closefd") == 0) {
		handle_closefd(r, arguments);
	} else if (name && strcmp(name, "chardev-add") == 0 &&
		   (fd = chardev_fd(r, arguments)) >= 0) {
		handle_chardev_add(r, arguments, fd);
	} else {
		_cleanup_free_ char *reply = ask(r, line);

		client_line(r, reply);
	}
	json_decref(root);
}

static void handle_client(struct relay *r)
{
	char *line;

	if (!lines_fill(&r->client, &r->passed)) {
		client_gone(r);
		return;
	}
	while (r->client.fd >= 0 && (line = lines_next(&r->client))) {
		handle_command(r, line);
		free(line);
	}
}

static void handle_upstream(struct relay *r)
{
	char *line;

	upstream_fill(r);
	while ((line = lines_next(&r->upstream))) {
		client_line(r, line);
		free(line);
	}
}

static void handle_listener(struct relay *r)
{
	r->client.fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
	r->client.used = 0;
	client_line(r, r->greeting);
}

/* One turn: fixed places for QEMU, listener and client, then two for each stream. */
static void turn(struct relay *r)
{
	struct pollfd p[3 + 2 * STREAMS_MAX];

	p[0] = (struct pollfd){.fd = r->upstream.fd, .events = POLLIN};
	/* The next client waits for its greeting until this one has left. */
	p[1] = (struct pollfd){.fd = r->client.fd < 0 ? r->listener : -1, .events = POLLIN};
	p[2] = (struct pollfd){.fd = r->client.fd, .events = POLLIN};
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		relay_stream_poll(r->streams[i], &p[3 + 2 * i]);
	}
	if (poll(p, ARRAY_SIZE(p), -1) < 0) {
		die("poll: %s", strerror(errno));
	}
	for (size_t i = 0; i < STREAMS_MAX; i++) {
		if ((p[3 + 2 * i].revents || p[4 + 2 * i].revents) &&
			!relay_stream_run(r->streams[i])) {
			relay_stream_destroy(r->streams[i]);
			r->streams[i] = NULL;
		}
	}
	if (p[0].revents) {
		handle_upstream(r);
	}
	if (p[2].revents) {
		handle_client(r);
	}
	if (p[1].revents) {
		handle_listener(r);
	}
}

static void greet_upstream(struct relay *r)
{
	_cleanup_free_ char *reply = NULL;

	r->upstream.fd = tcp_connect(&r->qemu);
	if (r->upstream.fd < 0) {
		die("no way to QEMU: %s", strerror(errno));
	}
	while (!(r->greeting = lines_next(&r->upstream))) {
		upstream_fill(r);
	}
	reply = ask(r, "{\"execute\":\"qmp_capabilities\"}\n");
}

static void listen_at(struct relay *r, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(addr.sun_path)) {
		die("the path is too long");
	}
	memcpy(addr.sun_path, path, strlen(path));
	unlink(path);
	r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->listener < 0 ||
		bind(r->listener, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		listen(r->listener, 8) < 0) {
		die("%s: %s", path, strerror(errno));
	}
}

int main(int argc, char **argv)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (argc != 4 || !r) {
		die("usage: vmm-relay PATH ADDRESS PORT");
	}
	r->client.fd = r->passed = r->listener = -1;
	r->qemu = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10)),
	};
	if (inet_pton(AF_INET, argv[2], &r->qemu.sin_addr) != 1) {
		die("%s is no IPv4 address", argv[2]);
	}
	greet_upstream(r);
	listen_at(r, argv[1]);
	for (;;) {
		turn(r);
	}
}
