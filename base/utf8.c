/* SPDX-License-Identifier: MIT */
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* What the second byte may be depends on the first; all others are 0x80 to 0xbf. */
static const struct {
	unsigned char first_min, first_max, second_min, second_max;
	size_t length;
} forms[] = {
	{0x00, 0x7f, 0, 0, 1},
	{0xc2, 0xdf, 0x80, 0xbf, 2},
	{0xe0, 0xe0, 0xa0, 0xbf, 3},
	{0xe1, 0xec, 0x80, 0xbf, 3},
	{0xed, 0xed, 0x80, 0x9f, 3},
	{0xee, 0xef, 0x80, 0xbf, 3},
	{0xf0, 0xf0, 0x90, 0xbf, 4},
	{0xf1, 0xf3, 0x80, 0xbf, 4},
	{0xf4, 0xf4, 0x80, 0x8f, 4},
};

size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *out)
{
	for (size_t i = 0; left > 0 && i < ARRAY_SIZE(forms); i++) {
		size_t n = forms[i].length;
		uint32_t c;

		if (p[0] < forms[i].first_min || p[0] > forms[i].first_max) {
			continue;
		}
		if (n > left) {
			return 0;
		}
		c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
		for (size_t k = 1; k < n; k++) {
			unsigned char min = k == 1 ? forms[i].second_min : 0x80;
			unsigned char max = k == 1 ? forms[i].second_max : 0xbf;

			if (p[k] < min || p[k] > max) {
				return 0;
			}
			c = c << 6 | (p[k] & 0x3fu);
		}
		*out = c;
		return n;
	}
	return 0;
}

bool utf8_is_harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff ||
	       (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

char *utf8_escape(const char *text, size_t max)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t used = 0, fits = 0; /* fits: what still leaves room for "..." */
	char *out = malloc(max + 1);

	while (out && *p) {
		uint32_t c = 0;
		size_t n = utf8_decode(p, SIZE_MAX, &c);
		bool plain = n > 0 && !utf8_is_harmful(c);
		size_t from = n > 0 ? n : 1, to = plain ? n : 4 * from;

		if (used + to > max) {
			memcpy(out + fits, "...", 3);
			used = fits + 3;
			break;
		}
		for (size_t i = 0; !plain && i < from; i++) {
			char hex[5];

			snprintf(hex, sizeof(hex), "\\x%02x", p[i]);
			memcpy(out + used + 4 * i, hex, 4);
		}
		if (plain) {
			memcpy(out + used, p, n);
		}
		p += from;
		used += to;
		if (used + 3 <= max) {
			fits = used;
		}
	}
	if (out) {
		out[used] = '\0';
	}
	return out;
}

bool ascii_text_ok(const char *text, size_t size)
{
	size_t i;

	for (i = 0; i < size && text[i]; i++) {
		if (text[i] < 0x20 || text[i] > 0x7e) {
			return false;
		}
	}
	return i < size;
}
