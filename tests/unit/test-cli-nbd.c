/* SPDX-License-Identifier: MIT
 * Which NBD URIs are understood, and as what; which hosts are asked.
 */
#include "broker/cli/nbd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/cli/cli.h"
#include "tests/unit/test.h"

static char code_seen[32];

/* What the module says goes here. */
int cli_fail(const struct cli *c, int exit_code, const char *code, const char *remedy,
	const char *fmt, ...)
{
	snprintf(code_seen, sizeof(code_seen), "%s", code);
	return exit_code;
}

static void understood(void **state)
{
	static const struct {
		const char *uri, *export, *where, *port;
	} cases[] = {
		{"nbd+unix:///?socket=/run/a.sock", "", "/run/a.sock", ""},
		{"nbd+unix:///disk%20one?socket=rel/%61", "disk one", "rel/a", ""},
		{"nbd+unix:///a/b?socket=/s", "a/b", "/s", ""},
		{"nbd://localhost", "", "localhost", "10809"},
		{"nbd://localhost:4000/x", "x", "localhost", "4000"},
		{"nbd://[::1]/x%2Fy", "x/y", "::1", "10809"},
		{"nbd://[::1]:4000", "", "::1", "4000"},
		{"nbd://10.0.0.1/", "", "10.0.0.1", "10809"},
	};
	struct cli c = {0};
	struct cli_nbd nbd;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(cli_nbd_is_uri(cases[i].uri));
		assert_int_equal(cli_nbd_parse(&c, cases[i].uri, &nbd), 0);
		assert_string_equal(nbd.export, cases[i].export);
		assert_string_equal(nbd.where, cases[i].where);
		assert_string_equal(nbd.port, cases[i].port);
	}
	assert_false(cli_nbd_is_uri("nbd/stick.img"));
	assert_false(cli_nbd_is_uri("/a://b"));
}

static void refused(void **state)
{
	static const char *const uris[] = {"nbds://localhost/", "nbd+unix://host/?socket=/s",
		"nbd+unix:///x", "nbd+unix:///?socket=", "nbd+unix:///?path=/s", "nbd://",
		"nbd://user@localhost/", "nbd://localhost:/x", "nbd://[::1/x", "nbd://[::1]4000/",
		"nbd://localhost/x?tls=1", "nbd://local%00host/", "nbd://localhost/%4",
		"nbd://localhost/%zz", "nbd+ssh://localhost/x"};
	struct cli c = {0};
	struct cli_nbd nbd;
	char longer[512];

	for (size_t i = 0; i < ARRAY_SIZE(uris); i++) {
		code_seen[0] = '\0';
		assert_int_equal(cli_nbd_parse(&c, uris[i], &nbd), CLI_EXIT_USAGE);
		assert_string_equal(code_seen, "usage");
	}
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	memcpy(longer, "nbd://localhost/", 16);
	assert_int_equal(cli_nbd_parse(&c, longer, &nbd), CLI_EXIT_USAGE);
}

/* 192.0.2.0/24 is for documentation: nobody answers, and nobody is asked. */
static void hosts(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	struct cli_nbd nbd = {.where = "192.0.2.1", .port = "10809"};
	socklen_t size = sizeof(addr);
	struct cli c = {0};
	int fd = -1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_not_equal(cli_nbd_connect(&c, &nbd, false, &fd), 0);
	assert_string_equal(code_seen, "denied");
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(server, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(getsockname(server, (struct sockaddr *)&addr, &size), 0);
	snprintf(nbd.where, sizeof(nbd.where), "127.0.0.1");
	snprintf(nbd.port, sizeof(nbd.port), "%u", ntohs(addr.sin_port));
	assert_int_equal(cli_nbd_connect(&c, &nbd, false, &fd), 0);
	close(fd);
	close(server);
	assert_int_not_equal(cli_nbd_connect(&c, &nbd, false, &fd), 0);
	assert_string_equal(code_seen, "image-invalid");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(understood),
		cmocka_unit_test(refused),
		cmocka_unit_test(hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
