/* SPDX-License-Identifier: MIT
 *
 * What names may be made of.
 */
#include <string.h>

#include "broker/config.h"

#define BUS_MAX 63

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool config_word_ok(const char *text, const char *also, size_t max)
{
	size_t length = strlen(text);

	if (length == 0 || length > max || !is_alnum(text[0])) {
		return false;
	}
	for (size_t i = 1; i < length; i++) {
		if (!is_alnum(text[i]) && !strchr(also, text[i])) {
			return false;
		}
	}
	return true;
}

bool config_name_ok(const char *name)
{
	return config_word_ok(name, "._-", NAME_MAX_LENGTH);
}

bool config_bus_ok(const char *bus)
{
	return config_word_ok(bus, "._-/", BUS_MAX);
}
