/* SPDX-License-Identifier: MIT */
#include "broker/cli/nbd.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/checked.h"
#include "base/fd.h"
#include "broker/cli/cli.h"
#include "protocol/refusal.h"

#define PREFIX_UNIX  "nbd+unix://"
#define PREFIX_TCP   "nbd://"
#define DEFAULT_PORT "10809"

bool cli_nbd_is_uri(const char *text)
{
	return strncmp(text, "nbd", 3) == 0 && strstr(text, "://");
}

static int bad_uri(const struct cli *c, const char *uri)
{
	return cli_fail(c, CLI_EXIT_USAGE, "usage",
		"Give nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT; there is no TLS.",
		"%s: not understood", uri);
}

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at;

	at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;
	return at ? (int)(at - digits) : -1;
}

/* Undoes %XX. False if it does not fit, is malformed, or would hold a NUL. */
static bool decode(const char *text, size_t n, char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		char byte = text[i];

		if (byte == '%') {
			int high = i + 2 < n ? hex(text[i + 1]) : -1;
			int low = i + 2 < n ? hex(text[i + 2]) : -1;

			if (high < 0 || low < 0) {
				return false;
			}
			byte = (char)(high << 4 | low);
			i += 2;
		}
		if (!byte || used + 1 >= size) {
			return false;
		}
		out[used++] = byte;
	}
	out[used] = '\0';
	return true;
}

static bool parse_unix(const char *rest, struct cli_nbd *out)
{
	static const char socket_is[] = "?socket=";
	const char *query = strchr(rest, '?');

	/* No host; the export is what is behind the one slash. */
	return rest[0] == '/' && query && strncmp(query, socket_is, sizeof(socket_is) - 1) == 0 &&
	       decode(rest + 1, (size_t)(query - rest - 1), out->export, sizeof(out->export)) &&
	       decode(query + sizeof(socket_is) - 1, strlen(query + sizeof(socket_is) - 1),
		       out->where, sizeof(out->where)) &&
	       out->where[0];
}

static bool parse_tcp(const char *rest, struct cli_nbd *out)
{
	size_t n = strcspn(rest, "/?");
	const char *host = rest, *port = DEFAULT_PORT, *end = rest + n, *colon = NULL;
	size_t n_host, n_port = strlen(DEFAULT_PORT);

	if (strchr(rest, '?') || memchr(rest, '@', n)) {
		return false;
	}
	if (host[0] == '[') { /* an IPv6 address */
		const char *bracket = memchr(host, ']', n);

		if (!bracket) {
			return false;
		}
		host++;
		n_host = (size_t)(bracket - host);
		colon = bracket + 1 < end ? bracket + 1 : NULL;
	} else {
		colon = memchr(host, ':', n);
		n_host = colon ? (size_t)(colon - host) : n;
	}
	if (colon) {
		port = colon + 1;
		n_port = (size_t)(end - port);
	}
	return n_host > 0 && (!colon || (*colon == ':' && n_port > 0)) &&
	       decode(host, n_host, out->where, sizeof(out->where)) &&
	       decode(port, n_port, out->port, sizeof(out->port)) &&
	       decode(*end == '/' ? end + 1 : end, *end == '/' ? strlen(end + 1) : 0, out->export,
		       sizeof(out->export));
}

int cli_nbd_parse(const struct cli *c, const char *uri, struct cli_nbd *out)
{
	bool ok = false;

	*out = (struct cli_nbd){0};
	if (strncmp(uri, PREFIX_UNIX, sizeof(PREFIX_UNIX) - 1) == 0) {
		ok = parse_unix(uri + sizeof(PREFIX_UNIX) - 1, out);
	} else if (strncmp(uri, PREFIX_TCP, sizeof(PREFIX_TCP) - 1) == 0) {
		ok = parse_tcp(uri + sizeof(PREFIX_TCP) - 1, out);
	}
	return ok ? 0 : bad_uri(c, uri);
}

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		return -errno;
	}
	return steal_fd(&fd);
}

static bool is_loopback(const struct sockaddr *addr)
{
	if (addr->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)addr;

		return ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	}
	return addr->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr);
}

static int connect_to(const struct addrinfo *a)
{
	_cleanup_close_ int fd =
		socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
	const int on = 1;

	if (fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
		return -errno;
	}
	_unused_ int r = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return steal_fd(&fd);
}

/* The first address that answers. -EPERM: none that may be asked. */
static int connect_tcp(const struct cli_nbd *nbd, bool remote)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int r = getaddrinfo(nbd->where, nbd->port, &hints, &list);

	if (r != 0) {
		return r == EAI_SYSTEM ? -errno : -EADDRNOTAVAIL;
	}
	r = -EPERM;
	for (const struct addrinfo *a = list; a && r < 0; a = a->ai_next) {
		if (remote || is_loopback(a->ai_addr)) {
			r = connect_to(a);
		}
	}
	freeaddrinfo(list);
	return r;
}

int cli_nbd_connect(const struct cli *c, const struct cli_nbd *nbd, bool remote, int *fd_out)
{
	const int exit_code = refusal_exit_code(REFUSAL_IMAGE_INVALID);
	int r = nbd->port[0] ? connect_tcp(nbd, remote) : connect_unix(nbd->where);

	if (r == -EPERM && nbd->port[0] && !remote) {
		return cli_fail(c, exit_code, "denied",
			"NBD is neither encrypted nor authenticated here. If that network may see "
			"and change the disk, add --allow-remote.",
			"%s is not this host", nbd->where);
	}
	if (r < 0) {
		return cli_fail(c, exit_code, "image-invalid", "Is the NBD server running?",
			"can't connect to %s%s%s: %s", nbd->where, nbd->port[0] ? " port " : "",
			nbd->port, strerror(-r));
	}
	*fd_out = r;
	return 0;
}
