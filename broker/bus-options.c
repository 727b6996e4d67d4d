/* SPDX-License-Identifier: MIT
 * Options of calls.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "broker/bus-internal.h"
#include "broker/config.h"

static int read_owners(sd_bus_message *m, struct owners *o, struct refusal_text *text)
{
	uint32_t uid;
	int r = sd_bus_message_enter_container(m, 'a', "u");

	while (r >= 0 && (r = sd_bus_message_read_basic(m, 'u', &uid)) > 0) {
		if (uid == UINT32_MAX || !owners_add(o, uid)) {
			return refuse(text, REFUSAL_INVALID,
				"owners have to be numbers of users, at most %d", OWNERS_MAX);
		}
	}
	if (r >= 0) {
		r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : 0;
}

static int read_value(sd_bus_message *m, const struct bus_option *o, struct refusal_text *text)
{
	const char type[] = {o->type, '\0'};
	bool owners = o->type == 'U';
	int r;

	if (sd_bus_message_enter_container(m, 'v', owners ? "au" : type) < 0) {
		return refuse(text, REFUSAL_INVALID, "option %s has a wrong type", o->key);
	}
	if (owners) {
		r = read_owners(m, o->value, text);
		if (r != 0) {
			return r;
		}
	} else {
		r = sd_bus_message_read_basic(m, o->type, o->value);
	}
	if (r >= 0) {
		r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : 0;
}

static int read_option(
	sd_bus_message *m, const struct bus_option *options, size_t n, struct refusal_text *text)
{
	const char *key;
	char shown[64];
	int r = sd_bus_message_read(m, "s", &key);

	if (r < 0) {
		return r;
	}
	for (size_t i = 0; i < n; i++) {
		if (strcmp(options[i].key, key) == 0) {
			return read_value(m, &options[i], text);
		}
	}
	return refuse(text, REFUSAL_INVALID, "there is no option %s",
		log_escape(key, strlen(key), shown, sizeof(shown)));
}

int bus_read_options(
	sd_bus_message *m, const struct bus_option *options, size_t n, struct refusal_text *text)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	if (r < 0) {
		return r;
	}
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = read_option(m, options, n, text);
		if (r != 0) {
			return r;
		}
		r = sd_bus_message_exit_container(m);
		if (r < 0) {
			return r;
		}
	}
	if (r == 0) {
		r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : 0;
}
