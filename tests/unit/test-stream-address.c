/* SPDX-License-Identifier: MIT
 * Addresses of streams as people write them, and which are of this host alone.
 */
#include "broker/stream-address.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/test.h"

static void what_is_an_address(void **state)
{
	static const struct {
		const char *text;
		const char *printed; /* NULL: the same */
		bool local;
	} good[] = {
		{"unix:/run/usb.sock", NULL, true},
		{"tcp:127.0.0.1:4000", NULL, true},
		{"tcp:127.8.9.1:1", NULL, true},
		{"tcp:localhost:65535", "tcp:127.0.0.1:65535", true},
		{"tcp:[::1]:4000", NULL, true},
		{"tcp:0.0.0.0:4000", NULL, false},
		{"tcp:128.0.0.1:4000", NULL, false},
		{"tcp:[::]:4000", NULL, false},
		{"tcp:[::ffff:127.0.0.1]:4000", NULL, false},
		{"tcp:[2001:db8::1]:80", NULL, false},
	};
	struct stream_address a;
	char text[STREAM_ADDRESS_TEXT];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(stream_address_parse(good[i].text, &a), 0);
		assert_string_equal(stream_address_print(&a, text),
			good[i].printed ? good[i].printed : good[i].text);
		assert_int_equal(stream_address_is_local(&a), good[i].local);
		assert_int_equal(stream_address_is_unix(&a), good[i].text[0] == 'u');
	}
}

static void what_is_none(void **state)
{
	static const char *const bad[] = {"", "unix:", "unix:relative", "tcp:", "tcp:4000",
		"tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0", "tcp:127.0.0.1:65536",
		"tcp:127.0.0.1:4000x", "tcp:example.org:4000", "tcp:::1:4000", "tcp:[::1]",
		"tcp:[::1:4000", "tcp:::1]:4000", "tcp:[127.0.0.1]:4000", "tcp:[]:4000",
		"tcp:[:4000", "tcp:]:4000", "tcp::4000", "udp:127.0.0.1:4000", "127.0.0.1:4000",
		"/run/usb.sock", "tcp:127.0.0.1:-1",
		"tcp:[0123:0123:0123:0123:0123:0123:255.255.255.2550000]:1"};
	char path[300] = "unix:/";
	struct stream_address a = {.length = 77};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(stream_address_parse(bad[i], &a), -EINVAL);
	}
	memset(path + 6, 'x', 107);
	assert_int_equal(stream_address_parse(path, &a), -EINVAL);
	assert_int_equal(a.length, 77);
	path[5 + 107] = '\0';
	assert_int_equal(stream_address_parse(path, &a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_an_address),
		cmocka_unit_test(what_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
