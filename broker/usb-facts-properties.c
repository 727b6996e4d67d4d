/* SPDX-License-Identifier: MIT
 * udev's properties of a device: a bounded list, escaped, in an order that stays.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "broker/usb-facts-internal.h"

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

#define SET_MAX 32 /* words of a set that are put in order */

/* libsystemd keeps tags and links in sets, which have another order each time they are read: what
 * is the same must look the same. Orders what is between separators in value; its length stays. */
static int order_set(char *value, const char *separator)
{
	_cleanup_free_ char *copy = strdup(value);
	char *words[SET_MAX], *rest = copy, *word, *to = value;
	size_t n = 0;

	if (!copy) {
		return -ENOMEM;
	}
	while (n < SET_MAX && (word = strtok_r(rest, separator, &rest))) {
		words[n++] = word;
	}
	if (n == SET_MAX && *rest) {
		return 0;
	}
	qsort(words, n, sizeof(words[0]), compare_texts);
	to += strspn(to, separator);
	for (size_t i = 0; i < n; i++) {
		to = stpcpy(to, words[i]);
		if (i + 1 < n) {
			*to++ = *separator;
		}
	}
	/* A list of tags ends as it begins. */
	if (*value == *separator) {
		*to++ = *separator;
	}
	*to = '\0';
	return 0;
}

static int order_property(char *line)
{
	char *value = strchr(line, '=') + 1;

	if (strncmp(line, "TAGS=", 5) == 0 || strncmp(line, "CURRENT_TAGS=", 13) == 0) {
		return order_set(value, ":");
	}
	return strncmp(line, "DEVLINKS=", 9) == 0 ? order_set(value, " ") : 0;
}

/* Those whose name begins with DEVBROKER_, or those whose name doesn't. */
static int add_properties(struct usb_facts *f, sd_device *d, bool ours)
{
	const char *name, *value;

	for (name = sd_device_get_property_first(d, &value); name;
		name = sd_device_get_property_next(d, &value)) {
		_cleanup_free_ char *line = NULL;
		int r;

		if ((strncmp(name, "DEVBROKER_", 10) == 0) != ours) {
			continue;
		}
		if (f->n_properties == USB_FACTS_PROPERTIES_MAX) {
			break;
		}
		if (asprintf(&line, "%s=%s", name, value) < 0) {
			line = NULL;
			return -ENOMEM;
		}
		r = order_property(line);
		if (r < 0) {
			return r;
		}
		f->properties[f->n_properties] = utf8_escape(line, USB_FACTS_TEXT_MAX);
		if (!f->properties[f->n_properties]) {
			return -ENOMEM;
		}
		f->n_properties++;
	}
	return 0;
}

int usb_facts_read_properties(struct usb_facts *f, sd_device *d)
{
	int r;

	f->properties = calloc(USB_FACTS_PROPERTIES_MAX + 1, sizeof(*f->properties));
	if (!f->properties) {
		return -ENOMEM;
	}
	/* Ours first: what an administrator's rule says is not lost among much else. */
	r = add_properties(f, d, true);
	if (r == 0) {
		r = add_properties(f, d, false);
	}
	qsort(f->properties, f->n_properties, sizeof(char *), compare_texts);
	return r;
}
