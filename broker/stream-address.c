/* SPDX-License-Identifier: MIT */
#include "broker/stream-address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

static const char unix_prefix[] = "unix:", tcp_prefix[] = "tcp:";

int stream_address_unix(const char *path, struct stream_address *out)
{
	if (strlen(path) >= sizeof(out->socket.un.sun_path)) {
		return -ENAMETOOLONG;
	}
	*out = (struct stream_address){.length = sizeof(out->socket.un)};
	out->socket.un.sun_family = AF_UNIX;
	memcpy(out->socket.un.sun_path, path, strlen(path) + 1);
	return 0;
}

static int set_ip(const char *host, uint16_t port, struct stream_address *out)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	*out = (struct stream_address){0};
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
		memcpy(&out->socket, &v4, sizeof(v4));
		out->length = sizeof(v4);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		memcpy(&out->socket, &v6, sizeof(v6));
		out->length = sizeof(v6);
		return 0;
	}
	return -EINVAL;
}

static int parse_tcp(const char *text, struct stream_address *out)
{
	const char *colon = strrchr(text, ':'), *end = colon;
	bool brackets = text[0] == '[';
	char host[INET6_ADDRSTRLEN];
	uint64_t port;

	if (!colon || parse_u64(colon + 1, 1, UINT16_MAX, &port) < 0) {
		return -EINVAL;
	}
	if (brackets && (end - text < 2 || *--end != ']')) {
		return -EINVAL;
	}
	text += brackets;
	/* What has colons of its own stands in brackets. */
	if ((size_t)(end - text) >= sizeof(host) ||
		brackets != (memchr(text, ':', (size_t)(end - text)) != NULL)) {
		return -EINVAL;
	}
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = '\0';
	return set_ip(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, (uint16_t)port, out);
}

int stream_address_parse(const char *text, struct stream_address *out)
{
	struct stream_address a;
	int r = -EINVAL;

	if (strncmp(text, unix_prefix, sizeof(unix_prefix) - 1) == 0 &&
		text[sizeof(unix_prefix) - 1] == '/') {
		r = stream_address_unix(text + sizeof(unix_prefix) - 1, &a);
	} else if (strncmp(text, tcp_prefix, sizeof(tcp_prefix) - 1) == 0) {
		r = parse_tcp(text + sizeof(tcp_prefix) - 1, &a);
	}
	if (r < 0) {
		return -EINVAL;
	}
	*out = a;
	return 0;
}

bool stream_address_is_unix(const struct stream_address *a)
{
	return a->socket.any.sa_family == AF_UNIX;
}

bool stream_address_is_local(const struct stream_address *a)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (a->socket.any.sa_family == AF_INET) {
		memcpy(&v4, &a->socket, sizeof(v4));
		return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
	}
	if (a->socket.any.sa_family == AF_INET6) {
		memcpy(&v6, &a->socket, sizeof(v6));
		return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
	}
	return true;
}

const char *stream_address_print(const struct stream_address *a, char out[STREAM_ADDRESS_TEXT])
{
	char host[INET6_ADDRSTRLEN] = "";
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (a->socket.any.sa_family == AF_INET) {
		memcpy(&v4, &a->socket, sizeof(v4));
		inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
		snprintf(out, STREAM_ADDRESS_TEXT, "tcp:%s:%u", host, ntohs(v4.sin_port));
	} else if (a->socket.any.sa_family == AF_INET6) {
		memcpy(&v6, &a->socket, sizeof(v6));
		inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
		snprintf(out, STREAM_ADDRESS_TEXT, "tcp:[%s]:%u", host, ntohs(v6.sin6_port));
	} else {
		snprintf(out, STREAM_ADDRESS_TEXT, "unix:%s", a->socket.un.sun_path);
	}
	return out;
}
