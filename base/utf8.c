/* SPDX-License-Identifier: MIT */
#include "base/utf8.h"

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
